"""Octave: generalised octave convolutions throughout, and latents at two resolutions.

Akbari et al., "Generalized octave convolutions for learned multi-frequency image compression",
arXiv 2002.10032; published as "Learned bi-resolution image coding using generalized octave
convolutions", AAAI 2021.

In the paper's figure the parameters of each part of the latent depend on the context of the other
part, so that neither could be decoded first. Here the low part is decoded first and without the
high part, and the high part's parameters see all of the low part.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vpxrc.codecs.contexts import Raster
from vpxrc.codecs.entropy import Gaussian
from vpxrc.codecs.exact import exact, snap
from vpxrc.codecs.latents import (
    Bits,
    FactorizedLatent,
    LatentModel,
    MakeContext,
    check_streams,
    conditional_part,
)
from vpxrc.codecs.layers import GDN, conv, deconv, igdn
from vpxrc.codecs.model import TransformModel
from vpxrc.codecs.octave import (
    Activation,
    GoConv,
    GoConvFirst,
    GoTransposedConv,
    GoTransposedConvLast,
    Octave,
    OctaveConv,
    Width,
    leaky_activation,
    split_width,
)
from vpxrc.codecs.quantizers import Distortion


class Costs(NamedTuple):
    """What tells the costs of changes of a rounded latent in the picture, for each part of it."""

    high: Callable[[Octave], Distortion]
    low: Callable[[Octave], Distortion]


class OctaveHyperprior(LatentModel[Octave]):
    """Both parts of a latent y, and of side information z.

    ::

        z_high, z_low -> synthesis -> psi_high, psi_low
        psi_low, context of y_low -> y_low
        psi_high, up(y_low), context of y_high -> y_high

    Args:
        inner: Channels of both parts of z.
        width: Channels of both parts of y.
        context: Makes what each part of y sees of its own cells that are coded already; None for
            nothing.
        side: Channels of both parts of psi; None for twice as many as y has.
    """

    def __init__(
        self, inner: Width, width: Width, context: MakeContext | None, side: Width | None = None
    ) -> None:
        super().__init__()
        side = side or Width(2 * width.high, 2 * width.low)
        self.analysis = nn.Sequential(
            GoConv(width, inner, 3, 1, leaky_activation),
            GoConv(inner, inner, 5, 2, leaky_activation),
            GoConv(inner, inner, 5, 2, leaky_activation),
        )
        self.synthesis = nn.Sequential(
            GoTransposedConv(inner, inner, 5, 2, leaky_activation),
            GoTransposedConv(inner, inner, 5, 2, leaky_activation),
            GoTransposedConv(inner, side, 5, 1, leaky_activation),
        )
        self.z_high = FactorizedLatent(inner.high, "z_high")
        self.z_low = FactorizedLatent(inner.low, "z_low")
        self.up = deconv(width.low, side.high, 3, 2)
        self.y_low = conditional_part(width.low, side.low, side.low, context, Gaussian())
        self.y_high = conditional_part(width.high, 2 * side.high, side.high, context, Gaussian())
        self.width = width

    def forward(self, y: Octave) -> tuple[Octave, Bits]:
        """Return the rounded latent, and the bits of its parts."""
        z = self.analysis(y)
        z_high, high_rates = self.z_high(z.high)
        z_low, low_rates = self.z_low(z.low)
        psi = self.synthesis(Octave(z_high, z_low))
        low, low_rate = self.y_low(y.low, psi.low)
        high, high_rate = self.y_high(y.high, torch.cat([psi.high, self.up(low)], 1))
        rates = {**high_rates, **low_rates, "y_low": low_rate, "y_high": high_rate}
        return Octave(high, low), rates

    def coder(self) -> "OctaveCoder":
        """Return a coder with the weights as they are now."""
        return OctaveCoder(self)


class OctaveCoder:
    """The coder of an :class:`OctaveHyperprior`; streams: z high and low, y low and high."""

    def __init__(self, model: OctaveHyperprior) -> None:
        self._analysis = model.analysis
        self._synthesis, self._up = exact(model.synthesis), exact(model.up)
        self._z_high, self._z_low = model.z_high.coder(), model.z_low.coder()
        self._y_low, self._y_high = model.y_low.coder(), model.y_high.coder()
        self._width = model.width

    def encode(self, y: Octave, costs: Costs | None = None) -> tuple[list[bytes], Octave]:
        """Return four streams, and the latent; both parts have one picture, float64.

        Args:
            y: The latent.
            costs: With it, both parts of y are coded a second time, the low one first.
        """
        z = self._analysis(y)
        high_streams, z_high = self._z_high.encode(z.high)
        low_streams, z_low = self._z_low.encode(z.low)
        psi = self._synthesis(Octave(snap(z_high), snap(z_low)))
        stream_low, low = self._y_low.encode(y.low[0], psi.low[0])
        stream_high, high = self._y_high.encode(y.high[0], self._side(psi, low))
        if costs is not None:
            at_low = costs.low(Octave(high[None], low[None]))
            stream_low, low = self._y_low.encode(y.low[0], psi.low[0], at_low)
            # What the low part has lost already is the high part's to mend.
            at_high = costs.high(Octave(high[None], low[None]))
            stream_high, high = self._y_high.encode(y.high[0], self._side(psi, low), at_high)
        streams = [*high_streams, *low_streams, stream_low, stream_high]
        return streams, Octave(high[None], low[None])

    def decode(self, streams: Sequence[bytes], height: int, width: int) -> Octave:
        """Return the latent; ``height`` and ``width`` are those of its high part."""
        check_streams(streams, 4)
        z_high = self._z_high.decode(streams[:1], height // 4, width // 4)
        z_low = self._z_low.decode(streams[1:2], height // 8, width // 8)
        psi = self._synthesis(Octave(snap(z_high), snap(z_low)))
        low = self._y_low.decode(streams[2], psi.low[0], self._width.low)
        high = self._y_high.decode(streams[3], self._side(psi, low), self._width.high)
        return Octave(high[None], low[None])

    def _side(self, psi: Octave, low: Tensor) -> Tensor:
        """Return what is known of the high part before it is decoded."""
        return torch.cat([psi.high, self._up(snap(low)[None])], 1)[0]


def octave(n: int, m: int, share: float = 0.5, context: bool = True) -> TransformModel:
    """Return the codec.

    Args:
        n: Channels inside, of both parts together.
        m: Channels of the latent, of both parts together.
        share: Share of the channels that are in the low part.
        context: Whether the latent is coded row by row.
    """
    inner, latent = split_width(n, share), split_width(m, share)
    analysis = nn.Sequential(
        GoConvFirst(3, inner, 5, 2, GDN),
        GoConv(inner, inner, 5, 2, GDN),
        GoConv(inner, inner, 5, 2, GDN),
        GoConv(inner, latent, 5, 2, GDN),
    )
    synthesis = nn.Sequential(
        GoTransposedConv(latent, inner, 5, 2, igdn),
        GoTransposedConv(inner, inner, 5, 2, igdn),
        GoTransposedConv(inner, inner, 5, 2, igdn),
        GoTransposedConvLast(inner, 3, 5, 2, igdn),
    )
    return TransformModel(
        analysis,
        synthesis,
        OctaveHyperprior(inner, latent, Raster if context else None),
        multiple=128,
    )


def plain_octave(n: int, m: int) -> TransformModel:
    """Return :func:`octave` without context, whose transforms have plain octave convolutions.

    The side information is that of :func:`octave`. An activation follows each layer but the last.

    Args:
        n: Channels inside, of both parts together.
        m: Channels of the latent, of both parts together.
    """
    picture = Width(3, 0)
    inner, latent = split_width(n), split_width(m)
    down = [picture, inner, inner, inner, latent]
    up = [latent, inner, inner, inner, picture]

    def layers(
        widths: Sequence[Width], layer: Callable[[int, int], nn.Module], act: Activation
    ) -> nn.Sequential:
        return nn.Sequential(
            *(
                OctaveConv(before, after, layer, None if place == len(widths) - 2 else act)
                for place, (before, after) in enumerate(pairwise(widths))
            )
        )

    return TransformModel(
        layers(down, conv, GDN),
        layers(up, deconv, igdn),
        OctaveHyperprior(inner, latent, context=None),
        multiple=128,
    )
