"""Entropy models: how likely a value of a latent is, for training and for the coder."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.coder import Indexed, Tables
from vpxrc.codecs.frequencies import (
    MAX_SCALE,
    MEAN_STEPS,
    MIN_SCALE,
    Mixtures,
    Table,
    fixed,
    frequencies,
    laplace_cdf,
    logistic_cdf,
    normal_cdf,
    scale_index,
    scale_tables,
)
from vpxrc.codecs.layers import lower_bound
from vpxrc.codecs.quantizers import straight_through

MIN_LIKELIHOOD = 1e-9  # below it the gradient of the logarithm would be useless


def bits(likelihood: Tensor) -> Tensor:
    """Return the information ``[B]`` of a batch of values in bits; the values are independent."""
    return -lower_bound(likelihood, MIN_LIKELIHOOD).log2().flatten(1).sum(1)


class FactorizedPrior(nn.Module):
    """A distribution for each channel, with a learned distribution function.

    ``c(x) = sigmoid(f_5 ... f_1(x))`` with ``f_k(u) = v + tanh(a_k) tanh(v)`` and
    ``v = softplus(H_k) u + b_k``: Ballé et al., "Variational image compression with a scale
    hyperprior", ICLR 2018, appendix 6.1.

    Args:
        channels: Number of channels C.
        init_scale: Rough width of the distributions at the start.
    """

    def __init__(self, channels: int, init_scale: float = 10.0) -> None:
        super().__init__()
        widths = (1, 3, 3, 3, 3, 1)
        gain = init_scale ** (1 / (len(widths) - 1))
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        for before, after in pairwise(widths):
            start = math.log(math.expm1(1 / gain / after))
            self.matrices.append(nn.Parameter(torch.full((channels, after, before), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, after, 1) - 0.5))
            self.factors.append(nn.Parameter(torch.zeros(channels, after, 1)))
        self.channels = channels

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of the distribution functions at ``x``, both ``[C, n]``."""
        u = x[:, None]
        last = len(self.matrices) - 1
        layers = zip(self.matrices, self.biases, self.factors, strict=True)
        for place, (matrix, bias, factor) in enumerate(layers):
            u = functional.softplus(matrix.to(x)) @ u + bias.to(x)
            if place < last:
                u = u + factor.to(x).tanh() * u.tanh()
        return u[:, 0]

    def likelihood(self, z: Tensor) -> Tensor:
        """Return the probability of unit cells around ``z``; both are ``[B, C, h, w]``."""
        values = z.transpose(0, 1).flatten(1)
        found = between(self.logits(values - 0.5), self.logits(values + 0.5))
        return found.view(-1, z.shape[0], *z.shape[2:]).transpose(0, 1)

    @torch.no_grad()
    def tables(self, reach: int = 512, tail: float = 2.0**-20) -> tuple[Table, ...]:
        """Return a table for each channel.

        Args:
            reach: Largest absolute value that a table covers.
            tail: Probability on each side that a table may leave to the escape.
        """
        at = torch.arange(-reach, reach + 1, dtype=torch.float64) - 0.5
        cdf = torch.sigmoid(self.logits(at.expand(self.channels, -1)))
        found = []
        for row in cdf:
            first = min(int((row < tail).sum()), 2 * reach - 1)
            first = max(first - 1, 0)
            end = max(min(int((row <= 1 - tail).sum()), 2 * reach), first + 1)
            found.append(Table(first - reach, frequencies(fixed(row[first : end + 1]))))
        return tuple(found)


def between(low: Tensor, high: Tensor) -> Tensor:
    """Return the probability between two values of a distribution function, given as logits."""
    # Mirrored to the lower tail, where a difference of two sigmoids keeps its digits.
    sign = torch.where(low + high > 0, -1.0, 1.0)
    return (torch.sigmoid(sign * high) - torch.sigmoid(sign * low)).abs()


class Family(Protocol):
    """A family of distributions whose parameters a network predicts for each value."""

    @property
    def parameters(self) -> int:
        """Number of parameters of one value."""

    def likelihood(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Return the probability of unit cells around ``y``.

        Args:
            y: ``[B, M, h, w]``.
            parameters: ``[B, P M, h, w]``, the first parameter of all channels first.

        Returns:
            ``[B, M, h, w]``.
        """

    def rounded(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Return ``y`` as the decoder will have it, with the gradient of the identity."""

    def tables(self, parameters: Tensor) -> tuple[Tensor, Tables]:
        """Return offsets ``[n]`` and the distributions of ``round(y - offset)``.

        Args:
            parameters: ``[P, n]``, on the grid of :mod:`vpxrc.codecs.exact`.
        """


class Gaussian:
    """Normal distributions with a mean and a scale each (Minnen et al., NeurIPS 2018).

    A value is rounded at distances of whole numbers from its mean, so the most likely value is the
    mean itself.
    """

    parameters = 2

    def likelihood(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Return the probability of unit cells around ``y``."""
        mean, raw = parameters.chunk(2, 1)
        return normal_cell((y - mean).abs(), bounded_scale(raw))

    def rounded(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Return ``round(y - mean) + mean``."""
        mean = parameters.chunk(2, 1)[0]
        return straight_through(y - mean) + mean

    def tables(self, parameters: Tensor) -> tuple[Tensor, Tables]:
        """Return the means and the tables of the scales."""
        mean, raw = parameters
        offset = (mean * MEAN_STEPS).round() / MEAN_STEPS
        return offset, Indexed(scale_index(raw), scale_tables(normal_cdf))


@dataclass(frozen=True)
class Shape:
    """A symmetric distribution with mean 0 and scale 1.

    Attributes:
        cdf: Its distribution function.
        cell: The probability of a unit cell whose centre is ``distance >= 0`` away, from the
            distance and the scale.
    """

    cdf: Callable[[float], float]
    cell: Callable[[Tensor, Tensor], Tensor]


def normal_cell(distance: Tensor, scale: Tensor) -> Tensor:
    """Return the normal probability of a unit cell whose centre is ``distance >= 0`` away."""
    upper, lower = (0.5 - distance) / scale, (-0.5 - distance) / scale
    probability: Tensor = torch.special.ndtr(upper) - torch.special.ndtr(lower)
    return probability


def laplace_cell(distance: Tensor, scale: Tensor) -> Tensor:
    """Return Laplace's probability of a unit cell whose centre is ``distance >= 0`` away."""
    upper = (0.5 - distance) / scale
    tail = 0.5 * (-upper.abs()).exp()
    below = 0.5 * ((-0.5 - distance) / scale).exp()
    return torch.where(upper < 0, tail, 1 - tail) - below


def logistic_cell(distance: Tensor, scale: Tensor) -> Tensor:
    """Return the logistic probability of a unit cell whose centre is ``distance >= 0`` away."""
    return torch.sigmoid((0.5 - distance) / scale) - torch.sigmoid((-0.5 - distance) / scale)


NORMAL = Shape(normal_cdf, normal_cell)
LAPLACE = Shape(laplace_cdf, laplace_cell)
LOGISTIC = Shape(logistic_cdf, logistic_cell)


class Mixture:
    """Mixtures of K distributions of each of F families.

    With three normal distributions it is that of Cheng et al., CVPR 2020. With three families it
    is the Gaussian-Laplacian-logistic mixture of Fu et al., arXiv 2107.06463: each family has a
    weight, and each distribution has a weight within its family.

    Args:
        families: The families.
        components: K.
    """

    def __init__(self, families: Sequence[Shape], components: int) -> None:
        self.families, self.components = tuple(families), components

    @property
    def parameters(self) -> int:
        """Weights, means and scales; then the families' weights, where there are several."""
        count = len(self.families)
        return 3 * count * self.components + (count if count > 1 else 0)

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the families' logits ``[F, ...]``, and logits, means and scales ``[F, K, ...]``.

        Args:
            parameters: ``[P, ...]``.
        """
        count = len(self.families)
        inner = 3 * count * self.components
        families = parameters[inner:] if count > 1 else torch.zeros_like(parameters[:1])
        parts = torch.unflatten(parameters[:inner], 0, (count, 3, self.components))
        logits, means, raw = parts.unbind(1)
        return families, logits, means, raw

    def likelihood(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Return the probability of unit cells around ``y``."""
        shape = (self.parameters, y.shape[1])
        by_channel = torch.unflatten(parameters, 1, shape).transpose(0, 1)
        outer, logits, means, raw = self._split(by_channel)
        distance, scale = (y - means).abs(), bounded_scale(raw)
        weights = logits.softmax(1) * outer.softmax(0)[:, None]
        return torch.stack(
            [
                (weights[f] * family.cell(distance[f], scale[f])).sum(0)
                for f, family in enumerate(self.families)
            ]
        ).sum(0)

    def rounded(self, y: Tensor, parameters: Tensor) -> Tensor:
        """Return ``round(y)``: a mixture has no single mean to start from."""
        return straight_through(y)

    def tables(self, parameters: Tensor) -> tuple[Tensor, Tables]:
        """Return the rounded means of the mixtures, and a table for each value."""
        cdfs = [shape.cdf for shape in self.families]
        mixtures = Mixtures(cdfs, *self._split(parameters))
        return mixtures.centre.double(), mixtures


def bounded_scale(raw: Tensor) -> Tensor:
    """Return ``exp(raw)``, kept within the scales of the coder's tables."""
    return lower_bound(raw, math.log(MIN_SCALE)).clamp(max=math.log(MAX_SCALE)).exp()
