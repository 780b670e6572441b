"""Blocks of residuals to bytes and back, with the weights of a trained block codec.

What a decoder computes to know a distribution is exact (:mod:`vpxrc.codecs.exact`). The scales of
``static`` come from the checkpoint and the level alone, by float64. The reconstruction is computed
in float32, and only pixels depend on it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from vpxrc.codecs.coder import Decoder, Encoder, Indexed, information
from vpxrc.codecs.exact import exact_pointwise, snap
from vpxrc.codecs.frequencies import (
    MEAN_STEPS,
    Table,
    fixed,
    frequencies,
    laplace_cdf,
)
from vpxrc.codecs.papers.adaptive_transform import (
    MAX_SCALE,
    MIN_SCALE,
    BlockModel,
    Context,
    Groups,
    Hyperprior,
    Static,
    best_round,
    step_of,
    with_level,
)
from vpxrc.codecs.residual_blocks import Blocks, Known

NUM_SCALES = 64
_LOG_STEP = math.log(MAX_SCALE / MIN_SCALE) / (NUM_SCALES - 1)
TAIL = 9.0  # scales on each side that a table covers; the rest is escaped
MIN_REACH = 3  # whole numbers on each side that a table covers at least


def scale_index(log_scale: Tensor) -> Tensor:
    """Return the nearest of the 64 scales, int64; ``log_scale`` is a natural logarithm."""
    place = (log_scale.double() - math.log(MIN_SCALE)) / _LOG_STEP
    return place.round().clamp(0, NUM_SCALES - 1).long()


def scale_at(index: Tensor) -> Tensor:
    """Return scales, float64."""
    return (index.double() * _LOG_STEP + math.log(MIN_SCALE)).exp()


@cache
def laplace_tables() -> tuple[Table, ...]:
    """Return a table around zero for each of the 64 scales."""
    tables = []
    for scale in scale_at(torch.arange(NUM_SCALES)).tolist():
        reach = max(math.ceil(TAIL * scale), MIN_REACH)
        bounds = [laplace_cdf((k - 0.5) / scale) for k in range(-reach, reach + 2)]
        tables.append(Table(-reach, frequencies(fixed(torch.tensor(bounds).double()))))
    return tuple(tables)


_NEAR = 32  # absolute values whose costs are kept in a matrix


class IdealBits:
    """What the range coder's frequencies say of symbols.

    Args:
        tables: The tables that symbols may have.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        near = torch.arange(-_NEAR, _NEAR + 1)
        self._matrix = torch.stack(
            [information(near, Indexed(torch.zeros_like(near), [table])) for table in tables]
        )
        self._tables = tables

    def __call__(self, symbols: Tensor, index: Tensor) -> Tensor:
        """Return bits, float64.

        Args:
            symbols: Whole numbers, int64.
            index: The table of each symbol, of the same shape.
        """
        found = self._matrix[index, symbols.clamp(-_NEAR, _NEAR) + _NEAR]
        far = symbols.abs() > _NEAR
        found[far] = information(symbols[far], Indexed(index[far], self._tables))
        return found


@dataclass(frozen=True)
class Coded:
    """Blocks as whole numbers, and their distributions.

    Attributes:
        z: ``[n, count]``, int64, the symbols of the side information; count may be 0.
        z_index: ``[n, count]``, the tables of ``z``.
        y: ``[n, side^2]``, int64.
        y_index: ``[n, side^2]``, the tables of ``y``.
        bits: ``[n]``, float64, by the coder's frequencies.
        decoded: ``[n, side^2]``, float32, the residuals, whole numbers.
    """

    z: Tensor
    z_index: Tensor
    y: Tensor
    y_index: Tensor
    bits: Tensor
    decoded: Tensor


def add_groups(encoder: Encoder, groups: Sequence[Tensor], y: Tensor, index: Tensor) -> None:
    """Write coefficients, group by group.

    Args:
        encoder: Of the stream.
        groups: The places of the coefficients of each group, int64.
        y: ``[n, side^2]``, int64.
        index: Of the tables, ``[n, side^2]``.
    """
    for places in groups:
        tables = Indexed(index[:, places].flatten(), laplace_tables())
        encoder.add(y[:, places].flatten(), tables)


def take_groups(
    decoder: Decoder, groups: Sequence[Tensor], y: Tensor, index_of: Callable[[int], Tensor]
) -> None:
    """Read coefficients, group by group.

    Args:
        decoder: Of the stream.
        groups: The places of the coefficients of each group, int64.
        y: ``[n, side^2]``, int64, which gets them.
        index_of: Returns the tables ``[n, k]`` of a group, when ``y`` has the groups before it.

    Raises:
        InputError: The stream is damaged.
    """
    for number, places in enumerate(groups):
        index = index_of(number)
        found = decoder.take(index.numel(), Indexed(index.flatten(), laplace_tables()))
        y[:, places] = found.view(index.shape)


class BlockCoder:
    """Codes blocks with the weights that a model has now.

    Args:
        model: The networks.
    """

    def __init__(self, model: BlockModel) -> None:
        self.model = model.eval().requires_grad_(False)
        entropy = model.entropy
        self._tables = laplace_tables()
        self._z_tables = self._tables
        self._groups = [torch.arange(model.design.side**2)]
        self._ideal = IdealBits(self._tables)
        self._z_ideal = self._ideal
        if isinstance(entropy, Static):
            return
        self._networks = [exact_pointwise(entropy.synthesis)]
        if isinstance(entropy, Groups):
            self._groups = entropy.groups
            self._networks += map(exact_pointwise, entropy.later)
        if isinstance(entropy, Context):
            self._prediction = exact_pointwise(entropy.prediction)
        else:
            self._z_tables = entropy.prior.tables()
            self._z_ideal = IdealBits(self._z_tables)

    @torch.no_grad()
    def quantize(self, blocks: Blocks, level: Tensor) -> Coded:
        """Return what the coder writes of blocks, at levels ``[n]``."""
        y = self.model.transform(blocks.residuals, blocks.context, level)
        entropy, context = self.model.entropy, blocks.context
        mean, z_index = self._known(context, level)
        z = torch.zeros(mean.shape, dtype=torch.int64)
        if not isinstance(entropy, Static) and len(y):  # convolutions do not take none
            z = (entropy.side_information(y).double() - mean).round().long()
        known = self._given(z + mean, context, level)
        symbols = torch.zeros(y.shape, dtype=torch.int64)
        y_index = torch.zeros_like(symbols)
        for number, places in enumerate(self._groups):
            index = self._scales(number, known, symbols, level)
            y_index[:, places] = index
            symbols[:, places] = best_round(y[:, places].double(), scale_at(index)).long()
        bits = self._ideal(symbols, y_index).sum(1) + self._z_ideal(z, z_index).sum(1)
        return Coded(z, z_index, symbols, y_index, bits, self._decoded(symbols, context, level))

    def encode(self, blocks: Blocks, level: Tensor) -> tuple[bytes, Coded]:
        """Return the stream of blocks, and what it has: side information, then coefficients."""
        coded, encoder = self.quantize(blocks, level), Encoder()
        # By columns: the tables of a factorised prior lie channel by channel.
        encoder.add(coded.z.T.flatten(), Indexed(coded.z_index.T.flatten(), self._z_tables))
        add_groups(encoder, self._groups, coded.y, coded.y_index)
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
        decoder, context = Decoder(stream), known.context
        mean, index = self._known(context, level)
        z = decoder.take(index.numel(), Indexed(index.T.flatten(), self._z_tables))
        z = z.view(index.T.shape).T
        given = self._given(z + mean, context, level)
        y = torch.zeros(len(context), self.model.design.side**2, dtype=torch.int64)
        take_groups(decoder, self._groups, y, lambda group: self._scales(group, given, y, level))
        decoder.finish()
        return self._decoded(y, context, level)

    def _known(self, context: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of z, float64, and its tables, both ``[n, count]``."""
        entropy = self.model.entropy
        if isinstance(entropy, Context):
            known = with_level(context.double(), level)
            mean, raw = self._prediction(known.T).T.chunk(2, 1)
            return (mean * MEAN_STEPS).round() / MEAN_STEPS, scale_index(raw)
        count = entropy.prior.channels if isinstance(entropy, Hyperprior) else 0
        index = torch.arange(count).repeat(len(context), 1)
        return torch.zeros(index.shape, dtype=torch.float64), index

    def _given(self, z: Tensor, context: Tensor, level: Tensor) -> Tensor:
        """Return the features ``[n, k]`` of scales, from z after rounding, float64."""
        if isinstance(self.model.entropy, Context):
            z = torch.cat([z, with_level(context.double(), level)], 1)
        return snap(z)

    def _scales(self, group: int, given: Tensor, y: Tensor, level: Tensor) -> Tensor:
        """Return the tables ``[n, k]`` of the coefficients of a group, from those before it."""
        entropy = self.model.entropy
        if isinstance(entropy, Static):
            return scale_index(entropy.scales(level))
        before = [snap(y[:, places].abs().double().log1p()) for places in self._groups[:group]]
        return scale_index(self._networks[group](torch.cat([given, *before], 1).T).T)

    def _decoded(self, symbols: Tensor, context: Tensor, level: Tensor) -> Tensor:
        # Whole numbers, as samples are.
        return self.model.transform.inverse(symbols.float(), context, level).round()


def block_operations(model: BlockModel) -> dict[str, float]:
    """Return multiplications for each sample of a block, of the encoder and of the decoder.

    A DCT counts as two products with its matrix. The encoder has the decoder's entropy networks
    too. Gains, rounding and the range coder are left out.
    """
    area, side = model.design.side**2, model.design.side

    def weights(module: object) -> int:
        if not isinstance(module, torch.nn.Module):
            return 0
        kinds = (torch.nn.Conv2d, torch.nn.Linear)
        return sum(one.weight.numel() for one in module.modules() if isinstance(one, kinds))

    transform, entropy = model.transform, model.entropy
    fixed_part = 0 if hasattr(transform, "forward_matrix") else 2 * side**3
    learned = {
        "encoder": weights(getattr(transform, "forward_network", None)),
        "decoder": weights(getattr(transform, "inverse_network", None)),
    }
    if hasattr(transform, "forward_matrix"):
        learned = {"encoder": area * area, "decoder": area * area}
    shared = weights(getattr(entropy, "synthesis", None))
    shared += weights(getattr(entropy, "later", None))
    shared += weights(getattr(entropy, "prediction", None))
    extra = weights(getattr(entropy, "analysis", None))
    return {
        "encoder": (fixed_part + learned["encoder"] + shared + extra) / area,
        "decoder": (fixed_part + learned["decoder"] + shared) / area,
    }


def steps_around(blocks: Blocks, factor: float) -> Tensor:
    """Return the steps ``[n]`` of AV1 times a factor, within those of the levels."""
    step = blocks.steps * factor
    return step.clamp(float(step_of(torch.tensor(0.0))), float(step_of(torch.tensor(1.0))))
