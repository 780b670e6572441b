"""The constant frame rate of a video, and which of its frames is shown at each of its times."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError

# The rates to choose from where the frames lie on no grid.
USUAL_RATES = tuple(Fraction(rate) for rate in (1, 2, 5, 10, 12, 15, 20, 24, 25, 30, 50, 60))
_NTSC_RATES = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120))
_RATES = (*USUAL_RATES, *_NTSC_RATES, Fraction(48), Fraction(100), Fraction(120), Fraction(240))
_FALLBACK = Fraction(25)  # ffmpeg's rate for streams that have none
TIME_STAMP_ERROR = 2e-3  # seconds; Matroska rounds to whole milliseconds
_SLOT = 0.45  # A frame belongs to a slot if it is at most this share of a frame away from it.
# A clip is at most so many frames for every frame of the file, and so many more.
_MOST_REPEATS, _SPARE = 30, 1000


@dataclass(frozen=True)
class Timing:
    """When the frames of a file are shown at a constant rate.

    Attributes:
        rate: Frames per second.
        shown: int64 ``[num_frames]``, rising: the frame of the file that is shown at each time.
        is_constant: Whether every frame of the file is shown once.
    """

    rate: Fraction
    shown: NDArray[np.int64]
    is_constant: bool


def complete(times: Sequence[Fraction | None], rates: Iterable[Fraction | None]) -> list[Fraction]:
    """Return the times of frames in the order in which they are shown.

    A frame without a time follows the one before it by the rate of the stream. Times that do not
    rise are times of decoding: the same times in order.

    Args:
        times: Seconds, as far as the file has them.
        rates: Rates that the file names, the best one first.
    """
    step = 1 / next((rate for rate in rates if rate), _FALLBACK)
    if all(time is None for time in times):
        return [index * step for index in range(len(times))]
    found: list[Fraction] = []
    known = next(time for time in times if time is not None)
    first = known - step * next(index for index, time in enumerate(times) if time is not None)
    for time in times:
        found.append(time if time is not None else found[-1] + step if found else first)
    return sorted(found)


def at_rate(
    path: str, times: Sequence[Fraction], rate: Fraction, last: Fraction, start: Fraction
) -> Timing:
    """Return when frames are shown at a rate: each from its nearest time until the next one.

    Args:
        path: What messages call the file.
        times: Rising times in seconds, at least one.
        rate: Frames per second.
        last: Seconds that the last frame is shown.
        start: The time of the first frame of the clip in seconds.

    Raises:
        InputError: The frames are so far apart that the clip would mostly be repeats.
    """
    seconds = np.array([float(time - start) for time in (*times, times[-1] + last)])
    # A millionth: halves that floating point has missed are rounded up, too.
    slots = np.floor(seconds * float(rate) + 0.5 + 1e-6).astype(np.int64)
    count = max(int(slots[-1]), 1)
    if count > _MOST_REPEATS * len(times) + _SPARE:
        raise InputError(
            f"{path}: {len(times)} frame(s) are spread over {float(times[-1] - start):,.0f} s, "
            f"which are {count:,} frames at {float(rate):g} per second: a time stamp may be wrong; "
            "else give a lower fps"
        )
    shown = np.searchsorted(slots[:-1], np.arange(count), side="right") - 1
    shown = np.maximum(shown, 0)
    return Timing(rate, shown, np.array_equal(shown, np.arange(len(times))))


def find_timing(
    path: str,
    times: Sequence[Fraction],
    rates: Iterable[Fraction | None],
    tick: Fraction,
    last: Fraction,
) -> Timing:
    """Return the constant rate that suits frames, and when they are shown at it.

    A rate at which every frame has its own time is taken, and then every frame is shown once. Else
    it is a rate on whose grid the frames lie, with gaps between. Elsewhere it is a usual one, 60 at
    most, that is no slower than three quarters of the frames come.

    Args:
        path: What messages call the file.
        times: Rising times in seconds, at least one.
        rates: Rates that the file names, the best one first.
        tick: The unit of the times in seconds.
        last: Seconds that the last frame is shown; 0 where the file does not say.

    Raises:
        InputError: The frames are so far apart that the clip would mostly be repeats.
    """
    named = [rate for rate in rates if rate]
    if len(times) < 2:
        rate = named[0] if named else _FALLBACK
        return Timing(rate, np.arange(len(times)), True)
    seconds = np.array([float(time - times[0]) for time in times])
    steps = np.diff(seconds)
    last = last or Fraction(float(np.median(steps)))
    candidates = _candidates(seconds, named)
    best = _nearest(seconds, candidates, float(tick))
    if best is not None:
        gaps = np.diff(np.rint(seconds * float(best)).astype(np.int64))
        best /= int(np.gcd.reduce(gaps))  # a field rate, or a grid that is finer than the frames
        if gaps.min() == gaps.max():
            return Timing(best, np.arange(len(times)), True)
        if best <= USUAL_RATES[-1] or float(best) <= 1.1 / steps.mean():
            return at_rate(path, times, best, max(last, 1 / best), times[0])
    even = _even(seconds, candidates)
    if even is not None:
        return Timing(even, np.arange(len(times)), True)
    quick = float(np.quantile(steps, 0.25))
    fast = (rate for rate in USUAL_RATES if float(rate) >= 0.97 / max(quick, 1e-3))
    rate = next(fast, USUAL_RATES[-1])
    return at_rate(path, times, rate, max(last, 1 / rate), times[0])


def _candidates(seconds: NDArray[np.float64], named: list[Fraction]) -> list[Fraction]:
    """Return rates that may be meant, without repeats: those named, standard ones, the mean."""
    mean = (len(seconds) - 1) / max(float(seconds[-1]), 1e-9)
    near = [
        rate for rate in _RATES if any(_is_near(rate, one) for one in (mean, *map(float, named)))
    ]
    measured = [Fraction(mean).limit_denominator(bound) for bound in (1, 1001, 100_000)]
    return list(dict.fromkeys([*named, *near, *(rate for rate in measured if rate > 0)]))


def _is_near(rate: Fraction, other: float) -> bool:
    return abs(float(rate) / other - 1) < 0.01


def _nearest(
    seconds: NDArray[np.float64], candidates: list[Fraction], tick: float
) -> Fraction | None:
    """Return the rate on whose grid frames lie, one for each place; None where there is none."""
    misses = {}
    for rate in candidates:
        places = np.rint(seconds * float(rate))
        if (np.diff(places) > 0).all():
            misses[rate] = float(abs(seconds - places / float(rate)).max())
    allowed = [miss for miss in misses.values() if miss <= max(TIME_STAMP_ERROR, tick)]
    # Of those that fit as well as the unit of time can tell, the first.
    fits = (rate for rate, miss in misses.items() if allowed and miss <= min(allowed) + tick / 2)
    return next(fits, None)


def _even(seconds: NDArray[np.float64], candidates: list[Fraction]) -> Fraction | None:
    """Return the rate at which every frame is near its own place; None without one."""
    places = np.arange(len(seconds))
    # Half of the range: the first frame may be as wrong as others.
    misses = {rate: np.ptp(seconds * float(rate) - places) / 2 for rate in candidates}
    best = min(misses, key=lambda rate: misses[rate])
    return best if misses[best] <= _SLOT else None


def arrange(
    target: Path, shown: NDArray[np.int64], row_bytes: int, num_read: int
) -> NDArray[np.uint8]:
    """Repeat and drop rows of a file where they are, and return the file as a map.

    Args:
        target: The file, of ``num_read`` rows.
        shown: The row that goes to each place, rising.
        row_bytes: Length of a row.
        num_read: Number of rows in the file.
    """
    kept, places = np.unique(shown, return_inverse=True)
    with open(target, "r+b") as file:
        file.truncate(max(num_read, len(shown)) * row_bytes)
    rows = np.memmap(target, np.uint8, mode="r+", shape=(max(num_read, len(shown)), row_bytes))
    for place, row in enumerate(kept.tolist()):
        if place != row:
            rows[place] = rows[row]
    for place in range(len(shown) - 1, -1, -1):  # backward: a row moves to the right, or stays
        if places[place] != place:
            rows[place] = rows[places[place]]
    rows.flush()
    with open(target, "r+b") as file:
        file.truncate(len(shown) * row_bytes)
    return np.memmap(target, np.uint8, mode="r", shape=(len(shown), row_bytes))
