"""What a search minimises: the bits of a clip's encode at a target, at equal quality.

Two encodes are compared by a Lagrangian in percent of the clip's bits. Quality is turned into bits
by the slope of the clip's own rate-distortion curve, which one encode measures. The quality
``balanced`` has four slopes, and a frame is worth the mean of what the four qualities say in bits.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.teacher.curve import Measured, Point, Quality, parts
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.media.frames import Video
from vpxrc.policies.base import Policy, encode

LANDINGS = 6  # the most encodes that :meth:`Objective.land` takes

_USUAL_SLOPE = -1.0  # log2 bits per log2 step, until it is measured
# Quality per natural logarithm of the bits. Below, a quality says nothing of bits: it has reached
# its end (VMAF does, at 97 to 100), and the noise between two encodes would become many bits.
_LEAST_SLOPES = {"psnr": 0.3, "psnr_overall": 0.3, "ssim": 1e-5, "vmaf": 1.0}
_LANDING_SLOPES = (-3.0, -0.3)  # least and greatest log2 bits per log2 step that a landing believes
_CHANGING = ("encodes", "bits_per_step", "quality_per_bits")


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trajectory and its encode.

    Attributes:
        trajectory: The decisions as they were taken.
        encode: The encode, measured where it is asked for.
    """

    trajectory: Trajectory
    encode: Measured

    @property
    def log(self) -> EncodeLog:
        """The log of the encode."""
        return self.encode.log


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
        quality_per_bits: Slopes over the natural logarithm of the bits, positive, of the qualities
            that count: one, or as many of the four of ``balanced`` as answer to the bits.
    """

    origin: Point

    def __init__(
        self,
        video: Video,
        options: EncoderOptions,
        quality: Quality = "balanced",
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.quality: Quality = quality
        self.encodes = 0
        self.bits_per_step = _USUAL_SLOPE
        self.quality_per_bits = {part: _LEAST_SLOPES[part] for part in parts(quality)}
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
        candidate = self._candidate(Trajectory.of(log, recorder.decisions), log)
        if policy.plans_groups and (max_encodes is None or self.encodes < max_encodes):
            # A trajectory has no plans of groups, so what follows it is another encode.
            candidate = self.evaluate(candidate.trajectory)
        self.origin = candidate.encode.point
        return candidate

    def measure_slopes(self, start: Candidate, step: float) -> None:
        """Measure the slopes with an encode of the start with all quantiser steps moved.

        Args:
            start: What :meth:`begin` returned.
            step: How far they are moved, log2.
        """
        moved = self.evaluate(start.trajectory.moved(step)).encode
        bits = np.log(moved.log.bits / start.log.bits)
        # A clip that does not answer to its quantiser (still, lossless) has no slope to speak of.
        self.bits_per_step = float(min(bits / np.log(2) / step, -0.1))
        slopes = {}
        for part in parts(self.quality):
            change = moved.contributions(part).sum() - start.encode.contributions(part).sum()
            slopes[part] = float(change / min(bits, -1e-3))
        counted = [part for part, slope in slopes.items() if slope >= _LEAST_SLOPES[part]]
        self.quality_per_bits = {
            part: max(slopes[part], _LEAST_SLOPES[part]) for part in counted or slopes
        }

    def evaluate(self, trajectory: Trajectory) -> Candidate:
        """Encode along a trajectory.

        The candidate's is another one where libvpx formed other groups than the trajectory was made
        for.
        """
        recorder = Record(Follow(trajectory))
        log = self._encode(recorder)
        if not trajectory.fits(log):
            trajectory = Trajectory.of(log, recorder.decisions)
        return self._candidate(trajectory, log)

    def _candidate(self, trajectory: Trajectory, log: EncodeLog) -> Candidate:
        return Candidate(trajectory, Measured(self._video, log, self.quality))

    def _encode(self, recorder: Record) -> EncodeLog:
        log = encode(self._video, self._options, recorder)
        self.encodes += log.encodes
        if self._progress is not None:
            self._progress(self.encodes)
        return log

    def excess(self, log: EncodeLog) -> float:
        """Return log2 of an encode's bits over the target's."""
        return float(np.log2(log.bits / self._target_bits))

    def score(self, candidate: Candidate) -> float:
        """Return the percent of bits that an encode takes more than the first, at equal quality."""
        point = candidate.encode.point
        gained = [
            (getattr(point, part) - getattr(self.origin, part)) / slope
            for part, slope in self.quality_per_bits.items()
        ]
        return float(100 * (np.log(point.bitrate / self.origin.bitrate) - np.mean(gained)))

    def costs(self, trial: Candidate, candidate: Candidate) -> NDArray[np.float64]:
        """Return what a trial costs more than a candidate up to each of its coded frames.

        Returns:
            Percent of the candidate's bits, float64 ``[T + 1]``: before the first coded frame,
            before the second and so on, and at the end. It is NaN from where the trial has other
            frames than the candidate.
        """
        log = candidate.log
        ours, theirs = trial.log.records, log.records
        count = min(len(ours), len(theirs))
        fields = ["show_index", "group_position", "update_type", "layer_depth"]
        differs = ours[fields][:count] != theirs[fields][:count]
        same = int(differs.argmax()) if differs.any() else count
        bits = (ours["bits"][:count] - theirs["bits"][:count]) / log.bits
        gained = []
        for part, slope in self.quality_per_bits.items():
            before = candidate.encode.contributions(part, log)[:count]
            gained.append((trial.encode.contributions(part, log)[:count] - before) / slope)
        cost = 100 * (bits - np.mean(gained, axis=0))
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
        changing = {name: getattr(self, name) for name in _CHANGING}
        return {"origin": dataclasses.asdict(self.origin), **changing}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.origin = Point(**state["origin"])
        for name in _CHANGING:
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
