"""Gained: one set of weights for all rates, by a gain of each channel of the latent.

Cui et al., "Asymmetric gained deep image compression with continuous rate adaptation", CVPR 2021.
A latent is multiplied by gains before it is rounded, and by other ones before the synthesis. Both
are learned at a few qualities, and interpolated between them. The transforms are this project's;
the latent is that of the baseline with means and scales, with fewer channels in its networks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vpxrc.codecs.blocks import BLOCK
from vpxrc.codecs.contexts import Checkerboard
from vpxrc.codecs.entropy import Gaussian
from vpxrc.codecs.latents import ConditionalLatent, Hyperprior, pointwise
from vpxrc.codecs.layers import Correction, conv, leaky, silent
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
from vpxrc.codecs.picture_quality import ms_ssim
from vpxrc.codecs.quantizers import Distortion, distortion
from vpxrc.codecs.regions import cell_qualities, pack_cells, unpack_cells
from vpxrc.codecs.transforms import (
    PatchAnalysis,
    PatchSynthesis,
    hyper_analysis,
    light_hyper_synthesis,
)

LAMBDAS = 0.0008, 0.12  # of the objective at the qualities 0 and 1
STRUCTURAL = 1300.0  # CompressAI's lambdas for MS-SSIM are about so much larger than for MSE
KNOTS = 6  # qualities whose gains are learned


class Gains(nn.Module):
    """Factors of the channels of a latent, positive, for qualities 0..1.

    Args:
        channels: M.
        exponent: At the start the factors are ``(lambda / lambda_min) ** exponent``. At high rate
            the best step of a quantiser goes with ``lambda ** -1/2``.
    """

    def __init__(self, channels: int, exponent: float) -> None:
        super().__init__()
        span = math.log(LAMBDAS[1] / LAMBDAS[0])
        start = torch.linspace(0, exponent * span, KNOTS)
        self.logs = nn.Parameter(start[:, None].repeat(1, channels))

    def forward(self, quality: Tensor) -> Tensor:
        """Return ``[B, M, 1, 1]`` of qualities ``[B]``, or ``[B, M, h, w]`` of ``[B, h, w]``."""
        place = quality * (KNOTS - 1)
        below = place.floor().clamp(0, KNOTS - 2).long()
        share = (place - below)[..., None]
        logs = (1 - share) * self.logs[below] + share * self.logs[below + 1]
        gains = logs.exp().movedim(-1, 1)
        return gains if gains.dim() == 4 else gains[:, :, None, None]


class Gained(VariableModel):
    """The networks.

    Args:
        n: Channels of the transforms at 1/4 of the picture's size, and of the side information.
        wide: Channels at 1/8.
        m: Channels of the latent.
        context: Whether the latent is coded in two passes, the second of which sees the first.
        only: The one quality that is trained; None for all.
        structural: Whether the error is ``1300 (1 - MS-SSIM)`` in place of the mean squared error.
            Latents are then rounded to the nearest number.
    """

    multiple = 64
    has_regions = True
    lambdas = LAMBDAS
    analysis: PatchAnalysis
    synthesis: PatchSynthesis

    def __init__(
        self,
        n: int,
        wide: int,
        m: int,
        context: bool = False,
        only: float | None = None,
        structural: bool = False,
    ) -> None:
        super().__init__()
        self.analysis = PatchAnalysis(n, wide, m)
        self.synthesis = PatchSynthesis(n, wide, m)
        self.latent = light_hyperprior(
            n, m, _checkerboard(2 * n, 3 * n, m) if context else _independent()
        )
        self.gain, self.inverse_gain = Gains(m, 0.5), Gains(m, -0.5)
        self.only, self.structural = only, structural

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """Code pictures as in training."""
        y = self.transform(self.analysis, x) * self.gain(quality)
        y_hat, rates = self.latent(y)
        x_hat = self.transform(self.synthesis, y_hat * self.inverse_gain(quality))
        return Output(x_hat, rates)

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pictures at random qualities; ``trade_off`` is not used."""
        quality = torch.rand(len(x), device=x.device)
        if self.only is not None:
            quality = torch.full_like(quality, self.only)
        return loss_at_all_rates(self, x, quality, self.structural)

    def transforms(self, quality: float) -> tuple[PatchAnalysis, PatchSynthesis]:
        """Return analysis and synthesis of one quality, which have its gains in their weights."""
        at = torch.tensor([quality])
        gain, inverse = self.gain(at).flatten(), self.inverse_gain(at).flatten()
        return self.analysis.scaled(gain), self.synthesis.scaled(inverse)

    def coder(self) -> "GainedCoder":
        """Return a coder with the weights as they are now."""
        return GainedCoder(self)


def loss_at_all_rates(
    model: VariableModel, x: Tensor, quality: Tensor, structural: bool = False
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of pictures at their qualities ``[B]``, and its parts by name.

    The loss of a picture is divided by the root of its lambda. It grows about so with the quality,
    and else the high qualities would be learned at the expense of the low ones.

    Args:
        model: The networks.
        x: ``[B, 3, H, W]``, RGB in 0..1.
        quality: ``[B]``, 0..1.
        structural: Whether the error is ``1300 (1 - MS-SSIM)`` in place of the mean squared error.
    """
    output, weight = model(x, quality), model.trade_offs(quality)
    squared, bpp = squared_error(output.x_hat, x), bits_per_pixel(output.bits, x)
    error = STRUCTURAL * (1 - ms_ssim(output.x_hat, x)) if structural else squared
    middle = math.sqrt(model.lambdas[0] * model.lambdas[1])
    loss = ((weight * error + bpp) * (middle / weight).sqrt()).mean()
    return loss, figures(loss, squared, bpp)


def light_hyperprior(n: int, m: int, latent: ConditionalLatent) -> Hyperprior:
    """Return side information whose layers have n channels.

    Those of the baseline grow with m, which is large here.
    """
    return Hyperprior(
        hyper_analysis(n, m),
        light_hyper_synthesis(n, m),
        z_channels=n,
        y_channels=m,
        latent=latent,
    )


def _independent() -> ConditionalLatent:
    return ConditionalLatent(Gaussian(), None, nn.Identity())


def _checkerboard(features: int, hidden: int, m: int) -> ConditionalLatent:
    """Return a latent in two passes; its network corrects what the side information predicts.

    The network starts with zeros. So a training can start from the codec without context.

    Args:
        features: What the context tells.
        hidden: Channels of the network inside.
        m: Channels of the latent.
    """
    network = nn.Sequential(
        *pointwise(features + 2 * m, (hidden,), hidden),
        *(leaky(), silent(conv(hidden, 2 * m, 1, 1))),
    )
    return ConditionalLatent(
        Gaussian(), Checkerboard(m, features), Correction(network, features + 2 * m, 2 * m)
    )


class GainedCoder:
    """The coder of a :class:`Gained` model.

    The streams are those of its latent. With a region of interest there is one more, the first: the
    qualities of the cells.
    """

    def __init__(self, model: Gained) -> None:
        self._model = model
        self._latent = model.latent.coder()

    def encode(self, pixels: Tensor, quality: float, weights: Tensor) -> tuple[list[bytes], Tensor]:
        """Return the streams, and the decoded picture."""
        x, model = from_pixels(pixels), self._model
        at, first = torch.tensor([quality]), []
        if (weights > 1).any():
            stream, at = pack_cells(cell_qualities(at, weights[None], model.lambdas))
            first = [stream]
        inverse = model.inverse_gain(at)

        def measure(y_hat: Tensor, side: Tensor) -> Distortion:
            return distortion(
                lambda y: model.synthesis(y * inverse),
                *(x, y_hat.float(), worth(weights, model.trade_off(quality))),
                # Of the linear transform. Its network lets neighbours of low frequency share an
                # error, so one value's own curvature is smaller, but many change at once.
                squared_norms(model.synthesis.shortcut) * inverse[0].square(),
            )

        y = model.analysis(x) * model.gain(at)
        streams, y_hat = self._latent.encode(y, None if model.structural else measure)
        return [*first, *streams], self._picture(y_hat, at)

    def decode(self, streams: Sequence[bytes], height: int, width: int, quality: float) -> Tensor:
        """Return the decoded picture."""
        rows, columns = height // BLOCK, width // BLOCK
        at = torch.tensor([quality])
        if len(streams) == 3:
            at, streams = unpack_cells(streams[0], rows, columns), streams[1:]
        return self._picture(self._latent.decode(streams, rows, columns), at)

    def _picture(self, y_hat: Tensor, at: Tensor) -> Tensor:
        scaled = y_hat.float() * self._model.inverse_gain(at)
        return to_pixels(synthesize(self._model.synthesis, scaled))


def worth(weights: Tensor, trade_off: float) -> Tensor:
    """Return the bits that a squared error of 1 in one colour of a pixel is worth, ``[H, W]``."""
    return weights * (trade_off * 255**2 / 3)


def squared_norms(linear: nn.ConvTranspose2d) -> Tensor:
    """Return the squared error ``[M, 1, 1]`` of a change by 1 of each channel of a latent."""
    return linear.weight.square().sum((1, 2, 3))[:, None, None]
