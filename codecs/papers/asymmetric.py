"""Asymmetric: a heavy encoder with an importance map, a light decoder with a filter.

Fu et al., "Asymmetric learned image compression with multi-scale residual block, importance map,
and post-quantization filtering", arXiv 2206.10618. The layers are those of the paper's figures and
of the authors' encoder. The importance map needs no bits: the decoder sees its effect alone.
"""

import torch
from torch import Tensor, nn

from vpxrc.codecs.contexts import Raster
from vpxrc.codecs.entropy import NORMAL, Mixture
from vpxrc.codecs.latents import ConditionalLatent, LatentModel, pointwise
from vpxrc.codecs.layers import GDN, Residual, bottleneck, conv
from vpxrc.codecs.model import Moment, TransformModel, bits_per_pixel, figures, squared_error
from vpxrc.codecs.papers.baselines import residual_hyperprior
from vpxrc.codecs.transforms import residual_analysis, residual_synthesis

FILTER_STEPS = 20_000  # in which the filter has a loss of its own, at most
FILTER_SHARE = 0.2  # of the steps of a training, for short ones


class MultiScaleResidual(nn.Module):
    """A residual block with two scales that exchange twice.

    ::

        v -> 3x3 -> P1 -+-> a -> 3x3 -> Q1 -+
        |               X                   +-> + v
        +--> 5x5 -> P2 -+-> b -> 5x5 -> Q2 -+

    Args:
        channels: Channels of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(bottleneck(channels, kernel) for kernel in (3, 5))
        self.exchange = nn.ModuleList(
            nn.Sequential(conv(2 * channels, channels, 1, 1), GDN(channels)) for _ in range(2)
        )
        self.second = nn.ModuleList(bottleneck(channels, kernel) for kernel in (3, 5))
        self.merge = conv(2 * channels, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, of the shape of ``x``."""
        fine, coarse = (block(x) for block in self.first)
        mixed = (
            self.exchange[0](torch.cat([fine, coarse], 1)),
            self.exchange[1](torch.cat([coarse, fine], 1)),
        )
        both = [block(part) for block, part in zip(self.second, mixed, strict=True)]
        result: Tensor = x + self.merge(torch.cat(both, 1))
        return result


class ImportanceMap(nn.Module):
    """Factors between -1/2 and 1/2 for the elements of a latent.

    Args:
        channels: Channels of the features and of the latent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.start = nn.Sequential(conv(channels, channels, 3, 2), GDN(channels))
        self.blocks = Residual(*(bottleneck(channels) for _ in range(3)))

    def forward(self, features: Tensor) -> Tensor:
        """Return ``[B, C, H/2, W/2]`` of features ``[B, C, H, W]``."""
        scaled: Tensor = self.blocks(self.start(features)).tanh()
        return scaled / (1 + scaled.abs())


class WeightedAnalysis(nn.Module):
    """An analysis transform whose latent is multiplied by an importance map.

    Args:
        body: The transform up to its last convolution.
        importance: From the features before the last convolution to factors; None for none.
        last: The last convolution, and what follows it.
    """

    def __init__(self, body: nn.Module, importance: nn.Module | None, last: nn.Module) -> None:
        super().__init__()
        self.body, self.importance, self.last = body, importance, last

    def forward(self, x: Tensor) -> Tensor:
        """Return the latent."""
        features = self.body(x)
        y: Tensor = self.last(features)
        return y if self.importance is None else y * self.importance(features)


class PostQuantFilter(Residual):
    """Adds what a 3x3 filter of each channel of a rounded latent predicts of the rounding error.

    It starts with zeros, so it does nothing before it is trained.

    Args:
        channels: Channels of the latent.
    """

    def __init__(self, channels: int) -> None:
        layer = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        nn.init.zeros_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        super().__init__(layer)


class FilteredModel(TransformModel):
    """A codec whose synthesis begins with a filter that has a loss of its own at first.

    Args:
        analysis: From a picture to its latent.
        restoration: From the rounded latent to one that is nearer to the latent.
        synthesis: From there to the decoded picture.
        latent: The model of the latent.
    """

    def __init__(
        self,
        analysis: nn.Module,
        restoration: nn.Module,
        synthesis: nn.Module,
        latent: LatentModel[Tensor],
    ) -> None:
        super().__init__(analysis, nn.Sequential(restoration, synthesis), latent)

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss with that of the filter, which trains the filter alone."""
        coded = self.code(x)
        error, bpp = squared_error(coded.x_hat, x), bits_per_pixel(coded.bits, x)
        loss = (trade_off * error + bpp).mean()
        if moment.step < min(FILTER_STEPS, FILTER_SHARE * moment.steps):
            restoration = next(self.synthesis.children())
            restored = restoration(coded.y_hat.detach())
            loss = loss + (restored - coded.y.detach()).square().mean()
        return loss, figures(loss, error, bpp)


def asymmetric(
    n: int,
    slim: bool = False,
    decoder_blocks: int = 1,
    importance: bool = True,
    restoration: bool = True,
) -> TransformModel:
    """Return the codec.

    Args:
        n: Channels of the transforms and of the latent.
        slim: Whether the encoder has no block at 1/2 of the picture's size.
        decoder_blocks: Blocks of the decoder: 0; 1 at 1/4 of the picture's size; 3, at 1/8 and 1/2
            too.
        importance: Whether there is an importance map.
        restoration: Whether there is a filter after the quantiser.
    """
    block, half = MultiScaleResidual, None if slim else MultiScaleResidual
    blocks = {0: (None,) * 4, 1: (None, None, block, None), 3: (None, block, block, block)}
    layers = residual_analysis(n, (half, block, block))
    family = Mixture([NORMAL], 3)
    network = pointwise(4 * n, (640, 640), family.parameters * n, bias=False)
    return FilteredModel(
        WeightedAnalysis(layers[:-2], ImportanceMap(n) if importance else None, layers[-2:]),
        PostQuantFilter(n) if restoration else nn.Identity(),
        residual_synthesis(n, blocks[decoder_blocks]),
        residual_hyperprior(n, ConditionalLatent(family, Raster(n), network, skip_zeros=True)),
    )
