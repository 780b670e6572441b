"""Safetensors files: a checkpoint's tensors and settings, and dataclasses as tensors."""

import dataclasses
import errno
import json
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vpxrc.errors import InputError

Array = NDArray[Any]

MAX_BYTES = 1 << 30  # a longer file is no checkpoint of ours

# safe_open's complaints: TypeError is of bfloat16, which numpy has no type for.
_UNREADABLE = (SafetensorError, TypeError, ValueError)


def read_tensors(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the tensors of a file and the settings that are written beside them, by name.

    Raises:
        InputError: The file cannot be read, or is no safetensors file.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):  # a device has no end, and a pipe may have no writer
            raise InputError(f"{path}: not a file")
        if status.st_size > MAX_BYTES:
            raise InputError(f"{path}: more than {MAX_BYTES >> 20} MiB, not a checkpoint")
        with open(path, "rb"):  # its errors say more than those of safe_open
            pass
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise InputError(f"{path}: not a checkpoint of an agent") from error


def read_weights(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Return what :func:`read_tensors` does, of a file that a network is made of.

    Raises:
        InputError: The file cannot be read, or has numbers that are not finite.
    """
    tensors, settings = read_tensors(path)
    for name, values in tensors.items():
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(f"{path}: {name} has values that are not finite numbers")
    return tensors, settings


def tensor_bytes(tensors: Mapping[str, Array], settings: Mapping[str, str]) -> bytes:
    """Return a safetensors file; the same tensors and settings give the same bytes.

    The library writes the settings in an order that differs from process to process, so they are
    sorted in its header, https://github.com/huggingface/safetensors#format.

    Args:
        tensors: The arrays by name.
        settings: The texts beside them, by name.
    """
    data = save(dict(tensors), dict(settings))
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    if settings:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


# Dataclasses: a safetensors file is read without running code, which a pickle is not.


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
