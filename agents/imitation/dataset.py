"""Lessons for the network: what it would see along a trajectory, and what it should have said."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.imitation.features import Features, first_pass_features
from vpxrc.agents.imitation.policy import Prior
from vpxrc.agents.teacher.trajectory import Follow, Trajectory
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import Decision, Frame, UpdateType
from vpxrc.media.frames import Video
from vpxrc.policies.base import Episode, encode

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
    """What a student would see of a group, and the prior that its offsets are from."""

    index: int
    features: Features
    prior: NDArray[np.float64]
    shares: NDArray[np.float64]
    distortion: NDArray[np.float64]
    positions: NDArray[np.int64]
    excess: float


class _Tutor(Prior):
    """Follows a trajectory and notes at every group what a student would see."""

    def __init__(self, trajectory: Trajectory, jitters: Sequence[NDArray[np.float64]]) -> None:
        super().__init__()
        self._trajectory = trajectory
        self._follow = Follow(trajectory)
        self._jitters = jitters
        self.notes: list[list[_Note]] = [[] for _ in jitters]

    def begin(self, episode: Episode) -> None:
        super().begin(episode)
        self._follow.begin(episode)
        t, leaves, where = self._trajectory, [], []
        for group in np.unique(t.group_index):
            rows = t.group_index == group
            shown = t.show_index[rows]
            first, last = shown.min(), shown.max()
            level = float(self._log_error[min(first + 1, last) : last + 1].mean())
            leaves.append(t.step[rows & (t.update_type == UpdateType.LEAF)])
            where.append(np.full(len(leaves[-1]), self._parameters.complexity * level))
        steps = np.concatenate(leaves) - np.concatenate(where)
        # A clip of key frames alone has no leaves.
        self._clip_base = float(steps.mean()) if len(steps) else float(t.step.mean()) + 1.0
        self._base = self._clip_base

    def _move_base(self, frame: Frame, free: bool = False) -> None:
        self._base = self._clip_base

    def _run_model(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        group = self._group
        if not any(note.index == self._group_index for note in self.notes[0][-1:]):
            spent = self._spent
            for jitters, notes in zip(self._jitters, self.notes, strict=True):
                jitter, saved = jitters[self._group_index % len(jitters)].tolist()
                self._base = self._clip_base + jitter
                self._spent = self._target - max(self._target - spent, 0.0) * 2**saved
                prior = super()._run_model(steps)
                assert group.dependency is not None
                count = len(group.coded)
                model = group.dependency.distortion[:count].sum(axis=(1, 2)) / (
                    self._episode.video.width * self._episode.video.height
                )
                notes.append(
                    _Note(
                        index=self._group_index,
                        features=self._features(prior),
                        prior=self._clip_base + group.shift - prior,
                        shares=group.shares[group.coded].copy(),
                        distortion=np.maximum(model, 1e-3),
                        positions=group.coded.copy(),
                        # As many bits as are left are what the trajectory takes from here.
                        excess=-self._parameters.slope * jitter - saved,
                    )
                )
            self._base, self._spent = self._clip_base, spent
        return super()._run_model(steps)

    def decide(self, frame: Frame) -> Decision:
        if frame.coding_index == 0:
            self._base = self._clip_base
        super().decide(frame)
        return self._follow.decide(frame)

    def lessons(self, name: str, log: EncodeLog) -> list[Lesson]:
        rows, clip = log.coded, log.clip
        result = []
        for notes in self.notes:
            groups = []
            for note in notes:
                positions = note.positions
                here = rows[rows["group_index"] == note.index]
                place = np.searchsorted(here["group_position"], positions)
                found = place < len(here)
                found &= here["group_position"][np.minimum(place, len(here) - 1)] == positions
                one = here[np.minimum(place, len(here) - 1)]
                step = self._log2_step[one["q_index"]]
                offset = step - note.prior
                slope = self._parameters.slope
                expected = note.shares * np.exp2(-slope * (self._clip_base + offset))
                bits = np.log2(np.maximum(one["bits"], 8.0) / np.maximum(expected, 8.0))
                bits[note.shares <= 0] = np.nan  # overlays: paid as the frame they show
                mse = np.maximum(one["sse_y"] / clip.pixels, 1e-3)
                distortion = np.log2(mse / note.distortion)
                distortion[~found] = np.nan
                kinds = one["update_type"]
                weights = np.array([_IMPORTANCE[int(kind)] for kind in kinds])
                weights[(kinds == UpdateType.ARF) & (one["layer_depth"] <= 1)] = _BASE_ARF
                groups.append(
                    GroupLesson(
                        features=note.features,
                        offset=_float(offset),
                        log2_lambda=_float(np.log2(one["lambda_scale"])),
                        log2_bits=_float(bits),
                        log2_distortion=_float(distortion),
                        weights=_float(np.where(found, weights, 0.0)),
                        excess=note.excess,
                    )
                )
            result.append(
                Lesson(
                    name,
                    clip.content_hash,
                    first_pass_features(log.first_pass),
                    tuple(groups),
                )
            )
        return result


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
