"""What a search minimises: the bits of a clip's encode at a target, at equal quality.

Two encodes are compared by a Lagrangian in percent of the clip's bits. Quality is turned into bits
by the slope of the clip's own rate-distortion curve, which one encode measures.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.teacher.curve import Point, Quality, contributions
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.media.frames import Video
from vpxrc.policies.base import Policy, encode

LANDINGS = 6  # the most encodes that :meth:`Objective.land` takes

_USUAL_SLOPES = (-1.0, 1.0)  # log2 bits per log2 step, quality per log bits: until measured
_LANDING_SLOPES = (-3.0, -0.3)  # least and greatest log2 bits per log2 step that a landing believes
_NUMBERS = ("encodes", "bits_per_step", "quality_per_bits", "_start_bits", "_start_quality")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trajectory and its encode.

    Attributes:
        trajectory: The decisions as they were taken.
        log: The log of the encode.
    """

    trajectory: Trajectory
    log: EncodeLog


class Objective:
    """What trajectories of one clip cost at one target.

    :meth:`begin` comes first: costs are relative to the encode that it makes.

    Args:
        video: The clip.
        options: The encoder's options with the target.
        quality: What is held equal.
        progress: Called with the number of encodes after each.

    Attributes:
        quality: What is held equal.
        encodes: Number of encodes so far.
        origin: Rate and quality that costs are relative to.
        bits_per_step: Slope of log2 of the bits over log2 of the quantiser step, negative.
        quality_per_bits: Slope of the quality over the natural logarithm of the bits, positive.
    """

    origin: Point
    _start_bits: int
    _start_quality: float

    def __init__(
        self,
        video: Video,
        options: EncoderOptions,
        quality: Quality = "psnr",
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.quality: Quality = quality
        self.encodes = 0
        self.bits_per_step, self.quality_per_bits = _USUAL_SLOPES
        self._video, self._options, self._progress = video, options, progress
        self._target_bits = 1000.0 * options.target_bitrate * video.duration

    def begin(self, policy: Policy, max_encodes: int | None = None) -> Candidate:
        """Encode with a policy, and count costs from there.

        Args:
            policy: It decides every frame itself.
            max_encodes: The most encodes that this may take.
        """
        recorder = Record(policy, max_encodes)
        log = self._encode(recorder)
        candidate = Candidate(Trajectory.of(log, recorder.decisions), log)
        if policy.plans_groups and (max_encodes is None or self.encodes < max_encodes):
            # A trajectory has no plans of groups, so what follows it is another encode.
            candidate = self.evaluate(candidate.trajectory)
        self.origin = self.point(candidate.log)
        self._start_bits = candidate.log.bits
        self._start_quality = self._quality(candidate.log)
        return candidate

    def measure_slopes(self, start: Candidate, step: float) -> None:
        """Measure the slopes with an encode of the start with all quantiser steps moved.

        Args:
            start: What :meth:`begin` returned.
            step: How far they are moved, log2.
        """
        moved = self.evaluate(start.trajectory.moved(step)).log
        bits = np.log(moved.bits / start.log.bits)
        quality = self._quality(moved) - self._quality(start.log)
        # A clip that does not answer to its quantiser (still, lossless) has no slope to speak of.
        self.bits_per_step = float(min(bits / np.log(2) / step, -0.1))
        self.quality_per_bits = float(max(quality / min(bits, -1e-3), 1e-6))

    def evaluate(self, trajectory: Trajectory) -> Candidate:
        """Encode along a trajectory.

        The candidate's is another one where libvpx formed other groups than the trajectory was made
        for.
        """
        recorder = Record(Follow(trajectory))
        log = self._encode(recorder)
        if not trajectory.fits(log):
            trajectory = Trajectory.of(log, recorder.decisions)
        return Candidate(trajectory, log)

    def _encode(self, recorder: Record) -> EncodeLog:
        log = encode(self._video, self._options, recorder)
        self.encodes += log.encodes
        if self._progress is not None:
            self._progress(self.encodes)
        return log

    def point(self, log: EncodeLog) -> Point:
        """Return rate and quality of an encode."""
        return Point.of(self._video, log, self.quality)

    def excess(self, log: EncodeLog) -> float:
        """Return log2 of an encode's bits over the target's."""
        return float(np.log2(log.bits / self._target_bits))

    def score(self, log: EncodeLog) -> float:
        """Return the percent of bits that an encode takes more than the first, at equal quality."""
        gained = (self._quality(log) - self._start_quality) / self.quality_per_bits
        return float(100 * (np.log(log.bits / self._start_bits) - gained))

    def _quality(self, log: EncodeLog) -> float:
        return float(contributions(self._video, log, self.quality).sum())

    def costs(self, trial: EncodeLog, candidate: Candidate) -> NDArray[np.float64]:
        """Return what a trial costs more than a candidate up to each of its coded frames.

        Returns:
            Percent of the candidate's bits, float64 ``[T + 1]``: before the first coded frame,
            before the second and so on, and at the end. It is NaN from where the trial has other
            frames than the candidate.
        """
        log = candidate.log
        ours, theirs = trial.records, log.records
        count = min(len(ours), len(theirs))
        fields = ["show_index", "group_position", "update_type", "layer_depth"]
        differs = ours[fields][:count] != theirs[fields][:count]
        same = int(differs.argmax()) if differs.any() else count
        bits = (ours["bits"][:count] - theirs["bits"][:count]) / log.bits
        before = contributions(self._video, log, self.quality, log)[:count]
        gained = contributions(self._video, trial, self.quality, log)[:count] - before
        cost = 100 * (bits - gained / self.quality_per_bits)
        sums = np.append(0.0, np.cumsum(cost))
        if same < max(len(ours), len(theirs)):
            sums[same + 1 :] = np.nan
        # Frames shown again belong to what was coded before them.
        coded = np.flatnonzero(theirs["is_shown_again"][:count] == 0)
        at = np.full(len(candidate.trajectory) + 1, np.nan)
        at[: len(coded)] = sums[coded]
        if same == len(theirs) == len(ours):
            at[-1] = sums[-1]
        return at

    def land(self, best: Candidate, tolerance: float, max_encodes: int | None = None) -> Candidate:
        """Bring a candidate to the target; return the closest of all that was tried.

        All quantiser steps are moved alike, which runs along the rate-distortion curve.

        Args:
            best: The candidate.
            tolerance: How close to the target is close enough, as a share of it.
            max_encodes: The number of encodes, those before included, that is not exceeded.
        """
        closest = best
        tried = [(0.0, self.excess(best.log))]  # offset, what it gave
        for _ in range(LANDINGS):
            if abs(closest.log.overshoot) <= tolerance or self.encodes == max_encodes:
                break
            offset = next_offset(tried, self.bits_per_step)
            found = self.evaluate(best.trajectory.moved(offset))
            tried.append((offset, self.excess(found.log)))
            if abs(found.log.overshoot) < abs(closest.log.overshoot):
                closest = found
        return closest

    def state(self) -> dict[str, Any]:
        """Return all that changes, in a form that JSON takes."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {"origin": dataclasses.asdict(self.origin), **numbers}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.origin = Point(**state["origin"])
        for name in _NUMBERS:
            setattr(self, name, state[name])


def next_offset(tried: list[tuple[float, float]], slope: float) -> float:
    """Return the offset of all quantiser steps, in log2, that should meet the target.

    Args:
        tried: Offsets, and log2 of the bits over the target's that they gave; at least one pair.
        slope: The slope of the second over the first, used where only one pair is there.
    """
    over = [point for point in tried if point[1] > 0]
    under = [point for point in tried if point[1] <= 0]
    if over and under:
        # Between the coarsest and the finest of them, but on neither: the answer is a staircase.
        (low, more), (high, less) = max(over), min(under)
        return low + float(np.clip(more / (more - less), 0.1, 0.9)) * (high - low)
    (near, excess), *others = sorted(tried, key=lambda point: abs(point[1]))
    if others and others[0][0] != near:
        slope = (others[0][1] - excess) / (others[0][0] - near)
    return near - excess / float(np.clip(slope, *_LANDING_SLOPES))
