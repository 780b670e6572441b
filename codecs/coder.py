"""The range coder: whole numbers and their frequencies to bytes and back.

This is the only module that knows the library ``constriction``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import constriction
import numpy as np
import torch
from torch import Tensor

from vpxrc.codecs.frequencies import TOTAL, Table
from vpxrc.errors import EncoderError, InputError

_stream = constriction.stream
_MAX_BITS = 23  # of an escaped number


class Tables(Protocol):
    """The distributions of n symbols."""

    def groups(self) -> Iterator[tuple[Tensor, Table]]:
        """Yield places ``[k]`` (int64) among the symbols, and the table that they share or have."""


@dataclass(frozen=True)
class Indexed:
    """Symbols that share tables.

    Attributes:
        index: ``[n]``, int64, the table of each symbol.
        tables: The tables.
    """

    index: Tensor
    tables: Sequence[Table]

    def groups(self) -> Iterator[tuple[Tensor, Table]]:
        """Yield the places of each table that is used, in the order of the tables."""
        order = self.index.argsort(stable=True)
        counts = torch.bincount(self.index, minlength=len(self.tables)).tolist()
        for places, table in zip(torch.split(order, counts), self.tables, strict=True):
            if len(places):
                yield places, table


def information(symbols: Tensor, tables: Tables) -> Tensor:
    """Return the bits ``[n]`` that symbols take, float64.

    Args:
        symbols: ``[n]``, int64.
        tables: Their distributions.
    """
    found = torch.empty(len(symbols), dtype=torch.float64)
    for places, table in tables.groups():
        values = symbols[places] - table.lowest
        inside = (values >= 0) & (values < table.count)
        coded = torch.where(inside, values, table.count)
        rows = table.frequencies.double().expand(len(places), -1)
        found[places] = -(rows.gather(1, coded[:, None])[:, 0] / TOTAL).log2()
        far = torch.where(values < 0, -2 * values, 2 * (values - table.count) + 1)[~inside]
        escape = math.log2(_MAX_BITS + 1) + far.double().log2().floor()
        found[places[~inside]] += escape
    return found


def by_channel(tables: Sequence[Table], cells: int) -> Indexed:
    """Return the distributions of a latent ``[C, h, w]`` with a table for each channel.

    Args:
        tables: C of them.
        cells: ``h w``.
    """
    return Indexed(torch.arange(len(tables)).repeat_interleave(cells), tables)


def _model(table: Table) -> tuple[Any, tuple[Any, ...]]:
    """Return constriction's model of a table, and the arguments that go with its symbols."""
    # Whole numbers below 2^24 are exact in float32.
    rows = table.frequencies.numpy().astype(np.float32)
    if rows.ndim == 1:
        return _stream.model.Categorical(rows, perfect=False), ()
    return _stream.model.Categorical(perfect=False), (rows,)


class Encoder:
    """Writes one stream."""

    def __init__(self) -> None:
        self._coder = _stream.queue.RangeEncoder()

    def add(self, symbols: Tensor, tables: Tables) -> None:
        """Code whole numbers.

        Args:
            symbols: ``[n]``, int64.
            tables: Their distributions.

        Raises:
            EncoderError: A number is too far outside of its table.
        """
        for places, table in tables.groups():
            values = symbols[places].numpy() - table.lowest
            inside = (values >= 0) & (values < table.count)
            model, parameters = _model(table)
            coded = np.where(inside, values, table.count).astype(np.int32)
            self._coder.encode(coded, model, *parameters)
            for value in values[~inside].tolist():
                self._escape(value, table.count)

    def _escape(self, value: int, count: int) -> None:
        """Code a number outside of 0..count-1 by an Elias gamma code."""
        far = 2 * (value - count) + 1 if value >= count else -2 * value
        length = far.bit_length()
        if length > _MAX_BITS:
            raise EncoderError("a latent is too large to be coded")
        self._coder.encode(length, _stream.model.Uniform(_MAX_BITS + 1))
        if length > 1:
            size = 1 << (length - 1)
            self._coder.encode(far - size, _stream.model.Uniform(size))

    def finish(self) -> bytes:
        """Return the stream."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Reads one stream.

    Args:
        stream: As :meth:`Encoder.finish` returned it.

    Raises:
        InputError: It cannot be a stream.
    """

    def __init__(self, stream: bytes) -> None:
        if len(stream) % 4:
            raise InputError("a stream is damaged: its length is wrong")
        self._coder = _stream.queue.RangeDecoder(np.frombuffer(stream, "<u4").astype(np.uint32))

    def take(self, count: int, tables: Tables) -> Tensor:
        """Return the next numbers ``[count]``, int64.

        Args:
            count: How many there are.
            tables: Their distributions.

        Raises:
            InputError: The stream is damaged.
        """
        symbols = torch.empty(count, dtype=torch.int64)
        for places, table in tables.groups():
            model, parameters = _model(table)
            shared = () if parameters else (len(places),)
            values = self._decode(model, *parameters, *shared).astype(np.int64)
            for place in np.flatnonzero(values == table.count):
                values[place] = self._escaped(table.count)
            symbols[places] = torch.from_numpy(values + table.lowest)
        return symbols

    def _escaped(self, count: int) -> int:
        length = int(self._decode(_stream.model.Uniform(_MAX_BITS + 1)))
        if length == 0:
            raise InputError("a stream is damaged: it has a symbol that no encoder writes")
        far = 1
        if length > 1:
            size = 1 << (length - 1)
            far = size + int(self._decode(_stream.model.Uniform(size)))
        return count + far // 2 if far % 2 else -(far // 2)

    def _decode(self, model: Any, *arguments: Any) -> Any:
        try:
            return self._coder.decode(model, *arguments)
        except (AssertionError, ValueError) as error:
            raise InputError("a stream is damaged: no encoder writes it") from error

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            InputError: The stream goes on.
        """
        if not self._coder.maybe_exhausted():
            raise InputError("a stream is damaged: it goes on after its last symbol")
