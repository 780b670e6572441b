"""The other arms of the papers' claims: codecs with one part changed.

benchmarks/codec_claims.py compares them. The arms ``entropy-...`` have the transforms and the side
information of ``gained/small``. They differ in the model of y alone and all round to whole numbers,
so they can be trained on the same latents. The arms ``added-...`` are ``gained-checkerboard/small``
with parts that do nothing before they are trained, so they can start from a trained codec.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from vpxrc.codecs.contexts import Checkerboard, Context, Raster
from vpxrc.codecs.deformable import deformable_residual
from vpxrc.codecs.entropy import NORMAL, Mixture
from vpxrc.codecs.latents import ConditionalLatent, pointwise
from vpxrc.codecs.layers import (
    Residual,
    concatenated_residual_block,
    conv,
    leaky,
    residual_block,
    silent,
)
from vpxrc.codecs.model import Model, TransformModel
from vpxrc.codecs.papers.asymmetric import MultiScaleResidual, PostQuantFilter, asymmetric
from vpxrc.codecs.papers.gained import Gained, light_hyperprior
from vpxrc.codecs.papers.gllmm import gllmm
from vpxrc.codecs.papers.improved_checkerboard import (
    GLLMM,
    GMM,
    improved_checkerboard,
    two_networks,
)
from vpxrc.codecs.papers.multirate import MultiRate, quality_of_bits
from vpxrc.codecs.papers.octave import octave, plain_octave
from vpxrc.codecs.papers.swin_roi import SwinRoi
from vpxrc.codecs.quantizers import add_noise, straight_through
from vpxrc.codecs.transforms import PatchAnalysis, PatchSynthesis

N = 48  # channels of the slim skeletons
NORMALS = Mixture([NORMAL], 1)
WIDTHS = 64, 96, 320  # of gained/small
M = WIDTHS[-1]
FEATURES, HIDDEN = 128, (256, 256)  # of contexts, and of the networks that have one
WIDE = 52  # with plain residual blocks as many multiplications as with the others at 48


def _coded(latent: ConditionalLatent) -> TransformModel:
    return TransformModel(
        PatchAnalysis(*WIDTHS), PatchSynthesis(*WIDTHS), light_hyperprior(WIDTHS[0], M, latent)
    )


def _one_network(context: Callable[[int, int], Context], family: Mixture) -> TransformModel:
    """Return a codec whose latent has one network."""
    network = pointwise(FEATURES + 2 * M, HIDDEN, family.parameters * M, bias=False)
    return _coded(ConditionalLatent(family, context(M, FEATURES), network))


def _mean_scale() -> TransformModel:
    """Return a codec whose latent has no context and the smallest network."""
    network = pointwise(2 * M, (), NORMALS.parameters * M)
    return _coded(ConditionalLatent(NORMALS, None, network))


def _two_networks(first: Mixture, second: Mixture) -> TransformModel:
    return _coded(two_networks(M, first, second, FEATURES, HIDDEN))


def plain_residual(channels: int) -> nn.Module:
    """Return the residual block of the improved checkerboard, with plain convolutions alone."""
    return Residual(
        *(conv(channels, channels, 3, 1), leaky()),
        *(conv(channels, channels, 3, 1), leaky()),
        conv(channels, channels, 3, 1),
    )


class FilteredSynthesis(PatchSynthesis):
    """A synthesis transform behind a filter of the rounded latent."""

    def __init__(self, n: int, wide: int, m: int) -> None:
        super().__init__(n, wide, m)
        self.restoration = PostQuantFilter(m)

    def forward(self, y: Tensor) -> Tensor:
        """Return pictures ``[B, 3, H, W]`` of latents ``[B, m, H/16, W/16]``."""
        return super().forward(self.restoration(y))


def _filtered() -> Gained:
    model = Gained(*WIDTHS, context=True)
    model.synthesis = FilteredSynthesis(*WIDTHS)
    return model


Block = Callable[[int], nn.Module]


def _added(encoder: Block | None, decoder: Block | None) -> Gained:
    """Return the codec with one more block at 1/8 of the picture's size in each transform."""
    model = Gained(*WIDTHS, context=True)
    for transform, make, place in ((model.analysis, encoder, 6), (model.synthesis, decoder, 4)):
        if make is not None:
            block = make(WIDTHS[1])
            body = Residual(block, silent(conv(WIDTHS[1], WIDTHS[1], 1, 1)))
            # The layers behind it keep their names, and so find their weights.
            layers = list(transform.main.named_children())
            layers.insert(place, ("added", body))
            transform.main = nn.Sequential(OrderedDict(layers))
    return model


def _two(make: Block, channels: int) -> nn.Module:
    return nn.Sequential(make(channels), make(channels))


def _three(make: Block, channels: int) -> nn.Module:
    return nn.Sequential(make(channels), make(channels), make(channels))


_two_plain = partial(_two, residual_block)
_asymmetric = partial(asymmetric, N, slim=True)
_improved = partial(improved_checkerboard, N, slim=True)
_multirate = partial(MultiRate, (32, 64, 96, 96), 128, True, slim=True)

ARMS: Mapping[str, Callable[[], Model]] = {
    "octave-quarter": partial(octave, 64, 96, 0.25, context=False),
    "octave-three-quarters": partial(octave, 64, 96, 0.75, context=False),
    "octave-plain": partial(plain_octave, 64, 96),
    "multirate-noise": partial(_multirate, add_noise),
    "multirate-straight-through": partial(_multirate, straight_through),
    **{
        f"multirate-only-{count}": partial(_multirate, only=quality_of_bits(count))
        for count in (2, 4, 8)
    },
    "entropy-mean-scale": _mean_scale,
    "entropy-normal": partial(_one_network, Raster, NORMALS),
    "entropy-gmm": partial(_one_network, Raster, GMM),
    "entropy-gllmm": partial(_one_network, Raster, GLLMM),
    "entropy-checkerboard": partial(_one_network, Checkerboard, NORMALS),
    "entropy-checkerboard-gmm": partial(_one_network, Checkerboard, GMM),
    "entropy-two-gmm-gmm": partial(_two_networks, GMM, GMM),
    "entropy-two-gllmm-gmm": partial(_two_networks, GLLMM, GMM),
    "entropy-two-gmm-gllmm": partial(_two_networks, GMM, GLLMM),
    "added-none": partial(_added, None, None),
    "added-concatenated": partial(_added, concatenated_residual_block, concatenated_residual_block),
    "added-residual": partial(_added, residual_block, residual_block),
    "added-two-residual": partial(_added, _two_plain, _two_plain),
    "added-multiscale": partial(_added, MultiScaleResidual, MultiScaleResidual),
    "added-multiscale-encoder": partial(_added, MultiScaleResidual, None),
    "added-multiscale-three": partial(
        _added, MultiScaleResidual, partial(_three, MultiScaleResidual)
    ),
    "added-deformable": partial(_added, deformable_residual, deformable_residual),
    "added-plain": partial(_added, plain_residual, plain_residual),
    "added-filter": _filtered,
    **{
        f"added-only-{quality:g}": partial(Gained, *WIDTHS, context=True, only=quality)
        for quality in (0.1, 0.5, 0.9)
    },
    "swin-roi-convolutions": partial(SwinRoi, *WIDTHS, swin=False),
    "swin-roi-unguided": partial(SwinRoi, *WIDTHS, guided=False),
    "gllmm-plain": partial(gllmm, N, slim=True, block=residual_block),
    "gllmm-plain-wide": partial(gllmm, WIDE, slim=True, block=residual_block),
    "asymmetric-three": partial(_asymmetric, decoder_blocks=3),
    "asymmetric-none": partial(_asymmetric, decoder_blocks=0),
    "asymmetric-unweighted": partial(_asymmetric, importance=False),
    "asymmetric-unfiltered": partial(_asymmetric, restoration=False),
    "improved-checkerboard-l1-0": partial(_improved, sparsity=0.0),
    "improved-checkerboard-l1-0.1": partial(_improved, sparsity=0.1),
    "improved-checkerboard-plain": partial(_improved, block=plain_residual),
}
