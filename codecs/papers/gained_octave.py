"""Gained octave: latents at two resolutions, with one set of weights for all rates.

The octave convolutions and the order of the streams are those of Akbari et al. (arXiv 2002.10032),
and the gains are those of Cui et al. (CVPR 2021). The transforms are this project's, as in
:mod:`vpxrc.codecs.papers.gained`: each is the sum of a linear transform and of a network.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vpxrc.codecs.contexts import Checkerboard
from vpxrc.codecs.model import (
    Moment,
    Output,
    VariableModel,
    from_pixels,
    synthesize,
    to_pixels,
)
from vpxrc.codecs.octave import Octave, Width, split_width
from vpxrc.codecs.octave_transforms import (
    OctavePatchAnalysis,
    OctavePatchSynthesis,
    leaky_block,
    patch_width,
)
from vpxrc.codecs.papers.gained import LAMBDAS, Gains, loss_at_all_rates, squared_norms, worth
from vpxrc.codecs.papers.octave import Costs, OctaveHyperprior
from vpxrc.codecs.quantizers import Distortion, distortion

FEATURES = 128  # of each context


class OctaveGains(nn.Module):
    """Gains of both parts of a latent."""

    def __init__(self, width: Width, exponent: float) -> None:
        super().__init__()
        self.high, self.low = Gains(width.high, exponent), Gains(width.low, exponent)

    def forward(self, y: Octave, quality: Tensor) -> Octave:
        """Return the latent times the gains of qualities ``[B]``."""
        return Octave(y.high * self.high(quality), y.low * self.low(quality))


class GainedOctave(VariableModel):
    """The networks.

    Args:
        n: Channels of the transforms at 1/4 of the picture's size, both parts together.
        wide: Channels at 1/8.
        m: Frequencies of a 16x16 block.
        lowest: How many of them belong to the low part of the latent, which has four times as many
            channels at half of the resolution.
        side: Channels of the side information.
    """

    multiple = 128
    lambdas = LAMBDAS
    analysis: OctavePatchAnalysis
    synthesis: OctavePatchSynthesis

    def __init__(self, n: int, wide: int, m: int, lowest: int, side: int) -> None:
        super().__init__()
        quarter, eighth = split_width(n), split_width(wide)
        latent = patch_width(m, lowest)
        self.analysis = OctavePatchAnalysis(quarter, eighth, m, lowest, leaky_block)
        self.synthesis = OctavePatchSynthesis(quarter, eighth, m, lowest, leaky_block)
        self.latent = OctaveHyperprior(
            split_width(64), latent, partial(Checkerboard, features=FEATURES), Width(side, side)
        )
        self.gain, self.inverse_gain = OctaveGains(latent, 0.5), OctaveGains(latent, -0.5)
        self.lowest = lowest

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """Code pictures as in training."""
        y = self.gain(self.transform(self.analysis, x), quality)
        y_hat, rates = self.latent(y)
        x_hat = self.transform(self.synthesis, self.inverse_gain(y_hat, quality))
        return Output(x_hat, rates)

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pictures at random qualities; ``trade_off`` is not used."""
        return loss_at_all_rates(self, x, torch.rand(len(x), device=x.device))

    def coder(self) -> "GainedOctaveCoder":
        """Return a coder with the weights as they are now."""
        return GainedOctaveCoder(self)


class GainedOctaveCoder:
    """The coder of a :class:`GainedOctave` model; the streams are those of its latent."""

    def __init__(self, model: GainedOctave) -> None:
        self._model = model
        self._latent = model.latent.coder()

    def encode(self, pixels: Tensor, quality: float, weights: Tensor) -> tuple[list[bytes], Tensor]:
        """Return the streams, and the decoded picture."""
        model, x, at = self._model, from_pixels(pixels), torch.tensor([quality])
        weight = worth(weights, model.trade_off(quality))
        norms = squared_norms(model.synthesis.shortcut)
        low_norms = norms[: model.lowest].repeat(4, 1, 1) * model.inverse_gain.low(at)[0].square()
        high_norms = norms[model.lowest :] * model.inverse_gain.high(at)[0].square()

        def picture(y_hat: Octave) -> Tensor:
            result: Tensor = model.synthesis(model.inverse_gain(y_hat, at))
            return result

        def at_high(y_hat: Octave) -> Distortion:
            high, low = y_hat.high.float(), y_hat.low.float()
            return distortion(lambda part: picture(Octave(part, low)), x, high, weight, high_norms)

        def at_low(y_hat: Octave) -> Distortion:
            high, low = y_hat.high.float(), y_hat.low.float()
            return distortion(lambda part: picture(Octave(high, part)), x, low, weight, low_norms)

        y = model.gain(model.analysis(x), at)
        streams, y_hat = self._latent.encode(y, Costs(at_high, at_low))
        return streams, self._picture(y_hat, at)

    def decode(self, streams: Sequence[bytes], height: int, width: int, quality: float) -> Tensor:
        """Return the decoded picture."""
        y_hat = self._latent.decode(streams, height // 16, width // 16)
        return self._picture(y_hat, torch.tensor([quality]))

    def _picture(self, y_hat: Octave, at: Tensor) -> Tensor:
        single = Octave(y_hat.high.float(), y_hat.low.float())
        return to_pixels(synthesize(self._model.synthesis, self._model.inverse_gain(single, at)))
