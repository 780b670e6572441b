"""The problem of an agent that decides every frame: what it observes, and what its actions are."""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder.session import Session
from vpxrc.encoder.types import Decision, Frame, Group
from vpxrc.envs.checks import check_choice, check_flag, check_integer
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.flat import FlatObserver, flat_space
from vpxrc.envs.observations import DictObserver, observation_space
from vpxrc.envs.problem import Problem, checked
from vpxrc.envs.view import TPL_COSTS, EncodeView
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.policies.base import Episode

OBSERVATIONS = ("flat", "dict")


class Levers(NamedTuple):
    """An action in the terms of the encoder.

    Attributes:
        q_index: The frame's q index, 0..255.
        lambda_scale: Factor on libvpx's own lambda for it.
        strength: Exponent on libvpx's own TPL scale of lambda per superblock.
    """

    q_index: int
    lambda_scale: float = 1.0
    strength: float = 1.0


class Observer(Protocol):
    """Observes an encode at its decision points."""

    def observe(self, frame: Frame | None) -> Any:
        """Update the view of the encode, and return the observation.

        Args:
            frame: The frame that waits for its decision; None at the end.
        """


class DirectController:
    """Every frame is a decision point.

    Args:
        view: The facts of the encode.
        observer: Observes them.

    Attributes:
        view: As given.
    """

    def __init__(self, view: EncodeView, observer: Observer) -> None:
        self.view = view
        self._observer = observer

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return None: groups are libvpx's."""
        return None

    def consider(self, frame: Frame) -> Any:
        """Return the observation of the pending frame."""
        return self._observer.observe(frame)

    def answer(self, action: Levers | None = None) -> Decision:
        """Return the decision that an action stands for.

        Raises:
            InputError: There is no action.
        """
        if action is None:
            raise InputError("a decision needs an action")
        scale = self._superblock_scale(action.strength)
        return Decision(action.q_index, action.lambda_scale, scale)

    def end(self) -> Any:
        """Return the observation when nothing is pending any more."""
        return self._observer.observe(None)

    def _superblock_scale(self, strength: float) -> NDArray[np.float32] | None:
        """Return libvpx's own TPL scale of the pending frame's lambda to a power.

        Args:
            strength: The exponent; 1 is libvpx's own scale.

        Returns:
            float32 ``[rows, cols]`` per 64x64 superblock; None for libvpx's own, which is exact,
            and where libvpx would not read it.
        """
        view = self.view
        frame, tpl = view.frame, view.tpl
        own = frame.takes_superblock_scale and frame.layer_depth <= 1
        if strength == 1 or not own or tpl is None:
            return None
        return superblock_scale(tpl[frame.group_position], frame.r0, view.video, strength)


def superblock_scale(
    tpl: NDArray[np.float64], r0: float, video: Video, strength: float
) -> NDArray[np.float32]:
    """Return libvpx's TPL scale per superblock to a power: clip(rk / r0, 1/2, 3/2) ** strength.

    Args:
        tpl: ``[rows, cols, 8]``, statistics of the frame per 32x32 block.
        r0: intra_cost / mc_dep_cost of the frame; rk is that of a superblock.
        video: For the size of the picture: libvpx counts in units of 8x8 samples inside it.
        strength: The exponent.

    Returns:
        float32 ``[ceil(height / 64), ceil(width / 64)]``.
    """
    units = [-(-size // 8) for size in (video.height, video.width)]
    blocks = tpl.shape[:2]
    inside = [np.minimum(4, n - 4 * np.arange(b)) for n, b in zip(units, blocks, strict=True)]
    costs = tpl[..., TPL_COSTS] * np.outer(*inside)[..., None]
    rows, cols = (-(-n // 2) for n in blocks)
    costs = np.pad(costs, ((0, 2 * rows - blocks[0]), (0, 2 * cols - blocks[1]), (0, 0)))
    sums = costs.reshape(rows, 2, cols, 2, 2).sum(axis=(1, 3))
    ratio = sums[..., 0] / np.maximum(sums[..., 1], 1.0)
    scale = np.clip(ratio / r0, 0.5, 1.5) ** strength
    return np.asarray(scale, dtype=np.float32)


class DirectProblem(Problem[Any]):
    """The agent says the q index of every frame.

    Args:
        observation: ``flat`` or ``dict``.
        max_frames: The most frames of a clip.
        dependency: Whether the temporal dependency model is observed.

    Raises:
        InputError: An argument cannot be used.
    """

    def __init__(self, observation: str, max_frames: int, dependency: bool) -> None:
        self._is_flat = check_choice("observation", observation, OBSERVATIONS) == "flat"
        self._max_frames = check_integer("max_frames", max_frames, 2)
        self._dependency = check_flag("dependency", dependency)
        self._dict = observation_space(max_frames)
        self.observation_space = flat_space() if self._is_flat else self._dict
        self.action_space = spaces.Discrete(256)

    def episode(self, session: Session) -> EncodeEpisode[Any]:
        """Return the episode of a session that is at its first stop."""
        view = EncodeView(
            Episode(session), max_frames=self._max_frames, dependency=self._dependency
        )
        observer = FlatObserver(view) if self._is_flat else DictObserver(view, self._dict)
        return EncodeEpisode(session, DirectController(view, observer))

    def action(self, given: Any) -> Levers:
        """Return an action in the terms of the encoder.

        Raises:
            InvalidAction: It is not in the action space.
        """
        return Levers(int(checked(given, self.action_space)))


class ContinuousDirectProblem(DirectProblem):
    """The agent has a say in the Lagrangian multiplier too.

    Args:
        observation: ``flat`` or ``dict``.
        max_frames: The most frames of a clip.
        dependency: Whether the temporal dependency model is observed.

    Raises:
        InputError: An argument cannot be used.
    """

    def __init__(self, observation: str, max_frames: int, dependency: bool) -> None:
        super().__init__(observation, max_frames, dependency)
        self.action_space = spaces.Box(-1, 1, (3,), np.float32)

    def action(self, given: Any) -> Levers:
        """Return an action in the terms of the encoder.

        Raises:
            InvalidAction: It is not in the action space.
        """
        q, lambda_scale, strength = checked(given, self.action_space).tolist()
        return Levers(math.floor((q + 1) * 127.5 + 0.5), 2.0**lambda_scale, 1 + strength)
