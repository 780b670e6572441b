"""Environments in which the agent decides the q index of every frame."""

import copy
import math
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import logger, spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from vpxrc.encoder.types import DEFAULT_TIMEOUT, Decision
from vpxrc.envs.episode import Episode
from vpxrc.envs.observations import DEFAULT_MAX_FRAMES, Arrays, empty_arrays, observation_space
from vpxrc.envs.rewards import PsnrReward, Reward
from vpxrc.envs.tasks import Clips, Targets, Tasks


class RateControlEnv(gymnasium.Env[Arrays, Any]):
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

    A `Dict` of float32 arrays, finite and within the bounds (values beyond are clipped). Of a
    matrix the first rows count, as its mask says (`int8`, 1 = counts, 0 = padding, all 0).

    `first_pass` (max_frames, 26), with `first_pass_mask`: libvpx's statistics per source frame

    | Num | Column               | Min | Max | Meaning                                     |
    |-----|----------------------|-----|-----|---------------------------------------------|
    | 0   | `frame`              | 0   | 1   | show index / frames of the clip             |
    | 1   | `weight`             | 0   | 4   | libvpx's weight of the frame                |
    | 2   | `intra_error`        | 0   | 1.2 | ln(1 + x) / 10, x per macroblock            |
    | 3   | `coded_error`        | 0   | 1.2 | ln(1 + x) / 10, x per macroblock            |
    | 4   | `sr_coded_error`     | 0   | 1.2 | ln(1 + x) / 10, x per macroblock            |
    | 5   | `frame_noise_energy` | 0   | 1.2 | ln(1 + x) / 10, x per macroblock            |
    | 6   | `pcnt_inter`         | 0   | 1   | share of the macroblocks                    |
    | 7   | `pcnt_motion`        | 0   | 1   | share of the macroblocks                    |
    | 8   | `pcnt_second_ref`    | 0   | 1   | share of the macroblocks                    |
    | 9   | `pcnt_neutral`       | 0   | 1   | share of the macroblocks                    |
    | 10  | `pcnt_intra_low`     | 0   | 1   | share of the macroblocks                    |
    | 11  | `pcnt_intra_high`    | 0   | 1   | share of the macroblocks                    |
    | 12  | `intra_skip_pct`     | 0   | 1   | share of the macroblocks                    |
    | 13  | `intra_smooth_pct`   | 0   | 1   | share of the macroblocks                    |
    | 14  | `inactive_zone_rows` | 0   | 1   | rows / macroblock rows                      |
    | 15  | `inactive_zone_cols` | 0   | 1   | columns / macroblock columns                |
    | 16  | `mv_row`             | -1  | 1   | sign(x) ln(1 + abs(x)) / 10, x in 1/8 pixel |
    | 17  | `mv_row_abs`         | -1  | 1   | sign(x) ln(1 + abs(x)) / 10, x in 1/8 pixel |
    | 18  | `mv_col`             | -1  | 1   | sign(x) ln(1 + abs(x)) / 10, x in 1/8 pixel |
    | 19  | `mv_col_abs`         | -1  | 1   | sign(x) ln(1 + abs(x)) / 10, x in 1/8 pixel |
    | 20  | `mv_row_variance`    | 0   | 1   | ln(1 + x) / 20, x in (1/8 pixel)^2          |
    | 21  | `mv_col_variance`    | 0   | 1   | ln(1 + x) / 20, x in (1/8 pixel)^2          |
    | 22  | `mv_in_out_count`    | -1  | 1   | vectors inwards less outwards, share        |
    | 23  | `duration`           | 0   | 2   | frames                                      |
    | 24  | `count`              | 0   | 2   | frames                                      |
    | 25  | `new_mv_count`       | 0   | 1   | share of the macroblocks                    |

    `history` (max_frames * 5 // 4 + 1, 14), with `history_mask`: the coded frames so far

    | Num | Column           | Min | Max | Meaning                                    |
    |-----|------------------|-----|-----|--------------------------------------------|
    | 0   | `is_key`         | 0   | 1   | 1 or 0                                     |
    | 1   | `is_leaf`        | 0   | 1   | 1 or 0                                     |
    | 2   | `is_golden`      | 0   | 1   | 1 or 0                                     |
    | 3   | `is_arf`         | 0   | 1   | 1 or 0                                     |
    | 4   | `is_overlay`     | 0   | 1   | 1 or 0                                     |
    | 5   | `is_shown`       | 0   | 1   | 1 or 0                                     |
    | 6   | `layer_depth`    | 0   | 1   | depth / 8; 0 = key, golden; 1/8 = base ARF |
    | 7   | `show_position`  | 0   | 1   | show index / frames of the clip            |
    | 8   | `q_index`        | 0   | 1   | q index / 255                              |
    | 9   | `libvpx_q_index` | 0   | 1   | libvpx's own choice / 255                  |
    | 10  | `lambda_scale`   | -1  | 1   | log2(factor on lambda) / 6                 |
    | 11  | `bits`           | -2  | 1   | ln(bits / pixel) / 10                      |
    | 12  | `target_bits`    | -2  | 1   | libvpx's target, ln(bits / pixel) / 10     |
    | 13  | `psnr`           | 0   | 2   | luma PSNR / 50 dB                          |

    `frame` (25,): the frame that waits for its decision

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
    | 9   | `group_position`         | 0   | 8   | position in its group / 32                    |
    | 10  | `frames_to_key`          | 0   | 1   | frames to the next key frame / frames of clip |
    | 11  | `libvpx_q_index`         | 0   | 1   | libvpx's own choice / 255                     |
    | 12  | `libvpx_q_low`           | 0   | 1   | its lower bound / 255                         |
    | 13  | `libvpx_q_high`          | 0   | 1   | its upper bound / 255                         |
    | 14  | `target_bits`            | -2  | 1   | libvpx's target, ln(bits / pixel) / 10        |
    | 15  | `gfu_boost`              | 0   | 1.2 | libvpx's boost, ln(1 + x) / 10                |
    | 16  | `has_tpl`                | 0   | 1   | 1 or 0                                        |
    | 17  | `r0`                     | 0   | 1   | intra over mc_dep cost; 0 without TPL         |
    | 18  | `takes_superblock_scale` | 0   | 1   | TPL lambda per superblock: 1 or 0             |
    | 19  | `last_age`               | 0   | 8   | coded frames since it / 32; 0 = none          |
    | 20  | `last_q_index`           | 0   | 1   | its q index / 255; 0 = none                   |
    | 21  | `golden_age`             | 0   | 8   | coded frames since it / 32; 0 = none          |
    | 22  | `golden_q_index`         | 0   | 1   | its q index / 255; 0 = none                   |
    | 23  | `altref_age`             | 0   | 8   | coded frames since it / 32; 0 = none          |
    | 24  | `altref_q_index`         | 0   | 1   | its q index / 255; 0 = none                   |

    `group` (32, 19), with `group_mask`: its golden-frame group, in coding order

    | Num | Column             | Min | Max | Meaning                                       |
    |-----|--------------------|-----|-----|-----------------------------------------------|
    | 0   | `is_key`           | 0   | 1   | 1 or 0                                        |
    | 1   | `is_leaf`          | 0   | 1   | 1 or 0                                        |
    | 2   | `is_golden`        | 0   | 1   | 1 or 0                                        |
    | 3   | `is_arf`           | 0   | 1   | 1 or 0                                        |
    | 4   | `is_overlay`       | 0   | 1   | 1 or 0                                        |
    | 5   | `is_show_existing` | 0   | 1   | 1 or 0                                        |
    | 6   | `layer_depth`      | 0   | 1   | depth / 8                                     |
    | 7   | `show_position`    | 0   | 1   | show index / frames of the clip               |
    | 8   | `bit_allocation`   | -2  | 1   | libvpx's own, ln(bits / pixel) / 10           |
    | 9   | `gfu_boost`        | 0   | 1.2 | libvpx's boost, ln(1 + x) / 10                |
    | 10  | `last_distance`    | 0   | 1   | positions back / 32; 0 = before the group     |
    | 11  | `golden_distance`  | 0   | 1   | positions back / 32; 0 = before the group     |
    | 12  | `altref_distance`  | 0   | 1   | positions back / 32; 0 = before the group     |
    | 13  | `has_tpl`          | 0   | 1   | 1 or 0; never at position 0                   |
    | 14  | `tpl_ratio`        | -1  | 0   | ln(intra / mc_dep cost) / 10; 0 without TPL   |
    | 15  | `has_dependency`   | 0   | 1   | in our dependency model: 1 or 0               |
    | 16  | `importance`       | 0   | 2   | ln(importance) / 10; 0 without a model        |
    | 17  | `model_bits`       | -2  | 1   | the model's, ln(bits / pixel) / 10; 0 without |
    | 18  | `ahead`            | -8  | 1   | positions after the pending frame / 32        |

    `budget` (8,): the clip, the target, and what is left of it

    | Num | Column       | Min | Max | Meaning                                                  |
    |-----|--------------|-----|-----|----------------------------------------------------------|
    | 0   | `log_pixels` | 0   | 1   | ln(pixels of a frame) / 20                               |
    | 1   | `fps`        | 0   | 5   | frames per second / 60                                   |
    | 2   | `num_frames` | 0   | 1   | frames of the clip / max_frames                          |
    | 3   | `target`     | -2  | 1   | target, ln(bits / pixel) / 10                            |
    | 4   | `spent`      | 0   | 16  | bits spent / target bits of the clip                     |
    | 5   | `shown`      | 0   | 1   | frames shown / frames of the clip                        |
    | 6   | `overshoot`  | -1  | 15  | bits spent / target bits of frames shown - 1; at first 0 |
    | 7   | `psnr`       | 0   | 2   | mean luma PSNR of frames shown / 50 dB; at first 0       |

    `importance` (9, 16), from 0 to 2: the pending frame's map of ln(importance) / 10, on a grid
    that is laid over the picture; 0 without a model

    Importance is that of `vpxrc.dependency`: what a distortion costs where it is made and
    in all that is predicted from there, over the distortion itself. The model runs once per group,
    at the group's first decision, over the group's frames but `show_existing`, all at the
    `libvpx_q_high` of that moment. A group of fewer than two such frames has no model; of one of
    more than 127, the first 127 have. A cell of the map is the mean of its blocks of 16x16, weighed
    by their own distortion; where it is smaller than a block, it is the block at its centre.

    A frame's row of `first_pass` is `round(show_position * first_pass_mask.sum())`. Without a
    pending frame, at the end, `frame`, `group`, `group_mask` and `importance` are 0.

    ## Rewards

    0 until the stream is complete, then what the `reward` object makes of the encode's log; by
    default the mean luma PSNR of the shown frames in dB, which says nothing about the bitrate: the
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
    | `dependency`     | `bool`              | `True`      | run the dependency model; else what   |
    |                  |                     |             | comes of it is 0 and costs nothing    |
    | `render_mode`    | `str`               | `None`      | `"rgb_array"`: the frame coded last,  |
    |                  |                     |             | as decoded, ARFs too; black at first  |
    | `timeout`        | `float`             | `600`       | seconds for a frame                   |
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

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    _action_space: ClassVar[spaces.Space[Any]] = spaces.Discrete(256)

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
        self._tasks = Tasks(clips, target_bitrate, max_frames, options)
        self.reward: Reward = PsnrReward() if reward is None else reward
        self.dependency = dependency
        self.timeout = timeout
        self.render_mode = render_mode
        self.observation_space = observation_space(max_frames)
        self.action_space = copy.deepcopy(self._action_space)
        self._arrays = empty_arrays(self.observation_space)
        self._episode: Episode | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Start an encode; one that is going on is ended.

        Args:
            seed: Seed of the generator that draws clip and target; None goes on drawing.
            options: May have ``clip``, a name, and ``target_bitrate``, in kbit/s.

        Raises:
            InputError: An option is unknown or out of range, or the clip cannot be used.
            EncoderError: libvpx failed.
        """
        super().reset(seed=seed)
        video, encoder_options = self._tasks.draw(self.np_random, options)
        self.close()
        session = encoder_options.open(
            video,
            keep_reconstruction=self.render_mode is not None,
            timeout=self.timeout,
        )
        self._episode = Episode(session, self._arrays, self.dependency)
        info = self._episode.observe()
        return self._observation(), info

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """Code the pending frame.

        Raises:
            InvalidAction: The action is not in the action space; nothing has changed.
            ResetNeeded: No episode is going on.
            EncoderError: libvpx failed or took too long.
        """
        episode = self._episode
        if episode is None or episode.log is not None:
            raise ResetNeeded("no episode is going on: call reset() first")
        decision = self._decision(self._checked(action), episode)
        episode.session.step(decision)
        info = episode.observe()
        log = episode.log
        reward = 0.0 if log is None else self.reward(log)
        return self._observation(), reward, log is not None, False, info

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

    def _observation(self) -> Arrays:
        return {key: array.copy() for key, array in self._arrays.items()}

    @classmethod
    def _checked(cls, action: Any) -> Any:
        """Return the action if it is in the space."""
        if not cls._action_space.contains(action):
            raise InvalidAction(f"{action!r} is not in the action space {cls._action_space}")
        return action

    @staticmethod
    def _decision(action: Any, episode: Episode) -> Decision:
        return Decision(int(action))


class RateControlContinuousEnv(RateControlEnv):
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

    _action_space: ClassVar[spaces.Space[Any]] = spaces.Box(-1, 1, (3,), np.float32)

    @classmethod
    def _checked(cls, action: Any) -> Any:
        try:
            # The space would refuse float64, which is what most arithmetic ends in.
            action = np.asarray(action, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidAction(f"{action!r} is not in {cls._action_space}") from error
        return super()._checked(action)

    @staticmethod
    def _decision(action: Any, episode: Episode) -> Decision:
        q, lambda_scale, strength = action.tolist()
        return Decision(
            math.floor((q + 1) * 127.5 + 0.5),
            lambda_scale=2.0**lambda_scale,
            superblock_scale=episode.superblock_scale(1 + strength),
        )
