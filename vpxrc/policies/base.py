"""The policy interface, and the loop that encodes a clip under a policy."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.session import Session
from vpxrc.encoder.types import DEFAULT_TIMEOUT, Decision, Frame, Group, State
from vpxrc.errors import PolicyError, VpxrcError
from vpxrc.media.frames import Video


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
