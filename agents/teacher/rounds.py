"""A round of lessons in one parquet file.

The file has a row per lesson. A lesson's facts are columns: numbers and words as they are, anything
nested (``options``, ``search``, ``points``, ``saved``, ``source``) as JSON text. Its tables are the
columns ``trajectory`` and ``responses``, each a list with a structure per row of the table.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vpxrc.errors import InputError
from vpxrc.storage import atomic_write, parse_json, read_table

Table = Literal["trajectory", "responses"]
_TABLES: tuple[Table, ...] = get_args(Table)
_NESTED = ("options", "search", "points", "saved", "source")


def write_round(
    path: Path, lessons: Iterable[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]]
) -> None:
    """Write a round; a reader sees the file before or the whole new one.

    Args:
        path: The file.
        lessons: The facts, the trajectory and the responses of each lesson, at least one.

    Raises:
        OutputError: The file cannot be written.
    """
    facts, trajectories, responses = zip(*lessons, strict=True)
    rows = [
        {
            name: json.dumps(value) if name in _NESTED else value
            for name, value in lesson.items()
            if value is not None
        }
        for lesson in facts
    ]
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, Any] = {name: pa.array([row.get(name) for row in rows]) for name in names}
    columns |= {"trajectory": _nested(trajectories), "responses": _nested(responses)}
    with atomic_write(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read_round(path: Path) -> list[dict[str, Any]]:
    """Return the facts of all lessons of a round, in the file's order.

    Raises:
        InputError: The file cannot be read, or is none of :func:`write_round`.
    """
    try:
        names = pq.read_schema(path).names
        if missing := set(_TABLES) - set(names):
            raise ValueError(f"no column {min(missing)}")
        facts = [name for name in names if name not in _TABLES]
        return [
            {
                name: parse_json(value) if name in _NESTED else value
                for name, value in row.items()
                if value is not None
            }
            for row in read_table(path, facts).to_pylist()
        ]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a round of lessons") from error


def lesson_table(path: Path, lesson: int, name: Table) -> pd.DataFrame:
    """Return a table of one lesson.

    Args:
        path: The round.
        lesson: The lesson's row in it, from 0.
        name: Which table.

    Raises:
        InputError: The file cannot be read, or has no such table.
    """
    try:
        column = read_table(path, [name]).column(name)
        rows = column.slice(lesson, 1).combine_chunks().flatten()
        table: pd.DataFrame = pa.Table.from_struct_array(rows).to_pandas(use_threads=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return table


def _nested(tables: Sequence[pd.DataFrame]) -> pa.ListArray:
    """Return a column of lists of structures, a list per table and a structure per row of it."""
    parts = [pa.Table.from_pandas(table, preserve_index=False, nthreads=1) for table in tables]
    # A column of nothing but None has no type until other tables have something there.
    rows = pa.concat_tables(parts, promote_options="permissive").to_struct_array().combine_chunks()
    ends = np.cumsum([0, *map(len, parts)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), rows)
