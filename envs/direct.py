"""Environments in which the agent decides the q index of every frame."""

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder.session import Session
from vpxrc.encoder.types import DEFAULT_TIMEOUT, Decision, Frame, Group
from vpxrc.envs.columns import generated
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.observations import DEFAULT_MAX_FRAMES, Arrays, Observer, observation_space
from vpxrc.envs.problem import EncodeEnv, Problem, checked
from vpxrc.envs.rewards import Reward
from vpxrc.envs.tables import TABLES
from vpxrc.envs.tasks import Clips, Targets, Tasks
from vpxrc.envs.view import TPL_COSTS, EncodeView
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.policies.base import Episode


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


class DirectController:
    """Every frame is a decision point, at which all of the encode's state is observed.

    Args:
        episode: The encode.
        space: The space of the observations.
        max_frames: The most frames of a clip.
        dependency: Whether the temporal dependency model is observed.

    Attributes:
        view: The facts of the encode.
    """

    pays_steps: bool = False

    def __init__(
        self, episode: Episode, space: spaces.Dict, max_frames: int, dependency: bool
    ) -> None:
        self.view = EncodeView(episode, max_frames=max_frames, dependency=dependency)
        self._observer = Observer(self.view, space)

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return None: groups are libvpx's."""
        return None

    def consider(self, frame: Frame) -> Arrays:
        """Return the observation of the pending frame."""
        return self._observed(frame)

    def answer(self, action: Levers | None = None) -> Decision:
        """Return the decision that an action stands for.

        Raises:
            InputError: There is no action.
        """
        if action is None:
            raise InputError("a decision needs an action")
        scale = self._superblock_scale(action.strength)
        return Decision(action.q_index, action.lambda_scale, scale)

    def end(self) -> Arrays:
        """Return the observation when nothing is pending any more."""
        return self._observed(None)

    def _observed(self, frame: Frame | None) -> Arrays:
        self._observer.write(frame)
        return {key: array.copy() for key, array in self._observer.arrays.items()}

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


class DirectProblem(Problem[Arrays]):
    """The agent says the q index of every frame.

    Args:
        max_frames: The most frames of a clip.
        dependency: Whether the temporal dependency model is observed.
    """

    observation_space: spaces.Dict

    def __init__(self, max_frames: int, dependency: bool) -> None:
        self.observation_space = observation_space(max_frames)
        self.action_space = spaces.Discrete(256)
        self._max_frames = max_frames
        self._dependency = dependency

    def episode(self, session: Session) -> EncodeEpisode[Arrays]:
        """Return the episode of a session that is at its first stop."""
        controller = DirectController(
            Episode(session), self.observation_space, self._max_frames, self._dependency
        )
        return EncodeEpisode(session, controller)

    def action(self, given: Any) -> Levers:
        """Return an action in the terms of the encoder.

        Raises:
            InvalidAction: It is not in the action space.
        """
        return Levers(int(checked(given, self.action_space)))


class ContinuousDirectProblem(DirectProblem):
    """The agent has a say in the Lagrangian multiplier too.

    Args:
        max_frames: The most frames of a clip.
        dependency: Whether the temporal dependency model is observed.
    """

    def __init__(self, max_frames: int, dependency: bool) -> None:
        super().__init__(max_frames, dependency)
        self.action_space = spaces.Box(-1, 1, (3,), np.float32)

    def action(self, given: Any) -> Levers:
        """Return an action in the terms of the encoder.

        Raises:
            InvalidAction: It is not in the action space.
        """
        q, lambda_scale, strength = checked(given, self.action_space).tolist()
        return Levers(math.floor((q + 1) * 127.5 + 0.5), 2.0**lambda_scale, 1 + strength)


@generated(
    **{key: table.markdown() for key, table in TABLES.items()},
    **{f"num_{key}": str(len(table)) for key, table in TABLES.items()},
)
class RateControlEnv(EncodeEnv[Arrays]):
    """libvpx's VP9 encoder with the agent as its rate control.

    ## Description

    libvpx's VP9 encoder codes a clip in two passes, and the agent is its rate control: frame by
    frame, in coding order, it says how coarsely the next frame is quantized. The aim is the best
    quality whose bitrate does not exceed the target. Groups of frames, references and everything
    else are libvpx's own choices, made as under its two-pass VBR (or Q mode, see `rate_control`).

    ## Action Space

    `Discrete(256)`: the q index of the pending frame, libvpx's scale from 0 (finest) to 255
    (coarsest). Its Lagrangian multiplier is libvpx's own for that q index. Frames that are only
    shown again take no action.

    ## Observation Space

    A `Dict` of float32 arrays, finite and within the bounds (values beyond are clipped). The first
    rows of a matrix count, and its mask says which (`int8`, 1 = counts, 0 = padding, all 0).

    `first_pass` (max_frames, <!-- generated: num_first_pass -->), with `first_pass_mask`:
    libvpx's statistics per source frame

    <!-- generated: first_pass -->

    `history` (max_frames * 5 // 4 + 1, <!-- generated: num_history -->), with `history_mask`:
    the coded frames so far

    <!-- generated: history -->

    `frame` (<!-- generated: num_frame -->,): the frame that waits for its decision

    <!-- generated: frame -->

    `group` (32, <!-- generated: num_group -->), with `group_mask`: its golden-frame group,
    in coding order

    <!-- generated: group -->

    `budget` (<!-- generated: num_budget -->,): the clip, the target, and what is left of it

    <!-- generated: budget -->

    `importance` (9, 16), from 0 to 2: the pending frame's map of ln(importance) / 10, on a grid
    that is laid over the picture; 0 without a model

    Importance comes from `vpxrc.dependency`. It is the cost of a distortion, where it is made and
    wherever it is predicted from there, over the distortion itself. The model runs once per group,
    at the group's first decision. It takes in the group's frames but `show_existing`, all at the
    `libvpx_q_high` of that moment. A group of fewer than two such frames has no model; in a longer
    one the first 127 have. A cell of the map is the mean of its blocks of 16x16, weighted by their
    own distortion; a cell smaller than a block has the value of the block at its centre.

    A frame's row of `first_pass` is `round(show_position * first_pass_mask.sum())`. Without a
    pending frame, at the end, `frame`, `group`, `group_mask` and `importance` are 0.

    ## Rewards

    0 until the stream is complete, then the value that the `reward` object gives the log; by
    default the mean luma PSNR of the shown frames in dB. That says nothing about the bitrate: the
    constraint is in `info`. There are also `LagrangianReward` and `SelfCompetition` (strict, or
    augmented with `overshoot_price=0.005`).

    `info` has, after `reset`, `clip` and `target_bitrate`; after each step the `update_type`,
    `show_index`, `q_index` and `bits` of the frame just coded; and at the end of the episode also

    | Key              | Type        | Meaning                                              |
    |------------------|-------------|------------------------------------------------------|
    | `clip`           | `str`       | name of the clip                                     |
    | `target_bitrate` | `int`       | kbit/s                                               |
    | `psnr`           | `float`     | mean luma PSNR of the shown frames, dB               |
    | `psnr_overall`   | `float`     | PSNR of the mean squared error over all planes, dB   |
    | `bitrate`        | `float`     | achieved, kbit/s, from the bytes of the stream       |
    | `overshoot`      | `float`     | achieved over target bitrate, minus 1                |
    | `constraint_met` | `bool`      | whether `overshoot` is at most 0                     |
    | `log`            | `EncodeLog` | everything that the encode gave, the stream included |

    ## Starting State

    Clip and target are drawn by the environment's generator, so the seed of `reset` settles them.
    `reset(options={"clip": name, "target_bitrate": kbit_s})` chooses one or both; the generator
    moves on all the same. The encode is deterministic.

    ## Episode End

    The episode terminates when the stream is complete, after as many steps as the encoder codes
    frames: those of the clip and its alternate reference frames. It is never truncated. An encoder
    that fails or takes longer than `timeout` for a frame raises `vpxrc.EncoderError`; `reset`
    starts afresh. An action outside the space raises `gymnasium.error.InvalidAction` and changes
    nothing.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import vpxrc.envs
    >>> env = gym.make("vpxrc/RateControl-v1", clips="samples", target_bitrate=128, cpu_used=4)
    ```

    | Parameter        | Type                | Default     | Description                           |
    |------------------|---------------------|-------------|---------------------------------------|
    | `clips`          | `str`, `Path`, list | `"samples"` | a set, file, folder or catalogue as   |
    |                  |                     |             | `vpxrc.datasets.load_clips` takes, or |
    |                  |                     |             | a list of these, `Clip`s and `Video`s |
    | `target_bitrate` | `int`, list, tuple  | `256`       | kbit/s; a list is drawn from, a tuple |
    |                  |                     |             | (low, high) is a range drawn from     |
    |                  |                     |             | uniformly in the logarithm            |
    | `reward`         | `Reward`            | PSNR        | see Rewards                           |
    | `max_frames`     | `int`               | `150`       | the most frames of a clip; sets the   |
    |                  |                     |             | observation's shape                   |
    | `dependency`     | `bool`              | `True`      | run the dependency model; without it  |
    |                  |                     |             | its values are 0 and cost nothing     |
    | `render_mode`    | `str`               | `None`      | `"rgb_array"`: the frame coded last,  |
    |                  |                     |             | as decoded, ARFs too; black at first  |
    | `timeout`        | `float`             | `600`       | seconds for a frame                   |
    | `encoder`        | `str`               | `"vp9"`     | or `"learned:CODEC"`, which codes     |
    |                  |                     |             | picture by picture                    |
    | others           |                     |             | `vpxrc.EncoderOptions`: `cpu_used`,   |
    |                  |                     |             | `auto_alt_ref`, `rate_control`, ...   |

    ## Vectorized environment

    `gymnasium.make_vec("vpxrc/RateControl-v1", num_envs=8)` makes a `RateControlVectorEnv`: many
    encodes at a time in one process, with the same results as `vectorization_mode="sync"`.

    ## Version History

    * v1: The temporal dependency model is observed: columns `has_dependency`, `importance` and
      `model_bits` of `group`, the map `importance`; argument `dependency`. Replaces v0.
    * v0: Initial version, never released.
    """

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        reward: Reward | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        dependency: bool = True,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(
            partial(DirectProblem, max_frames, dependency),
            Tasks(clips, target_bitrate, max_frames, options),
            reward,
            render_mode,
            timeout,
        )


class RateControlContinuousEnv(EncodeEnv[Arrays]):
    """The same encoder, with a say in the Lagrangian multiplier too.

    ## Description

    The encode of `RateControlEnv`.

    ## Action Space

    `Box(-1, 1, (3,), float32)`, of which 0 leaves lambda as libvpx has it:

    | Num | Action       | At -1 | At 0       | At 1 | Meaning                                  |
    |-----|--------------|-------|------------|------|------------------------------------------|
    | 0   | q index      | 0     | 128        | 255  | rounded to the next integer              |
    | 1   | lambda scale | 1/2   | 1          | 2    | factor on lambda, even in the logarithm  |
    | 2   | TPL strength | 0     | 1 (libvpx) | 2    | exponent on libvpx's own scale of lambda |
    |     |              |       |            |      | per superblock; read for ARFs and golden |
    |     |              |       |            |      | frames (`frame` column                   |
    |     |              |       |            |      | `takes_superblock_scale`)                |

    ## Observation Space, Rewards, Starting State, Episode End, Arguments

    Those of `RateControlEnv`.

    ## Version History

    * v1: The observation of `RateControl-v1`. Replaces v0.
    * v0: Initial version, never released.
    """

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        reward: Reward | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        dependency: bool = True,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        super().__init__(
            partial(ContinuousDirectProblem, max_frames, dependency),
            Tasks(clips, target_bitrate, max_frames, options),
            reward,
            render_mode,
            timeout,
        )
