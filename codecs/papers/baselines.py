"""The five codecs that every other one is compared with, each built on one before it."""

from torch import nn

from vpxrc.codecs.contexts import Checkerboard, Context, Raster
from vpxrc.codecs.entropy import NORMAL, Gaussian, Mixture
from vpxrc.codecs.latents import ConditionalLatent, FactorizedLatent, Hyperprior, pointwise
from vpxrc.codecs.model import TransformModel
from vpxrc.codecs.transforms import (
    analysis,
    hyper_analysis,
    hyper_synthesis,
    residual_analysis,
    residual_hyper_analysis,
    residual_hyper_synthesis,
    residual_synthesis,
    synthesis,
)


def factorized(n: int, m: int) -> TransformModel:
    """Return a codec without side information (Ballé et al., ICLR 2018)."""
    return TransformModel(analysis(n, m), synthesis(n, m), FactorizedLatent(m), multiple=16)


def _hyperprior(n: int, m: int, context: Context | None, network: nn.Module) -> TransformModel:
    latent = Hyperprior(
        hyper_analysis(n, m),
        hyper_synthesis(n, m),
        z_channels=n,
        y_channels=m,
        latent=ConditionalLatent(Gaussian(), context, network),
    )
    return TransformModel(analysis(n, m), synthesis(n, m), latent)


def mean_scale(n: int, m: int) -> TransformModel:
    """Return a codec with means and scales from side information (Minnen et al., NeurIPS 2018)."""
    return _hyperprior(n, m, None, nn.Identity())


def _parameters(m: int) -> nn.Sequential:
    """Return the network from 4 m features to means and scales (Minnen et al., NeurIPS 2018)."""
    return pointwise(4 * m, (10 * m // 3, 8 * m // 3), 2 * m)


def checkerboard(n: int, m: int) -> TransformModel:
    """Return :func:`mean_scale` with a context in two passes (He et al., CVPR 2021)."""
    return _hyperprior(n, m, Checkerboard(m), _parameters(m))


def raster(n: int, m: int) -> TransformModel:
    """Return :func:`mean_scale` with a context row by row (Minnen et al., NeurIPS 2018)."""
    return _hyperprior(n, m, Raster(m), _parameters(m))


def mixture(n: int) -> TransformModel:
    """Return :func:`raster` with residual blocks, attention and mixtures.

    Cheng et al., CVPR 2020. The latent has as many channels as the transforms.
    """
    family = Mixture([NORMAL], 3)
    network = pointwise(4 * n, (640, 640), family.parameters * n, bias=False)
    latent = residual_hyperprior(n, ConditionalLatent(family, Raster(n), network))
    return TransformModel(residual_analysis(n), residual_synthesis(n), latent)


def residual_hyperprior(n: int, latent: ConditionalLatent) -> Hyperprior:
    """Return side information of 3x3 convolutions for a latent with n channels, as z has."""
    return Hyperprior(
        residual_hyper_analysis(n),
        residual_hyper_synthesis(n),
        z_channels=n,
        y_channels=n,
        latent=latent,
    )
