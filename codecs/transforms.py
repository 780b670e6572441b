"""Analysis and synthesis transforms: picture to latent and back."""

from torch import nn

from vpxrc.codecs.layers import (
    GDN,
    Attention,
    conv,
    deconv,
    down_block,
    igdn,
    leaky,
    residual_block,
    up_block,
)


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


def residual_analysis(n: int) -> nn.Sequential:
    """Return residual blocks with attention (Cheng et al., CVPR 2020).

    The latent has n channels as well.
    """
    return nn.Sequential(
        *(down_block(3, n), residual_block(n)),
        *(down_block(n, n), Attention(n), residual_block(n)),
        *(down_block(n, n), residual_block(n)),
        *(nn.Conv2d(n, n, 3, 2, 1, bias=False), Attention(n)),
    )


def residual_synthesis(n: int) -> nn.Sequential:
    """Return the mirror image of :func:`residual_analysis`."""
    return nn.Sequential(
        *(Attention(n), residual_block(n), up_block(n)),
        *(residual_block(n), up_block(n)),
        *(Attention(n), residual_block(n), up_block(n)),
        *(residual_block(n), conv(n, 12, 3, 1), nn.PixelShuffle(2)),
    )


def hyper_analysis(n: int, m: int) -> nn.Sequential:
    """Return the way from a latent of m channels to side information of n, at 1/4 of its size."""
    return nn.Sequential(conv(m, n, 3, 1), leaky(), conv(n, n), leaky(), conv(n, n))


def hyper_synthesis(n: int, m: int) -> nn.Sequential:
    """Return the way from side information to ``2 m`` channels of the latent's size."""
    return nn.Sequential(
        deconv(n, m), leaky(), deconv(m, m * 3 // 2), leaky(), conv(m * 3 // 2, 2 * m, 3, 1)
    )


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
