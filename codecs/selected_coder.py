"""Blocks of residuals to bytes and back, with transforms that are selected block by block.

As in :mod:`vpxrc.codecs.block_coder`, what a decoder computes to know a distribution is exact.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vpxrc.codecs.block_coder import (
    BlockCoder,
    IdealBits,
    add_groups,
    block_operations,
    laplace_tables,
    scale_at,
    scale_index,
    take_groups,
)
from vpxrc.codecs.coder import Decoder, Encoder, Indexed, information
from vpxrc.codecs.exact import exact_pointwise, snap
from vpxrc.codecs.frequencies import (
    CDF_BITS,
    MEAN_STEPS,
    WEIGHT_BITS,
    Table,
    frequencies,
    mixture_weights,
)
from vpxrc.codecs.papers.adaptive_transform import (
    SLOPE,
    BlockModel,
    at_blocks,
    best_round,
    step_of,
)
from vpxrc.codecs.papers.selected_transform import TRANSFORMS, SelectedModel, see
from vpxrc.codecs.residual_blocks import Blocks, Known, modes_of
from vpxrc.errors import InputError

# What the encoder multiplies the price of an error by, one after another. Rounding that looks at
# one coefficient does not see that it changes the scales of later ones.
PRICES = (1.0, 1.5, 0.65, 0.0)
_AT_ONCE = 1 << 9  # blocks, to bound the memory


@dataclass(frozen=True)
class Selection:
    """The distributions of n numbers of transforms.

    Attributes:
        weights: ``[TRANSFORMS, n]``, int64, whole numbers that sum to ``2^WEIGHT_BITS``.
    """

    weights: Tensor

    def groups(self) -> Iterator[tuple[Tensor, Table]]:
        """Yield all places, and their tables, a row for each."""
        bounds = torch.nn.functional.pad(self.weights.T.cumsum(1), (1, 0))
        table = Table(0, frequencies(bounds << (CDF_BITS - WEIGHT_BITS)))
        yield torch.arange(len(bounds)), table


@dataclass(frozen=True)
class Given:
    """What encoder and decoder compute of n blocks before they code them.

    Attributes:
        embedding: ``[n, EMBEDDING]``, float64.
        weights: Of the transforms, ``[TRANSFORMS, n]``.
        expected: ``[n, side^2]``, float32, of the coefficients.
        mean: Of the side information, ``[n, count]``, float64.
        z_index: Its tables.
    """

    embedding: Tensor
    weights: Tensor
    expected: Tensor
    mean: Tensor
    z_index: Tensor


@dataclass(frozen=True)
class Selected:
    """Blocks as whole numbers, and their distributions.

    Attributes:
        choice: ``[n]``, int64, the numbers of the transforms.
        z: ``[n, count]``, int64, the symbols of the side information.
        y: ``[n, side^2]``, int64.
        y_index: ``[n, side^2]``, the tables of ``y``.
        bits: ``[n]``, float64, by the coder's frequencies.
        decoded: ``[n, side^2]``, float32, the residuals, whole numbers.
    """

    choice: Tensor
    z: Tensor
    y: Tensor
    y_index: Tensor
    bits: Tensor
    decoded: Tensor


class SelectedCoder:
    """Codes blocks with the weights that a model has now.

    Args:
        model: The networks.
    """

    def __init__(self, model: SelectedModel) -> None:
        self.model = model.eval().requires_grad_(False)
        self._tables = laplace_tables()
        self._ideal = IdealBits(self._tables)
        self._matrices = model.transform.matrices()
        self._embedding = exact_pointwise(model.embedding)
        self._selection = exact_pointwise(model.selection)
        self._expected = exact_pointwise(model.expected)
        self._prediction = exact_pointwise(model.prediction)
        self._scales = [exact_pointwise(network) for network in model.scales]

    @torch.no_grad()
    def quantize(self, blocks: Blocks, level: Tensor) -> Selected:
        """Return what the coder writes of blocks, at levels ``[n]``.

        Of all transforms and prices of errors, a block gets those with the least ``lambda * squared
        error + bits``.
        """
        numbers = torch.split(torch.arange(len(blocks)), _AT_ONCE)
        parts = [self._best(blocks.take(one), level[one]) for one in numbers]
        names = [field.name for field in dataclasses.fields(Selected)]
        return Selected(*(torch.cat([getattr(one, name) for one in parts]) for name in names))

    def encode(self, blocks: Blocks, level: Tensor) -> tuple[bytes, Selected]:
        """Return the stream of blocks, and what it has.

        It has the transforms of all blocks, then their side information, then their coefficients.
        """
        coded, given = self.quantize(blocks, level), self._given(blocks.known, level)
        encoder = Encoder()
        encoder.add(coded.choice, Selection(given.weights))
        encoder.add(coded.z.flatten(), Indexed(given.z_index.flatten(), self._tables))
        add_groups(encoder, self.model.groups, coded.y, coded.y_index)
        return encoder.finish(), coded

    @torch.no_grad()
    def decode(self, stream: bytes, known: Known, level: Tensor) -> Tensor:
        """Return the residuals ``[n, side^2]`` of a stream.

        Args:
            stream: As :meth:`encode` returned it.
            known: That of the encoder.
            level: ``[n]``.

        Raises:
            InputError: The stream is damaged.
        """
        decoder = Decoder(stream)
        given = self._given(known, level)
        choice = decoder.take(len(level), Selection(given.weights))
        if ((choice < 0) | (choice >= TRANSFORMS)).any():
            raise InputError("a stream is damaged: it has a transform that does not exist")
        index = given.z_index
        z = decoder.take(index.numel(), Indexed(index.flatten(), self._tables)).view(index.shape)
        before = self._before(given, choice, z)
        y = torch.zeros(len(level), self.model.design.side**2, dtype=torch.int64)
        take_groups(decoder, self.model.groups, y, lambda group: self._index(group, before, y))
        decoder.finish()
        return self._decoded(y, given, choice, known, level)

    def _given(self, known: Known, level: Tensor) -> Given:
        """Return what both ends compute before anything is coded."""
        seen = see(known, level, self.model.design.side)
        embedding = self._embedding(seen.magnitudes.T)
        mean, raw = self._prediction(embedding).T.chunk(2, 1)
        return Given(
            embedding.T,
            mixture_weights(self._selection(embedding)),
            self._expected(torch.cat(seen[::-1], 1).T).T.float(),
            (mean * MEAN_STEPS).round() / MEAN_STEPS,
            scale_index(raw),
        )

    def _best(self, blocks: Blocks, level: Tensor) -> Selected:
        """Return the best of all ways to code each of some blocks."""
        # A row for each transform, for each price, and for each block.
        count, ways = len(blocks), TRANSFORMS * len(PRICES)
        choice = torch.arange(TRANSFORMS).repeat_interleave(count * len(PRICES))
        prices = torch.tensor(PRICES).double().repeat_interleave(count).repeat(TRANSFORMS)[:, None]
        given = self._given(blocks.known, level)
        rows = Given(
            given.embedding.repeat(ways, 1),
            given.weights.repeat(1, ways),
            given.expected.repeat(ways, 1),
            given.mean.repeat(ways, 1),
            given.z_index.repeat(ways, 1),
        )
        known = Known(blocks.context.repeat(ways, 1), blocks.surroundings.repeat(ways, 1))
        matrices = self._matrices[choice, :, modes_of(known.context)]
        residuals, levels = blocks.residuals.repeat(ways, 1), level.repeat(ways)
        y = self.model.transform(residuals, matrices, levels) - rows.expected
        z = torch.zeros(rows.mean.shape, dtype=torch.int64)
        if count:  # convolutions do not take none
            found = at_blocks(self.model.analysis, y.abs().log1p()).double() - rows.mean
            z = found.round().long()
        before = self._before(rows, choice, z)
        symbols = torch.zeros(y.shape, dtype=torch.int64)
        index = torch.zeros_like(symbols)
        for number, places in enumerate(self.model.groups):
            index[:, places] = self._index(number, before, symbols)
            scales = scale_at(index[:, places])
            rounded = best_round(y[:, places].double(), scales, SLOPE * prices)
            symbols[:, places] = rounded.long()
        bits = self._ideal(symbols, index).sum(1) + self._ideal(z, rows.z_index).sum(1)
        bits += information(choice, Selection(rows.weights))
        decoded = self._decoded(symbols, rows, choice, known, levels)
        error = (decoded.double() - residuals).square().sum(1)
        cost = bits + SLOPE / step_of(levels).double().square() * error
        best = cost.view(ways, count).argmin(0) * count + torch.arange(count)
        return Selected(
            choice[best], z[best], symbols[best], index[best], bits[best], decoded[best]
        )

    def _before(self, given: Given, choice: Tensor, z: Tensor) -> Tensor:
        """Return the features ``[n, k]`` of the first group's scales, float64."""
        numbers = torch.nn.functional.one_hot(choice, TRANSFORMS)
        return torch.cat([snap(z + given.mean), given.embedding, numbers], 1)

    def _index(self, group: int, before: Tensor, y: Tensor) -> Tensor:
        """Return the tables ``[n, k]`` of the coefficients of a group, from those before it."""
        known = [snap(y[:, places].abs().double().log1p()) for places in self.model.groups[:group]]
        return scale_index(self._scales[group](torch.cat([before, *known], 1).T).T)

    def _decoded(
        self, symbols: Tensor, given: Given, choice: Tensor, known: Known, level: Tensor
    ) -> Tensor:
        """Return the residuals ``[n, side^2]`` of whole numbers."""
        matrices = self._matrices[choice, :, modes_of(known.context)]
        # Whole numbers, as samples are.
        y = symbols.float() + given.expected
        return self.model.transform.inverse(y, matrices, level).round()


Coder = BlockCoder | SelectedCoder


def coder_of(model: BlockModel | SelectedModel) -> Coder:
    """Return what codes with the weights that a model has now."""
    return SelectedCoder(model) if isinstance(model, SelectedModel) else BlockCoder(model)


def operations(model: BlockModel | SelectedModel) -> dict[str, float]:
    """Return multiplications for each sample of a block, of the encoder and of the decoder.

    As in :func:`vpxrc.codecs.block_coder.block_operations`. An encoder that selects does most of
    its work for each transform, and for each price of errors too.
    """
    if isinstance(model, BlockModel):
        return block_operations(model)
    area = model.design.side**2

    def weights(*networks: torch.nn.Module) -> int:
        return sum(
            one.weight.numel()
            for network in networks
            for one in network.modules()
            if isinstance(one, torch.nn.Conv2d)
        )

    transform = 2 * model.design.side**3
    once = weights(model.embedding, model.selection, model.expected, model.prediction)
    each_way = transform + weights(model.scales)
    each_transform = transform + weights(model.analysis) + len(PRICES) * each_way
    return {
        "encoder": (once + TRANSFORMS * each_transform) / area,
        "decoder": (once + each_way) / area,
    }
