"""Safetensors files: a checkpoint's tensors and settings. Reading one runs no code."""

import errno
import json
import os
import pickle
import stat
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vpxrc.errors import InputError

Array = NDArray[Any]

MAX_BYTES = 1 << 30  # a longer file is no checkpoint of ours

# What reading a damaged state of a training can raise, by PyTorch, safetensors, pandas or JSON.
DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    pickle.UnpicklingError,
    SafetensorError,
)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
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
            # By keys(): an open file is no mapping, and cannot be iterated over.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, TypeError, ValueError) as error:  # TypeError: bfloat16
        raise InputError(f"{path}: not a checkpoint") from error


def read_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
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
    # The library writes the memory of an array as it lies, and the shape as if it lay row by row.
    rows = {name: np.asarray(values, order="C") for name, values in tensors.items()}
    data = save(rows, dict(settings))
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    if settings:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]
