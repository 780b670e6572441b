"""Dataclasses as tensors: reading a safetensors file runs no code, unlike reading a pickle."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args, get_origin, get_type_hints

import numpy as np

from vpxrc.tensors import Array


def to_tensors(value: Any, name: str) -> Iterator[tuple[str, Array]]:
    """Yield the arrays that a value is made of, by name.

    Args:
        value: A dataclass, a tuple, a string, a number or an array; fields and elements are again
            one of these.
        name: The name of the value. A field is called ``NAME.FIELD``, an element ``NAME.PLACE``,
            and ``NAME`` itself is a tuple's length.
    """
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from to_tensors(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, tuple):
        yield name, np.asarray(len(value))
        for place, part in enumerate(value):
            yield from to_tensors(part, f"{name}.{place}")
    elif isinstance(value, str):
        yield name, np.frombuffer(value.encode(), np.uint8)
    else:
        yield name, np.asarray(value)


def from_tensors(kind: Any, tensors: Mapping[str, Array], name: str) -> Any:
    """Return the value that :func:`to_tensors` made arrays of.

    Args:
        kind: Its type: a dataclass with annotated fields, ``tuple[KIND, ...]``, ``str``, ``float``
            or an array.
        tensors: The arrays by name.
        name: What the value was called.

    Raises:
        KeyError: There is no such array.
    """
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = {field: from_tensors(of, tensors, f"{name}.{field}") for field, of in hints.items()}
        return cast(Any, kind)(**parts)
    if get_origin(kind) is tuple:
        of, count = get_args(kind)[0], int(tensors[name])
        return tuple(from_tensors(of, tensors, f"{name}.{place}") for place in range(count))
    if kind is str:
        return tensors[name].tobytes().decode()
    return float(tensors[name]) if kind is float else tensors[name]
