"""Analysis and synthesis transforms: picture to latent and back."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vpxrc.codecs.blocks import BLOCK, colours, dct
from vpxrc.codecs.layers import (
    GDN,
    Attention,
    Residual,
    UpBlock,
    conv,
    deconv,
    down_block,
    igdn,
    leaky,
    residual_block,
    silent,
)

UNIT = 0.5  # of its values: about the best step of a quantiser at the lowest quality
MIDDLE = 0.5  # of a picture's values


def analysis(n: int, m: int) -> nn.Sequential:
    """Return four 5x5 convolutions of stride 2 with GDN between them (Ballé et al., ICLR 2018).

    Args:
        n: Channels inside.
        m: Channels of the latent: ``[B, 3, H, W]`` becomes ``[B, m, H/16, W/16]``.
    """
    return nn.Sequential(conv(3, n), GDN(n), conv(n, n), GDN(n), conv(n, n), GDN(n), conv(n, m))


def synthesis(n: int, m: int) -> nn.Sequential:
    """Return the mirror image of :func:`analysis`."""
    return nn.Sequential(
        *(deconv(m, n), igdn(n)),
        *(deconv(n, n), igdn(n)),
        *(deconv(n, n), igdn(n)),
        deconv(n, 3),
    )


Block = Callable[[int], nn.Module] | None  # makes a block for a number of channels


def _block(make: Block, channels: int) -> nn.Module:
    # The layers after a block that is left out keep their places, and their weights their names.
    return nn.Identity() if make is None else make(channels)


def residual_analysis(n: int, blocks: Sequence[Block] = (residual_block,) * 3) -> nn.Sequential:
    """Return residual blocks with attention (Cheng et al., CVPR 2020).

    The latent has n channels as well.

    Args:
        n: Channels.
        blocks: The blocks at 1/2, 1/4 and 1/8 of the picture's size; None for none.
    """
    half, quarter, eighth = (_block(make, n) for make in blocks)
    return nn.Sequential(
        *(down_block(3, n), half),
        *(down_block(n, n), Attention(n), quarter),
        *(down_block(n, n), eighth),
        *(nn.Conv2d(n, n, 3, 2, 1, bias=False), Attention(n)),
    )


def residual_synthesis(n: int, blocks: Sequence[Block] = (residual_block,) * 4) -> nn.Sequential:
    """Return the mirror image of :func:`residual_analysis`.

    Args:
        n: Channels.
        blocks: The blocks at 1/16, 1/8, 1/4 and 1/2 of the picture's size; None for none.
    """
    sixteenth, eighth, quarter, half = (_block(make, n) for make in blocks)
    return nn.Sequential(
        *(Attention(n), sixteenth, UpBlock(n)),
        *(eighth, UpBlock(n)),
        *(Attention(n), quarter, UpBlock(n)),
        *(half, conv(n, 12, 3, 1), nn.PixelShuffle(2)),
    )


class PatchAnalysis(nn.Module):
    """A linear transform of 16x16 blocks, and a network whose result is added to it.

    The linear one starts as a DCT, and the network with zeros. So a training starts from a codec
    that works, at all rates. The network consists of 3x3 convolutions of 4x4 patches, which are the
    channels of a picture at 1/4. No layer works at the picture's size or at half of it, so nearly
    all of the time goes to products of matrices.

    Args:
        n: Channels of the network at 1/4 of the picture's size.
        wide: Channels at 1/8.
        m: Channels of the latent, at 1/16; of the linear transform's 768 values, the m lowest
            frequencies.
    """

    def __init__(self, n: int, wide: int, m: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *(nn.PixelUnshuffle(4), conv(48, n, 3, 1), linear_block(n)),
            *(conv(n, wide, 3), linear_block(wide), linear_block(wide)),
            silent(conv(wide, m, 3)),
        )
        self.shortcut = dct_analysis(m)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latent ``[B, m, H/16, W/16]`` of pictures ``[B, 3, H, W]``."""
        result: Tensor = self.main(x) + self.shortcut(x)
        return result

    @torch.no_grad()
    def scaled(self, gain: Tensor) -> "PatchAnalysis":
        """Return a copy whose latent is multiplied by ``gain [m]``."""
        result = copy.deepcopy(self)
        for layer in (result.main[-1], result.shortcut):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight.mul_(gain[:, None, None, None])
            layer.bias.mul_(gain)
        return result


class PatchSynthesis(nn.Module):
    """The mirror image of :class:`PatchAnalysis`.

    Args:
        n: Channels of the network at 1/4 of the picture's size.
        wide: Channels at 1/8.
        m: Channels of the latent.
        block: Makes each of the two blocks at 1/8 for a number of channels; None for residual
            blocks.
    """

    def __init__(
        self, n: int, wide: int, m: int, block: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        make = linear_block if block is None else block
        self.main = nn.Sequential(
            *(conv(m, 4 * wide, 3, 1), nn.PixelShuffle(2)),
            *(make(wide), make(wide)),
            *(conv(wide, 4 * n, 3, 1), nn.PixelShuffle(2), linear_block(n)),
            *(silent(conv(n, 48, 3, 1)), nn.PixelShuffle(4)),
        )
        self.shortcut = dct_synthesis(m)

    def forward(self, y: Tensor) -> Tensor:
        """Return pictures ``[B, 3, H, W]`` of latents ``[B, m, H/16, W/16]``."""
        result: Tensor = self.main(y) + self.shortcut(y)
        return result

    @torch.no_grad()
    def scaled(self, gain: Tensor) -> "PatchSynthesis":
        """Return a copy that multiplies its latent by ``gain [m]``."""
        result = copy.deepcopy(self)
        first = result.main[0]
        assert isinstance(first, nn.Conv2d)
        first.weight.mul_(gain[:, None, None])
        result.shortcut.weight.mul_(gain[:, None, None, None])
        return result


def dct_analysis(m: int) -> nn.Conv2d:
    """Return a linear transform of 16x16 blocks that starts as a DCT of m frequencies."""
    layer = nn.Conv2d(3, m, BLOCK, BLOCK)
    with torch.no_grad():
        layer.weight.copy_(block_dct(m) / UNIT)
    layer.bias = nn.Parameter(-MIDDLE * layer.weight.detach().flatten(1).sum(1))
    return layer


def dct_synthesis(m: int) -> nn.ConvTranspose2d:
    """Return the inverse of :func:`dct_analysis`, as far as its m frequencies go."""
    layer = nn.ConvTranspose2d(m, 3, BLOCK, BLOCK)
    with torch.no_grad():
        layer.weight.copy_(block_dct(m) * UNIT)
    layer.bias = nn.Parameter(torch.full((3,), MIDDLE))
    return layer


def block_dct(m: int) -> Tensor:
    """Return the m lowest frequencies of an orthonormal DCT of 16x16 blocks of RGB.

    Returns:
        ``[m, 3, 16, 16]``, orthonormal rows. The colours are brightness and two differences, whose
        frequencies count twice.
    """
    order = sorted(
        (float((u + v) * (2 if colour else 1)), colour, u, v)
        for colour in range(3)
        for u in range(BLOCK)
        for v in range(BLOCK)
    )
    rows = [
        torch.einsum("c,h,w->chw", colours()[colour], dct()[u], dct()[v])
        for _, colour, u, v in order[:m]
    ]
    return torch.stack(rows).float()


def linear_block(channels: int) -> nn.Module:
    """Return a residual block without an activation at its end."""
    return Residual(conv(channels, channels, 3, 1), leaky(), conv(channels, channels, 3, 1))


def hyper_analysis(n: int, m: int) -> nn.Sequential:
    """Return the way from a latent of m channels to side information of n, at 1/4 of its size."""
    return nn.Sequential(conv(m, n, 3, 1), leaky(), conv(n, n), leaky(), conv(n, n))


def hyper_synthesis(n: int, m: int) -> nn.Sequential:
    """Return the way from side information to ``2 m`` channels of the latent's size."""
    return nn.Sequential(
        deconv(n, m), leaky(), deconv(m, m * 3 // 2), leaky(), conv(m * 3 // 2, 2 * m, 3, 1)
    )


def light_hyper_synthesis(n: int, m: int) -> nn.Sequential:
    """Return :func:`hyper_synthesis` with n and 2 n channels inside in place of m and 3/2 m."""
    return nn.Sequential(deconv(n, n), leaky(), deconv(n, 2 * n), leaky(), conv(2 * n, 2 * m, 3, 1))


def residual_hyper_analysis(n: int) -> nn.Sequential:
    """Return five 3x3 convolutions in place of :func:`hyper_analysis`."""
    return nn.Sequential(
        *(conv(n, n, 3, 1), leaky(), conv(n, n, 3, 1), leaky()),
        *(conv(n, n, 3, 2), leaky(), conv(n, n, 3, 1), leaky(), conv(n, n, 3, 2)),
    )


def residual_hyper_synthesis(n: int) -> nn.Sequential:
    """Return five 3x3 transposed convolutions in place of :func:`hyper_synthesis`."""
    wide = n * 3 // 2
    return nn.Sequential(
        *(deconv(n, n, 3, 1), leaky(), deconv(n, n, 3, 2), leaky()),
        *(deconv(n, wide, 3, 1), leaky(), deconv(wide, wide, 3, 2), leaky()),
        deconv(wide, 2 * n, 3, 1),
    )
