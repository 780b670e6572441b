"""The orthonormal transforms of blocks: from colours to brightness, and the DCT."""

import math
from functools import cache

import torch
from torch import Tensor

BLOCK = 16  # side of a block in pixels
# Named, because the matrices are kept: the first to ask may be on the device "meta".
_CPU = torch.device("cpu")


@cache
def colours() -> Tensor:
    """Return the orthonormal matrix from R, G, B to brightness and two differences, float64."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], device=_CPU).double()
    return rows / rows.square().sum(1, keepdim=True).sqrt()


@cache
def dct(side: int = BLOCK) -> Tensor:
    """Return the orthonormal DCT-II matrix ``[side, side]``, float64."""
    k = torch.arange(side, dtype=torch.float64, device=_CPU)
    matrix = (math.pi / side * (k + 0.5) * k[:, None]).cos() * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix
