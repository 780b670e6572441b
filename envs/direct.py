"""Environments in which the agent decides the q index of every frame."""

from functools import partial
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from vpxrc.encoder.log import MAX_PSNR
from vpxrc.encoder.types import DEFAULT_TIMEOUT
from vpxrc.envs.columns import generated
from vpxrc.envs.direct_problem import ContinuousDirectProblem, DirectProblem
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.flat import FLAT
from vpxrc.envs.named import DEFAULT_REWARD
from vpxrc.envs.observations import DEFAULT_MAX_FRAMES, num_rows
from vpxrc.envs.problem import EncodeEnv
from vpxrc.envs.region import region_of
from vpxrc.envs.rewards import AnyReward, QualityAndRate
from vpxrc.envs.tables import TABLES
from vpxrc.envs.tasks import Clips, Targets, Tasks
from vpxrc.errors import InputError


@generated(
    **{key: table.markdown() for key, table in TABLES.items()},
    **{f"num_{key}": str(len(table)) for key, table in TABLES.items()},
    num_flat=str(len(FLAT)),
)
class RateControlEnv(EncodeEnv[Any]):
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

    By default (`observation="flat"`) a `Box` of <!-- generated: num_flat --> float32 numbers in
    [-1, 1], whatever the size of the picture and the length of the clip. The columns are those of
    the groups Frame, Budget, Group, First pass and Past of `ResidualRateControlEnv`, without those
    of base policy and offsets (`vpxrc.envs.FLAT.names` lists them). A column x whose bound b there
    is beyond 1 is sign(x) ln(1 + abs(x)) / ln(1 + b) here. At the end all are 0.

    With `observation="dict"` it is a `Dict` of float32 arrays, finite and within the bounds (values
    beyond are clipped). The first rows of a matrix count, and its mask says which (`int8`, 1 =
    counts, 0 = padding, all 0).

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

    `reward` is a name, or an object as `vpxrc.envs.Reward` describes it:

    | Name                         | Paid        | Value of an encode                              |
    |------------------------------|-------------|-------------------------------------------------|
    | `relative`                   | every step  | PSNR over libvpx's at the target, in doublings  |
    |                              |             | of the bitrate, at most 1; less 4 per doubling  |
    |                              |             | of the bitrate above `cost_limit` times target  |
    | `psnr`                       | at the end  | mean luma PSNR of the shown frames, dB          |
    | `lagrangian`                 | at the end  | the same less 20 dB times the overshoot         |
    | `gain`                       | every step  | percent of bits saved against libvpx's VBR      |
    | `self-competition`           | at the end  | 1, 0 or -1 against the agent's own average      |
    | `self-competition-augmented` | at the end  | the same, with a price of 0.005 dB per kbit/s   |

    `relative` (`vpxrc.envs.RelativeReward`) is the default. 0 is libvpx's two-pass VBR at a bitrate
    that is met exactly, and 0.1 is worth 7 % of the bits, at any size and any target. The
    environment makes the two reference encodes of a clip and a target itself, at the first episode
    that needs them, and keeps them in the cache.

    With `roi`, every decision prefers the region as `vpxrc.RegionOfInterest` does: lambda inside is
    lambda outside over `roi_weight`, and their geometric mean stays. Every reward then sees the
    weighted PSNR in place of the PSNR, in which the squared error of a pixel inside counts
    `roi_weight` times one outside. It is measured on the decoded stream, so all rewards are paid at
    the end. libvpx's own encodes, which `relative` and `gain` compare with, have the same region
    and the same weights: 0 is libvpx with the same wish. Observations and `info` stay as they are;
    `psnr` in `info` is not weighted.

    `info` has numbers only (numpy's), of the same names after `reset` and after each step. `cost`
    is the one of Safety-Gymnasium: its sum over an episode is achieved over target bitrate, which
    is not to exceed `cost_limit`.

    | Key              | Type    | Meaning                                                        |
    |------------------|---------|----------------------------------------------------------------|
    | `clip_index`     | `int`   | number of the clip in `env.unwrapped.clip_names`               |
    | `target_bitrate` | `int`   | kbit/s                                                         |
    | `update_type`    | `int`   | `vpxrc.UpdateType` of the frame coded last; -1 at first        |
    | `show_index`     | `int`   | its place in the clip; -1 at first                             |
    | `q_index`        | `int`   | its q index; -1 at first                                       |
    | `bits`           | `int`   | its bits                                                       |
    | `psnr`           | `float` | mean luma PSNR of the frames shown so far, dB; 0 at first      |
    | `psnr_overall`   | `float` | PSNR of the mean squared error over all planes, dB; 0 at first |
    | `bitrate`        | `float` | bits so far over the duration shown so far, kbit/s             |
    | `overshoot`      | `float` | `bitrate` over target bitrate, minus 1                         |
    | `cost`           | `float` | bits of the step over the target bits of the clip              |
    | `constraint_met` | `int`   | 1 where `overshoot` + 1 is at most `cost_limit`, else 0        |

    At the end of an episode these are the figures of the whole stream. Its log, with stream and a
    row per frame, is `env.unwrapped.log` (`vpxrc.EncodeLog`), until the next episode has ended.

    ## Starting State

    Clip and target are drawn by the environment's generator, so the seed of `reset` settles them.
    `reset(options={"clip": name, "target_bitrate": kbit_s})` chooses one or both (the clip also by
    its index); the generator moves on all the same. The encode is deterministic.

    An environment can be pickled, copied (`copy.deepcopy`, `env.unwrapped.clone()`) and forked in
    the middle of an episode. The copy has the decisions so far. When it is first used it codes
    these frames again, and then everything is exactly as in the original.

    ## Episode End

    The episode terminates when the stream is complete, after as many steps as the encoder codes
    frames: those of the clip and its alternate reference frames. It is never truncated, and
    `env.spec.max_episode_steps` is a number of steps that it does not exceed. An encoder that fails
    or takes longer than `timeout` for a frame raises `vpxrc.EncoderError`; `reset` starts afresh.
    An action outside the space raises `gymnasium.error.InvalidAction` and changes nothing.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import vpxrc.envs
    >>> env = gym.make("vpxrc/RateControl-v2", clips="samples", target_bitrate=128, cpu_used=4)
    ```

    | Parameter        | Type                | Default     | Description                           |
    |------------------|---------------------|-------------|---------------------------------------|
    | `clips`          | `str`, `Path`, list | `"samples"` | a set, file, folder or catalogue as   |
    |                  |                     |             | `vpxrc.datasets.load_clips` takes, or |
    |                  |                     |             | a list of these, `Clip`s and `Video`s |
    | `target_bitrate` | `int`, list, dict   | `256`       | kbit/s; a list or tuple is drawn      |
    |                  |                     |             | from; `{"low": 64, "high": 96}` is a  |
    |                  |                     |             | range, uniform in the logarithm       |
    | `observation`    | `str`               | `"flat"`    | or `"dict"`, see Observation Space    |
    | `reward`         | `str`, `Reward`     | `relative`  | see Rewards                           |
    | `cost_limit`     | `float`             | `1.0`       | achieved over target bitrate that is  |
    |                  |                     |             | allowed                               |
    | `max_frames`     | `int`               | `150`       | the most frames of a clip; sets the   |
    |                  |                     |             | observation's shape                   |
    | `dependency`     | `bool`              | `True`      | run the dependency model; without it  |
    |                  |                     |             | its values are 0 and cost nothing     |
    | `render_mode`    | `str`               | `None`      | `"rgb_array"`: the frame coded last,  |
    |                  |                     |             | as decoded, ARFs too; black at first  |
    | `timeout`        | `float`             | `600`       | seconds for a frame                   |
    | `roi`            | `str`, `Path`,      | `None`      | a region of interest of all clips:    |
    |                  | list, array         |             | `"box:X,Y,W,H"`, a mask's path, a     |
    |                  |                     |             | list of these, or a mask of 0 and 1   |
    |                  |                     |             | per pixel, `[height, width]` or       |
    |                  |                     |             | `[frames, height, width]`; see        |
    |                  |                     |             | Rewards                               |
    | `roi_weight`     | `float`             | `4.0` with  | how much more an error inside `roi`   |
    |                  |                     | `roi`       | counts, above 1 and at most 64        |
    | `encoder`        | `str`               | `"vp9"`     | or `"learned:CODEC"`, which codes     |
    |                  |                     |             | picture by picture                    |
    | others           |                     |             | `vpxrc.EncoderOptions`: `cpu_used`,   |
    |                  |                     |             | `auto_alt_ref`, `rate_control`, ...   |

    ## Vectorized environment

    `gymnasium.make_vec("vpxrc/RateControl-v2", num_envs=8)` makes a `RateControlVectorEnv`: many
    encodes at a time in one process, with the same results as `vectorization_mode="sync"`. It takes
    `autoreset_mode` and, for EnvPool's `async_reset`, `send` and `recv`, `batch_size`.

    ## Version History

    * v2: The observation is a vector by default, the default reward is `relative`, and it is paid
      every step. `info` has numbers only, and `cost`. A tuple of targets is a list, and a range is
      a dictionary. Replaces v1.
    * v1: The temporal dependency model is observed: columns `has_dependency`, `importance` and
      `model_bits` of `group`, the map `importance`; argument `dependency`. Replaces v0.
    * v0: Initial version, never released.
    """

    problem_class: ClassVar[type[DirectProblem]] = DirectProblem

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        observation: str = "flat",
        reward: str | AnyReward = DEFAULT_REWARD,
        cost_limit: float = 1.0,
        max_frames: int = DEFAULT_MAX_FRAMES,
        dependency: bool = True,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        roi: Any = None,
        roi_weight: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            partial(type(self).problem_class, observation, max_frames, dependency),
            Tasks(clips, target_bitrate, max_frames, options),
            num_rows(max_frames)["history"],
            reward,
            cost_limit,
            render_mode,
            timeout,
            region_of(roi, roi_weight),
        )


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

    * v2: Observation, rewards and arguments of `RateControl-v2`. Replaces v1.
    * v1: The observation of `RateControl-v1`. Replaces v0.
    * v0: Initial version, never released.
    """

    problem_class = ContinuousDirectProblem


class MORateControlEnv(RateControlEnv):
    """The same encoder and actions, with a vector of two rewards, as MO-Gymnasium has them.

    ## Description, Action Space, Observation Space, Starting State, Episode End

    Those of `RateControlEnv`.

    ## Rewards

    `reward_space` is a `Box` of two numbers, both to be maximised and both paid at every step:

    | Num | Reward  | Sum over an episode                    |
    |-----|---------|----------------------------------------|
    | 0   | quality | mean luma PSNR of the shown frames, dB |
    | 1   | rate    | -(achieved bitrate / target bitrate)   |

    With `roi` the first is the weighted PSNR, and both are paid at the end.

    ## Arguments

    Those of `RateControlEnv` but `reward`. `mo_gymnasium.make` takes them as `gymnasium.make` does.

    ```python
    >>> import gymnasium as gym
    >>> import vpxrc.envs
    >>> env = gym.make("vpxrc/MORateControl-v0", target_bitrate=128)
    ```

    ## Version History

    * v0: Initial version.
    """

    def __init__(
        self, clips: Clips = "samples", target_bitrate: Targets = 256, **arguments: Any
    ) -> None:
        if "reward" in arguments:
            raise InputError("MORateControl has two rewards, so it takes no other one")
        # Gymnasium's type says that a reward is a number; MO-Gymnasium's is an array.
        pair: Any = QualityAndRate()
        super().__init__(clips, target_bitrate, reward=pair, **arguments)
        self.reward_space = spaces.Box(
            np.array([0.0, -np.inf], np.float32), np.array([MAX_PSNR, 0.0], np.float32)
        )
        self.reward_dim = 2

    def outcome(self, episode: EncodeEpisode[Any]) -> tuple[Any, bool, dict[str, Any]]:
        """Return reward, termination and info; with a region the rewards are 0 until the end."""
        reward, terminated, info = super().outcome(episode)
        return np.zeros(2, np.float32) + np.asarray(reward, np.float32), terminated, info
