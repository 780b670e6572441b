"""Transform coding of residual blocks, with one model for all rates.

Duong et al., "Multi-rate adaptive transform coding for video compression", ICASSP 2023. A fixed DCT
with learned gains (quantisation matrices) and a learned entropy model, beside learned transforms.
The weights are shared by all rates. What depends on the rate is learned at six levels, and
interpolated between them. Only the abstract and the first page were available: widths, levels, the
loss and the context are ours.

A block ``x`` of a residual becomes ``y = gain * T x``, whole numbers ``y_hat``, and
``S (inverse gain * y_hat)``. Each number of ``y_hat`` has a Laplace distribution with mean zero.

| transform | T and S | gains |
| --- | --- | --- |
| ``scalar`` | DCT | one for all coefficients |
| ``matrix`` | DCT | one for each coefficient, free of each other before and after rounding |
| ``linear`` | learned matrices, which start as the DCT | as in ``matrix`` |
| ``modes`` | orthonormal matrices of each mode of prediction, learned | as in ``matrix`` |
| ``network`` | the DCT plus networks of three layers that start with zeros | in each layer |

| entropy model | the scales of y_hat |
| --- | --- |
| ``static`` | learned for each coefficient and level |
| ``hyperprior`` | predicted from side information z, a few whole numbers for each block |
| ``context`` | predicted from z and the context, known before the block, which also predicts z |
| ``groups`` | as ``context``, in four passes, of which each sees the coefficients of those before |

``modes`` and ``groups`` are this project's.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.blocks import dct
from vpxrc.codecs.entropy import FactorizedPrior, between, bits, laplace_cell
from vpxrc.codecs.exact import snap
from vpxrc.codecs.latents import pointwise
from vpxrc.codecs.layers import lower_bound
from vpxrc.codecs.quantizers import add_noise, straight_through
from vpxrc.codecs.residual_blocks import FEATURES, MODES, Blocks, modes_of
from vpxrc.errors import InputError

MIN_STEP, MAX_STEP = 2.0, 256.0  # quantiser steps of the levels 0 and 1; AV1's go from 0.5 to 228
KNOTS = 6  # levels at which gains are learned
MIN_SCALE, MAX_SCALE = 0.04, 256.0  # of y_hat
SIDE_INFORMATION = {4: 2, 8: 4, 16: 8, 32: 8}  # whole numbers of z by the side of the block
HIDDEN = 64
NETWORK_HIDDEN = 512
# lambda times the squared step: where rate and distortion have one slope at high rate.
SLOPE = 6 / math.log(2)

TRANSFORMS = ("scalar", "matrix", "linear", "modes", "network")
ENTROPY_MODELS = ("static", "hyperprior", "context", "groups")


@dataclass(frozen=True)
class Design:
    """A block codec.

    Attributes:
        side: Samples of a block's side: 4, 8, 16 or 32.
        transform: One of :data:`TRANSFORMS`.
        entropy: One of :data:`ENTROPY_MODELS`.

    Raises:
        InputError: A field has another value.
    """

    side: int
    transform: str
    entropy: str

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.side not in SIDE_INFORMATION:
            raise InputError(f"blocks have sides of 4, 8, 16 or 32 samples, not {self.side}")
        if self.transform not in TRANSFORMS:
            raise InputError(f"a transform is one of {', '.join(TRANSFORMS)}, not {self.transform}")
        if self.entropy not in ENTROPY_MODELS:
            raise InputError(
                f"an entropy model is one of {', '.join(ENTROPY_MODELS)}, not {self.entropy}"
            )


def level_of(step: Tensor) -> Tensor:
    """Return the levels 0..1 of quantiser steps; steps outside have the nearest level."""
    return ((step / MIN_STEP).log() / math.log(MAX_STEP / MIN_STEP)).clamp(0, 1)


def step_of(level: Tensor) -> Tensor:
    """Return the quantiser steps of levels."""
    return MIN_STEP * (level * math.log(MAX_STEP / MIN_STEP)).exp()


class Curve(nn.Module):
    """Values that depend on the level, learned at six knots and linear between them.

    Args:
        size: Number of values.
        slope: The values at the start are ``slope`` times the logarithm of the level's step.
    """

    def __init__(self, size: int, slope: float) -> None:
        super().__init__()
        start = slope * step_of(torch.linspace(0, 1, KNOTS)).log()
        self.values = nn.Parameter(start[:, None].repeat(1, size))

    def forward(self, level: Tensor) -> Tensor:
        """Return ``[n, size]`` at levels ``[n]``."""
        place = level * (KNOTS - 1)
        below = place.floor().clamp(0, KNOTS - 2).long()
        share = (place - below)[:, None].to(self.values)
        found: Tensor = (1 - share) * self.values[below] + share * self.values[below + 1]
        return found


class Transform(nn.Module):
    """The DCT with gains.

    Args:
        side: Samples of a block's side.
        gains: Number of gains of a level: 1, or one for each coefficient.
    """

    matrix: Tensor

    def __init__(self, side: int, gains: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("matrix", dct(side).float(), persistent=False)
        self.gain, self.inverse_gain = Curve(gains, -1.0), Curve(gains, 1.0)

    def forward(self, x: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return ``y``, ``[n, side^2]``.

        Args:
            x: Residuals, ``[n, side^2]``.
            context: ``[n, FEATURES]``.
            level: ``[n]``.
        """
        gain: Tensor = self.gain(level).exp()
        return self.analysis(x, context, level) * gain

    def inverse(self, y: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the residuals of ``y``."""
        return self.synthesis(y * self.inverse_gain(level).exp(), context, level)

    def analysis(self, x: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the coefficients before their gains."""
        blocks = x.view(-1, self.side, self.side)
        return (self.matrix @ blocks @ self.matrix.T).flatten(1)

    def synthesis(self, coefficients: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the residuals of coefficients after their gains."""
        blocks = coefficients.view(-1, self.side, self.side)
        return (self.matrix.T @ blocks @ self.matrix).flatten(1)


class LinearTransform(Transform):
    """Learned matrices, which start as the DCT."""

    def __init__(self, side: int) -> None:
        super().__init__(side, side * side)
        start = torch.kron(dct(side), dct(side)).float()
        self.forward_matrix = nn.Parameter(start.clone())
        self.inverse_matrix = nn.Parameter(start.T.clone())

    def analysis(self, x: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the coefficients before their gains."""
        return x @ self.forward_matrix.T

    def synthesis(self, coefficients: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the residuals of coefficients after their gains."""
        return coefficients @ self.inverse_matrix.T


class ModeTransform(Transform):
    """Orthonormal matrices for rows and for columns of each mode, which start as the DCT.

    A matrix is the exponential of a skew-symmetric one times the DCT.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side, side * side)
        self.angles = nn.Parameter(torch.zeros(2, MODES + 1, side, side))

    def matrices(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrices for the rows and the columns of blocks, ``[n, side, side]`` each."""
        mode = modes_of(context)
        skew = self.angles - self.angles.transpose(-1, -2)
        rows, columns = torch.linalg.matrix_exp(skew) @ self.matrix
        return rows[mode], columns[mode]

    def analysis(self, x: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the coefficients before their gains."""
        rows, columns = self.matrices(context)
        blocks = x.view(-1, self.side, self.side)
        return (columns @ blocks @ rows.transpose(1, 2)).flatten(1)

    def synthesis(self, coefficients: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the residuals of coefficients after their gains."""
        rows, columns = self.matrices(context)
        blocks = coefficients.view(-1, self.side, self.side)
        return (columns.transpose(1, 2) @ blocks @ rows).flatten(1)


class GainedNetwork(nn.Module):
    """Three layers with a gain for each of their outputs; the last one starts with zeros."""

    def __init__(self, size: int) -> None:
        super().__init__()
        widths = (size, NETWORK_HIDDEN, NETWORK_HIDDEN, size)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.gains = nn.ModuleList(Curve(width, 0.0) for width in widths[1:])
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Return ``[n, size]``."""
        for number, (layer, gain) in enumerate(zip(self.layers, self.gains, strict=True)):
            if number:
                x = functional.leaky_relu(x, 0.2)
            x = layer(x) * gain(level).exp()
        return x


class NetworkTransform(Transform):
    """The DCT plus networks, in units of the level's step."""

    def __init__(self, side: int) -> None:
        super().__init__(side, side * side)
        self.forward_network = GainedNetwork(side * side)
        self.inverse_network = GainedNetwork(side * side)

    def analysis(self, x: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the coefficients before their gains."""
        step = step_of(level)[:, None]
        change: Tensor = self.forward_network(x / step, level) * step
        return super().analysis(x, context, level) + change

    def synthesis(self, coefficients: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the residuals of coefficients after their gains."""
        step = step_of(level)[:, None]
        linear = super().synthesis(coefficients, context, level)
        change: Tensor = self.inverse_network(coefficients / step, level) * step
        return linear + change


class Rates(NamedTuple):
    """What an entropy model says of blocks in training.

    Attributes:
        log_scales: ``[n, side^2]``, natural logarithms of the scales of ``y_hat``.
        bits: ``[n]``, of the side information.
    """

    log_scales: Tensor
    bits: Tensor


class Static(nn.Module):
    """A scale for each coefficient and level; there is no side information."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.scales = Curve(side * side, 0.0)

    def forward(self, y: Tensor, context: Tensor, level: Tensor) -> Rates:
        """Return the scales, and no bits."""
        return Rates(self.scales(level), torch.zeros_like(level))


class Hyperprior(nn.Module):
    """Scales from side information, whose distribution is the same for all blocks."""

    def __init__(self, side: int) -> None:
        super().__init__()
        size, count = side * side, SIDE_INFORMATION[side]
        self.analysis = pointwise(size, (HIDDEN,), count)
        self.synthesis = pointwise(count, (HIDDEN,), size)
        self.prior = FactorizedPrior(count)

    def side_information(self, y: Tensor) -> Tensor:
        """Return z, ``[n, count]``, before it is rounded."""
        return at_blocks(self.analysis, y.abs().log1p())

    def forward(self, y: Tensor, context: Tensor, level: Tensor) -> Rates:
        """Return the scales, and the bits of z."""
        z = self.side_information(y)
        noisy = add_noise(z)
        values = noisy.T
        likelihood = between(self.prior.logits(values - 0.5), self.prior.logits(values + 0.5))
        return Rates(at_blocks(self.synthesis, straight_through(z)), bits(likelihood.T))


class Context(nn.Module):
    """Scales from side information and context; the context also predicts the side information."""

    def __init__(self, side: int) -> None:
        super().__init__()
        size, count = side * side, SIDE_INFORMATION[side]
        self.analysis = pointwise(size, (HIDDEN,), count)
        self.synthesis = pointwise(count + FEATURES + 1, (HIDDEN,), size)
        self.prediction = pointwise(FEATURES + 1, (HIDDEN,), 2 * count)

    def side_information(self, y: Tensor) -> Tensor:
        """Return z, ``[n, count]``, before it is rounded."""
        return at_blocks(self.analysis, y.abs().log1p())

    def rounded_side_information(
        self, y: Tensor, context: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return z after rounding, and its bits ``[n]``."""
        z = self.side_information(y)
        mean, raw = at_blocks(self.prediction, with_level(context, level)).chunk(2, 1)
        likelihood = laplace_cell((add_noise(z) - mean).abs(), bounded_scale(raw))
        return straight_through(z - mean) + mean, bits(likelihood)

    def forward(self, y: Tensor, context: Tensor, level: Tensor) -> Rates:
        """Return the scales, and the bits of z."""
        rounded, side_bits = self.rounded_side_information(y, context, level)
        known = torch.cat([rounded, with_level(context, level)], 1)
        return Rates(at_blocks(self.synthesis, known), side_bits)


class Groups(Context):
    """Four groups of coefficients, by the parities of row and column, one after another.

    The scales of a group are also predicted from the magnitudes of the groups before it.
    """

    def __init__(self, side: int) -> None:
        super().__init__(side)
        known = SIDE_INFORMATION[side] + FEATURES + 1
        size = side * side // 4
        self.synthesis = pointwise(known, (HIDDEN,), size)
        self.later = nn.ModuleList(
            pointwise(known + number * size, (HIDDEN,), size) for number in (1, 2, 3)
        )
        self.groups = coefficient_groups(side)

    def forward(self, y: Tensor, context: Tensor, level: Tensor) -> Rates:
        """Return the scales, and the bits of z."""
        rounded, side_bits = self.rounded_side_information(y, context, level)
        known = torch.cat([rounded, with_level(context, level)], 1)
        parts = []
        for places, network in zip(self.groups, (self.synthesis, *self.later), strict=True):
            parts.append(at_blocks(network, known))
            coded = best_round(y[:, places].detach(), bounded_scale(parts[-1].detach()))
            known = torch.cat([known, coded.abs().log1p()], 1)
        order = torch.cat(self.groups).argsort()
        return Rates(torch.cat(parts, 1)[:, order], side_bits)


def coefficient_groups(side: int) -> list[Tensor]:
    """Return the places of the coefficients of four groups, int64; the first has the mean."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    number = (2 * ((row + column) % 2) + row % 2).flatten()
    return [(number == group).nonzero()[:, 0] for group in range(4)]


def with_level(context: Tensor, level: Tensor) -> Tensor:
    """Return the features of blocks with their level, on the grid of exact networks."""
    return torch.cat([context, snap(level)[:, None].to(context)], 1)


def at_blocks(network: nn.Module, features: Tensor) -> Tensor:
    """Return the results ``[n, outputs]`` of 1x1 convolutions for features ``[n, inputs]``."""
    result: Tensor = network(features.T[None, :, :, None])
    return result[0, :, :, 0].T


def bounded_scale(raw: Tensor) -> Tensor:
    """Return ``exp(raw)``, kept within the scales of the tables."""
    return lower_bound(raw, math.log(MIN_SCALE)).clamp(max=math.log(MAX_SCALE)).exp()


def best_round(y: Tensor, scale: Tensor, slope: Tensor | float = SLOPE) -> Tensor:
    """Return whole numbers with the least ``slope * error^2 + bits``.

    The candidates are the two whole numbers around a value, and zero. The error counts as if the
    transform was orthonormal and the gain was one over the level's step.

    Args:
        y: Any shape.
        scale: Of the Laplace distributions, of the same shape.
        slope: Bits for an error of one, not negative.
    """
    magnitude = y.abs()
    low = magnitude.floor()
    # P(0) = 1 - exp(-1/2s), and P(k) = exp(-k/s) sinh(1/2s) for each sign of k > 0.
    at_zero = -(-(-0.5 / scale).exp()).log1p() / math.log(2)
    other = -(0.5 / scale).sinh().log() / math.log(2)

    def cost(k: Tensor) -> Tensor:
        rate = torch.where(k > 0, k / scale / math.log(2) + other, at_zero)
        return slope * (magnitude - k).square() + rate

    best = torch.where(cost(low + 1) < cost(low), low + 1, low)
    best = torch.where(cost(torch.zeros_like(best)) < cost(best), 0.0, best)
    return best * y.sign()


EntropyModel = Static | Hyperprior | Context
_ENTROPY: Mapping[str, Callable[[int], EntropyModel]] = {
    "static": Static,
    "hyperprior": Hyperprior,
    "context": Context,
    "groups": Groups,
}


def _transform(design: Design) -> Transform:
    side = design.side
    kinds: Mapping[str, Callable[[int], Transform]] = {
        "linear": LinearTransform,
        "modes": ModeTransform,
        "network": NetworkTransform,
    }
    if design.transform in kinds:
        return kinds[design.transform](side)
    return Transform(side, 1 if design.transform == "scalar" else side * side)


class BlockModel(nn.Module):
    """The networks of a block codec.

    Args:
        design: Its parts.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.transform = _transform(design)
        self.entropy = _ENTROPY[design.entropy](design.side)

    def objective(self, blocks: Blocks, level: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss ``lambda * squared error + bits`` for each sample, and its parts.

        lambda is ``SLOPE`` over the level's squared step. A block's loss is multiplied by its
        step, because else the levels with many bits would count the most.

        Args:
            blocks: n of them.
            level: ``[n]``.
        """
        x, area = blocks.residuals, self.design.side**2
        y = self.transform(x, blocks.context, level)
        log_scales, side_bits = self.entropy(y, blocks.context, level)
        scales = bounded_scale(log_scales)
        rounded = best_round(y.detach(), scales.detach())
        # The scales learn from what is coded. The transform has a gradient from noise alone.
        coded = bits(laplace_cell(rounded.abs(), scales))
        noisy = bits(laplace_cell(add_noise(y).abs(), scales.detach()))
        rate = (coded + noisy - noisy.detach() + side_bits) / area
        decoded = self.transform.inverse(y + (rounded - y).detach(), blocks.context, level)
        error = (x - decoded).square().mean(1)
        step = step_of(level)
        loss = ((SLOPE / step.square() * error + rate) * step).mean()
        return loss, {"bits": float(rate.detach().mean()), "mse": float(error.detach().mean())}
