"""Policies: what decides how each frame is coded, and the loop that runs one over a clip."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder import (
    DEFAULT_TIMEOUT,
    Decision,
    EncodeLog,
    EncoderOptions,
    Frame,
    Group,
    Session,
    State,
)
from vpxrc.errors import InputError, PolicyError, VpxrcError
from vpxrc.video import Video

GROUP = "vpxrc.policies"


class Episode:
    """What a policy may look at while one clip is encoded.

    Attributes:
        video: The clip (its size, frame rate, length; the source frames too).
        options: The encoder's options with the target bitrate.
    """

    def __init__(self, session: Session) -> None:
        self.video = session.video
        self.options = session.options
        self._session = session

    @property
    def target_bits(self) -> float:
        """Bits that the whole stream may take."""
        return 1000.0 * self.options.target_bitrate * self.video.duration

    @property
    def first_pass(self) -> NDArray[np.float64]:
        """First-pass statistics of all frames, ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``)."""
        return self._session.first_pass

    @property
    def log2_step(self) -> NDArray[np.float64]:
        """log2 of the quantiser step per q index; see :attr:`EncodeSession.log2_step`."""
        return self._session.log2_step

    @property
    def group(self) -> Group:
        """The current golden-frame group."""
        return self._session.group

    @property
    def tpl(self) -> NDArray[np.float64] | None:
        """TPL statistics of the current group; see :attr:`EncodeSession.tpl`."""
        return self._session.tpl

    def records(self, start: int = 0) -> NDArray[np.void]:
        """Return the rows logged so far from row ``start``, dtype ``RECORD_DTYPE``."""
        return self._session.records(start)


class Policy:
    """Decides how each frame is coded; subclass it and override what is needed.

    One object encodes one clip after the other; ``begin`` starts a clip afresh.

    Attributes:
        observes: True where libvpx decides everything itself; ``decide`` is then not called.
        plans_groups: Whether ``plan_group`` is asked; True in a class that overrides it.
        training_clips: Content hashes of the clips it was trained on; none may be in an evaluation.
    """

    observes: bool = False
    plans_groups: bool = False
    training_clips: frozenset[str] = frozenset()

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Ask a class that overrides ``plan_group``, unless it says itself not to be asked."""
        super().__init_subclass__(**arguments)
        for base in cls.__mro__:
            if "plans_groups" in vars(base):
                break
            if "plan_group" in vars(base):
                cls.plans_groups = True
                break

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options to encode with, given those asked for (mode, layers, level)."""
        return options

    def begin(self, episode: Episode) -> None:
        """Start an encode. At this point nothing is coded; ``episode`` stays valid throughout."""

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return provisional q indices for the group's TPL pass, or None for libvpx's estimate.

        Asked before the group's first frame is decided, where ``plans_groups``. ``[size]``,
        or ``[size + 1]`` with the overlay after the group; -1 leaves a frame to libvpx.
        """
        return None

    def decide(self, frame: Frame) -> Decision:
        """Return how to code the frame. Only an observing policy may leave it out."""
        raise PolicyError(f"{type(self).__name__} does not decide frames")

    def overruled(self, frame: Frame, decision: Decision) -> None:
        """Learn what was taken in place of the decision that :meth:`decide` has just returned.

        Called by what moves another policy's decisions, so that its account of bits stays right.
        """

    def review(self, log: EncodeLog) -> EncodeLog | None:
        """Look at a finished encode: return the log to keep, or None to encode once more."""
        return log


class PolicyWrapper(Policy):
    """Another policy, of which a subclass changes some methods; all others are the policy's own.

    A subclass that overrides ``plan_group`` is asked for every group, as any policy is.

    Args:
        policy: The other policy.

    Attributes:
        policy: The other policy.
    """

    plans_groups = False  # as the policy has it, not because the method is there

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.observes = policy.observes
        self.plans_groups = type(self).plans_groups or policy.plans_groups
        self.training_clips = policy.training_clips

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the policy's options."""
        return self.policy.options(options)

    def begin(self, episode: Episode) -> None:
        """Start the policy's encode."""
        self.policy.begin(episode)

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return the policy's word on the group."""
        return self.policy.plan_group(group)

    def decide(self, frame: Frame) -> Decision:
        """Return the policy's decision."""
        return self.policy.decide(frame)

    def overruled(self, frame: Frame, decision: Decision) -> None:
        """Tell the policy."""
        self.policy.overruled(frame, decision)

    def review(self, log: EncodeLog) -> EncodeLog | None:
        """Return what the policy makes of the encode."""
        return self.policy.review(log)


def encode(
    video: Video,
    options: EncoderOptions,
    policy: Policy,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Callable[[int], None] | None = None,
) -> EncodeLog:
    """Encode a clip under a policy.

    Args:
        video: The clip.
        options: What is asked for; the policy may change the mode underneath.
        policy: What decides.
        timeout: Seconds that the encoder may take for a frame.
        progress: Called with the number of frames coded so far, at every decision.

    Returns:
        The log that the policy keeps, with the number of encodes that it spent. Its options are
        those that the policy encoded with, so its overshoot is over the target in them; only a
        policy that changes the target, as ``Replay`` does, has another one than was asked for.

    Raises:
        PolicyError: The policy raised or answered out of range.
        EncoderError: libvpx failed.
    """
    encodes = 0
    while True:
        log = _encode_once(video, policy.options(options), policy, timeout, progress)
        encodes += 1
        kept = policy.review(log)
        if kept is not None:
            return dataclasses.replace(kept, encodes=encodes)


def _encode_once(
    video: Video,
    options: EncoderOptions,
    policy: Policy,
    timeout: float,
    progress: Callable[[int], None] | None,
) -> EncodeLog:
    with options.open(
        video,
        observe=policy.observes,
        plan_groups=policy.plans_groups and not policy.observes,
        timeout=timeout,
    ) as session:
        try:
            policy.begin(Episode(session))
            while session.state != State.DONE:
                if session.state == State.GROUP:
                    session.step_group(policy.plan_group(session.group))
                    continue
                frame = session.frame
                assert frame is not None  # the only state left
                session.step(policy.decide(frame))
                if progress is not None:
                    progress(frame.coding_index + 1)
        except VpxrcError:
            raise
        except Exception as error:
            where = f"{video.name}: coded frame {len(session.records())}"
            raise PolicyError(f"{where}: {type(policy).__name__} raised: {error!r}") from error
        return session.log()


@dataclass(frozen=True)
class MadePolicy:
    """A policy that :func:`make_policy` has made.

    Attributes:
        spec: The spec that it was made from.
        module: Name of the module that its entry point names.
        policy: The policy.
    """

    spec: str
    module: str
    policy: Policy


_traced: ContextVar[list[MadePolicy] | None] = ContextVar("traced", default=None)


@contextmanager
def trace_policies() -> Iterator[list[MadePolicy]]:
    """Yield a list to which every policy is added that :func:`make_policy` makes in the block.

    A policy that makes others, as a checkpoint's plan, comes after them.
    """
    made: list[MadePolicy] = []
    token = _traced.set(made)
    try:
        yield made
    finally:
        _traced.reset(token)


def policy_names() -> list[str]:
    """Return the names of all installed policies."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def make_policy(spec: str) -> Policy:
    """Make a policy from its name, or ``NAME:ARGUMENT`` for those that take one.

    Names come from the entry points ``vpxrc.policies`` of all installed packages, so another
    package can add its own; each names a callable that takes the argument, if any, as a string.

    Raises:
        InputError: There is no such policy, or it refuses the argument.
    """
    name, _, argument = spec.partition(":")
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise InputError(f"unknown policy {name!r}: choose from {', '.join(policy_names())}")
    entry = next(iter(found))
    factory = entry.load()
    try:
        policy = factory(argument) if argument else factory()
    except TypeError as error:
        raise InputError(f"policy {spec!r}: {error}") from error
    if not isinstance(policy, Policy):
        raise InputError(f"policy {name!r} is not a vpxrc.Policy")
    traced = _traced.get()
    if traced is not None:
        traced.append(MadePolicy(spec, entry.module, policy))
    return policy
