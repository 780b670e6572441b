"""Regions of interest in a picture: a quality for each cell of its latent."""

import math
import zlib

import torch
from torch import Tensor
from torch.nn import functional

from vpxrc.codecs.blocks import BLOCK
from vpxrc.errors import InputError

LEVELS = 255  # steps of the qualities of cells


def cell_qualities(quality: Tensor, weights: Tensor, lambdas: tuple[float, float]) -> Tensor:
    """Return the quality of each cell ``[B, h, w]``: the one whose lambda has the cell's weight.

    Args:
        quality: Of pixels with the weight 1, ``[B]``.
        weights: How much a squared error counts, ``[B, H, W]``; 0 in the padding.
        lambdas: Lambda at the qualities 0 and 1.
    """
    shown = functional.avg_pool2d((weights > 0).float(), BLOCK)
    factors = functional.avg_pool2d(weights, BLOCK) / shown
    factors = torch.where(shown > 0, factors, 1.0)
    low, high = lambdas
    return (quality[:, None, None] + factors.log() / math.log(high / low)).clamp(0, 1)


def pack_cells(qualities: Tensor) -> tuple[bytes, Tensor]:
    """Return a stream, and the qualities ``[1, h, w]`` as :func:`unpack_cells` returns them."""
    levels = (qualities * LEVELS).round()
    return zlib.compress(levels.to(torch.uint8).numpy().tobytes(), 9), levels / LEVELS


def unpack_cells(stream: bytes, rows: int, columns: int) -> Tensor:
    """Return the qualities ``[1, rows, columns]`` of a stream.

    Raises:
        InputError: It is damaged, or has another size.
    """
    size = rows * columns
    try:
        inflater = zlib.decompressobj()
        found = inflater.decompress(stream, size + 1)
    except zlib.error as error:
        raise InputError(f"a stream is damaged: {error}") from error
    if len(found) != size or not inflater.eof:
        raise InputError("a stream is damaged: its map of qualities has another size")
    levels = torch.frombuffer(bytearray(found), dtype=torch.uint8)
    return levels.view(1, rows, columns) / LEVELS
