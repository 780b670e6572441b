"""Bjøntegaard's BD-rate, and means with bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.errors import InputError

MIN_RATES = 4  # of a curve
NUM_RESAMPLES = 10_000  # of the bootstrap


@dataclass(frozen=True)
class BdRate:
    """A Bjøntegaard delta rate, or the reason why there is none.

    Attributes:
        percent: Mean difference in rate at equal quality, in percent. It is negative if the test
            needs fewer bits, and None unless ``status`` is ``ok``.
        status: ``ok``; or ``no-overlap`` if the curves share no range of quality, ``not-monotonic``
            if a higher rate did not give a higher quality, ``too-few-rates`` if a curve has fewer
            than 4.
        overlap: The shared range of quality as a fraction 0..1 of the range that both curves span.
    """

    percent: float | None
    status: Literal["ok", "no-overlap", "not-monotonic", "too-few-rates"]
    overlap: float


def bd_rate(
    anchor_rate: ArrayLike,
    anchor_quality: ArrayLike,
    test_rate: ArrayLike,
    test_quality: ArrayLike,
) -> BdRate:
    """Return the BD-rate of a test against an anchor.

    Log rate is interpolated over quality by piecewise cubics (pchip) and its mean difference taken
    over the shared range of quality: G. Bjøntegaard, VCEG-M33, 2001, with pchip instead of one
    cubic polynomial.

    Args:
        anchor_rate: ``[n]`` achieved bitrates in any one unit, above 0, in any order.
        anchor_quality: ``[n]`` qualities, higher is better.
        test_rate: ``[m]`` achieved bitrates in the same unit.
        test_quality: ``[m]`` qualities.

    Raises:
        InputError: Rates and qualities differ in number, a rate is not above 0, or a value is not
            finite.
    """
    # Imported here because it loads matplotlib, which every command would wait for.
    import bjontegaard

    anchor = _rate_curve("anchor", anchor_rate, anchor_quality)
    test = _rate_curve("test", test_rate, test_quality)
    if min(len(anchor[0]), len(test[0])) < MIN_RATES:
        return BdRate(None, "too-few-rates", _overlap(anchor[1], test[1]))
    overlap = _overlap(anchor[1], test[1])
    # Repeated rates are no curve either: the spline needs one rate per quality.
    if any(np.diff(values).min() <= 0 for values in (*anchor, *test)):
        return BdRate(None, "not-monotonic", overlap)
    if overlap == 0:
        return BdRate(None, "no-overlap", overlap)
    percent = bjontegaard.bd_rate(
        *anchor, *test, method="pchip", require_matching_points=False, min_overlap=0
    )
    return BdRate(float(percent), "ok", overlap)


def mean_bd_rate(rates: Sequence[BdRate]) -> BdRate:
    """Return the mean of a clip's BD-rates in several qualities.

    Args:
        rates: A BD-rate for each quality, at least one.

    Returns:
        The mean of the percentages and the smallest overlap. Where one of the qualities has no
        BD-rate the mean has none either, for the reason of the first such quality.
    """
    overlap = min(rate.overlap for rate in rates)
    percents = []
    for rate in rates:
        if rate.percent is None:
            return BdRate(None, rate.status, overlap)
        percents.append(rate.percent)
    return BdRate(float(np.mean(percents)), "ok", overlap)


def more_bits(
    anchor_rates: ArrayLike, anchor_qualities: ArrayLike, rates: ArrayLike, qualities: ArrayLike
) -> float | None:
    """Return how many percent more bits some points take than a curve at the same qualities.

    A BD-rate compares two curves; this compares a curve with as few as one point. The curve is a
    pchip of log rate over quality, extended by straight lines beyond its ends.

    Args:
        anchor_rates: Bitrates of the curve, at least two.
        anchor_qualities: Its qualities.
        rates: Bitrates of the points, at least one.
        qualities: Their qualities.

    Returns:
        The mean difference in log rate, as percent; None if the curve's quality does not rise with
        its rate.
    """
    order = np.argsort(np.asarray(anchor_qualities, dtype=np.float64))
    quality = np.asarray(anchor_qualities, dtype=np.float64)[order]
    rate = np.log(np.asarray(anchor_rates, dtype=np.float64))[order]
    if not ((np.diff(quality) > 0).all() and (np.diff(rate) > 0).all()):
        return None
    # Here, because every command and worker starts faster without SciPy.
    from scipy.interpolate import PchipInterpolator

    curve = PchipInterpolator(quality, rate)
    at = np.clip(qualities, quality[0], quality[-1])
    expected = curve(at) + (np.asarray(qualities) - at) * curve.derivative()(at)
    return float(100 * np.expm1((np.log(rates) - expected).mean()))


@dataclass(frozen=True)
class Mean:
    """A mean over clips and its uncertainty.

    Attributes:
        mean: Mean of the values; None if there are none.
        median: Median of the values; None if there are none.
        ci95: 95 % bootstrap interval (low, high) of the mean; None if there are no values.
        n: Number of values.
    """

    mean: float | None
    median: float | None
    ci95: tuple[float, float] | None
    n: int


def mean_ci95(values: ArrayLike, seed: int = 0) -> Mean:
    """Return mean, median and the 95 % percentile bootstrap interval of the mean.

    Args:
        values: ``[n]``, one per clip; n may be 0.
        seed: Seed of the 10,000 resamples. The same values and seed give the same interval.

    Raises:
        InputError: A value is not finite.
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(data).all():
        raise InputError("a mean over clips needs finite values")
    if len(data) == 0:
        return Mean(None, None, None, 0)
    rng = np.random.default_rng(seed)
    means = data[rng.integers(len(data), size=(NUM_RESAMPLES, len(data)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(float(data.mean()), float(np.median(data)), (float(low), float(high)), len(data))


def _rate_curve(
    label: str, rates: ArrayLike, qualities: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return checked rates and qualities, sorted by rate."""
    rate = np.asarray(rates, dtype=np.float64).ravel()
    quality = np.asarray(qualities, dtype=np.float64).ravel()
    if len(rate) != len(quality):
        raise InputError(f"the {label} has {len(rate)} rates and {len(quality)} qualities")
    if not (np.isfinite(rate).all() and np.isfinite(quality).all() and (rate > 0).all()):
        raise InputError(f"the {label}'s rates must be above 0 and all its values finite")
    order = np.argsort(rate, kind="stable")
    return rate[order], quality[order]


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the overlap of two ranges as a fraction of their union."""
    if len(a) == 0 or len(b) == 0:
        return 0.0
    union = max(a.max(), b.max()) - min(a.min(), b.min())
    shared = min(a.max(), b.max()) - max(a.min(), b.min())
    return float(max(shared, 0.0) / union) if union > 0 else 0.0
