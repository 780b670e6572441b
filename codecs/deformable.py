"""Deformable convolutions: each tap is shifted by an offset that is predicted at every place.

Dai et al., "Deformable convolutional networks", ICCV 2017. No special kernel is needed: the shifted
inputs are sampled, and a 1x1 convolution follows.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.layers import Residual, conv, leaky

# The offsets are learned at a tenth of the other weights' rate: with Adam this is a factor.
OFFSET_RATE = 0.1


def deformable_conv2d(x: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3x3 convolution of a map, whose taps are shifted.

    Args:
        x: ``[B, C, H, W]``; outside of it are zeros.
        offsets: ``[B, 18, H, W]``, in cells: down and right of each tap, row by row.
        weight: ``[O, C, 3, 3]``.
        bias: ``[O]``, or None.

    Returns:
        ``[B, O, H, W]``. A place between cells has the bilinear mean of the four around it.
    """
    batch, channels, height, width = x.shape
    rows, columns = torch.meshgrid(
        torch.arange(height, device=x.device), torch.arange(width, device=x.device), indexing="ij"
    )
    taps = torch.arange(3, device=x.device) - 1
    shifts = offsets.view(batch, 9, 2, height, width)
    down = shifts[:, :, 0] + rows + taps.repeat_interleave(3)[:, None, None]
    right = shifts[:, :, 1] + columns + taps.repeat(3)[:, None, None]
    # Sampling takes places from -1 to 1, at the edges of the first and the last cell.
    places = torch.stack([(2 * right + 1) / width - 1, (2 * down + 1) / height - 1], -1)
    sampled = functional.grid_sample(
        x, places.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    columns_of_taps = sampled.view(batch, channels * 9, height, width)
    return functional.conv2d(columns_of_taps, weight.flatten(1)[:, :, None, None], bias)


class DeformableConv2d(nn.Conv2d):
    """A 3x3 deformable convolution, which begins as a plain one.

    Args:
        channels: Channels of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.offset = conv(channels, 18, 3, 1)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, H, W]`` of ``[B, C, H, W]``."""
        return deformable_conv2d(x, OFFSET_RATE * self.offset(x), self.weight, self.bias)


def deformable_residual(channels: int) -> nn.Module:
    """Return a residual block with a deformable convolution in its middle."""
    return Residual(
        *(conv(channels, channels, 3, 1), leaky()),
        *(DeformableConv2d(channels), leaky()),
        conv(channels, channels, 3, 1),
    )
