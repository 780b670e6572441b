"""Scores on the standard tasks: of policies, and of submissions, which are checked by a replay."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction

from vpxrc.datasets import load_clips
from vpxrc.encoder.types import Decision, Frame
from vpxrc.envs.relative import RelativeReward
from vpxrc.envs.standard import (
    ScoredEpisode,
    Split,
    StandardTask,
    find_task,
    play_split,
)
from vpxrc.errors import InputError
from vpxrc.evaluation.bd_rate import Mean, mean_ci95
from vpxrc.evaluation.markdown import markdown_table
from vpxrc.policies.base import Policy, encode
from vpxrc.policies.constant import ConstantQ
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write, parse_json

RANDOM, BEST_CONSTANT = "random", "best-constant-q"
REFERENCES = (
    RANDOM,
    BEST_CONSTANT,
    "libvpx-vbr",
    "libvpx-vbr-mlarf",
    "layered",
    "dependency",
    "constant-quality",
    "imitation",
)
_LEVELS = range(8, 256, 8)  # q indices that the best constant is looked for among


@dataclass(frozen=True)
class Score:
    """A row of the leaderboard.

    Attributes:
        name: The policy or the submission.
        seeds: Number of seeds.
        episodes: The episodes of all seeds.
    """

    name: str
    seeds: int
    episodes: tuple[ScoredEpisode, ...]

    @property
    def value(self) -> Mean:
        """The mean return with its interval over clips, targets and seeds."""
        return mean_ci95([episode.value for episode in self.episodes])

    @property
    def met(self) -> float:
        """Share of the episodes whose bitrate is not above the target."""
        return float(np.mean([episode.overshoot <= 0 for episode in self.episodes]))

    def to_json(self) -> dict[str, Any]:
        """Return the row in a form that JSON takes."""
        value = self.value
        return {
            "name": self.name,
            "seeds": self.seeds,
            "episodes": len(self.episodes),
            "mean": value.mean,
            "ci95": value.ci95,
            "constraint_met": self.met,
        }


class RandomQ(Policy):
    """Draws a q index for every frame, each as likely as the others.

    Args:
        seed: Seed of the generator.
    """

    def __init__(self, seed: tuple[int, ...]) -> None:
        self._rng = np.random.default_rng(seed)

    def decide(self, frame: Frame) -> Decision:
        """Return a q index in 1..255."""
        return Decision(int(self._rng.integers(1, 256)))


def score_policy(task: StandardTask, spec: str, seeds: int = 1, split: Split = "test") -> Score:
    """Return the score of a policy.

    Args:
        task: The task.
        spec: As :func:`vpxrc.make_policy` takes it; ``random``; or ``best-constant-q``, the best of
            some q indices for each clip and target, which takes an encode each.
        seeds: Seeds of ``random``; all others are deterministic and have one.
        split: The split.

    Raises:
        InputError: There is no such policy.
        PolicyError: The policy failed.
        EncoderError: An encode failed.
    """
    if spec == RANDOM:
        episodes = [
            _episode(task, clip, target, [RandomQ((seed, n))], split)
            for seed in range(seeds)
            for n, (clip, target) in enumerate(task.pairs(split))
        ]
        return Score(spec, seeds, tuple(episodes))
    if spec == BEST_CONSTANT:
        policies: list[Policy] = [ConstantQ(q) for q in _LEVELS]
    else:
        policies = [make_policy(spec)]
    pairs = task.pairs(split)
    return Score(
        spec, 1, tuple(_episode(task, clip, target, policies, split) for clip, target in pairs)
    )


def _episode(
    task: StandardTask, clip: str, target: int, policies: Sequence[Policy], split: Split
) -> ScoredEpisode:
    """Return the best of some policies' encodes."""
    found = {clip.name: clip for clip in load_clips(f"{task.clips}-{split}")}
    video, options, reward = found[clip].open(), task.options(target), RelativeReward()
    reward.prepare(video, options)
    logs = [encode(video, options, policy) for policy in policies]
    best = max(logs, key=reward)
    return ScoredEpisode(clip, target, reward(best), best.overshoot, [])


# Submissions


def write_submission(
    path: Path, task: StandardTask, name: str, episodes: Sequence[Sequence[ScoredEpisode]]
) -> None:
    """Write the episodes of an agent for ``vpxrc leaderboard``.

    Args:
        path: The file, JSON.
        task: The task.
        name: What the leaderboard calls the agent.
        episodes: Per seed of the training, the episodes that ``play_split`` returned.

    Raises:
        OutputError: The file cannot be written.
    """
    text = {
        "task": task.name,
        "name": name,
        "seeds": [[episode._asdict() for episode in one] for one in episodes],
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(text))


def check_submission(
    path: Path, expected: StandardTask | None = None
) -> tuple[StandardTask, Score]:
    """Read a submission and play its actions again: the score is what comes of them.

    Args:
        path: The file.
        expected: The task that it has to be for; None for any.

    Raises:
        InputError: It is no submission, it is for another task, an episode is missing, an action
            is not possible, or the return is not the one that is claimed.
    """
    try:
        text = parse_json(path.read_text())
        task, name = find_task(text["task"]), str(text["name"])
        seeds = [[_claimed(episode) for episode in one] for one in text["seeds"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{path} is no submission: {error!r:.200}") from error
    if expected is not None and expected != task:
        raise InputError(f"{path} is for the task {task.name}, not {expected.name}")
    if not seeds:
        raise InputError(f"{path} has no seeds")
    played: list[ScoredEpisode] = []
    for number, claimed in enumerate(seeds):
        where = f"{path}, seed {number}"
        if [(e.clip, e.target_bitrate) for e in claimed] != task.pairs("test"):
            raise InputError(f"{where}: its episodes are not those of the test split, in order")
        for one, other in zip(claimed, _replayed(task, claimed, where), strict=True):
            if not abs(one.value - other.value) <= 1e-6 * max(1.0, abs(other.value)):  # NaN too
                raise InputError(
                    f"{where}: {one.clip} at {one.target_bitrate} kbit/s returns "
                    f"{other.value:.4f}, not {one.value:.4f}"
                )
            played.append(other)
    return task, Score(name, len(seeds), tuple(played))


def _claimed(entry: dict[str, Any]) -> ScoredEpisode:
    """Return an episode of a submission, with numbers where they have to be.

    Raises:
        TypeError: A field is missing, or is something else.
        ValueError: A number is none.
        OverflowError: A number is too large.
    """
    episode = ScoredEpisode(**entry)
    return episode._replace(
        value=float(episode.value),
        overshoot=float(episode.overshoot),
        actions=[[float(part) for part in action] for action in episode.actions],
    )


def _replayed(
    task: StandardTask, claimed: Sequence[ScoredEpisode], where: str
) -> list[ScoredEpisode]:
    actions = iter([action for episode in claimed for action in episode.actions])
    try:
        found = play_split(task, lambda _: next(actions))
    except (StopIteration, InvalidAction) as error:
        words = str(error) or "there are too few actions"
        raise InputError(f"{where}: {words:.200}") from error
    if next(actions, None) is not None:
        raise InputError(f"{where}: there are too many actions")
    return found


def leaderboard_table(task: StandardTask, scores: Sequence[Score]) -> str:
    """Return the scores as a Markdown table, the best first."""
    rows = [[f"task {task.name}", "return", "95 % interval", "seeds", "target met"]]
    for score in sorted(scores, key=lambda score: -(score.value.mean or 0.0)):
        mean = score.value
        assert mean.mean is not None and mean.ci95 is not None  # there are episodes
        low, high = mean.ci95
        figures = (f"{mean.mean:.3f}", f"{low:.3f} to {high:.3f}", f"{score.seeds}")
        rows.append([score.name, *figures, f"{100 * score.met:.0f} %"])
    return markdown_table(rows)
