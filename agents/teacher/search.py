"""A search over the whole trajectory of one clip at one target.

A trajectory is moved along a few directions: the level of a group of pictures, its key frame, its
alternate reference, the layers above, lambdas, single frames. A group hardly changes what is coded
two groups later, so one encode tries a direction in every other group at once, and each group is
judged by itself: by the bits and the quality from there to the next group that was moved. Three
encodes (as it is, coarser, finer) give a parabola per group, and the group goes to its minimum.
What is spent goes with the number of directions, not with directions times groups as it would for
CMA-ES; ``benchmarks/search_methods.py`` compares the two at the same number of encodes.

Judged means by a Lagrangian in percent of the clip's bits: quality is turned into bits by the slope
of the clip's own rate-distortion curve, which one more encode measures at the start.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory
from vpxrc.encoder.log import EncodeLog, psnr
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import UpdateType
from vpxrc.errors import InputError
from vpxrc.evaluation.bd_rate import more_bits
from vpxrc.evaluation.quality import measure
from vpxrc.media.frames import Video
from vpxrc.policies.base import Policy, encode
from vpxrc.policies.libvpx import libvpx_vbr
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write

Quality = Literal["psnr", "psnr_overall", "ssim"]
QUALITIES: tuple[Quality, ...] = ("psnr", "psnr_overall", "ssim")
Direction = Literal["level", "key", "arf", "inner", "frame", "leaf_lambda", "arf_lambda"]
DIRECTIONS: tuple[Direction, ...] = (
    "level",
    "key",
    "arf",
    "inner",
    "frame",
    "leaf_lambda",
    "arf_lambda",
)
ANCHOR_TARGETS = (0.7, 1.0, 1.4)  # of the target, for libvpx-vbr's curve

_BLOCK_FRAMES = 8  # shown; a group of fewer goes with the one before
_PHASES = {"key": 1, "frame": 4}  # every n-th unit is moved at once; 2 where not named
_FULL_STEP = 0.8  # of the way to the parabola's minimum: neighbours move as well
_LANDINGS = 6  # encodes at most that bring the bitrate to the target
_RESERVE = 3  # of them, that are kept where the number of encodes is limited
_USUAL_SLOPES = (-1.0, 1.0)  # of log2 bits per step and of quality per log bits, unmeasured
_SLOPES = (-3.0, -0.3)  # of log2 bits per step, that a landing believes


@dataclass(frozen=True)
class SearchOptions:
    """What is tried, and how far.

    Attributes:
        quality: What is held equal: mean luma PSNR, PSNR of the mean error, or mean SSIM.
        directions: In the order of trying: ``level`` (all frames of a block of groups), ``key``,
            ``arf`` (the base layer and golden frames), ``inner`` (the layers above), ``frame``
            (single leaves), ``leaf_lambda``, ``arf_lambda``.
        step: How far a direction is tried, log2 of the quantiser step or of lambda.
        most: How far a block may go at once, in tried steps.
        tolerance: The target is met this closely at the end.
        max_encodes: Never exceeded: directions that would are passed over, and landing on the
            target comes first; None: as many as it takes.
    """

    quality: Quality = "psnr"
    directions: tuple[Direction, ...] = ("level", "key", "arf", "inner", "level", "arf")
    step: float = 0.35
    most: float = 1.5
    tolerance: float = 0.02
    max_encodes: int | None = None

    def __post_init__(self) -> None:
        """Check the names and the number."""
        if self.max_encodes is not None and self.max_encodes < 1:
            raise InputError(f"max_encodes must be at least 1, not {self.max_encodes}")
        for what, names, known in (
            ("quality", [self.quality], QUALITIES),
            ("direction", self.directions, DIRECTIONS),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"unknown {what} {name!r}: choose from {', '.join(known)}")


@dataclass(frozen=True)
class Point:
    """A point of a rate-distortion plane.

    Attributes:
        bitrate: Achieved, kbit/s.
        psnr: Mean of the frames' luma PSNR, dB.
        psnr_overall: PSNR of the mean error over all planes, dB.
        ssim: Mean of the frames' SSIM; NaN where it was not measured.
    """

    bitrate: float
    psnr: float
    psnr_overall: float
    ssim: float = float("nan")


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found.

    Attributes:
        trajectory: The best one.
        log: Its encode.
        start: Rate and quality where the search started.
        found: Where it ended.
        responses: A row per direction and block: ``round``, ``direction``, ``block``,
            ``first_row`` and ``last_row`` (in the trajectory), ``gradient`` and ``curvature``
            (percent of the clip's bits per log2 step, and per its square), ``move`` (taken).
        encodes: Spent; what a search that goes on has to repeat is not counted twice.
    """

    trajectory: Trajectory
    log: EncodeLog
    start: Point
    found: Point
    responses: pd.DataFrame
    encodes: int


def anchor_curve(
    video: Video, options: EncoderOptions, quality: Quality = "psnr"
) -> tuple[Point, ...]:
    """Return libvpx-vbr's points around a target, for :func:`saved`."""
    targets = [max(1, round(options.target_bitrate * part)) for part in ANCHOR_TARGETS]
    logs = (
        encode(video, dataclasses.replace(options, target_bitrate=target), libvpx_vbr())
        for target in targets
    )
    return tuple(_point(video, log, quality) for log in logs)


def saved(anchors: tuple[Point, ...], point: Point, quality: str) -> float | None:
    """Return the percent of bits that a point saves at equal quality; None without a curve."""
    rates = [anchor.bitrate for anchor in anchors]
    more = more_bits(
        rates, [getattr(a, quality) for a in anchors], [point.bitrate], [getattr(point, quality)]
    )
    return None if more is None else -more


def search(
    video: Video,
    options: EncoderOptions,
    start: Policy,
    search_options: SearchOptions | None = None,
    *,
    state: Path | None = None,
    key: str = "",
    progress: Callable[[int], None] | None = None,
) -> SearchResult:
    """Improve what a policy decides for one clip and target.

    Args:
        video: The clip.
        options: The encoder's options with the target.
        start: The policy that the search starts from.
        search_options: What is tried.
        state: A file that keeps the search after every direction; where one with the same ``key``
            is there already, the search goes on from it. The caller removes it.
        key: Of the state: differs wherever the arguments above do.
        progress: Called with the number of encodes so far.

    Returns:
        The best trajectory seen; where the search gained nothing, the start's, brought to the
        target.

    Raises:
        InputError: The start leaves the decisions to libvpx.
    """
    check_start(start)
    asked = search_options or SearchOptions()
    return _Search(video, options, start, asked, state, key, progress).run()


def check_start(start: Policy) -> None:
    """Refuse a policy that a search cannot start from.

    Raises:
        InputError: It leaves the decisions to libvpx.
    """
    if start.observes:
        raise InputError(
            "a search starts from a policy that decides every frame itself; "
            "this one leaves that to libvpx"
        )


def improve(
    video: Video,
    options: EncoderOptions,
    policy: Policy,
    encodes: int,
    progress: Callable[[int], None] | None = None,
) -> EncodeLog:
    """Return the encode of a policy, improved by a search of so many encodes at most.

    Args:
        video: The clip.
        options: The encoder's options with the target.
        policy: Where the search starts.
        encodes: At least 1, the policy's own included.
        progress: Called with the number of encodes so far.
    """
    # Round after round: the encodes are what ends it, and a direction takes at least three.
    once = SearchOptions().directions
    asked = SearchOptions(directions=once * (1 + encodes // 3 // len(once)), max_encodes=encodes)
    return search(video, options, policy, asked, progress=progress).log


def improve_by(
    spec: str,
    encodes: int,
    video: Video,
    options: EncoderOptions,
    progress: Callable[[int], None],
) -> EncodeLog:
    """Return the encode of a policy by name, improved by a search.

    With ``functools.partial`` it is the ``encode`` of :func:`vpxrc.transcode`.

    Args:
        spec: The policy as :func:`vpxrc.make_policy` takes it.
        encodes: Encodes at most, at least 1.
        video: The clip.
        options: The encoder's options with the target.
        progress: Called with the share of the search that is done, as a number of frames.
    """

    def count(done: int) -> None:
        progress(video.num_frames * min(done, encodes) // encodes)

    return improve(video, options, make_policy(spec), encodes, count)


class _Search:
    """One search; see :func:`search`."""

    _trajectory: Trajectory  # where the search is
    _log: EncodeLog  # of it
    _best: Trajectory
    _best_log: EncodeLog
    _best_score: float
    _first: Point  # where it started
    _start_bits: int
    _start_quality: float
    _bits_per_step: float  # log2 over log2
    _quality_per_bits: float  # per log

    def __init__(
        self,
        video: Video,
        options: EncoderOptions,
        start: Policy,
        search_options: SearchOptions,
        state: Path | None,
        key: str,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._video = video
        self._options = options
        self._start = start
        self._search = search_options
        self._state = state
        self._key = key
        self._progress = progress
        self._encodes = 0
        self._round = 0
        self._responses: list[dict[str, Any]] = []
        self._target_bits = 1000.0 * options.target_bitrate * video.duration

    def run(self) -> SearchResult:
        """Try the directions, land on the target."""
        s = self._search
        if self._state is None or not self._resume(self._state):
            self._begin()
        for place in range(self._round, len(s.directions)):
            self._round, direction = place, s.directions[place]
            phases = _phases(self._trajectory, direction)
            if not phases or not self._affords(len(phases)):
                continue
            move, log2_lambda = self._try(direction, phases)
            # Everything coarser or finer alike runs along the curve: that keeps to the target.
            move -= self._excess(self._log) / self._bits_per_step
            trajectory = self._trajectory.moved(move, log2_lambda)
            self._trajectory, self._log = self._follow(trajectory)
            if (score := self._score(self._log)) < self._best_score:
                self._best, self._best_log = self._trajectory, self._log
                self._best_score = score
            self._round = place + 1
            if self._state is not None:
                self._keep(self._state)
        trajectory, log = self._land()
        return SearchResult(
            trajectory=trajectory,
            log=dataclasses.replace(log, encodes=self._encodes),
            start=self._first,
            found=_point(self._video, log, s.quality),
            responses=pd.DataFrame(self._responses, columns=_RESPONSE),
            encodes=self._encodes,
        )

    def _affords(self, phases: int, before: int = 0) -> bool:
        """Return whether a direction can still be tried, ``before`` encodes from now."""
        price = 2 * phases + 1 + _RESERVE
        most = self._search.max_encodes
        return most is None or self._encodes + before + price <= most

    def _follow(self, trajectory: Trajectory) -> tuple[Trajectory, EncodeLog]:
        """Encode along a trajectory; return the one that was taken, and its log.

        It is another one where libvpx formed other groups than the trajectory was made for.
        """
        recorder = Record(Follow(trajectory))
        log = encode(self._video, self._options, recorder)
        self._count()
        if not trajectory.fits(log):
            trajectory = Trajectory.of(log, recorder.decisions)
        return trajectory, log

    def _count(self, encodes: int = 1) -> None:
        self._encodes += encodes
        if self._progress is not None:
            self._progress(self._encodes)

    def _begin(self) -> None:
        """Take the start's trajectory, and measure where it is on which slope."""
        most = self._search.max_encodes
        recorder = Record(self._start, most)
        log = encode(self._video, self._options, recorder)
        self._count(log.encodes)
        trajectory = Trajectory.of(log, recorder.decisions)
        if self._start.plans_groups and (most is None or self._encodes < most):
            # A trajectory has no plans of groups, so what follows it is another encode.
            trajectory, log = self._follow(trajectory)
        self._trajectory = self._best = trajectory
        self._log = self._best_log = log
        self._first = _point(self._video, log, self._search.quality)
        self._start_bits, self._start_quality = log.bits, self._mean(log)
        self._best_score = 0.0
        self._bits_per_step, self._quality_per_bits = _USUAL_SLOPES
        plans = [len(_phases(self._trajectory, one)) for one in self._search.directions]
        if not any(count and self._affords(count, before=1) for count in plans):
            self._round = len(plans)  # all encodes go to landing
            return
        _, moved = self._follow(self._trajectory.moved(self._search.step))
        bits, quality = np.log(moved.bits / log.bits), self._mean(moved) - self._mean(log)
        # A clip that does not answer to its quantiser (still, lossless) has no slope to speak of.
        self._bits_per_step = float(min(bits / np.log(2) / self._search.step, -0.1))
        self._quality_per_bits = float(max(quality / min(bits, -1e-3), 1e-6))

    def _excess(self, log: EncodeLog) -> float:
        return float(np.log2(log.bits / self._target_bits))

    def _mean(self, log: EncodeLog) -> float:
        return float(_qualities(self._video, log, self._search.quality).sum())

    def _score(self, log: EncodeLog) -> float:
        """Return the percent of bits more than the start's, at equal quality."""
        gained = (self._mean(log) - self._start_quality) / self._quality_per_bits
        return float(100 * (np.log(log.bits / self._start_bits) - gained))

    # One direction

    def _try(
        self, direction: Direction, phases: list[NDArray[np.bool_]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Encode with units moved either way; return the moves of steps and of log2 lambda."""
        t, step = self._trajectory, self._search.step
        units = _units(t, direction)
        move = np.zeros(len(t))
        for chosen in phases:
            costs = [
                self._costs(
                    self._follow(t.moved(**_along(direction, np.where(chosen, sign * step, 0.0))))[
                        1
                    ]
                )
                for sign in (1, -1)
            ]
            numbers, places = np.unique(units[chosen], return_index=True)
            firsts = np.flatnonzero(chosen)[places]
            ends = np.append(firsts[1:], len(t))
            for unit, first, end in zip(numbers.tolist(), firsts, ends, strict=True):
                coarser, finer = (cost[end] - cost[first] for cost in costs)
                if not np.isfinite(coarser + finer):
                    continue  # the groups changed; what was tried is no answer
                answer = _parabola(float(coarser), float(finer), step, self._search.most)
                rows = np.flatnonzero(units == unit)
                move[rows] = answer[-1]
                found = (self._round, direction, unit, *rows[[0, -1]].tolist(), *answer)
                self._responses.append(dict(zip(_RESPONSE, found, strict=True)))
        along = _along(direction, move)
        return along.get("step", np.zeros(len(t))), along.get("log2_lambda", np.zeros(len(t)))

    def _costs(self, trial: EncodeLog) -> NDArray[np.float64]:
        """Return what a trial costs more up to each coded frame, percent of bits; ``[T + 1]``.

        NaN from where the trial has other frames than the encode of the trajectory.
        """
        log = self._log
        ours, theirs = trial.records, log.records
        count = min(len(ours), len(theirs))
        fields = ["show_index", "group_position", "update_type", "layer_depth"]
        differs = ours[fields][:count] != theirs[fields][:count]
        same = int(differs.argmax()) if differs.any() else count
        bits = (ours["bits"][:count] - theirs["bits"][:count]) / log.bits
        quality = self._search.quality
        gained = _qualities(self._video, trial, quality, log)[:count]
        gained = gained - _qualities(self._video, log, quality, log)[:count]
        cost = 100 * (bits - gained / self._quality_per_bits)
        sums = np.append(0.0, np.cumsum(cost))
        if same < max(len(ours), len(theirs)):
            sums[same + 1 :] = np.nan
        # Frames shown again belong to what was coded before them.
        coded = np.flatnonzero(theirs["is_shown_again"][:count] == 0)
        at = np.full(len(self._trajectory) + 1, np.nan)
        at[: len(coded)] = sums[coded]
        if same == len(theirs) == len(ours):
            at[-1] = sums[-1]
        return at

    def _land(self) -> tuple[Trajectory, EncodeLog]:
        """Bring the best trajectory to the target; return the closest of all tried."""
        closest = self._best, self._best_log
        tried = [(0.0, self._excess(self._best_log))]  # offset, what it gave
        most = self._search.max_encodes
        for _ in range(_LANDINGS):
            if abs(closest[1].overshoot) <= self._search.tolerance or self._encodes == most:
                break
            offset = _next_offset(tried, self._bits_per_step)
            found = self._follow(self._best.moved(offset))
            tried.append((offset, self._excess(found[1])))
            if abs(found[1].overshoot) < abs(closest[1].overshoot):
                closest = found
        return closest

    # What is kept

    def _keep(self, path: Path) -> None:
        kept = {
            "key": self._key,
            "trajectory": self._trajectory.to_pandas().to_dict("list"),
            "best": None
            if self._best is self._trajectory
            else self._best.to_pandas().to_dict("list"),
            "first": dataclasses.asdict(self._first),
            "responses": self._responses,
            "numbers": {name: getattr(self, name) for name in _NUMBERS},
        }
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(kept, default=float))

    def _resume(self, path: Path) -> bool:
        try:
            kept = json.loads(path.read_text())
        except (OSError, ValueError):
            return False
        if kept.get("key") != self._key:
            return False
        self._trajectory, self._log = self._follow(_trajectory(kept["trajectory"]))
        self._best, self._best_log = self._trajectory, self._log
        if kept["best"] is not None:
            self._best, self._best_log = self._follow(_trajectory(kept["best"]))
        self._first = Point(**kept["first"])
        self._responses = kept["responses"]
        for name in _NUMBERS:
            setattr(self, name, kept["numbers"][name])
        return True


def _trajectory(columns: dict[str, list[Any]]) -> Trajectory:
    return Trajectory.from_pandas(pd.DataFrame(columns))


_RESPONSE = [
    "round",
    "direction",
    "block",
    "first_row",
    "last_row",
    "gradient",
    "curvature",
    "move",
]
_NUMBERS = [
    "_encodes",
    "_round",
    "_bits_per_step",
    "_quality_per_bits",
    "_start_bits",
    "_start_quality",
    "_best_score",
]


def _next_offset(tried: list[tuple[float, float]], slope: float) -> float:
    """Return the offset of all steps that should meet the target.

    Args:
        tried: Offsets and log2 of the bits over the target's that they gave, at least one.
        slope: Of the second over the first, where one point is all there is.
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
    return near - excess / float(np.clip(slope, *_SLOPES))


def _parabola(coarser: float, finer: float, step: float, most: float) -> tuple[float, float, float]:
    """Return gradient and curvature of what two moves cost, and the move to be made.

    Args:
        coarser: Cost of a step up.
        finer: Cost of a step down.
        step: The step.
        most: The move's limit, in steps.
    """
    gradient, curvature = (coarser - finer) / (2 * step), (coarser + finer) / step**2
    if curvature > 0:
        move = float(np.clip(-_FULL_STEP * gradient / curvature, -most * step, most * step))
    elif min(coarser, finer) < 0:
        move = step if coarser < finer else -step
    else:
        move = 0.0
    return gradient, curvature, move


def _along(direction: Direction, move: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {"log2_lambda" if direction.endswith("lambda") else "step": move}


def blocks(t: Trajectory) -> NDArray[np.int64]:
    """Return the block of every coded frame: one or more golden-frame groups, from 0; ``[T]``."""
    is_first = np.append(True, t.group_index[1:] != t.group_index[:-1])
    starts = np.flatnonzero(is_first)
    ends = np.append(starts[1:], len(t))
    block, frames, result = 0, 0, np.zeros(len(t), dtype=np.int64)
    for start, end in zip(starts, ends, strict=True):
        if frames >= _BLOCK_FRAMES and len(t) - start >= _BLOCK_FRAMES:
            block, frames = block + 1, 0
        result[start:end] = block
        frames += end - start
    return result


def _units(t: Trajectory, direction: Direction) -> NDArray[np.int64]:
    """Return what of a direction each coded frame is moved with, from 0; -1: it is not moved."""
    is_base = (t.update_type == UpdateType.GOLDEN) | (
        (t.update_type == UpdateType.ARF) & (t.layer_depth <= 1)
    )
    is_inner = (t.update_type == UpdateType.ARF) & (t.layer_depth > 1)
    is_leaf, is_key = t.update_type == UpdateType.LEAF, t.update_type == UpdateType.KEY
    moved = {
        "level": np.ones(len(t), dtype=bool),
        "key": is_key,
        "arf": is_base,
        "inner": is_inner,
        "frame": is_leaf,
        "leaf_lambda": is_leaf,
        "arf_lambda": is_base | is_inner,
    }[direction]
    if direction in ("key", "frame"):
        return np.where(moved, np.cumsum(moved) - 1, -1)
    return np.where(moved, blocks(t), -1)


def _phases(t: Trajectory, direction: Direction) -> list[NDArray[np.bool_]]:
    """Return which frames are moved at once, ``[T]`` each: neighbouring units never are."""
    units = _units(t, direction)
    count = _PHASES.get(direction, 2)
    phases = [(units >= 0) & (units % count == phase) for phase in range(count)]
    return [chosen for chosen in phases if chosen.any()]


def _qualities(
    video: Video, log: EncodeLog, quality: Quality, near: EncodeLog | None = None
) -> Any:
    """Return what each row of a log contributes to its quality; they add up to it.

    The PSNR of the mean error is taken along its tangent at ``near``.
    """
    rows = log.records
    shown = rows["is_shown"] != 0
    result = np.zeros(len(rows))
    frames = shown.sum()
    if quality == "psnr":
        result[shown] = psnr(rows["sse_y"][shown] / log.clip.pixels) / frames
    elif quality == "ssim":
        # Not kept: a log is measured where it is needed, and that is not often.
        order = np.argsort(rows["show_index"][shown])
        values = np.empty(frames)
        values[order] = _ssim(video, log)
        result[shown] = values / frames
    else:
        errors = sum(rows[name][shown] for name in ("sse_y", "sse_u", "sse_v"))
        if near is None:
            result[shown] = log.psnr_overall / frames
        else:
            base = near.shown
            mean = sum(base[name].sum() for name in ("sse_y", "sse_u", "sse_v")) / len(base)
            result[shown] = -10 / np.log(10) * errors / max(mean, 1.0) / frames
    return result


def _ssim(video: Video, log: EncodeLog) -> NDArray[np.float64]:
    """Return the SSIM of every shown frame, by show index."""
    decoded = log.options.decode(log.stream, log.clip)
    return measure(decoded, video, ["ssim"])["ssim"].to_numpy()


def _point(video: Video, log: EncodeLog, quality: Quality) -> Point:
    ssim = float("nan")
    if quality == "ssim":
        ssim = float(_ssim(video, log).mean())
    return Point(log.bitrate, log.psnr, log.psnr_overall, ssim)
