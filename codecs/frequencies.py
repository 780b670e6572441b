"""Integer frequencies for the range coder, made of parameters on a fixed grid.

Encoder and decoder call the same functions with the same whole numbers. Floating point is left in
two places: the tables of standard distributions, which depend on no network and no picture, and
the factorised prior's, which depend on the checkpoint alone.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

CDF_BITS = 24  # a cumulative probability is a whole number of 2^-24
FREQUENCY_BITS = 22
TOTAL = 1 << FREQUENCY_BITS

MIN_SCALE, MAX_SCALE, NUM_SCALES = 0.11, 256.0, 64  # Ballé et al., ICLR 2018
LOG_SCALE_STEP = math.log(MAX_SCALE / MIN_SCALE) / (NUM_SCALES - 1)
MEAN_STEPS = 16  # steps of a mean between two whole numbers
TAIL = 5.0  # standard deviations on each side that a table covers; the rest is escaped


@dataclass(frozen=True)
class Table:
    """The distribution of whole numbers in a range, and of an escape for all others.

    Attributes:
        lowest: The first number of the range.
        frequencies: ``[count + 1]`` or, with a row for each symbol, ``[n, count + 1]``, int64; they
            add up to :data:`TOTAL`. The last one is that of the escape.
    """

    lowest: int
    frequencies: Tensor

    @property
    def count(self) -> int:
        """Number of whole numbers in the range."""
        return self.frequencies.shape[-1] - 1


def frequencies(cdf: Tensor) -> Tensor:
    """Return integer frequencies; this is the only way from a distribution to the coder.

    Args:
        cdf: ``[..., count + 1]``, int64, cumulative probabilities in steps of ``2^-24`` at the
            bounds of ``count`` cells that lie side by side, not decreasing.

    Returns:
        ``[..., count + 1]``, int64, each at least 1, sum :data:`TOTAL`: the cells, and last the
        mass outside of them.
    """
    cells = cdf.shape[-1]
    inside = cdf - cdf[..., :1]
    whole = torch.full_like(inside[..., :1], 1 << CDF_BITS)
    # As many as there are frequencies are kept back, one for each.
    bounds = torch.cat([inside, whole], -1) * (TOTAL - cells) >> CDF_BITS
    bounds += torch.arange(cells + 1)
    return bounds.diff(dim=-1)


def scale_index(log_scale: Tensor) -> Tensor:
    """Return the nearest of the 64 scales, int64; ``log_scale`` is a natural logarithm."""
    place = (log_scale.double() - math.log(MIN_SCALE)) / LOG_SCALE_STEP
    return place.round().clamp(0, NUM_SCALES - 1).long()


def scale_of(index: int) -> float:
    """Return a scale, 0.11..256."""
    return MIN_SCALE * math.exp(index * LOG_SCALE_STEP)


def fixed(probability: Tensor) -> Tensor:
    """Return probabilities in steps of ``2^-24``, int64."""
    return (probability.double() * (1 << CDF_BITS)).round().long()


def normal_cdf(u: float) -> float:
    """Return the standard normal distribution function."""
    return 0.5 * math.erfc(-u / math.sqrt(2))


def laplace_cdf(u: float) -> float:
    """Return the distribution function of Laplace with mean 0 and scale 1."""
    return 0.5 * math.exp(u) if u < 0 else 1 - 0.5 * math.exp(-u)


@cache
def scale_tables(cdf: Callable[[float], float], tail: float = TAIL) -> tuple[Table, ...]:
    """Return a table around zero for each of the 64 scales.

    Args:
        cdf: The distribution function for scale 1.
        tail: Scales on each side that a table covers.
    """
    tables = []
    for index in range(NUM_SCALES):
        reach = math.ceil(tail * scale_of(index))
        bounds = [cdf((k - 0.5) / scale_of(index)) for k in range(-reach, reach + 2)]
        tables.append(Table(-reach, frequencies(fixed(torch.tensor(bounds).double()))))
    return tuple(tables)


REACH = 32  # whole numbers on each side of a mixture's centre that its table covers


@cache
def _fine_cdf() -> Tensor:
    """Return the normal distribution function at each scale and each sixteenth, ``[64, n]``."""
    steps = range(-_FINE, _FINE + 1)
    rows = [
        [normal_cdf(step / MEAN_STEPS / scale_of(index)) for step in steps]
        for index in range(NUM_SCALES)
    ]
    return fixed(torch.tensor(rows, dtype=torch.float64))


_FINE = MEAN_STEPS * (2 * REACH + 2)
WEIGHT_TOTAL = 1 << 12  # of a mixture


@cache
def _weights_of() -> Tensor:
    """Return ``exp(-k / 16)`` for k = 0..255 as whole numbers of ``2^-20``."""
    return torch.tensor([round(math.exp(-k / 16) * 2**20) for k in range(256)])


def mixture_weights(logits: Tensor) -> Tensor:
    """Return a softmax over the first dimension in whole numbers that sum to 4,096, int64."""
    steps = ((logits - logits.amax(0)).double() * 16).round().clamp(-255, 0).long()
    parts = _weights_of()[-steps]
    shares = parts * WEIGHT_TOTAL // parts.sum(0)
    # What the division leaves goes to the first of the largest.
    rest = torch.zeros_like(shares).scatter_(0, shares.argmax(0, keepdim=True), 1)
    return shares + rest * (WEIGHT_TOTAL - shares.sum(0))


def normal_mixture(logits: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Table]:
    """Return the tables of mixtures of K normal distributions.

    Args:
        logits: ``[K, n]``, of the weights.
        means: ``[K, n]``.
        log_scales: ``[K, n]``, natural logarithms.

    Returns:
        The centres ``[n]``, int64, and a table with n rows for the distance from them.
    """
    weights = mixture_weights(logits)
    sixteenths = (means.double() * MEAN_STEPS).round().long()
    half = WEIGHT_TOTAL * MEAN_STEPS // 2
    centre = ((weights * sixteenths).sum(0) + half) // (WEIGHT_TOTAL * MEAN_STEPS)
    scale = scale_index(log_scales)
    bounds = torch.arange(-REACH, REACH + 2) * MEAN_STEPS - MEAN_STEPS // 2
    cdf = torch.zeros(len(centre), len(bounds), dtype=torch.int64)
    for k in range(len(logits)):
        distance = bounds + (centre * MEAN_STEPS - sixteenths[k])[:, None]
        part = _fine_cdf()[scale[k][:, None], distance.clamp(-_FINE, _FINE) + _FINE]
        cdf += weights[k][:, None] * part
    return centre, Table(-REACH, frequencies(cdf // WEIGHT_TOTAL))
