"""The other arms of the papers' claims: codecs with one part changed.

benchmarks/codec_claims.py compares them. The arms ``entropy-...`` have the transforms and the side
information of ``gained/small``. They differ in the model of y alone and all round to whole numbers,
so they can be trained on the same latents.
"""

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from vpxrc.codecs.contexts import Checkerboard, Context, Raster
from vpxrc.codecs.entropy import NORMAL, Mixture
from vpxrc.codecs.latents import ConditionalLatent, pointwise
from vpxrc.codecs.layers import Residual, conv, leaky, residual_block
from vpxrc.codecs.model import Model, TransformModel
from vpxrc.codecs.papers.asymmetric import asymmetric
from vpxrc.codecs.papers.gained import light_hyperprior
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
