"""Transforms between pictures and latents at two resolutions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vpxrc.codecs.layers import GDN, conv, silent
from vpxrc.codecs.octave import (
    GoConv,
    GoConvFirst,
    GoTransposedConv,
    Merged,
    Octave,
    OctaveResidual,
    Width,
    leaky_activation,
    no_activation,
)
from vpxrc.codecs.transforms import dct_analysis, dct_synthesis

Block = Callable[[Width], nn.Module]


def leaky_block(width: Width) -> nn.Module:
    """Return a residual block of two octave convolutions with LeakyReLU inside the first."""
    return OctaveResidual(
        GoConv(width, width, 3, 1, leaky_activation), GoConv(width, width, 3, 1, no_activation)
    )


def gdn_block(width: Width) -> nn.Module:
    """Return a residual block of two octave convolutions with GDN inside."""
    return OctaveResidual(*(GoConv(width, width, 3, 1, GDN) for _ in range(2)))


def patch_width(m: int, lowest: int) -> Width:
    """Return the channels of both parts of a latent.

    Args:
        m: Frequencies of a block.
        lowest: How many of them belong to the low part.
    """
    return Width(m - lowest, 4 * lowest)


def haar(y: Tensor) -> Tensor:
    """Return ``[B, 4 C, h/2, w/2]``: the sum and three differences of each 2x2 square, orthonormal.

    Args:
        y: ``[B, C, h, w]``.
    """
    a, b, c, d = y[..., ::2, ::2], y[..., ::2, 1::2], y[..., 1::2, ::2], y[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


def inverse_haar(y: Tensor) -> Tensor:
    """Return ``[B, C, h, w]``, from which :func:`haar` makes ``y``."""
    s, t, u, v = y.chunk(4, 1)
    squares = torch.stack([s + t + u + v, s - t + u - v, s + t - u - v, s - t - u + v], 2) / 2
    return nn.functional.pixel_shuffle(squares.flatten(1, 2), 2)


class OctavePatchAnalysis(nn.Module):
    """From pictures to latents at two resolutions: a linear transform, and a network beside it.

    The linear transform is that of 16x16 blocks. The lowest frequencies of four blocks together
    become the low part, by a Haar transform.

    Args:
        n: Channels of the network at 1/4 of the picture's size, of both parts.
        wide: Channels at 1/8.
        m: Frequencies of a block.
        lowest: How many of them belong to the low part.
        block: Makes a residual block.
    """

    def __init__(self, n: Width, wide: Width, m: int, lowest: int, block: Block) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *(nn.PixelUnshuffle(4), GoConvFirst(48, n, 3, 1, no_activation), block(n)),
            *(GoConv(n, wide, 3, 2, no_activation), block(wide), block(wide)),
        )
        self.high = silent(conv(wide.high, m - lowest, 3))
        self.low = silent(conv(wide.low, 4 * lowest, 3))
        self.shortcut = dct_analysis(m)
        self._lowest = lowest

    def forward(self, x: Tensor) -> Octave:
        """Return latents of pictures ``[B, 3, H, W]``; the high part is ``[B, C, H/16, W/16]``."""
        features, linear = self.main(x), self.shortcut(x)
        low, high = linear[:, : self._lowest], linear[:, self._lowest :]
        return Octave(self.high(features.high) + high, self.low(features.low) + haar(low))


class OctavePatchSynthesis(nn.Module):
    """The mirror image of :class:`OctavePatchAnalysis`."""

    def __init__(self, n: Width, wide: Width, m: int, lowest: int, block: Block) -> None:
        super().__init__()
        latent = patch_width(m, lowest)
        self.main = nn.Sequential(
            *(GoTransposedConv(latent, wide, 3, 2, no_activation), block(wide), block(wide)),
            *(GoTransposedConv(wide, n, 3, 2, no_activation), block(n)),
            Merged(
                silent(conv(n.high, 48, 3, 1)),
                nn.Sequential(silent(conv(n.low, 4 * 48, 3, 1)), nn.PixelShuffle(2)),
            ),
            nn.PixelShuffle(4),
        )
        self.shortcut = dct_synthesis(m)

    def forward(self, y: Octave) -> Tensor:
        """Return pictures ``[B, 3, H, W]``."""
        linear = self.shortcut(torch.cat([inverse_haar(y.low), y.high], 1))
        result: Tensor = self.main(y) + linear
        return result
