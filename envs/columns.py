"""Columns and tables: how an observation is described, computed and documented."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Source = TypeVar("Source")
AnyClass = TypeVar("AnyClass", bound=type)


class Column(NamedTuple):
    """One number of an observation.

    Attributes:
        name: A name that no other column of its table has.
        low: Lower bound.
        high: Upper bound.
        meaning: The quantity, with its unit.
    """

    name: str
    low: float
    high: float
    meaning: str


class Table(Generic[Source]):
    """Columns in order, and the functions that compute them all from one source.

    Args:
        columns: The columns.
        functions: Return the values, each those of some columns; together one per column, in order.
            Values beyond a bound are clipped. They are few, since a function per column takes
            twice as long.

    Attributes:
        columns: The columns.
        functions: As given.
        names: Their names.
        low: Their lower bounds, float32 ``[len(table)]``.
        high: Their upper bounds, float32 ``[len(table)]``.
    """

    def __init__(
        self, columns: Iterable[Column], *functions: Callable[[Source], Sequence[Any]]
    ) -> None:
        self.columns = tuple(columns)
        self.functions = functions
        self.names = tuple(column.name for column in self.columns)
        self.low = np.array([column.low for column in self.columns], np.float32)
        self.high = np.array([column.high for column in self.columns], np.float32)
        size = np.maximum(np.maximum(np.abs(self.low), np.abs(self.high)), 1)
        self._log_size = np.log1p(size)
        self._is_wide = size > 1

    @classmethod
    def joined(cls, tables: Iterable["Table[Source]"]) -> "Table[Source]":
        """Return the columns of several tables of one source, one table after the other."""
        tables = tuple(tables)
        return cls(
            (column for table in tables for column in table),
            *(function for table in tables for function in table.functions),
        )

    def __iter__(self) -> Iterator[Column]:
        """Return the columns one after the other."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.columns)

    def values(self, source: Source) -> list[Any]:
        """Return the values, not yet clipped, one per column.

        Args:
            source: What the values are computed from.
        """
        values: list[Any] = []
        for function in self.functions:
            values += function(source)
        return values

    def row(self, source: Source) -> NDArray[np.float32]:
        """Return the values where each is a number, float32 ``[len(table)]``.

        Args:
            source: What the values are computed from.
        """
        row = np.array(self.values(source), np.float32)
        np.maximum(row, self.low, out=row)
        return np.minimum(row, self.high, out=row)

    def rows(self, source: Source) -> NDArray[np.float32]:
        """Return the values where each is an array ``[n]``, float32 ``[n, len(table)]``.

        Args:
            source: What the values are computed from.
        """
        columns = np.array(self.values(source), np.float32)
        rows = np.empty(columns.shape[::-1], np.float32)
        return np.clip(columns.T, self.low, self.high, out=rows)

    def unit(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a row with every column in [-1, 1], float32 ``[len(table)]``.

        A column whose bounds go beyond 1 becomes sign(x) ln(1 + abs(x)) / ln(1 + bound), so that
        it stays sensitive near 0. The others stay as they are.

        Args:
            row: A row, or the bounds.
        """
        scaled = np.copysign(np.log1p(np.abs(row)) / self._log_size, row)
        return np.where(self._is_wide, scaled, row)

    def markdown(self, first: int = 0) -> str:
        """Return the table of number, name, bounds and meaning, as Gymnasium documents spaces.

        Args:
            first: The number of the first column.
        """
        rows = [
            (str(number), f"`{c.name}`", f"{c.low:g}", f"{c.high:g}", c.meaning)
            for number, c in enumerate(self.columns, first)
        ]
        return markdown_table(("Num", "Column", "Min", "Max", "Meaning"), rows)


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose cells are padded to the width of their column."""
    lines = [tuple(heading), *map(tuple, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(heading))]
    texts = [
        "| " + " | ".join(cell.ljust(n) for cell, n in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


def generated(**parts: str) -> Callable[[AnyClass], AnyClass]:
    """Return a decorator that fills in a class's docstring, so that tables are written once.

    Args:
        parts: By NAME, the text that takes the place of ``<!-- generated: NAME -->``. Further lines
            of it are indented as the first one is.
    """

    def text(match: re.Match[str]) -> str:
        indent, name = match.groups()
        return str(indent) + parts[name].replace("\n", f"\n{indent}")

    def fill(cls: AnyClass) -> AnyClass:
        if cls.__doc__:  # python -OO leaves docstrings out
            cls.__doc__ = re.sub(r"( *)<!-- generated: (\w+) -->", text, cls.__doc__)
        return cls

    return fill
