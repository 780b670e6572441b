"""Standard tasks: an environment with everything fixed, so that scores can be compared.

A task has a version. Whatever changes a score makes a new one. The clips are segments of the sample
clips that come with the package, in a training split and a test split.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from vpxrc.datasets import load_clips
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import DEFAULT_TIMEOUT
from vpxrc.envs.checks import check_choice
from vpxrc.envs.residual.env import ResidualRateControlContinuousEnv
from vpxrc.envs.vector import EncodeVectorEnv
from vpxrc.errors import InputError

Split = Literal["train", "test"]


@dataclass(frozen=True)
class StandardTask:
    """A standard task.

    Attributes:
        name: Name and version; the environment is ``vpxrc/NAME``.
        clips: Name of the set of clips, less ``-train`` or ``-test``.
        targets: Targets in kbit/s.
        max_frames: Frames of the longest clip.
        base: The base policy, a constant q.
        reach: Offset of an action of 1, log2 of the quantiser step.
        cpu_used: Speed of libvpx.
    """

    name: str
    clips: str
    targets: tuple[int, ...]
    max_frames: int
    base: str
    reach: float
    cpu_used: int

    @property
    def env_id(self) -> str:
        """The environment's id."""
        return f"vpxrc/{self.name}"

    def options(self, target_bitrate: int) -> EncoderOptions:
        """Return the encoder's options at a target."""
        return EncoderOptions(target_bitrate=target_bitrate, cpu_used=self.cpu_used)

    def pairs(self, split: Split) -> list[tuple[str, int]]:
        """Return the clips' names and the targets of a split, each with each."""
        names = [clip.name for clip in load_clips(f"{self.clips}-{split}")]
        return [(name, target) for name in names for target in self.targets]


SMALL = StandardTask(
    name="Small-v0",
    clips="small",
    targets=(24, 48, 96),
    max_frames=12,
    base="constant-q:128",
    reach=2.5,
    cpu_used=8,
)
MEDIUM = StandardTask(
    name="Medium-v0",
    clips="medium",
    targets=(48, 96, 192),
    max_frames=48,
    base="constant-q:128",
    reach=2.5,
    cpu_used=5,
)
STANDARD_TASKS: dict[str, StandardTask] = {task.name: task for task in (SMALL, MEDIUM)}


def find_task(name: str) -> StandardTask:
    """Return a standard task by its name.

    Raises:
        InputError: There is no such task.
    """
    if name not in STANDARD_TASKS:
        raise InputError(f"unknown task {name!r}: choose from {', '.join(STANDARD_TASKS)}")
    return STANDARD_TASKS[name]


class SmallEnv(ResidualRateControlContinuousEnv):
    """The standard task that is learned in minutes on one core: segments of 12 frames at 96x64.

    ## Description, Observation Space

    Those of `ResidualRateControlContinuousEnv` over `constant-q:128`, with a decision per frame and
    a `reach` of 2.5. So the agent sets the q index of each frame, within a factor of 5.7 of the
    quantiser step: `level` for all frames, and `reference` for those that others depend on.

    ## Action Space

    `Box(-1, 1, (2,), float32)`, see `ResidualRateControlContinuousEnv`.

    ## Rewards

    `relative`, see `RateControlEnv`: 0 is libvpx's two-pass VBR at a bitrate that is met exactly.

    ## Starting State

    A clip of the split and one of the targets 24, 48 and 96 kbit/s.

    ## Arguments

    | Parameter     | Type    | Default   | Description                          |
    |---------------|---------|-----------|--------------------------------------|
    | `split`       | `str`   | `"train"` | or `"test"`                          |
    | `render_mode` | `str`   | `None`    | or `"rgb_array"`                     |
    | `timeout`     | `float` | `600`     | seconds for a frame                  |

    Nothing else can be changed, so that scores are comparable: see `vpxrc leaderboard`.

    ## Version History

    * v0: Initial version.
    """

    task: ClassVar[StandardTask] = SMALL

    def __init__(
        self,
        split: Split = "train",
        *,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        task = self.task
        super().__init__(
            f"{task.clips}-{check_choice('split', split, ('train', 'test'))}",
            list(task.targets),
            base=task.base,
            decisions="frame",
            reach=task.reach,
            max_frames=task.max_frames,
            cpu_used=task.cpu_used,
            render_mode=render_mode,
            timeout=timeout,
        )


class MediumEnv(SmallEnv):
    """The standard task of ordinary effort: segments of 48 frames at 176x144.

    Everything else is as in `SmallEnv`, but the targets are 48, 96 and 192 kbit/s.

    ## Version History

    * v0: Initial version.
    """

    task = MEDIUM


class SmallVectorEnv(EncodeVectorEnv):
    """A batch of :class:`SmallEnv`; see :class:`EncodeVectorEnv`."""

    single = SmallEnv


class MediumVectorEnv(EncodeVectorEnv):
    """A batch of :class:`MediumEnv`; see :class:`EncodeVectorEnv`."""

    single = MediumEnv


class ScoredEpisode(NamedTuple):
    """An episode of a standard task.

    Attributes:
        clip: Name of the clip.
        target_bitrate: Target in kbit/s.
        value: The return.
        overshoot: Achieved over target bitrate, minus 1.
        actions: The actions.
    """

    clip: str
    target_bitrate: int
    value: float
    overshoot: float
    actions: list[list[float]]


def play_split(
    task: StandardTask, choose: Callable[[Any], Any], split: Split = "test"
) -> list[ScoredEpisode]:
    """Play an episode of every clip at every target.

    Args:
        task: The task.
        choose: Returns the action for an observation.
        split: The split.

    Raises:
        InvalidAction: An action is not in the action space.
        EncoderError: An encode failed.
    """
    env = _ENVIRONMENTS[task.name](split)
    episodes = []
    try:
        for clip, target in task.pairs(split):
            observation, info = env.reset(options={"clip": clip, "target_bitrate": target})
            value, done, actions = 0.0, False, []
            while not done:
                action = choose(observation)
                actions.append([float(part) for part in action])
                observation, reward, done, _, info = env.step(action)
                value += float(reward)
            episodes.append(ScoredEpisode(clip, target, value, float(info["overshoot"]), actions))
    finally:
        env.close()
    return episodes


_ENVIRONMENTS: dict[str, type[SmallEnv]] = {env.task.name: env for env in (SmallEnv, MediumEnv)}
