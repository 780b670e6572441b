"""Multi-rate: one set of weights for all rates, from octave residual blocks.

Akbari et al., "Learned multi-resolution variable-rate image compression with octave-based residual
blocks", arXiv 2012.15463. Known are the parts: octave convolutions with GDN and IGDN inside,
residual blocks made of them, stochastic rounding, an objective over several rates, and an
enhancement layer for the residual of the decoded picture. The widths are recalled; the latent's
range, its prior and the coder of the residual are this project's.

The latent lies in -1..1 and is rounded to ``2^B - 1`` levels, of which the middle one is 0: what
says nothing costs nothing. In the paper B is 2, 4 or 8 and the objective has no term of rate
(:class:`MultiRate` with ``rate_term=False``). Here B is any number between 2 and 8, so the quality
is continuous, and a term of rate is the default.

:func:`multirate` has convolutions from the picture on. :func:`patch_multirate` has the residual
blocks in networks beside a linear transform of blocks, so that a training starts from a codec that
works. Its latent has the range of that transform, and more levels.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.bitstream import QUALITY_STEPS
from vpxrc.codecs.enhancement import Enhancement, coefficients, quantize, step_index, step_of
from vpxrc.codecs.latents import check_streams
from vpxrc.codecs.layers import GDN, igdn
from vpxrc.codecs.levels import ContextLevels, StaticLevels
from vpxrc.codecs.model import (
    Moment,
    Output,
    VariableModel,
    bits_per_pixel,
    figures,
    from_pixels,
    squared_error,
    synthesize,
    to_pixels,
)
from vpxrc.codecs.octave import (
    GoConv,
    GoConvFirst,
    GoTransposedConv,
    GoTransposedConvLast,
    Octave,
    OctaveResidual,
    Width,
    split_width,
)
from vpxrc.codecs.octave_transforms import (
    OctavePatchAnalysis,
    OctavePatchSynthesis,
    gdn_block,
    patch_width,
)
from vpxrc.codecs.papers.gained import loss_at_all_rates
from vpxrc.codecs.picture_quality import ms_ssim
from vpxrc.codecs.quantizers import stochastic_round
from vpxrc.errors import InputError

MIN_BITS, MAX_BITS = 2.0, 8.0  # B at the qualities 0 and 1
PAPER_BITS = (2.0, 4.0, 8.0)
# Sums of 32x32 pixels have a large range. With these B, a level is as wide as the step of a plain
# quantiser of the same lambda.
REACH, PATCH_BITS = 32.0, (6.6, 9.9)
BASES = (1.0, 0.6, 0.3)  # qualities of the base that are tried, as shares of the one asked for

Rounding = Callable[[Tensor], Tensor]

_PARAMETERS = struct.Struct("<HBB")


def quality_of_bits(count: float) -> float:
    """Return the quality 0..1 at which a latent has ``2^count - 1`` levels."""
    return (count - MIN_BITS) / (MAX_BITS - MIN_BITS)


class MultiRate(VariableModel):
    """The networks.

    Args:
        analysis: From pictures to latents at two resolutions, 1/16 and 1/32.
        synthesis: From latents to pictures.
        levels: What codes the levels of the latent.
        bits: B at the qualities 0 and 1.
        reach: What the transform's values are divided by.
        bound: Brings them between -1 and 1.
        rounding: What stands for rounding in training, before the synthesis.
        rate_term: Whether the objective has a term of rate.
        only: The one quality that is trained; None for all.
    """

    multiple = 32
    lambdas = 0.0018, 0.18

    def __init__(
        self,
        analysis: nn.Module,
        synthesis: nn.Module,
        levels: StaticLevels | ContextLevels,
        bits: tuple[float, float],
        reach: float,
        bound: Callable[[Tensor], Tensor],
        rounding: Rounding = stochastic_round,
        rate_term: bool = True,
        only: float | None = None,
    ) -> None:
        super().__init__()
        self.analysis, self.synthesis = analysis, synthesis
        self.levels = levels
        self.enhancement = Enhancement()
        self.bits, self._reach, self._bound, self._rounding = bits, reach, bound, rounding
        self.rate_term, self.only = rate_term, only

    def steps(self, quality: Tensor) -> Tensor:
        """Return the largest level of the latents at a quality 0..1, ``2^(B - 1) - 1``."""
        least, most = self.bits
        return torch.exp2(least - 1 + (most - least) * quality) - 1

    def latent(self, x: Tensor) -> Octave:
        """Return the latent in -1..1."""
        y = self.transform(self.analysis, x)
        return Octave(*(self._bound(part / self._reach) for part in y))

    def picture(self, v: Octave) -> Tensor:
        """Return pictures of a rounded latent in -1..1."""
        x_hat: Tensor = self.synthesis(Octave(*(part.float() * self._reach for part in v)))
        return x_hat

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """Code pictures as in training, without the enhancement layer."""
        steps = self.steps(quality)
        each = steps[:, None, None, None]
        levels = Octave(*(part * each for part in self.latent(x)))
        rounded = Octave(
            *(self._rounding(part).clamp(-each.floor(), each.floor()) / each for part in levels)
        )
        counted = levels if self.rate_term else Octave(*(part.detach() for part in levels))
        return Output(self.transform(self.picture, rounded), self.levels(counted, steps))

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pictures at random qualities, and its parts by name.

        With a term of rate, the quality is uniform in 0..1 and gives lambda; ``trade_off`` is not
        used. Without it, the loss is that of the paper, ``MSE + 1 - MS-SSIM``, with 2, 4 or 8 bits
        for an element of the latent, and the rate trains the prior alone.
        """
        if self.rate_term:
            quality = torch.rand(len(x), device=x.device)
            if self.only is not None:
                quality = torch.full_like(quality, self.only)
            return loss_at_all_rates(self, x, quality)
        drawn = torch.randint(len(PAPER_BITS), (len(x),))
        levels = torch.tensor(PAPER_BITS)[drawn].to(x.device)
        output = self(x, (levels - MIN_BITS) / (MAX_BITS - MIN_BITS))
        error, bpp = squared_error(output.x_hat, x), bits_per_pixel(output.bits, x)
        loss = (error / 255**2 + 1 - ms_ssim(output.x_hat, x) + bpp).mean()
        return loss, figures(loss, error, bpp)

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take the statistics of the residuals at several qualities."""
        self.enhancement.fit(self._residuals(batches))

    def _residuals(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        coder = MultiRateCoder(self)
        for pixels in (picture for batch in batches for picture in batch):
            v = self.latent(from_pixels(pixels))
            for quality in (0.4, 0.7, 1.0):
                step = step_of(step_index(self.trade_off(quality)))
                for share in BASES:
                    _, picture = coder.encode_base(v, round(quality * share * QUALITY_STEPS))
                    residual = pixels.double() - picture.double()
                    yield quantize(coefficients(residual), step)

    def coder(self) -> "MultiRateCoder":
        """Return a coder with the weights as they are now."""
        return MultiRateCoder(self)


def multirate(
    widths: Sequence[int],
    latent: int,
    rate_term: bool = True,
    rounding: Rounding = stochastic_round,
    only: float | None = None,
    slim: bool = False,
) -> MultiRate:
    """Return the codec with convolutions from the picture on; the latent lies in -1..1.

    Args:
        widths: Channels at 1/2, 1/4, 1/8 and 1/16 of the picture's size, both parts together.
        latent: Channels of the latent, both parts together.
        rate_term: Whether the objective has a term of rate.
        rounding: What stands for rounding in training.
        only: The one quality that is trained; None for all.
        slim: Whether there are no residual blocks at 1/2 of the picture's size; they take two
            fifths of a step's time.
    """
    inner, last = [split_width(width) for width in widths], split_width(latent)
    down: list[nn.Module] = [GoConvFirst(3, inner[0], 5, 2, GDN)]
    if not slim:
        down.append(gdn_block(inner[0]))
    for before, after in pairwise(inner):
        down += [GoConv(before, after, 5, 2, GDN), gdn_block(after)]
    up: list[nn.Module] = [GoTransposedConv(last, inner[-1], 3, 1, igdn)]
    for before, after in pairwise(inner[::-1]):
        up += [_block_up(before), GoTransposedConv(before, after, 5, 2, igdn)]
    if not slim:
        up.append(_block_up(inner[0]))
    up.append(GoTransposedConvLast(inner[0], 3, 5, 2, igdn))
    down.append(GoConv(inner[-1], last, 3, 1, GDN))
    return MultiRate(
        nn.Sequential(*down),
        nn.Sequential(*up),
        StaticLevels(last),
        (MIN_BITS, MAX_BITS),
        1.0,
        torch.tanh,
        rounding,
        rate_term,
        only,
    )


def patch_multirate(n: int, wide: int, m: int, lowest: int, hidden: int) -> MultiRate:
    """Return the codec whose transforms are sums of a linear one of blocks and of a network.

    Args:
        n: Channels of the networks at 1/4 of the picture's size, both parts together.
        wide: Channels at 1/8.
        m: Frequencies of a 16x16 block.
        lowest: How many of them belong to the low part of the latent.
        hidden: Channels of the networks that predict the latent.
    """
    quarter, eighth = split_width(n), split_width(wide)
    return MultiRate(
        OctavePatchAnalysis(quarter, eighth, m, lowest, gdn_block),
        OctavePatchSynthesis(quarter, eighth, m, lowest, gdn_block),
        ContextLevels(patch_width(m, lowest), hidden),
        PATCH_BITS,
        REACH,
        functional.hardtanh,  # between the bounds the latent is the linear transform's
    )


def _block_up(width: Width) -> nn.Module:
    # GDN here too: an inverse one grows with the square of its input, and two of them in each of
    # four blocks overflowed within 200 steps of training.
    return OctaveResidual(*(GoTransposedConv(width, width, 3, 1, GDN) for _ in range(2)))


class MultiRateCoder:
    """The coder of a :class:`MultiRate` model.

    The streams are the parameters (quality of the base, step, whether there is an enhancement), the
    low part, the high part, and the enhancement. The base may have a lower quality than asked for:
    of a few, the encoder takes the one with the least ``lambda * MSE + bits per pixel``, with or
    without the enhancement.
    """

    def __init__(self, model: MultiRate) -> None:
        self._model = model
        self._levels = model.levels.coder()
        self._enhancement = model.enhancement.coder()

    def encode(self, pixels: Tensor, quality: float, weights: Tensor) -> tuple[list[bytes], Tensor]:
        """Return the best streams for a quality, and the decoded picture."""
        weight = self._model.trade_off(quality)
        index = step_index(weight)
        v = self._model.latent(from_pixels(pixels))
        best: tuple[float, list[bytes], Tensor] | None = None
        for share in BASES:
            base = round(quality * share * QUALITY_STEPS)
            streams, picture = self.encode_base(v, base)
            stream, residual = self._enhancement.encode(
                pixels.double() - picture.double(), step_of(index)
            )
            for use in (False, True):
                every = [_PARAMETERS.pack(base, index, use), *streams, stream if use else b""]
                decoded = _add(picture, residual) if use else picture
                error = (decoded.double() - pixels.double()).square().mean()
                rate = 8 * sum(map(len, every)) / pixels[0].numel()
                cost = weight * float(error) + rate
                if best is None or cost < best[0]:
                    best = cost, every, decoded
        assert best is not None
        return best[1], best[2]

    def encode_base(self, v: Octave, base: int) -> tuple[list[bytes], Tensor]:
        """Return the streams of both parts of a latent, and the picture without enhancement.

        Args:
            v: The latent of one picture, which is bounded.
            base: The quality in steps of 1/65535.
        """
        steps = self._steps(base)
        levels = Octave(
            *((part.double() * steps).round().clamp(-int(steps), int(steps)) for part in v)
        )
        streams = self._levels.encode(levels, steps)
        return streams, self._picture(levels, steps)

    def _picture(self, levels: Octave, steps: float) -> Tensor:
        latent = Octave(*(part / steps for part in levels))
        return to_pixels(synthesize(self._model.picture, latent))

    def _steps(self, base: int) -> float:
        return float(self._model.steps(torch.tensor(base / QUALITY_STEPS, dtype=torch.float64)))

    def decode(self, streams: Sequence[bytes], height: int, width: int, quality: float) -> Tensor:
        """Return the decoded picture."""
        check_streams(streams, 4)
        if len(streams[0]) != _PARAMETERS.size:
            raise InputError("the picture is damaged: its parameters have another size")
        base, index, use = _PARAMETERS.unpack(streams[0])
        steps = self._steps(base)
        levels = self._levels.decode(streams[1:3], height // 16, width // 16, steps)
        picture = self._picture(levels, steps)
        if not use:
            return picture
        return _add(picture, self._enhancement.decode(streams[3], height, width, step_of(index)))


def _add(picture: Tensor, residual: Tensor) -> Tensor:
    return (picture.double() + residual).round().clamp(0, 255).to(torch.uint8)
