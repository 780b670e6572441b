"""The enhancement layer: what a decoded picture lacks, coded by a block transform.

The residual is turned into three orthonormal colour planes and 16x16 DCT blocks, quantised by one
step. Every block belongs to one of 8 classes by the sum of its magnitudes; the class is sent, and
gives each coefficient the scale of a Laplace distribution.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from vpxrc.codecs.blocks import BLOCK, colours, dct
from vpxrc.codecs.coder import Decoder, Encoder, Indexed
from vpxrc.codecs.frequencies import (
    Table,
    fixed,
    frequencies,
    laplace_cdf,
    scale_index,
    scale_tables,
)

# Class of a block: how many of these its sum of magnitudes reaches. Class 0 has no coefficients.
THRESHOLDS = (1, 4, 10, 28, 81, 241, 721)
CLASSES = len(THRESHOLDS) + 1
MIN_STEP, STEPS_PER_OCTAVE = 1.0, 8  # of the quantiser
DEAD_ZONE = 0.2  # a coefficient is rounded up from 1/2 + 0.2 of a step: small ones cost too much
_FINER = 3.0  # the Laplace tables' scales are those of the Gaussian ones divided by it


def step_of(index: int) -> float:
    """Return a step of the quantiser in levels of 8 bits."""
    return MIN_STEP * 2 ** (index / STEPS_PER_OCTAVE)


def ideal_step(trade_off: float) -> float:
    """Return the step that suits a Lagrangian, in levels of 8 bits.

    At high rate a step d gives a squared error of ``d^2 / 12`` in each of the three samples of a
    pixel and ``-3 log2(d)`` bits: ``lambda d^2 / 12 - 3 log2(d)`` is least at
    ``d^2 = 18 / (lambda ln 2)``.

    Args:
        trade_off: lambda in ``lambda * MSE + bits per pixel``, MSE in levels of 8 bits.
    """
    return math.sqrt(18 / (trade_off * math.log(2)))


def step_index(trade_off: float) -> int:
    """Return the place of :func:`ideal_step` among the quantiser's steps, 0..255."""
    step = ideal_step(trade_off)
    return min(max(round(math.log2(step / MIN_STEP) * STEPS_PER_OCTAVE), 0), 255)


def _fine_laplace(u: float) -> float:
    return laplace_cdf(u * _FINER)


def coefficients(residual: Tensor) -> Tensor:
    """Return ``[h, w, 3, 16, 16]`` of a residual ``[3, 16 h, 16 w]``, float64."""
    planes = torch.einsum("pc,chw->phw", colours(), residual.double())
    height, width = residual.shape[1:]
    cut = planes.reshape(3, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = cut.permute(1, 3, 0, 2, 4)
    return dct() @ blocks @ dct().T


def residual_of(blocks: Tensor) -> Tensor:
    """Return the residual ``[3, 16 h, 16 w]`` of coefficients; the inverse of the above."""
    planes = (dct().T @ blocks @ dct()).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    return torch.einsum("pc,phw->chw", colours(), planes)


def quantize(blocks: Tensor, step: float) -> Tensor:
    """Return whole numbers, int64."""
    return (blocks.sign() * (blocks.abs() / step + 0.5 - DEAD_ZONE).floor()).long()


def classify(quantized: Tensor) -> Tensor:
    """Return the classes ``[h, w]`` of quantised blocks, int64."""
    sums = quantized.abs().flatten(2).sum(2)
    return (sums[..., None] >= torch.tensor(THRESHOLDS)).sum(-1)


class Enhancement(nn.Module):
    """The statistics of residuals, and their way into a stream and back.

    Attributes:
        magnitudes: ``[8, 3, 16, 16]``, mean magnitude of each coefficient in each class.
        counts: ``[9, 8]``, how often a class follows the class of the block above; the last row
            is for blocks without one.
    """

    magnitudes: Tensor
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A guess, until residuals have been seen: less at high frequencies and in the colours.
        place = torch.arange(BLOCK)
        shape = (
            torch.exp(-(place + place[:, None]) / 6.0)[None]
            * torch.tensor([2.0, 1, 1])[:, None, None]
        )
        sums = torch.tensor([0.1, *THRESHOLDS]) * 1.7
        self.register_buffer("magnitudes", sums[:, None, None, None] * shape / shape.sum())
        self.register_buffer(
            "counts", torch.ones(CLASSES + 1, CLASSES) + 8 * torch.eye(CLASSES + 1)[:, :CLASSES]
        )

    def fit(self, blocks: Iterable[Tensor]) -> None:
        """Take the statistics of quantised residuals ``[h, w, 3, 16, 16]``."""
        sums = self.magnitudes.double().clone()  # the guess counts as one block of each class
        numbers = torch.ones(CLASSES, dtype=torch.float64)
        counts = torch.ones_like(self.counts)
        for quantized in blocks:
            classes = classify(quantized)
            above = _above(classes)
            pairs = (above * CLASSES + classes).flatten()
            counts += torch.bincount(pairs, minlength=counts.numel()).view_as(counts)
            sums.index_add_(0, classes.flatten(), quantized.abs().double().flatten(0, 1))
            numbers += torch.bincount(classes.flatten(), minlength=CLASSES)
        self.magnitudes.copy_(sums / numbers[:, None, None, None])
        self.counts.copy_(counts)

    def coder(self) -> "EnhancementCoder":
        """Return a coder with the statistics as they are now."""
        return EnhancementCoder(self)


def _above(classes: Tensor) -> Tensor:
    """Return the class of the block above each block; those of the first row have number 8."""
    first = torch.full_like(classes[:1], CLASSES)
    return torch.cat([first, classes[:-1]])


class EnhancementCoder:
    """The coder of an :class:`Enhancement`."""

    def __init__(self, model: Enhancement) -> None:
        mean = model.magnitudes.double().clamp(min=1e-6)
        # A rounded Laplace variable of scale b has the mean magnitude 1 / (2 sinh(1 / (2 b))).
        scale = 0.5 / torch.asinh(0.5 / mean) * _FINER
        self._index = scale_index(scale.log()).flatten(1)
        self._classes = _class_tables(model.counts)

    def encode(self, residual: Tensor, step: float) -> tuple[bytes, Tensor]:
        """Return a stream, and the residual as :meth:`decode` returns it.

        Args:
            residual: ``[3, H, W]``, in levels of 8 bits; H and W are multiples of 16.
            step: Step of the quantiser.
        """
        quantized = quantize(coefficients(residual), step)
        classes = classify(quantized)
        encoder = Encoder()
        for row, above in zip(classes, _above(classes), strict=True):
            encoder.add(row, Indexed(above, self._classes))
        coded = classes > 0
        encoder.add(quantized[coded].flatten(), self._tables(classes[coded]))
        return encoder.finish(), residual_of(quantized.double() * step)

    def decode(self, stream: bytes, height: int, width: int, step: float) -> Tensor:
        """Return the residual ``[3, height, width]``, float64.

        Raises:
            InputError: The stream is damaged.
        """
        decoder = Decoder(stream)
        rows, columns = height // BLOCK, width // BLOCK
        above, found = torch.full((columns,), CLASSES), []
        for _ in range(rows):
            above = decoder.take(columns, Indexed(above, self._classes))
            # Class 8 is the escape of a damaged stream.
            above = above.clamp(0, CLASSES - 1)
            found.append(above)
        classes = torch.stack(found)
        coded = classes > 0
        blocks = torch.zeros(rows, columns, 3, BLOCK, BLOCK, dtype=torch.float64)
        tables = self._tables(classes[coded])
        values = decoder.take(len(tables.index), tables)
        decoder.finish()
        blocks[coded] = values.double().view(-1, 3, BLOCK, BLOCK)
        return residual_of(blocks * step)

    def _tables(self, classes: Tensor) -> Indexed:
        return Indexed(self._index[classes].flatten(), scale_tables(_fine_laplace))


def _class_tables(counts: Tensor) -> list[Table]:
    """Return a table of classes for each class of the block above."""
    shares = counts.double() / counts.double().sum(1, keepdim=True)
    cdf = torch.cat([torch.zeros(len(shares), 1), shares.cumsum(1)], 1).clamp(max=1)
    return [Table(0, frequencies(fixed(row))) for row in cdf]
