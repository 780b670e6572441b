"""Lessons for the network: what it would see along a trajectory, and what it should have said."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.imitation.features import Features, first_pass_features, group_features
from vpxrc.agents.imitation.policy import PRIOR
from vpxrc.agents.teacher.trajectory import Follow, Trajectory
from vpxrc.encoder.complexity import log_complexity
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import nearest_q
from vpxrc.encoder.types import Decision, Frame, UpdateType
from vpxrc.media.frames import Video
from vpxrc.policies.base import Episode, encode
from vpxrc.policies.step_models import FixedSteps, GroupView
from vpxrc.policies.wrapper import PolicyWrapper

# How far off its base a student may be, log2 step, and off the budget, log2 of what is left of it.
JITTER = (0.35, 0.15)
_LIMIT = 3.0  # of labels, log2


@dataclass(frozen=True, eq=False)
class GroupLesson:
    """A group of ``n`` coded frames.

    Attributes:
        features: What the network sees.
        offset: Of the trajectory from the prior, log2 step, float32 ``[n]``.
        log2_lambda: The trajectory's, ``[n]``.
        log2_bits: Real bits over the model's at the trajectory's step, log2, ``[n]``; NaN where the
            model has none.
        log2_distortion: Squared error over the model's, log2, ``[n]``; NaN for frames shown again.
        weights: How much the offset matters, ``[n]``; 0 where there is no label.
        excess: Bits of the group and all after it over what is left of the budget, log2.
    """

    features: Features
    offset: NDArray[np.float32]
    log2_lambda: NDArray[np.float32]
    log2_bits: NDArray[np.float32]
    log2_distortion: NDArray[np.float32]
    weights: NDArray[np.float32]
    excess: float


@dataclass(frozen=True, eq=False)
class Lesson:
    """A trajectory, seen at one guess of its base per group.

    Attributes:
        name: The clip's.
        content_hash: The clip's.
        first_pass: float32 ``[num_frames, len(FIRST_PASS)]``.
        groups: In order of coding; those too small for the model are left out.
    """

    name: str
    content_hash: str
    first_pass: NDArray[np.float32]
    groups: tuple[GroupLesson, ...]


# What a step away from the best costs goes about with these: roughly the median curvatures of the
# teacher's responses (docs/results/teacher), shared out over the frames of a group.
_IMPORTANCE: dict[int, float] = {
    UpdateType.KEY: 2.0,
    UpdateType.LEAF: 0.1,
    UpdateType.GOLDEN: 1.0,
    UpdateType.ARF: 0.3,
    UpdateType.OVERLAY: 0.1,
}
_BASE_ARF = 1.5


@dataclass(frozen=True, eq=False)
class _Note:
    """A group as a student would see it, and the prior that its offsets are from.

    Attributes:
        index: Number of the group in the encode.
        features: What the network would see.
        prior: log2 step of each frame by the prior at the trajectory's own base, ``[n]``.
        bits: Bits of each frame that the prior foresees for a base of 0, ``[n]``.
        distortion: Squared error per sample that its model foresees, ``[n]``.
        positions: Positions of the frames in the group, ``[n]``.
        excess: Bits of the group and all after it over what is left of the budget, log2.
    """

    index: int
    features: Features
    prior: NDArray[np.float64]
    bits: NDArray[np.float64]
    distortion: NDArray[np.float64]
    positions: NDArray[np.int64]
    excess: float


class _Tutor(PolicyWrapper):
    """Follows a trajectory and notes at every group what a student would see.

    Args:
        trajectory: The trajectory.
        jitters: For each view, by how much the student's base is off and how much more of the
            budget is left to it, in log2; float64 ``[groups, 2]``, from the start again after the
            last row.
    """

    def __init__(self, trajectory: Trajectory, jitters: Sequence[NDArray[np.float64]]) -> None:
        super().__init__(Follow(trajectory))
        self._trajectory = trajectory
        self._model = FixedSteps(PRIOR)
        self._jitters = jitters
        self._notes: list[list[_Note]] = [[] for _ in jitters]

    def begin(self, episode: Episode) -> None:
        super().begin(episode)
        self._episode = episode
        self._complexity = log_complexity(episode.first_pass)
        self._base = _base_of(self._trajectory, self._complexity)
        self._group_index = self._arf_q = -1

    def decide(self, frame: Frame) -> Decision:
        if frame.group_index != self._group_index:
            self._group_index = frame.group_index
            group = GroupView.of(
                self._episode,
                frame,
                PRIOR,
                complexity=self._complexity,
                base=self._base,
                arf_q=self._arf_q,
            )
            if group.has_model:
                self._note(group)
        return super().decide(frame)

    def _note(self, group: GroupView) -> None:
        video, count = group.episode.video, len(group.coded)
        left = max(group.target_bits - group.spent, 0.0)
        for jitters, notes in zip(self._jitters, self._notes, strict=True):
            jitter, saved = jitters[group.index % len(jitters)].tolist()
            view = dataclasses.replace(
                group, base=self._base + jitter, spent=group.target_bits - left * 2**saved
            )
            prior = self._model.steps(view)
            assert prior.dependency is not None  # the group has a model
            model = prior.dependency.distortion[:count].sum(axis=(1, 2))
            notes.append(
                _Note(
                    index=group.index,
                    features=group_features(view, prior),
                    prior=self._base + group.shift - prior.step,
                    bits=prior.bits,
                    distortion=np.maximum(model / (video.width * video.height), 1e-3),
                    positions=group.coded,
                    # As many bits as are left are what the trajectory takes from here.
                    excess=-group.slope * jitter - saved,
                )
            )
        is_base = (group.update_type == UpdateType.ARF) & (group.layer_depth == 1)
        if is_base.any():
            step = self._model.steps(group).step[is_base][-1]
            self._arf_q = nearest_q(self._base + group.shift - step, group.episode.log2_step)

    def lessons(self, name: str, log: EncodeLog) -> list[Lesson]:
        """Return a lesson per view, with the trajectory's log as what should have been said."""
        seen, content_hash = first_pass_features(log.first_pass), log.clip.content_hash
        return [
            Lesson(name, content_hash, seen, tuple(self._lesson(note, log) for note in notes))
            for notes in self._notes
        ]

    def _lesson(self, note: _Note, log: EncodeLog) -> GroupLesson:
        positions = note.positions
        here = log.coded[log.coded["group_index"] == note.index]
        place = np.searchsorted(here["group_position"], positions)
        found = place < len(here)
        found &= here["group_position"][np.minimum(place, len(here) - 1)] == positions
        one = here[np.minimum(place, len(here) - 1)]
        offset = self._episode.log2_step[one["q_index"]] - note.prior
        expected = note.bits * np.exp2(-PRIOR.slope * (self._base + offset))
        bits = np.log2(np.maximum(one["bits"], 8.0) / np.maximum(expected, 8.0))
        bits[note.bits <= 0] = np.nan  # overlays: paid as the frame they show
        mse = np.maximum(one["sse_y"] / (log.clip.pixels * log.clip.error_unit), 1e-3)
        distortion = np.log2(mse / note.distortion)
        distortion[~found] = np.nan
        kinds = one["update_type"]
        weights = np.array([_IMPORTANCE[int(kind)] for kind in kinds])
        weights[(kinds == UpdateType.ARF) & (one["layer_depth"] <= 1)] = _BASE_ARF
        return GroupLesson(
            features=note.features,
            offset=_float(offset),
            log2_lambda=_float(np.log2(one["lambda_scale"])),
            log2_bits=_float(bits),
            log2_distortion=_float(distortion),
            weights=_float(np.where(found, weights, 0.0)),
            excess=note.excess,
        )


def _base_of(trajectory: Trajectory, complexity: NDArray[np.float64]) -> float:
    """Return the base of a trajectory: the mean step of its leaves, less their groups' shifts."""
    t, leaves, shifts = trajectory, [], []
    for group in np.unique(t.group_index):
        rows = t.group_index == group
        shown = t.show_index[rows]
        first, last = shown.min(), shown.max()
        level = float(complexity[min(first + 1, last) : last + 1].mean())
        leaves.append(t.step[rows & (t.update_type == UpdateType.LEAF)])
        shifts.append(np.full(len(leaves[-1]), PRIOR.complexity * level))
    steps = np.concatenate(leaves) - np.concatenate(shifts)
    # A clip of key frames alone has no leaves.
    return float(steps.mean()) if len(steps) else float(t.step.mean()) + 1.0


def observe(
    name: str,
    video: Video,
    options: EncoderOptions,
    trajectory: Trajectory,
    *,
    views: int = 3,
    seed: int = 0,
) -> list[Lesson]:
    """Encode along a trajectory and return what a student would see, and should say.

    Args:
        name: Of the clip.
        video: The clip.
        options: The trajectory's, with the target.
        trajectory: What is followed.
        views: At so many guesses of the base; the first is the trajectory's own.
        seed: Of the guesses.
    """
    rng = np.random.default_rng(seed)
    jitters = [np.zeros((1, 2))]
    jitters += [rng.normal(0.0, JITTER, (64, 2)) for _ in range(views - 1)]
    tutor = _Tutor(trajectory, jitters)
    log = encode(video, options, tutor)
    return tutor.lessons(name, log)


def _float(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.clip(values, -_LIMIT, _LIMIT).astype(np.float32)
