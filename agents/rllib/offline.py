"""Episodes without an agent: the base policy's own, and the teacher's in terms of offsets."""

import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vpxrc.agents.teacher.lessons import open_clip, result_options, stored_trajectory
from vpxrc.agents.teacher.trajectory import Follow, Trajectory
from vpxrc.cache import write_entry
from vpxrc.datasets import Clip
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.registry import make_options
from vpxrc.encoder.types import Decision, Frame, UpdateType
from vpxrc.envs.gain import GainReward
from vpxrc.envs.residual.config import REFERENCES, ResidualConfig, make_base, own_q
from vpxrc.envs.residual.env import ResidualProblem
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import Reward, SharedReward
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.policies.base import Episode, Policy, encode
from vpxrc.policies.registry import make_policy
from vpxrc.policies.wrapper import PolicyWrapper
from vpxrc.storage import cache_dir, digest, parse_json, read_table

# The second target of a clip that has only one, as a multiple of it: a slope takes two encodes.
_NEIGHBOUR = 0.75


@dataclass(frozen=True, eq=False)
class Demonstrated:
    """The T decisions of an encode, as RLlib learns from them.

    Attributes:
        observations: float32 ``[T + 1, len(OBSERVATION)]``; the last, at the end, is 0.
        actions: int64 ``[T]``.
        rewards: float32 ``[T]``.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]


def run(
    video: Video,
    options: EncoderOptions,
    config: ResidualConfig,
    choose: Callable[[Frame], int],
    reward: Reward | None = None,
) -> tuple[Demonstrated, EncodeLog]:
    """Encode with given actions.

    Args:
        video: The clip.
        options: What is asked for; the base policy's own come on top.
        config: The problem.
        choose: Called with the frame at every decision point, for the index of an offset.
        reward: None: the rewards are 0.

    Raises:
        PolicyError: The base policy failed.
        EncoderError: libvpx failed.
        InputError: The reward knows no such encode.
    """
    problem = ResidualProblem(config)
    observations: list[NDArray[np.float32]] = []
    actions: list[int] = []
    asked = problem.options(options)
    with asked.open(video, plan_groups=problem.plan_groups) as session:
        episode = problem.episode(session)
        while (log := episode.log) is None:
            observation = episode.advance()
            if observation is not None and episode.log is None:
                frame = session.frame
                assert frame is not None  # it is what is to be decided
                observations.append(observation)
                actions.append(choose(frame))
                episode.act(actions[-1])
    rewards = np.zeros(len(actions), np.float32)
    if isinstance(reward, SharedReward):
        rewards = reward.per_step(log, episode.steps)
    elif reward is not None:
        rewards[-1] = reward(log)
    observations.append(np.zeros(len(OBSERVATION), np.float32))
    return Demonstrated(np.stack(observations), np.array(actions, np.int64), rewards), log


def no_offset(frame: Frame) -> int:
    """Return the action that keeps the base policy's decision."""
    return 0


# The base policy alone: the range of the inputs, and the encodes that the agent's are compared with


@dataclass(frozen=True)
class Survey:
    """A clip that the base policy is to be seen on.

    Attributes:
        clip: The clip.
        content: Its content hash.
        targets: Target bitrates, kbit/s.
        options: Arguments of :func:`vpxrc.encoder.registry.make_options`, but for the target.
        config: The problem.
        reference: Spec of the policy that a gain is counted from; None: the base policy.
        gain: Whether gains are to be counted at all.
        code: Hash of the code and the files that the encodes depend on.
    """

    clip: Clip | Video
    content: str
    targets: tuple[int, ...]
    options: dict[str, Any]
    config: ResidualConfig
    reference: str | None
    gain: bool
    code: str

    def __str__(self) -> str:
        """What errors call it."""
        return self.clip.name

    @property
    def path(self) -> Path:
        """Where the cache has what comes of it."""
        facts = [self.content, self.targets, self.options, self.reference, self.gain]
        return _cache_path("surveys", [self.code, *facts, dataclasses.asdict(self.config)])


@dataclass(frozen=True, eq=False)
class Surveyed:
    """What comes of a survey.

    Attributes:
        observations: float32 ``[n, len(OBSERVATION)]``.
        references: The ``state_dict`` of a :class:`GainReward`.
        complaint: Why no gain can be counted on this clip; empty where it can.
    """

    observations: NDArray[np.float32]
    references: dict[str, Any]
    complaint: str

    def write(self, path: Path) -> None:
        """Write it into the cache."""
        words = json.dumps({"references": self.references, "complaint": self.complaint})
        with write_entry(path) as (temporary, _), temporary.open("wb") as file:
            np.savez(file, observations=self.observations, words=np.array(words))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: It cannot be read.
        """
        try:
            with np.load(path) as kept:
                return cls(kept["observations"], **parse_json(str(kept["words"])))
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"cannot read {path}: {error}") from error


def survey(job: Survey) -> Surveyed:
    """Encode a clip under the base policy alone, at all targets.

    Raises:
        InputError: The clip cannot be read.
        PolicyError: A policy failed.
        EncoderError: libvpx failed.
    """
    video = job.clip if isinstance(job.clip, Video) else job.clip.open()
    asked = [make_options(target_bitrate=target, **job.options) for target in job.targets]
    played = [run(video, options, job.config, no_offset) for options in asked]
    observations = np.concatenate([episode.observations[:-1] for episode, _ in played])
    logs = [log for _, log in played]
    reward, complaint = GainReward(), ""
    if job.gain:
        if len(asked) == 1:
            asked.append(_neighbour(asked[0]))
        for place, options in enumerate(asked):
            if job.reference is not None:
                log = encode(video, options, make_policy(job.reference))
            elif place < len(logs):
                log = logs[place]
            else:
                _, log = run(video, options, job.config, no_offset)
            reward.reference(log)
        try:
            for log in logs:
                reward(log)
        except InputError as error:  # the curve is flat
            complaint = str(error)
    return Surveyed(observations, reward.state_dict(), complaint)


def contents(clip: Clip | Video) -> tuple[str, str]:
    """Return the content hashes of a clip: as it is trained on, and at its own size.

    An evaluation may have it at its own.
    """
    if isinstance(clip, Video):
        return clip.content_hash, clip.content_hash
    own = dataclasses.replace(clip, width=None, height=None)
    return clip.open().content_hash, own.open().content_hash


# The teacher


@dataclass(frozen=True)
class Demonstration:
    """A trajectory of the teacher's that is to be shown in terms of offsets.

    Attributes:
        result: A lesson of :func:`vpxrc.agents.teacher.lessons.results`.
        clip: Its clip, at its own size.
        config: The problem.
        contrast: Episodes of random offsets, to judge the teacher's by their gains, beside the
            base policy's. None: the teacher's alone, and all rewards are 0.
        seed: Seed of the random offsets.
        code: Hash of the code and the files that the encodes depend on.
    """

    result: dict[str, Any]
    clip: Clip
    config: ResidualConfig
    contrast: int | None
    seed: int
    code: str

    def __str__(self) -> str:
        """What errors call it."""
        target = self.result["options"]["target_bitrate"]
        return f"{self.result['clip']} at {target} kbit/s"

    @property
    def path(self) -> Path:
        """Where the cache has the episodes, the teacher's first."""
        trajectory = Trajectory.from_pandas(stored_trajectory(self.result))
        facts = [self.result[name] for name in ("content_hash", "options")]
        causes = [self.code, trajectory.content_hash, *facts, self.contrast]
        if self.contrast:
            causes.append(self.seed)
        return _cache_path("demonstrations", [*causes, dataclasses.asdict(self.config)])


def demonstrate(job: Demonstration) -> list[Demonstrated]:
    """Return the teacher's episode, and what it is to be compared with.

    The trajectory is followed once beside the base policy. In a group, its steps differ from the
    base policy's by one mean over the leaves and one over the frames that others depend on; the
    offset nearest to the two is the group's label. Then the clip is encoded under the labels: that
    is the episode, with the observations that an agent would have on this way.

    Raises:
        InputError: The clip or the trajectory cannot be used, or no gain can be counted on it.
        PolicyError: The base policy failed.
        EncoderError: libvpx failed.
    """
    video, options, config = (
        open_clip(job.result, [job.clip]),
        result_options(job.result),
        job.config,
    )
    trajectory = Trajectory.from_pandas(stored_trajectory(job.result))
    choices = [_labels(video, options, config, trajectory)]
    reward = None
    if job.contrast is not None:
        reward = GainReward()
        for asked in (options, _neighbour(options)):
            reward.reference(run(video, asked, config, no_offset)[1])
        rng = np.random.default_rng(job.seed)
        count = len(config.actions)
        choices += [no_offset, *[lambda frame: int(rng.integers(count))] * job.contrast]
    return [run(video, options, config, choose, reward)[0] for choose in choices]


def _neighbour(options: EncoderOptions) -> EncoderOptions:
    """Return the options of the second point of a slope."""
    target = max(1, round(_NEIGHBOUR * options.target_bitrate))
    return dataclasses.replace(options, target_bitrate=target)


class _Beside(PolicyWrapper):
    """Follows a trajectory, with the base policy beside it.

    Attributes:
        differences: Per coded frame, the trajectory's step less the base policy's, log2.
        rows: Per coded frame, its coding index, its group's and its update type.
    """

    def __init__(self, base: Policy, trajectory: Trajectory) -> None:
        super().__init__(base)
        self._follow = Follow(trajectory)
        self.differences: list[float] = []
        self.rows: list[tuple[int, int, int]] = []

    def begin(self, episode: Episode) -> None:
        self._log2_step = episode.log2_step
        super().begin(episode)
        self._follow.begin(episode)

    def decide(self, frame: Frame) -> Decision:
        own, wanted = super().decide(frame), self._follow.decide(frame)
        q_index = own_q(frame, own)
        step = self._log2_step
        self.differences.append(float(step[wanted.q_index] - step[q_index]))
        self.rows.append((frame.coding_index, frame.group_index, frame.update_type))
        if wanted.q_index != own.q_index:
            self.overruled(frame, wanted)
        return wanted

    def review(self, log: EncodeLog) -> EncodeLog:
        return log  # the trajectory would be followed again, to the same end


def _labels(
    video: Video, options: EncoderOptions, config: ResidualConfig, trajectory: Trajectory
) -> Callable[[Frame], int]:
    """Return the offsets nearest to a trajectory, by frame."""
    beside = _Beside(make_base(config.base), trajectory)
    encode(video, options, beside)
    actions = np.array(config.actions)
    frames, groups, types = np.array(beside.rows).T
    differences = np.array(beside.differences)
    is_reference = np.isin(types, REFERENCES)
    if config.decisions == "frame":
        offsets = actions[:, 0] + np.outer(is_reference, actions[:, 1])
        nearest = np.abs(offsets - differences[:, None]).argmin(axis=1)
        of_frame = dict(zip(frames.tolist(), nearest.tolist(), strict=True))
        return lambda frame: of_frame.get(frame.coding_index, 0)
    labels: dict[int, int] = {}
    for group in np.unique(groups):
        error = np.zeros(len(actions))
        # An overlay repeats what is there already, at whatever q.
        for members, own in (
            (types == UpdateType.LEAF, actions[:, 0]),
            (is_reference, actions.sum(axis=1)),
        ):
            mine = members & (groups == group)
            if mine.any():
                error += (own - differences[mine].mean()) ** 2
        labels[int(group)] = int(error.argmin())
    return lambda frame: labels.get(frame.group_index, 0)


# Files


def write_episodes(path: Path, episodes: Iterable[Demonstrated]) -> None:
    """Write a parquet file with a row per episode into the cache."""
    rows = list(episodes)
    table = pa.table(
        {
            "obs": pa.array([row.observations.ravel() for row in rows], pa.list_(pa.float32())),
            "actions": pa.array([row.actions for row in rows], pa.list_(pa.int64())),
            "rewards": pa.array([row.rewards for row in rows], pa.list_(pa.float32())),
        }
    )
    with write_entry(path) as (temporary, _):
        pq.write_table(table, temporary)


def read_episodes(path: str | Path) -> list[Demonstrated]:
    """Read what :func:`write_episodes` wrote.

    Raises:
        InputError: It cannot be read.
    """
    try:
        columns = read_table(path).to_pydict()
        return [
            Demonstrated(
                np.array(seen, np.float32).reshape(len(actions) + 1, len(OBSERVATION)),
                np.array(actions, np.int64),
                np.array(rewards, np.float32),
            )
            for seen, actions, rewards in zip(
                columns["obs"], columns["actions"], columns["rewards"], strict=True
            )
        ]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _cache_path(kind: str, causes: Any) -> Path:
    return cache_dir() / kind / digest(causes)
