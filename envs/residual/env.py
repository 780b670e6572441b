"""The Gymnasium environments of the residual problem."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import logger, spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from vpxrc.encoder.types import DEFAULT_TIMEOUT
from vpxrc.envs.observations import DEFAULT_MAX_FRAMES
from vpxrc.envs.residual.config import Flat, Move, ResidualConfig, make_plan
from vpxrc.envs.residual.episode import ResidualEpisode
from vpxrc.envs.residual.observation import HIGH, LOW, OBSERVATION
from vpxrc.envs.rewards import PsnrReward, Reward, StepReward
from vpxrc.envs.tasks import Clips, Targets, Tasks
from vpxrc.errors import InputError

# The environments


class ResidualRateControlEnv(gymnasium.Env[Flat, Any]):
    """libvpx's VP9 encoder under a plan, whose decisions the agent moves.

    ## Description

    A plan, any `vpxrc.Policy` that decides by itself, is the rate control of a two-pass encode:
    frame by frame, in coding order, it says how coarsely the next frame is quantized, and keeps
    account of the bits. The agent moves what the plan decides, finer or coarser, and the plan
    learns of it (`vpxrc.Policy.overruled`). So an agent that never moves anything codes the plan's
    stream, byte for byte, and what is left to learn is how to be better. With a plan that knows
    nothing, such as `constant-q:120`, all is left to learn. A plan codes a clip once: one that
    would look at the result and code it again is not asked to.

    ## Action Space

    `Discrete(len(moves))`: a move, which is a pair (level, reference) in log2 of the quantiser
    step; above 0 is coarser, 1 is twice the step. The frame's q index becomes the one whose step is
    nearest to the plan's step times 2 ** offset, in 1..255: the offset is `level`, and for frames
    that others depend on (key frames, golden frames, ARFs) `level + reference`. An offset of 0
    leaves the plan's decision as it is; lambda is the plan's factor on libvpx's own for the q index
    that is taken. Action 0 is (0, 0), as planned.

    With `decisions="group"` an action moves a golden-frame group: it is taken at the group's first
    coded frame, and moves that one and all the others. By default

    | Num | Level | Reference |
    |-----|-------|-----------|
    | 0   | 0     | 0         |
    | 1   | 0     | -0.2      |
    | 2   | 0     | 0.2       |
    | 3   | -0.2  | 0         |
    | 4   | -0.2  | -0.2      |
    | 5   | -0.2  | 0.2       |
    | 6   | 0.2   | 0         |
    | 7   | 0.2   | -0.2      |
    | 8   | 0.2   | 0.2       |

    With `decisions="frame"` an action moves one coded frame. By default

    | Num | Level | Reference |
    |-----|-------|-----------|
    | 0   | 0     | 0         |
    | 1   | -0.1  | 0         |
    | 2   | 0.1   | 0         |
    | 3   | -0.25 | 0         |
    | 4   | 0.25  | 0         |
    | 5   | -0.6  | 0         |
    | 6   | 0.6   | 0         |

    Frames that are only shown again take no action.

    ## Observation Space

    A `Box` of 120 float32 numbers, finite and within the bounds (values beyond are clipped). They
    are per pixel, per macroblock, or logarithms of ratios, so one network serves all sizes of
    picture and lengths of clips.

    Frame: the frame that waits for its decision

    | Num | Column                   | Min | Max | Meaning                                       |
    |-----|--------------------------|-----|-----|-----------------------------------------------|
    | 0   | `is_key`                 | 0   | 1   | 1 or 0                                        |
    | 1   | `is_leaf`                | 0   | 1   | 1 or 0                                        |
    | 2   | `is_golden`              | 0   | 1   | 1 or 0                                        |
    | 3   | `is_arf`                 | 0   | 1   | 1 or 0                                        |
    | 4   | `is_overlay`             | 0   | 1   | 1 or 0                                        |
    | 5   | `is_shown`               | 0   | 1   | 1 or 0                                        |
    | 6   | `layer_depth`            | 0   | 1   | depth / 8                                     |
    | 7   | `show_position`          | 0   | 1   | show index / frames of the clip               |
    | 8   | `coding_position`        | 0   | 2   | coding index / frames of the clip             |
    | 9   | `group_position`         | 0   | 4   | position in its group / 32                    |
    | 10  | `frames_to_key`          | 0   | 1   | frames to the next key frame / frames of clip |
    | 11  | `libvpx_q_index`         | 0   | 1   | libvpx's own choice / 255                     |
    | 12  | `libvpx_q_low`           | 0   | 1   | its lower bound / 255                         |
    | 13  | `libvpx_q_high`          | 0   | 1   | its upper bound / 255                         |
    | 14  | `target_bits`            | -2  | 1   | libvpx's target, ln(bits / pixel) / 10        |
    | 15  | `gfu_boost`              | 0   | 1.2 | libvpx's boost, ln(1 + x) / 10                |
    | 16  | `has_tpl`                | 0   | 1   | 1 or 0                                        |
    | 17  | `r0`                     | 0   | 1   | intra over mc_dep cost; 0 without TPL         |
    | 18  | `takes_superblock_scale` | 0   | 1   | TPL lambda per superblock: 1 or 0             |
    | 19  | `last_age`               | 0   | 4   | coded frames since it / 32; 0 = none          |
    | 20  | `last_q_index`           | 0   | 1   | its q index / 255; 0 = none                   |
    | 21  | `golden_age`             | 0   | 4   | coded frames since it / 32; 0 = none          |
    | 22  | `golden_q_index`         | 0   | 1   | its q index / 255; 0 = none                   |
    | 23  | `altref_age`             | 0   | 4   | coded frames since it / 32; 0 = none          |
    | 24  | `altref_q_index`         | 0   | 1   | its q index / 255; 0 = none                   |
    | 25  | `complexity`             | -4  | 4   | log2(coded_error / the clip's) / 4            |
    | 26  | `pcnt_inter`             | 0   | 1   | share of the macroblocks                      |
    | 27  | `importance`             | 0   | 4   | log2(importance) / 4; 0 without a model       |
    | 28  | `model_bits`             | -4  | 4   | the model's, log2(bits / pixel) / 8           |
    | 29  | `model_share`            | -4  | 4   | log2(model's bits / mean of the group) / 4    |
    | 30  | `map_spread`             | 0   | 4   | standard deviation of its map * 4             |
    | 31  | `map_max`                | 0   | 4   | highest value of its map * 2                  |

    Budget: clip, target, and what is left of it

    | Num | Column        | Min | Max | Meaning                                                  |
    |-----|---------------|-----|-----|----------------------------------------------------------|
    | 32  | `log_pixels`  | 0   | 1   | ln(pixels of a frame) / 20                               |
    | 33  | `fps`         | 0   | 4   | frames per second / 60                                   |
    | 34  | `target`      | -2  | 1   | target, ln(bits / pixel) / 10                            |
    | 35  | `spent`       | 0   | 4   | bits spent / target bits of the clip                     |
    | 36  | `shown`       | 0   | 1   | frames shown / frames of the clip                        |
    | 37  | `overshoot`   | -1  | 4   | bits spent / target bits of frames shown - 1; at first 0 |
    | 38  | `psnr`        | 0   | 2   | mean luma PSNR of frames shown / 50 dB; at first 0       |
    | 39  | `frames_left` | 0   | 4   | frames not yet shown / 64                                |
    | 40  | `to_key`      | 0   | 4   | frames to the next key frame / 64                        |
    | 41  | `left`        | -4  | 4   | log2(bits left per frame left / target per frame)        |
    | 42  | `pace`        | -4  | 4   | log2(`spent` / share of the effort shown); at first 0    |

    Group: its golden-frame group, and the frames around it

    | Num | Column                  | Min | Max | Meaning                                   |
    |-----|-------------------------|-----|-----|-------------------------------------------|
    | 43  | `group_length`          | 0   | 4   | frames from one end to the other / 16     |
    | 44  | `group_layers`          | 0   | 1   | highest layer depth / 8                   |
    | 45  | `group_ahead`           | 0   | 1   | share of it from the pending frame on     |
    | 46  | `group_importance`      | 0   | 4   | highest log2(importance) / 4              |
    | 47  | `group_rate`            | -4  | 4   | log2(model's bits per frame / target) / 4 |
    | 48  | `references_count`      | 0   | 4   | references of the group / 16              |
    | 49  | `references_ahead`      | 0   | 4   | those from the pending frame on / 16      |
    | 50  | `references_importance` | 0   | 4   | mean of log2(importance) / 4              |
    | 51  | `references_model_bits` | -4  | 4   | the model's mean, log2(bits / pixel) / 8  |
    | 52  | `references_allocation` | -2  | 1   | libvpx's, mean of ln(bits / pixel) / 10   |
    | 53  | `leaves_count`          | 0   | 4   | leaves of the group / 16                  |
    | 54  | `leaves_ahead`          | 0   | 4   | those from the pending frame on / 16      |
    | 55  | `leaves_importance`     | 0   | 4   | mean of log2(importance) / 4              |
    | 56  | `leaves_model_bits`     | -4  | 4   | the model's mean, log2(bits / pixel) / 8  |
    | 57  | `leaves_allocation`     | -2  | 1   | libvpx's, mean of ln(bits / pixel) / 10   |
    | 58  | `group_complexity`      | -4  | 4   | mean of log2(coded_error / clip's) / 2    |
    | 59  | `group_spread`          | 0   | 4   | their standard deviation / 2              |
    | 60  | `clip_spread`           | 0   | 4   | the same over the clip / 2                |
    | 61  | `before_16_32`          | -4  | 4   | `group_complexity` of these frames        |
    | 62  | `before_0_16`           | -4  | 4   | `group_complexity` of these frames        |
    | 63  | `after_0_16`            | -4  | 4   | `group_complexity` of these frames        |
    | 64  | `after_16_32`           | -4  | 4   | `group_complexity` of these frames        |
    | 65  | `after_32_64`           | -4  | 4   | `group_complexity` of these frames        |

    First pass: libvpx's statistics, as means over the columns of that name that
    `RateControlEnv` has in `first_pass`, in its scales

    | Num | Column                     | Min | Max | Meaning                                 |
    |-----|----------------------------|-----|-----|-----------------------------------------|
    | 66  | `group_intra_error`        | 0   | 1.2 | mean over the group                     |
    | 67  | `group_coded_error`        | 0   | 1.2 | mean over the group                     |
    | 68  | `group_sr_coded_error`     | 0   | 1.2 | mean over the group                     |
    | 69  | `group_frame_noise_energy` | 0   | 1.2 | mean over the group                     |
    | 70  | `group_pcnt_inter`         | 0   | 1   | mean over the group                     |
    | 71  | `group_pcnt_motion`        | 0   | 1   | mean over the group                     |
    | 72  | `group_pcnt_second_ref`    | 0   | 1   | mean over the group                     |
    | 73  | `group_pcnt_neutral`       | 0   | 1   | mean over the group                     |
    | 74  | `group_pcnt_intra_low`     | 0   | 1   | mean over the group                     |
    | 75  | `group_intra_skip_pct`     | 0   | 1   | mean over the group                     |
    | 76  | `group_mv_row_abs`         | -1  | 1   | mean over the group                     |
    | 77  | `group_mv_col_abs`         | -1  | 1   | mean over the group                     |
    | 78  | `rest_intra_error`         | 0   | 1.2 | over what follows it; without, the clip |
    | 79  | `rest_coded_error`         | 0   | 1.2 | over what follows it; without, the clip |
    | 80  | `rest_sr_coded_error`      | 0   | 1.2 | over what follows it; without, the clip |
    | 81  | `rest_frame_noise_energy`  | 0   | 1.2 | over what follows it; without, the clip |
    | 82  | `rest_pcnt_inter`          | 0   | 1   | over what follows it; without, the clip |
    | 83  | `rest_pcnt_motion`         | 0   | 1   | over what follows it; without, the clip |
    | 84  | `rest_pcnt_second_ref`     | 0   | 1   | over what follows it; without, the clip |
    | 85  | `rest_pcnt_neutral`        | 0   | 1   | over what follows it; without, the clip |
    | 86  | `rest_pcnt_intra_low`      | 0   | 1   | over what follows it; without, the clip |
    | 87  | `rest_intra_skip_pct`      | 0   | 1   | over what follows it; without, the clip |
    | 88  | `rest_mv_row_abs`          | -1  | 1   | over what follows it; without, the clip |
    | 89  | `rest_mv_col_abs`          | -1  | 1   | over what follows it; without, the clip |
    | 90  | `clip_intra_error`         | 0   | 1.2 | over the clip                           |
    | 91  | `clip_coded_error`         | 0   | 1.2 | over the clip                           |
    | 92  | `clip_sr_coded_error`      | 0   | 1.2 | over the clip                           |
    | 93  | `clip_frame_noise_energy`  | 0   | 1.2 | over the clip                           |
    | 94  | `clip_pcnt_inter`          | 0   | 1   | over the clip                           |
    | 95  | `clip_pcnt_motion`         | 0   | 1   | over the clip                           |
    | 96  | `clip_pcnt_second_ref`     | 0   | 1   | over the clip                           |
    | 97  | `clip_pcnt_neutral`        | 0   | 1   | over the clip                           |
    | 98  | `clip_pcnt_intra_low`      | 0   | 1   | over the clip                           |
    | 99  | `clip_intra_skip_pct`      | 0   | 1   | over the clip                           |
    | 100 | `clip_mv_row_abs`          | -1  | 1   | over the clip                           |
    | 101 | `clip_mv_col_abs`          | -1  | 1   | over the clip                           |

    Plan: what the plan would do with the pending frame

    | Num | Column             | Min | Max | Meaning                           |
    |-----|--------------------|-----|-----|-----------------------------------|
    | 102 | `plan_q_index`     | 0   | 1   | its q index / 255                 |
    | 103 | `plan_step`        | -2  | 4   | log2(its quantiser step) / 4 - 2  |
    | 104 | `plan_over_libvpx` | -4  | 4   | log2(its step / libvpx's own) / 2 |
    | 105 | `plan_over_before` | -4  | 4   | log2(its step / before) / 2       |
    | 106 | `plan_lambda`      | -4  | 4   | log2(its factor on lambda)        |

    Past: what came of the decisions before: `before` of the last group, `current` of this group's
    coded frames, `coded` of the frame coded last

    | Num | Column                     | Min | Max | Meaning                                  |
    |-----|----------------------------|-----|-----|------------------------------------------|
    | 107 | `before_bits`              | -4  | 4   | log2(bits per frame / target) / 2        |
    | 108 | `before_psnr`              | -4  | 4   | mean PSNR less that of all so far / 8 dB |
    | 109 | `before_reference_q_index` | 0   | 1   | mean of the references' / 255            |
    | 110 | `before_leaf_q_index`      | 0   | 1   | mean of the others' / 255                |
    | 111 | `current_bits`             | 0   | 4   | bits / target of all its frames          |
    | 112 | `current_psnr`             | -4  | 4   | as `before_psnr`                         |
    | 113 | `coded_bits`               | -2  | 1   | ln(bits / pixel) / 10                    |
    | 114 | `coded_psnr`               | -4  | 4   | as `before_psnr`                         |
    | 115 | `action_level`             | -4  | 4   | of the last action                       |
    | 116 | `action_reference`         | -4  | 4   | of the last action                       |
    | 117 | `mean_level`               | -4  | 4   | of all actions                           |
    | 118 | `mean_reference`           | -4  | 4   | of all actions                           |
    | 119 | `actions`                  | 0   | 4   | log2(1 + actions so far) / 4             |

    `complexity` compares a frame's `coded_error` of the first pass with the clip's geometric mean;
    its effort is the square root of `coded_error`. The first frame, which is intra there, counts as
    the mean of the others. Importance and the model's bits are those of the dependency model that
    `RateControlEnv` describes, as is the map; without a model they are 0. References are key
    frames, golden frames and ARFs, leaves what nothing else depends on. `rest` is the frames after
    the group; `before_16_32` and so on are frames before its first or after its last one, 0 outside
    the clip. `plan_over_before` compares with the last group that has frames of the pending one's
    kind, reference or not. Means of nothing are 0, and so is the whole observation at the end of
    the episode.

    ## Rewards

    0 until the stream is complete, then what the `reward` object makes of the encode's log; by
    default the mean luma PSNR of the shown frames in dB, which says nothing about the bitrate: the
    constraint is in `info`. A reward that has `share` and `per_step`, such as `GainReward`, is paid
    step by step instead: after each step its share, and after the last what is left of what it
    makes of the log.

    `info` has the keys of `RateControlEnv`'s: after `reset`, `clip` and `target_bitrate`; after
    each step the `update_type`, `show_index`, `q_index` and `bits` of the frame coded last; and at
    the end of the episode also `clip`, `target_bitrate`, `psnr`, `psnr_overall`, `bitrate`,
    `overshoot`, `constraint_met` and `log`.

    ## Starting State

    Clip and target are drawn by the environment's generator, so the seed of `reset` settles them.
    `reset(options={"clip": name, "target_bitrate": kbit_s})` chooses one or both; the generator
    moves on all the same. The encode is deterministic.

    ## Episode End

    The episode terminates when the stream is complete, after as many steps as there are groups with
    a coded frame, or coded frames. It is never truncated. An encoder that fails or takes longer
    than `timeout` for a frame raises `vpxrc.EncoderError`, a plan that fails `vpxrc.PolicyError`;
    `reset` starts afresh. An action outside the space raises `gymnasium.error.InvalidAction` and
    changes nothing.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import vpxrc.envs
    >>> env = gym.make(
    ...     "vpxrc/ResidualRateControl-v0", plan="dependency", decisions="group", cpu_used=4
    ... )
    ```

    What is the same as in `RateControlEnv` has its types there.

    | Parameter        | Type             | Default        | Description                        |
    |------------------|------------------|----------------|------------------------------------|
    | `clips`          | as there         | `"samples"`    | what to draw clips from            |
    | `target_bitrate` | as there         | `256`          | kbit/s: one, a list, a range       |
    | `plan`           | `str`            | `"imitation"`  | `NAME` or `NAME:ARGUMENT`, see     |
    |                  |                  |                | `vpxrc.make_policy`                |
    | `decisions`      | `str`            | `"group"`      | or `"frame"`                       |
    | `moves`          | pairs of `float` | `None`         | see Action Space; the first is     |
    |                  |                  |                | (0, 0)                             |
    | `reward`         | `Reward`         | `PsnrReward()` | see Rewards                        |
    | `max_frames`     | `int`            | `150`          | the most frames of a clip          |
    | `render_mode`    | `str`            | `None`         | `"rgb_array"`: the frame coded     |
    |                  |                  |                | last, as decoded; black at first   |
    | `timeout`        | `float`          | `600`          | seconds for a frame                |
    | others           |                  |                | `vpxrc.EncoderOptions`; a plan may |
    |                  |                  |                | set `rate_control`, `auto_alt_ref` |
    |                  |                  |                | itself, as `dependency` does       |

    ## Version History

    * v0: Initial version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        plan: str = "imitation",
        decisions: Literal["group", "frame"] = "group",
        moves: Sequence[Move] | None = None,
        reward: Reward | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        self.config = ResidualConfig(plan, decisions, None if moves is None else tuple(moves))
        self._plan = make_plan(plan)
        self._tasks = Tasks(clips, target_bitrate, max_frames, options)
        self.reward: Reward = PsnrReward() if reward is None else reward
        self.render_mode = render_mode
        self.timeout = timeout
        self.observation_space = spaces.Box(LOW, HIGH, dtype=np.float32)
        self.action_space = self._actions()
        self._episode: ResidualEpisode | None = None
        self._paid = 0.0  # in this episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Flat, dict[str, Any]]:
        """Start an encode; one that is going on is ended.

        Args:
            seed: Seed of the generator that draws clip and target; None goes on drawing.
            options: May have ``clip``, a name, and ``target_bitrate``, in kbit/s.

        Raises:
            InputError: An option is unknown or out of range, or the clip cannot be used.
            PolicyError: The plan failed.
            EncoderError: libvpx failed.
        """
        super().reset(seed=seed)
        video, encoder_options = self._tasks.draw(self.np_random, options)
        self.close()
        session = self._plan.options(encoder_options).open(
            video,
            keep_reconstruction=self.render_mode is not None,
            timeout=self.timeout,
            plan_groups=self._plan.plans_groups,
        )
        self._episode = ResidualEpisode(session, self._plan, self.config)
        self._paid = 0.0
        return self._advance(self._episode), self._episode.info

    def step(self, action: Any) -> tuple[Flat, float, bool, bool, dict[str, Any]]:
        """Move the plan's decision, and go on to the next decision point.

        Raises:
            InvalidAction: The action is not in the action space; nothing has changed.
            ResetNeeded: No episode is going on.
            PolicyError: The plan failed.
            EncoderError: libvpx failed or took too long.
        """
        episode = self._episode
        if episode is None or episode.log is not None:
            raise ResetNeeded("no episode is going on: call reset() first")
        episode.act(self._move(action))
        observation = self._advance(episode)
        reward = self._pay(episode)
        return observation, reward, episode.log is not None, False, episode.info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the reconstruction of the frame coded last, RGB uint8 ``[height, width, 3]``."""
        if self.render_mode is None:
            logger.warn('render() needs gymnasium.make(..., render_mode="rgb_array")')
            return None
        if self._episode is None:
            raise ResetNeeded("no episode is going on: call reset() first")
        return self._episode.picture()

    def close(self) -> None:
        """End the encode wherever it is; idempotent."""
        if self._episode is not None:
            self._episode.session.close()
            self._episode = None

    def _advance(self, episode: ResidualEpisode) -> Flat:
        while (observation := episode.advance()) is None:
            if episode.log is not None:
                return np.zeros(len(OBSERVATION), np.float32)
        return observation

    def _pay(self, episode: ResidualEpisode) -> float:
        """Return the reward of the step that has just ended."""
        if episode.log is not None:
            return self.reward(episode.log) - self._paid
        if not isinstance(self.reward, StepReward):
            return 0.0
        session, (first, last) = episode.session, episode.steps[-1]
        rows = session.records(first)[: last - first]
        share = self.reward.share(session.video.format, session.options, rows)
        self._paid += share
        return share

    def _actions(self) -> spaces.Space[Any]:
        return spaces.Discrete(len(self.config.actions))

    def _move(self, action: Any) -> Move:
        """Return what an action stands for.

        Raises:
            InvalidAction: It is not in the space.
        """
        if not self.action_space.contains(action):
            raise InvalidAction(f"{action!r} is not in the action space {self.action_space}")
        return self.config.actions[int(action)]


class ResidualRateControlContinuousEnv(ResidualRateControlEnv):
    """The same encoder and plan, moved by any amount.

    ## Description

    The encode of `ResidualRateControlEnv`.

    ## Action Space

    `Box(-1, 1, (2,), float32)`, a move in units of `reach`; 0 is as planned:

    | Num | Action    | At -1  | At 1  | Meaning                     |
    |-----|-----------|--------|-------|-----------------------------|
    | 0   | level     | -reach | reach | see `ResidualRateControlEnv` |
    | 1   | reference | -reach | reach | see `ResidualRateControlEnv` |

    ## Observation Space, Rewards, Starting State, Episode End

    Those of `ResidualRateControlEnv`.

    ## Arguments

    Those of `ResidualRateControlEnv`, but instead of `moves`

    | Parameter | Type    | Default | Description                         |
    |-----------|---------|---------|-------------------------------------|
    | `reach`   | `float` | `0.5`   | log2 of the quantiser step, above 0 |

    ## Version History

    * v0: Initial version.
    """

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        plan: str = "imitation",
        decisions: Literal["group", "frame"] = "group",
        reach: float = 0.5,
        reward: Reward | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        if not 0 < reach < math.inf:
            raise InputError(f"reach must be finite and above 0, not {reach}")
        self.reach = reach
        super().__init__(
            clips,
            target_bitrate,
            plan=plan,
            decisions=decisions,
            reward=reward,
            max_frames=max_frames,
            render_mode=render_mode,
            timeout=timeout,
            **options,
        )

    def _actions(self) -> spaces.Space[Any]:
        return spaces.Box(-1, 1, (2,), np.float32)

    def _move(self, action: Any) -> Move:
        try:
            # The space would refuse float64, which is what most arithmetic ends in.
            action = np.asarray(action, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidAction(f"{action!r} is not in {self.action_space}") from error
        if not self.action_space.contains(action):
            raise InvalidAction(f"{action!r} is not in the action space {self.action_space}")
        level, reference = (self.reach * part for part in action.tolist())
        return level, reference
