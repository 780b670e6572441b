"""Integer frequencies for the range coder, made of parameters on a fixed grid.

Encoder and decoder call the same functions with the same whole numbers. Floating point is left in
two places: the tables of standard distributions, which depend on no network and no picture, and
the factorised prior's, which depend on the checkpoint alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
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
    bounds = torch.cat([inside, whole], -1).mul_(TOTAL - cells).bitwise_right_shift_(CDF_BITS)
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


def logistic_cdf(u: float) -> float:
    """Return the distribution function of the logistic distribution with mean 0 and scale 1."""
    tail = math.exp(-abs(u))
    return tail / (1 + tail) if u < 0 else 1 / (1 + tail)


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


# Whole numbers on each side of a mixture's centre that its table covers: the first that is enough.
REACHES = (8, 16, 32)
RARE = 2.0**-14  # probability on a side for which no table is made wider
WEIGHT_BITS = 12  # of a softmax
_FINE = 2 * REACHES[-1] + 2  # whole numbers on each side for which a distribution function is kept
_CHUNK = 1 << 12  # mixtures whose tables are made at once


@cache
def _values(cdf: Callable[[float], float]) -> Tensor:
    """Return a distribution function, ``[64, 16, 264]``, whole numbers of ``2^-24`` in float64.

    The value is that at ``number + sixteenth / 16`` for each scale, for each sixteenth, and for the
    whole numbers ``-132..131``. Beyond ``+-66`` it is that of the end.
    """
    steps = range(-_FINE * MEAN_STEPS, _FINE * MEAN_STEPS + 1)
    rows = [
        [cdf(step / MEAN_STEPS / scale_of(index)) for step in steps] for index in range(NUM_SCALES)
    ]
    values = fixed(torch.tensor(rows, dtype=torch.float64)).double()
    at = torch.arange(-2 * _FINE, 2 * _FINE)[None] * MEAN_STEPS + torch.arange(MEAN_STEPS)[:, None]
    reach = _FINE * MEAN_STEPS
    return values[:, at.clamp(-reach, reach) + reach]


@cache
def _spreads(cdf: Callable[[float], float]) -> Tensor:
    """Return how many sixteenths from its mean a distribution of each scale is rare, ``[64]``."""
    scales = next(u / 8 for u in range(1000) if cdf(-u / 8) < RARE)
    return torch.tensor(
        [math.ceil(scales * scale_of(index) * MEAN_STEPS) for index in range(NUM_SCALES)]
    )


@cache
def _weights_of() -> Tensor:
    """Return ``exp(-k / 16)`` for k = 0..255 as whole numbers of ``2^-20``."""
    return torch.tensor([round(math.exp(-k / 16) * 2**20) for k in range(256)])


def mixture_weights(logits: Tensor) -> Tensor:
    """Return a softmax over the first dimension in whole numbers that sum to 4,096, int64."""
    steps = ((logits - logits.amax(0)).double() * 16).round().clamp(-255, 0).long()
    parts = _weights_of()[-steps]
    shares = (parts << WEIGHT_BITS) // parts.sum(0)
    # What the division leaves goes to the first of the largest.
    rest = torch.zeros_like(shares).scatter_(0, shares.argmax(0, keepdim=True), 1)
    return shares + rest * ((1 << WEIGHT_BITS) - shares.sum(0))


class Mixtures:
    """Mixtures of distributions of several families; their tables are those of the coder.

    Attributes:
        centre: ``[n]``, int64, the rounded means; tables are for the distance from them.

    Args:
        cdfs: The distribution function for scale 1 of each of F families.
        families: ``[F, n]``, logits of the families' weights.
        logits: ``[F, K, n]``, of the weights within a family.
        means: ``[F, K, n]``.
        log_scales: ``[F, K, n]``, natural logarithms.
    """

    def __init__(
        self,
        cdfs: Sequence[Callable[[float], float]],
        families: Tensor,
        logits: Tensor,
        means: Tensor,
        log_scales: Tensor,
    ) -> None:
        scales = scale_index(log_scales)
        spreads = torch.stack([_spreads(cdf)[one] for cdf, one in zip(cdfs, scales, strict=True)])
        within = mixture_weights(logits.transpose(0, 1)).transpose(0, 1)
        # Both softmaxes sum to 2^12, so that all weights of a mixture sum to 2^24.
        weights = (mixture_weights(families)[:, None] * within).flatten(0, 1)
        sixteenths = (means.double() * MEAN_STEPS).round().long().flatten(0, 1)
        whole = MEAN_STEPS << 2 * WEIGHT_BITS
        self.centre = ((weights * sixteenths).sum(0) + whole // 2) // whole
        start = self.centre * MEAN_STEPS - MEAN_STEPS // 2 - sixteenths
        # Distributions of little weight are left to the escape, where they are far away.
        need = (start.abs() + spreads.flatten(0, 1)) * (weights >> WEIGHT_BITS > 0)
        self._need = need.amax(0).add_(MEAN_STEPS - 1) // MEAN_STEPS
        self._cdfs = [cdf for cdf in cdfs for _ in range(logits.shape[1])]
        self._scales, self._weights = scales.flatten(0, 1), weights.double()
        self._places, self._sixteenths = start // MEAN_STEPS, start % MEAN_STEPS

    def groups(self) -> Iterator[tuple[Tensor, Table]]:
        """Yield places ``[k]`` (int64) among the mixtures, and their tables, a row for each."""
        reaches = torch.bucketize(self._need, torch.tensor(REACHES[:-1]))
        for number, reach in enumerate(REACHES):
            every = (reaches == number).nonzero()[:, 0]
            for which in torch.split(every, _CHUNK):
                if len(which):
                    yield which, self.tables(which, reach)

    def tables(self, which: Tensor, reach: int) -> Table:
        """Return the tables of some mixtures, for distances up to ``reach`` from the centre."""
        bounds = 2 * reach + 2
        scales, sixteenths, weights = (
            one[:, which] for one in (self._scales, self._sixteenths, self._weights)
        )
        places = (self._places[:, which] + (2 * _FINE - reach)).clamp(0, 4 * _FINE - bounds)
        cdf = torch.zeros(len(which), bounds, dtype=torch.float64)
        for k, function in enumerate(self._cdfs):
            # Whole numbers up to 2^48, which float64 adds exactly.
            runs = _values(function).unfold(-1, bounds, 1)
            cdf.addcmul_(runs[scales[k], sixteenths[k], places[k]], weights[k][:, None])
        return Table(-reach, frequencies(cdf.long() >> 2 * WEIGHT_BITS))
