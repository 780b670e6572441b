"""The other arms of the papers' claims: codecs with one part changed.

benchmarks/codec_claims.py compares them. The arms ``entropy-...`` have the transforms and the side
information of ``gained/small``. They differ in the model of y alone and all round to whole numbers,
so they can be trained on the same latents. The arms ``added-...`` are ``gained-checkerboard/small``
and can start from a trained one: they have parts that do nothing before they are trained, networks
that start anew beside its linear transforms, or another objective.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    deconv,
    leaky,
    residual_block,
    silent,
)
from vpxrc.codecs.model import Model, Output, TransformModel
from vpxrc.codecs.octave import (
    Activation,
    GoConv,
    GoConvFirst,
    GoTransposedConv,
    Merged,
    Octave,
    OctaveConv,
    OctaveResidual,
    Width,
    leaky_activation,
    no_activation,
    split_width,
)
from vpxrc.codecs.papers.asymmetric import (
    ImportanceMap,
    MultiScaleResidual,
    PostQuantFilter,
    asymmetric,
)
from vpxrc.codecs.papers.gained import Gained, light_hyperprior
from vpxrc.codecs.papers.gllmm import gllmm
from vpxrc.codecs.papers.improved_checkerboard import (
    GLLMM,
    GMM,
    improved_checkerboard,
    two_networks,
)
from vpxrc.codecs.papers.multirate import multirate, quality_of_bits
from vpxrc.codecs.papers.octave import octave, plain_octave
from vpxrc.codecs.papers.swin_roi import SwinRoi
from vpxrc.codecs.quantizers import add_noise, stochastic_round, straight_through
from vpxrc.codecs.transforms import PatchAnalysis, PatchSynthesis

N = 48  # channels of the slim skeletons
NORMALS = Mixture([NORMAL], 1)
WIDTHS = 64, 96, 320  # of gained/small
OCTAVE_WIDTHS = 96, 144  # as many multiplications as 64 and 96 without octaves
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


class WeightedAnalysis(PatchAnalysis):
    """An analysis transform whose latent is multiplied by factors that start with ones."""

    def __init__(self, n: int, wide: int, m: int) -> None:
        super().__init__(n, wide, m)
        self.importance = nn.Sequential(ImportanceMap(wide), silent(conv(wide, m, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the latent ``[B, m, H/16, W/16]`` of pictures ``[B, 3, H, W]``."""
        features = self.main[:-1](x)
        y: Tensor = self.main[-1](features) + self.shortcut(x)
        weighted: Tensor = y * (1 + self.importance(features))
        return weighted


def _weighted() -> Gained:
    model = Gained(*WIDTHS, context=True)
    model.analysis = WeightedAnalysis(*WIDTHS)
    return model


class Changed(Gained):
    """The codec with another objective.

    Args:
        rounding: What the synthesis sees in place of a rounded latent.
        sparsity: Weight of the L1 norm of the latent for each pixel.
    """

    def __init__(
        self, rounding: Callable[[Tensor], Tensor] | None = None, sparsity: float = 0.0
    ) -> None:
        super().__init__(*WIDTHS, context=True)
        self._rounding, self._sparsity = rounding, sparsity

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """Code pictures as in training; the norm counts as bits."""
        y = self.transform(self.analysis, x) * self.gain(quality)
        y_hat, rates = self.latent(y)
        if self._rounding is not None:
            y_hat = self._rounding(y)
        norm = self._sparsity * y.abs().flatten(1).sum(1)
        x_hat = self.transform(self.synthesis, y_hat * self.inverse_gain(quality))
        return Output(x_hat, {**rates, "norm": norm})


def _student() -> Gained:
    """Return the codec with half of the decoder's multiplications: no residual blocks in it."""
    model = Gained(*WIDTHS, context=True)
    # The layers behind them keep their names, and so find their weights.
    for name, layer in model.synthesis.main.named_children():
        if isinstance(layer, Residual):
            model.synthesis.main[int(name)] = nn.Identity()
    return model


class _Parted(nn.Module):
    """Both parts, from what two layers make of one map."""

    def __init__(self, high: nn.Module, low: nn.Module) -> None:
        super().__init__()
        self.high, self.low = high, low

    def forward(self, x: Tensor) -> Octave:
        return Octave(self.high(x), self.low(x))


def _wider(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv(inputs, 4 * outputs, 3, 1), nn.PixelShuffle(2))


@dataclass(frozen=True)
class OctaveLayers:
    """Makes 3x3 convolutions of features at two resolutions.

    Attributes:
        first: Of one map, from its channels and the widths of the result.
        same: From both widths, the stride and the activation.
        up: The one that doubles height and width, from both widths.
    """

    first: Callable[[int, Width], nn.Module]
    same: Callable[[Width, Width, int, Activation], nn.Module]
    up: Callable[[Width, Width], nn.Module]


def _pooled(inputs: Width, outputs: Width, stride: int, activation: Activation) -> nn.Module:
    return OctaveConv(inputs, outputs, partial(conv, kernel=3, stride=stride), activation)


GENERALISED = OctaveLayers(
    lambda inputs, outputs: GoConvFirst(inputs, outputs, 3, 1, no_activation),
    lambda inputs, outputs, stride, activation: GoConv(inputs, outputs, 3, stride, activation),
    lambda inputs, outputs: GoTransposedConv(inputs, outputs, 3, 2, no_activation),
)
POOLED = OctaveLayers(
    lambda inputs, outputs: _pooled(Width(inputs, 0), outputs, 1, no_activation),
    _pooled,
    lambda inputs, outputs: OctaveConv(inputs, outputs, partial(deconv, kernel=3), None),
)


def _with_networks(analysis: nn.Module, synthesis: nn.Module) -> Gained:
    """Return the codec with other networks beside its linear transforms."""
    model = Gained(*WIDTHS, context=True)
    # No name of the trained networks, so that both start anew.
    model.analysis.main = nn.Sequential(OrderedDict(anew=analysis))
    model.synthesis.main = nn.Sequential(OrderedDict(anew=synthesis))
    return model


def _anew() -> Gained:
    fresh = Gained(*WIDTHS, context=True)
    return _with_networks(fresh.analysis.main, fresh.synthesis.main)


def _octaves(layers: OctaveLayers, share: float = 0.5) -> Gained:
    """Return the codec whose networks are octave convolutions; the latent has one resolution."""
    n, wide = (split_width(width, share) for width in OCTAVE_WIDTHS)

    def block(width: Width) -> nn.Module:
        return OctaveResidual(
            layers.same(width, width, 1, leaky_activation),
            layers.same(width, width, 1, no_activation),
        )

    analysis = nn.Sequential(
        *(nn.PixelUnshuffle(4), layers.first(48, n), block(n)),
        *(layers.same(n, wide, 2, no_activation), block(wide), block(wide)),
        Merged(silent(conv(wide.high, M, 3)), silent(conv(wide.low, M, 3, 1))),
    )
    last = silent(conv(n.low, 4 * 48, 3, 1))
    synthesis = nn.Sequential(
        _Parted(_wider(M, wide.high), conv(M, wide.low, 3, 1)),
        *(block(wide), block(wide), layers.up(wide, n), block(n)),
        Merged(silent(conv(n.high, 48, 3, 1)), nn.Sequential(last, nn.PixelShuffle(2))),
        nn.PixelShuffle(4),
    )
    return _with_networks(analysis, synthesis)


_two_plain = partial(_two, residual_block)
_asymmetric = partial(asymmetric, N, slim=True)
_improved = partial(improved_checkerboard, N, slim=True)
_multirate = partial(multirate, (32, 64, 96, 96), 128, True, slim=True)

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
    "added-importance": _weighted,
    "added-l1-0.03": partial(Changed, sparsity=0.03),
    "added-l1-0.1": partial(Changed, sparsity=0.1),
    "added-noise": partial(Changed, add_noise),
    "added-straight-through": partial(Changed, straight_through),
    "added-stochastic": partial(Changed, stochastic_round),
    "added-student": _student,
    "added-anew": _anew,
    "added-octave": partial(_octaves, GENERALISED),
    "added-octave-plain": partial(_octaves, POOLED),
    "added-octave-quarter": partial(_octaves, GENERALISED, 0.25),
    "added-octave-three-quarters": partial(_octaves, GENERALISED, 0.75),
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
