"""The Gymnasium environments of the residual problem."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.session import Session
from vpxrc.encoder.types import DEFAULT_TIMEOUT
from vpxrc.envs.checks import check_choice, check_positive
from vpxrc.envs.columns import generated, markdown_table
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.flat import unit_space
from vpxrc.envs.named import DEFAULT_REWARD
from vpxrc.envs.observations import DEFAULT_MAX_FRAMES, num_rows
from vpxrc.envs.problem import EncodeEnv, Problem, checked
from vpxrc.envs.region import region_of
from vpxrc.envs.residual.config import (
    FRAME_OFFSETS,
    GROUP_OFFSETS,
    Flat,
    Offset,
    ResidualConfig,
    make_base,
)
from vpxrc.envs.residual.controller import ResidualController
from vpxrc.envs.residual.observation import COLUMNS, OBSERVATION, VECTOR
from vpxrc.envs.rewards import AnyReward
from vpxrc.envs.tasks import Clips, Targets, Tasks
from vpxrc.policies.base import Episode

OBSERVATIONS = ("flat", "columns")


class ResidualProblem(Problem[Flat]):
    """A base policy decides every frame, and the agent chooses offsets to its decisions.

    Args:
        config: Base policy, decision points and offsets.
        observation: ``columns``, as trained agents take them, or ``flat``, the same in [-1, 1].

    Raises:
        InputError: There is no such base policy, or no such observation.
    """

    def __init__(self, config: ResidualConfig, observation: str = "columns") -> None:
        self._is_unit = check_choice("observation", observation, OBSERVATIONS) == "flat"
        self._config = config
        self._base = make_base(config.base)
        self.plan_groups = self._base.plans_groups
        self.observation_space = spaces.Box(VECTOR.low, VECTOR.high, dtype=np.float32)
        if self._is_unit:
            self.observation_space = unit_space(VECTOR)
        self.action_space = spaces.Discrete(len(config.actions))

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the base policy's options, given those asked for."""
        return self._base.options(options)

    def episode(self, session: Session) -> EncodeEpisode[Flat]:
        """Return the episode of a session that is at its first stop.

        Raises:
            PolicyError: The base policy raised.
        """
        controller = ResidualController(
            Episode(session), self._base, self._config, unit=self._is_unit
        )
        return EncodeEpisode(session, controller)

    def action(self, given: Any) -> int | Offset:
        """Return the index of an offset.

        Raises:
            InvalidAction: It is not in the action space.
        """
        return int(checked(given, self.action_space))


class ContinuousResidualProblem(ResidualProblem):
    """The agent's offsets are any within a reach.

    Args:
        config: Base policy and decision points.
        reach: The offset that an action of 1 stands for, log2 of the quantiser step, above 0.
        observation: See :class:`ResidualProblem`.

    Raises:
        InputError: There is no such base policy, or ``reach`` is out of range.
    """

    def __init__(self, config: ResidualConfig, reach: float, observation: str = "columns") -> None:
        super().__init__(config, observation)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self._reach = check_positive("reach", reach)

    def action(self, given: Any) -> Offset:
        """Return the (level, reference) of an action.

        Raises:
            InvalidAction: It is not in the action space.
        """
        action = checked(given, self.action_space)
        level, reference = (self._reach * part for part in action.tolist())
        return level, reference


def _offsets(offsets: Sequence[Offset]) -> str:
    """Return offsets as the docstring has them."""
    rows = [(str(n), f"{a:g}", f"{b:g}") for n, (a, b) in enumerate(offsets)]
    return markdown_table(("Num", "Level", "Reference"), rows)


def _tables() -> Iterator[tuple[str, str]]:
    """Return the observation's tables as the docstring has them, numbered throughout."""
    first = 0
    for key, table in COLUMNS.items():
        yield key, table.markdown(first)
        first += len(table)


@generated(
    size=str(len(OBSERVATION)),
    group_offsets=_offsets(GROUP_OFFSETS),
    frame_offsets=_offsets(FRAME_OFFSETS),
    **dict(_tables()),
)
class ResidualRateControlEnv(EncodeEnv[Flat]):
    """libvpx's VP9 encoder under a base policy, whose decisions the agent corrects.

    ## Description

    The base policy, any `vpxrc.Policy` that decides by itself, is the rate control of a two-pass
    encode: frame by frame, in coding order, it says how coarsely the next frame is quantized, and
    keeps account of the bits. The agent makes its decisions finer or coarser, and the base policy
    is told (`vpxrc.Policy.overruled`). An agent that never changes anything codes the base policy's
    stream, byte for byte; it learns how to be better than that. With a base policy that knows
    nothing, such as `constant-q:120`, the agent learns everything. The clip is coded once: a base
    policy that would look at the result and code it again is not asked to.

    ## Action Space

    `Discrete(len(offsets))`: an offset, which is a pair (level, reference) in log2 of the quantiser
    step; above 0 is coarser, 1 is twice the step. `level` counts for every frame, and `reference`
    is added for frames that others depend on (key frames, golden frames, ARFs). The frame's q index
    becomes the one in 1..255 whose step is nearest to the base policy's step times 2 ** sum. A sum
    of 0 leaves the base policy's decision as it is. Lambda is the base policy's factor on libvpx's
    own for the q index that is taken. Action 0 is (0, 0), the base policy's own decision.

    With `decisions="group"` an action is for a golden-frame group: it is taken at the group's first
    coded frame, and holds for that one and all the others. By default

    <!-- generated: group_offsets -->

    With `decisions="frame"` an action is for one coded frame. By default

    <!-- generated: frame_offsets -->

    Frames that are only shown again take no action.

    ## Observation Space

    A `Box` of <!-- generated: size --> float32 numbers. The tables have their bounds; values beyond
    are clipped. With `observation="flat"`, the default, all are in [-1, 1]: a column x whose bound
    b is beyond 1 is sign(x) ln(1 + abs(x)) / ln(1 + b). With `"columns"` they are as in the tables,
    which the trained agents of `vpxrc.agents` take. They are per pixel, per macroblock, or
    logarithms of ratios, so one network serves all sizes of picture and lengths of clips.

    Frame: the frame that waits for its decision

    <!-- generated: frame -->

    Budget: clip, target, and what is left of it

    <!-- generated: budget -->

    Group: its golden-frame group, and the frames around it

    <!-- generated: group -->

    First pass: libvpx's statistics, as means over the columns of that name that
    `RateControlEnv` has in `first_pass`, in its scales

    <!-- generated: first_pass -->

    Base: the base policy's decision on the pending frame

    <!-- generated: base -->

    Past: the outcome of the decisions so far. `before` is the last group, `current` this group's
    coded frames, `coded` the frame coded last

    <!-- generated: past -->

    `complexity` compares a frame's `coded_error` of the first pass with the clip's geometric mean;
    its effort is the square root of `coded_error`. The first frame, which is intra there, counts as
    the mean of the others. Importance, its map and the model's bits come from the dependency model
    that `RateControlEnv` describes; without a model they are 0. References are key frames, golden
    frames and ARFs; leaves are frames that nothing else depends on. `rest` is the frames after the
    group; `before_16_32` and so on are frames before its first or after its last one, 0 outside the
    clip. `base_over_before` compares with the last group that has frames of the pending one's kind,
    reference or not. Means of nothing are 0, and so is the whole observation at the end of the
    episode.

    ## Rewards

    Those of `RateControlEnv`, by the same names, and the same `info`. `gain` compares with
    libvpx's VBR; a `GainReward` object to which `reference` has given the base policy's encodes
    compares with these.

    ## Starting State

    Clip and target are drawn by the environment's generator, so the seed of `reset` settles them.
    `reset(options={"clip": name, "target_bitrate": kbit_s})` chooses one or both; the generator
    moves on all the same. The encode is deterministic.

    ## Episode End

    The episode terminates when the stream is complete, after as many steps as there are groups with
    a coded frame, or coded frames. libvpx's groups have up to 24 frames, so an episode of 30 frames
    has about two steps with `decisions="group"`, and about 32 with `"frame"`. It is never
    truncated, and `env.spec.max_episode_steps` is a number that it does not exceed. An encoder
    that fails or takes longer than `timeout` for a frame raises `vpxrc.EncoderError`, a base policy
    that fails `vpxrc.PolicyError`; `reset` starts afresh. An action outside the space raises
    `gymnasium.error.InvalidAction` and changes nothing.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import vpxrc.envs
    >>> env = gym.make("vpxrc/ResidualRateControl-v1", base="dependency", cpu_used=4)
    ```

    The types of arguments that `RateControlEnv` has too are there.

    | Parameter        | Type             | Default        | Description                        |
    |------------------|------------------|----------------|------------------------------------|
    | `clips`          | as there         | `"samples"`    | the clips to draw from             |
    | `target_bitrate` | as there         | `256`          | kbit/s: one, a list, a range       |
    | `base`           | `str`            | `"imitation"`  | `NAME` or `NAME:ARGUMENT`, see     |
    |                  |                  |                | `vpxrc.make_policy`                |
    | `decisions`      | `str`            | `"group"`      | or `"frame"`                       |
    | `offsets`        | pairs of `float` | `None`         | see Action Space; the first is     |
    |                  |                  |                | (0, 0)                             |
    | `observation`    | `str`            | `"flat"`       | or `"columns"`                     |
    | `reward`         | `str`, `Reward`  | `relative`     | see Rewards                        |
    | `cost_limit`     | `float`          | `1.0`          | as there                           |
    | `max_frames`     | `int`            | `150`          | the most frames of a clip          |
    | `render_mode`    | `str`            | `None`         | `"rgb_array"`: the frame coded     |
    |                  |                  |                | last, as decoded; black at first   |
    | `timeout`        | `float`          | `600`          | seconds for a frame                |
    | `roi`            | as there         | `None`         | a region of interest of all clips  |
    | `roi_weight`     | `float`          | `4.0` with     | as there                           |
    |                  |                  | `roi`          |                                    |
    | others           |                  |                | `vpxrc.EncoderOptions`; the base   |
    |                  |                  |                | policy may have its own, as        |
    |                  |                  |                | `dependency` has for               |
    |                  |                  |                | `rate_control`, `auto_alt_ref`     |

    ## Vectorized environment

    `gymnasium.make_vec("vpxrc/ResidualRateControl-v1", num_envs=8)` makes a
    `ResidualRateControlVectorEnv`: many encodes at a time in one process, with the same results as
    `vectorization_mode="sync"`. See `RateControlEnv` for its arguments.

    ## Version History

    * v1: The observation is scaled to [-1, 1] by default, the default reward is `relative`. `info`
      has numbers only, and `cost`. Replaces v0.
    * v0: Initial version.
    """

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        base: str = "imitation",
        decisions: Literal["group", "frame"] = "group",
        offsets: Sequence[Offset] | None = None,
        observation: str = "flat",
        reward: str | AnyReward = DEFAULT_REWARD,
        cost_limit: float = 1.0,
        max_frames: int = DEFAULT_MAX_FRAMES,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        roi: Any = None,
        roi_weight: float | None = None,
        **options: Any,
    ) -> None:
        config = ResidualConfig(base, decisions, None if offsets is None else tuple(offsets))
        super().__init__(
            partial(ResidualProblem, config, observation),
            Tasks(clips, target_bitrate, max_frames, options),
            num_rows(max_frames)["history"],
            reward,
            cost_limit,
            render_mode,
            timeout,
            region_of(roi, roi_weight),
        )


class ResidualRateControlContinuousEnv(EncodeEnv[Flat]):
    """The same encoder and base policy, with offsets of any amount.

    ## Description

    The encode of `ResidualRateControlEnv`.

    ## Action Space

    `Box(-1, 1, (2,), float32)`, an offset in units of `reach`; 0 is the base policy's own decision:

    | Num | Action    | At -1  | At 1  | Meaning                      |
    |-----|-----------|--------|-------|------------------------------|
    | 0   | level     | -reach | reach | see `ResidualRateControlEnv` |
    | 1   | reference | -reach | reach | see `ResidualRateControlEnv` |

    ## Observation Space, Rewards, Starting State, Episode End, Vectorized environment

    Those of `ResidualRateControlEnv`.

    ## Arguments

    Those of `ResidualRateControlEnv`, but instead of `offsets`

    | Parameter | Type    | Default | Description                         |
    |-----------|---------|---------|-------------------------------------|
    | `reach`   | `float` | `0.5`   | log2 of the quantiser step, above 0 |

    ## Version History

    * v1: Observation, rewards and arguments of `ResidualRateControl-v1`. Replaces v0.
    * v0: Initial version.
    """

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        base: str = "imitation",
        decisions: Literal["group", "frame"] = "group",
        reach: float = 0.5,
        observation: str = "flat",
        reward: str | AnyReward = DEFAULT_REWARD,
        cost_limit: float = 1.0,
        max_frames: int = DEFAULT_MAX_FRAMES,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        roi: Any = None,
        roi_weight: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            partial(ContinuousResidualProblem, ResidualConfig(base, decisions), reach, observation),
            Tasks(clips, target_bitrate, max_frames, options),
            num_rows(max_frames)["history"],
            reward,
            cost_limit,
            render_mode,
            timeout,
            region_of(roi, roi_weight),
        )
