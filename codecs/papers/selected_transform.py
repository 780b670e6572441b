"""Transform coding of residual blocks, with transforms that the encoder selects block by block.

This project's own continuation of :mod:`vpxrc.codecs.papers.adaptive_transform`. The encoder tries
several transforms for each block and sends the number of the best one, as AV1's and VVC's encoders
do ("multiple transform selection"). The transforms are orthonormal matrices for rows and columns,
learned for each of AV1's modes of prediction. They start as the DCT (type II), the DST (type VII),
and both mixtures of the two.

A decoder knows more of a block than in the paper: the decoded residual and the samples beside it,
and the prediction. From these one network makes an embedding. Others predict, from the embedding

- how likely each transform is,
- side information z of a few whole numbers,
- with z, and with the coefficients before them, the scales of four groups of coefficients.

A last network predicts the coefficients themselves, and only the rest is coded: a residual is
partly known where the prediction does not meet the samples beside it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.blocks import dct
from vpxrc.codecs.entropy import bits, laplace_cell
from vpxrc.codecs.exact import snap
from vpxrc.codecs.latents import pointwise
from vpxrc.codecs.papers.adaptive_transform import (
    HIDDEN,
    SIDE_INFORMATION,
    SLOPE,
    Curve,
    at_blocks,
    best_round,
    bounded_scale,
    coefficient_groups,
    step_of,
)
from vpxrc.codecs.quantizers import add_noise, straight_through
from vpxrc.codecs.residual_blocks import (
    DIRECTIONS,
    FEATURES,
    MODES,
    Blocks,
    Known,
    modes_of,
    surroundings_of,
)
from vpxrc.errors import InputError

TRANSFORMS = 4  # of each mode
EMBEDDING = 64


@dataclass(frozen=True)
class SelectedDesign:
    """A block codec with selected transforms.

    Attributes:
        side: Samples of a block's side: 4, 8, 16 or 32.
        hidden: Channels of the networks' hidden layers.

    Raises:
        InputError: A field has another value.
    """

    side: int
    hidden: int = 128

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.side not in SIDE_INFORMATION:
            raise InputError(f"blocks have sides of 4, 8, 16 or 32 samples, not {self.side}")
        if self.hidden < 1:
            raise InputError(f"a network has at least 1 channel, not {self.hidden}")


def dst(side: int) -> Tensor:
    """Return the orthonormal DST of type VII, float64, a row for each frequency."""
    places = torch.arange(side, dtype=torch.float64)
    angles = math.pi / (2 * side + 1) * torch.outer(2 * places + 1, places + 1)
    return 2 / math.sqrt(2 * side + 1) * angles.sin()


class Seen(NamedTuple):
    """What the networks see of blocks, on the grid of exact networks, float64.

    Attributes:
        magnitudes: ``[n, magnitudes_of(side)]``: context, level and directions, and the logarithms
            of magnitudes in steps of the quantiser.
        signed: ``[n, signed_of(side)]``, values in steps of the quantiser, compressed by ``asinh``.
    """

    magnitudes: Tensor
    signed: Tensor


def signed_of(side: int) -> int:
    """Return the number of signed values of :class:`Seen`."""
    return surroundings_of(side) - DIRECTIONS - 2 * side


def magnitudes_of(side: int) -> int:
    """Return the number of magnitudes of :class:`Seen`."""
    return FEATURES + 1 + surroundings_of(side) - 2 * side


def see(known: Known, level: Tensor, side: int) -> Seen:
    """Return what the networks see of blocks of a side at levels ``[n]``."""
    directions, values = known.surroundings.double().tensor_split([DIRECTIONS], 1)
    values = values / step_of(level.double())[:, None]
    means, nearest, rest = values.tensor_split([2 * side, 4 * side], 1)
    logarithms = torch.cat([means, rest.abs()], 1).log1p()
    magnitudes = [known.context.double(), level.double()[:, None], directions, logarithms]
    signed = torch.cat([nearest, rest], 1).asinh()
    return Seen(snap(torch.cat(magnitudes, 1)), snap(signed))


class SelectedTransform(nn.Module):
    """Gains and the transforms of each mode.

    A matrix is the exponential of a skew-symmetric one times the matrix at the start.

    Args:
        side: Samples of a block's side.
    """

    start: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.gain, self.inverse_gain = Curve(side * side, -1.0), Curve(side * side, 1.0)
        both = (dct(side), dst(side))
        rows = torch.stack([both[0], both[1], both[0], both[1]])
        columns = torch.stack([both[0], both[1], both[1], both[0]])
        start = torch.stack([rows, columns], 1)[:, :, None].float()
        self.register_buffer("start", start, persistent=False)
        self.angles = nn.Parameter(torch.zeros(TRANSFORMS, 2, MODES + 1, side, side))

    def matrices(self) -> Tensor:
        """Return ``[TRANSFORMS, 2, MODES + 1, side, side]``; the 2 are for rows and columns."""
        skew = self.angles - self.angles.transpose(-1, -2)
        found: Tensor = torch.linalg.matrix_exp(skew) @ self.start
        return found

    def forward(self, x: Tensor, matrices: Tensor, level: Tensor) -> Tensor:
        """Return ``y``, ``[n, side^2]``.

        Args:
            x: Residuals, ``[n, side^2]``.
            matrices: ``[n, 2, side, side]``.
            level: ``[n]``.
        """
        blocks = x.view(-1, self.side, self.side)
        coefficients = matrices[:, 1] @ blocks @ matrices[:, 0].transpose(1, 2)
        gain: Tensor = self.gain(level).exp()
        return coefficients.flatten(1) * gain

    def inverse(self, y: Tensor, matrices: Tensor, level: Tensor) -> Tensor:
        """Return the residuals of ``y``."""
        gain: Tensor = self.inverse_gain(level).exp()
        coefficients = (y * gain).view(-1, self.side, self.side)
        return (matrices[:, 1].transpose(1, 2) @ coefficients @ matrices[:, 0]).flatten(1)


class SelectedModel(nn.Module):
    """The networks of a block codec with selected transforms.

    Args:
        design: Its parts.
    """

    def __init__(self, design: SelectedDesign) -> None:
        super().__init__()
        self.design = design
        side, hidden = design.side, design.hidden
        size, count = side * side, SIDE_INFORMATION[side]
        self.transform = SelectedTransform(side)
        self.embedding = pointwise(magnitudes_of(side), (hidden,), EMBEDDING)
        self.selection = pointwise(EMBEDDING, (HIDDEN,), TRANSFORMS)
        self.expected = pointwise(signed_of(side) + magnitudes_of(side), (hidden, hidden), size)
        for parameter in self.expected[-1].parameters():
            nn.init.zeros_(parameter)
        self.analysis = pointwise(size, (hidden,), count)
        self.prediction = pointwise(EMBEDDING, (hidden,), 2 * count)
        self.groups = coefficient_groups(side)
        known = count + EMBEDDING + TRANSFORMS
        self.scales = nn.ModuleList(
            pointwise(known + number * size // 4, (hidden, hidden), size // 4)
            for number in range(4)
        )

    def objective(self, blocks: Blocks, level: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss ``lambda * squared error + bits`` for each sample, and its parts.

        It is that of :meth:`vpxrc.codecs.papers.adaptive_transform.BlockModel.objective`, for the
        transform that gives each block the least.

        Args:
            blocks: n of them.
            level: ``[n]``.
        """
        seen = Seen(*(one.float() for one in see(blocks.known, level, self.design.side)))
        with torch.no_grad():
            costs = [
                self._costs(blocks, seen, torch.full((len(blocks),), number), level, noisy=False)
                for number in range(TRANSFORMS)
            ]
            weight = SLOPE / step_of(level).square()
            choice = torch.stack([rate + weight * error for rate, error in costs]).argmin(0)
        rate, error = self._costs(blocks, seen, choice, level, noisy=True)
        area = self.design.side**2
        loss = ((rate + weight * error) * step_of(level)).mean() / area
        figures = {"bits": float(rate.detach().mean()), "mse": float(error.detach().mean())}
        return loss, {name: figure / area for name, figure in figures.items()}

    def _costs(
        self, blocks: Blocks, seen: Seen, choice: Tensor, level: Tensor, noisy: bool
    ) -> tuple[Tensor, Tensor]:
        """Return bits ``[n]``, and squared errors ``[n]``, with the chosen transforms.

        Args:
            blocks: n of them.
            seen: What the networks see of them.
            choice: ``[n]``, int64.
            level: ``[n]``.
            noisy: Whether bits have the gradient of noise in place of that of rounding.
        """
        embedding = at_blocks(self.embedding, seen.magnitudes)
        logits = at_blocks(self.selection, embedding)
        rate = functional.cross_entropy(logits, choice, reduction="none") / math.log(2)
        matrices = self.transform.matrices()[choice, :, modes_of(blocks.context)]
        expected = at_blocks(self.expected, torch.cat(seen[::-1], 1))
        y = self.transform(blocks.residuals, matrices, level) - expected
        mean, raw = at_blocks(self.prediction, embedding).chunk(2, 1)
        z = at_blocks(self.analysis, y.abs().log1p()) - mean
        rounded = straight_through(z)
        side_symbols = add_noise(z) if noisy else rounded
        rate = rate + bits(laplace_cell(side_symbols.abs(), bounded_scale(raw)))
        known = torch.cat([rounded + mean, embedding, functional.one_hot(choice, TRANSFORMS)], 1)
        symbols = torch.zeros_like(y)
        scales = torch.zeros_like(y)
        for places, network in zip(self.groups, self.scales, strict=True):
            scales[:, places] = bounded_scale(at_blocks(network, known))
            symbols[:, places] = best_round(y[:, places].detach(), scales[:, places].detach())
            known = torch.cat([known, symbols[:, places].abs().log1p()], 1)
        rate = rate + bits(laplace_cell(symbols.abs(), scales))
        if noisy:
            # The scales learn from what is coded. The transform has a gradient from noise alone.
            noise = bits(laplace_cell(add_noise(y).abs(), scales.detach()))
            rate = rate + noise - noise.detach()
        decoded = self.transform.inverse(y + (symbols - y).detach() + expected, matrices, level)
        return rate, (blocks.residuals - decoded).square().sum(1)
