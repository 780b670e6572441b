"""Swin blocks and a region of interest that only the encoder is told.

Li et al., "ROI-based deep image compression with Swin transformers", ICASSP 2023, arXiv 2305.07783.
Known are Swin blocks as the main part, a mask that guides several layers, and a Lagrange multiplier
for each region. Widths and all else are this project's. Layers are guided as by Song et al., ICCV
2021: what a decoder needs of the mask it finds in the side information. The linear transforms and
the gains are those of :mod:`vpxrc.codecs.papers.gained`, so a training starts from a working codec.
Layers that both have are called the same, so it may also start from a trained one.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.attention import swin_blocks
from vpxrc.codecs.blocks import BLOCK
from vpxrc.codecs.entropy import Gaussian
from vpxrc.codecs.latents import ConditionalLatent
from vpxrc.codecs.layers import conv, leaky, silent
from vpxrc.codecs.model import (
    Moment,
    Output,
    VariableModel,
    bits_per_pixel,
    figures,
    from_pixels,
    one_thread,
    synthesize,
    to_pixels,
)
from vpxrc.codecs.papers.gained import LAMBDAS, Gains, light_hyperprior, squared_norms, worth
from vpxrc.codecs.quantizers import Distortion, distortion
from vpxrc.codecs.regions import cell_qualities, pack_cells, unpack_cells
from vpxrc.codecs.transforms import PatchSynthesis, dct_analysis, linear_block

MAX_WEIGHT = 64.0  # of a region in training
HEADS = 4
GUESS = 1.0  # weight of the squared error of the qualities that the decoder finds
NONE, EVERYWHERE = 0.1, 0.05  # shares of training pictures without a region, and with nothing else


class Modulation(nn.Module):
    """``x (1 + a) + b`` with a and b from a map (Wang et al., CVPR 2018); starts as ``x``.

    Args:
        channels: Channels of x.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            conv(1, 32, 1, 1), leaky(), silent(conv(32, 2 * channels, 1, 1))
        )

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Return ``[B, C, h, w]`` of x and of a map ``[B, 1, h, w]``."""
        scale, shift = self.network(guide).chunk(2, 1)
        result: Tensor = x * (1 + scale) + shift
        return result


def _swin(channels: int) -> nn.Module:
    return swin_blocks(channels, HEADS)


class RegionAnalysis(nn.Module):
    """A linear transform of 16x16 blocks, and a network that is guided by the weights.

    Args:
        n: Channels of the network at 1/4 of the picture's size.
        wide: Channels at 1/8.
        m: Channels of the latent.
        swin: Whether the blocks at 1/8 are two pairs of Swin blocks, or two residual blocks of
            about as many multiplications.
    """

    def __init__(self, n: int, wide: int, m: int, swin: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *(nn.PixelUnshuffle(4), conv(48, n, 3, 1), linear_block(n), conv(n, wide, 3))
        )
        self.early, self.late = Modulation(wide), Modulation(wide)
        make = _swin if swin else linear_block
        self.blocks = nn.Sequential(make(wide), make(wide))
        self.last = silent(conv(wide, m, 3))
        self.shortcut = dct_analysis(m)

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the latent of pictures ``[B, 3, H, W]`` and weights ``[B, H, W]``."""
        guide = x.new_zeros(len(x), 1, x.shape[2] // 8, x.shape[3] // 8)
        if weights is not None:
            logs = weights.clamp(1, MAX_WEIGHT).log() / math.log(MAX_WEIGHT)
            guide = functional.avg_pool2d(logs[:, None], 8)
        found = self.blocks(self.early(self.main(x), guide))
        result: Tensor = self.last(self.late(found, guide)) + self.shortcut(x)
        return result


class SwinRoi(VariableModel):
    """The networks.

    Args:
        n: Channels of the transforms at 1/4 of the picture's size, and of the side information.
        wide: Channels at 1/8.
        m: Channels of the latent.
        swin: Whether the blocks at 1/8 are Swin blocks, or convolutions.
        sent: Whether the qualities of the cells are sent. Else the decoder finds them in the side
            information.
        guided: Whether the layers see the weights. Else the loss alone does.
    """

    multiple = 64
    has_regions = True
    lambdas = LAMBDAS
    analysis: RegionAnalysis
    synthesis: PatchSynthesis

    def __init__(
        self,
        n: int,
        wide: int,
        m: int,
        swin: bool = True,
        sent: bool = False,
        guided: bool = True,
    ) -> None:
        super().__init__()
        self.analysis = RegionAnalysis(n, wide, m, swin)
        self.synthesis = PatchSynthesis(n, wide, m, _swin if swin else None)
        self.latent = light_hyperprior(n, m, ConditionalLatent(Gaussian(), None, nn.Identity()))
        self.gain, self.inverse_gain = Gains(m, 0.5), Gains(m, -0.5)
        self.guess = nn.Sequential(conv(2 * m, n, 1, 1), leaky(), silent(conv(n, 1, 1, 1)))
        self.sent, self.guided = sent, guided

    def latent_of(self, x: Tensor, quality: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent without gains, and the qualities of its cells ``[B, h, w]``."""
        if not self.guided:
            weights = torch.ones_like(weights)
        at = cell_qualities(quality, weights, self.lambdas)
        y = self.transform(lambda one: self.analysis(one, weights), x)
        return y, at

    def found(self, quality: Tensor, side: Tensor) -> Tensor:
        """Return the qualities of the cells as a decoder finds them, ``[B, h, w]``."""
        offset: Tensor = self.guess(side)[:, 0]
        return (quality[:, None, None] + offset).clamp(0, 1)

    def forward(self, x: Tensor, quality: Tensor, weights: Tensor | None = None) -> Output:
        """Code pictures as in training, with weights ``[B, H, W]``."""
        return self.code(x, quality, x.new_ones(x[:, 0].shape) if weights is None else weights)[0]

    def code(self, x: Tensor, quality: Tensor, weights: Tensor) -> tuple[Output, Tensor]:
        """Code pictures; return also the squared error ``[B]`` of the qualities found."""
        y, at = self.latent_of(x, quality, weights)
        z, rates = self.latent.z(self.latent.analysis(y * self.gain(at)))
        side = self.latent.synthesis(z)
        guess = self.found(quality, side)
        # The encoder knows what the decoder finds. With other gains than the decoder's, the latent
        # would be too large or too small by more than rounding changes it.
        used = at if self.sent else guess
        y_hat, rate = self.latent.y(y * self.gain(used), side)
        x_hat = self.transform(self.synthesis, y_hat * self.inverse_gain(used))
        return Output(x_hat, {**rates, "y": rate}), (guess - at).square().flatten(1).mean(1)

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pictures at random qualities with random regions, and its parts.

        The quality is uniform in 0..1 and gives lambda outside of the region; ``trade_off`` is not
        used. The loss of a picture is divided by the root of lambda, as that of
        :class:`~vpxrc.codecs.papers.gained.Gained`.
        """
        quality = torch.rand(len(x), device=x.device)
        weights = random_weights(len(x), *x.shape[-2:]).to(x.device)
        output, guess = self.code(x, quality, weights)
        error = 255**2 * (output.x_hat - x).square().mean(1)
        bpp = bits_per_pixel(output.bits, x)
        weighted = (weights * error).flatten(1).mean(1)
        trade_offs = self.trade_offs(quality)
        middle = math.sqrt(LAMBDAS[0] * LAMBDAS[1])
        loss = (trade_offs * weighted + bpp) * (middle / trade_offs).sqrt()
        if not self.sent:
            loss = loss + GUESS * guess
        return loss.mean(), figures(loss.mean(), error.flatten(1).mean(1), bpp)

    def coder(self) -> "SwinRoiCoder":
        """Return a coder with the weights as they are now."""
        return SwinRoiCoder(self)


def random_weights(count: int, height: int, width: int) -> Tensor:
    """Return weights ``[B, H, W]`` of training pictures: 1, and inside a region up to 64.

    A region is a rectangle, an ellipse, or where a smooth random map is large. It is drawn with
    PyTorch's generator.
    """
    rows, columns = torch.meshgrid(
        torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij"
    )
    made = []
    for _ in range(count):
        kind, share, top, left, *sides = torch.rand(6).tolist()
        u, v = (
            (place - middle).abs() / (0.2 + 0.6 * side)
            for place, middle, side in zip((rows, columns), (top, left), sides, strict=True)
        )
        if kind < 1 / 3:
            inside = (u < 0.5) & (v < 0.5)
        elif kind < 2 / 3:
            inside = u.square() + v.square() < 0.25
        else:
            smooth = functional.interpolate(
                torch.randn(1, 1, 5, 5), (height, width), mode="bicubic", align_corners=True
            )[0, 0]
            inside = smooth > 0.3
        if share < NONE:
            inside = torch.zeros_like(inside)
        elif share < NONE + EVERYWHERE:
            inside = torch.ones_like(inside)
        made.append(torch.where(inside, MAX_WEIGHT ** float(torch.rand(())), 1.0))
    return torch.stack(made)


class SwinRoiCoder:
    """The coder of a :class:`SwinRoi` model.

    The streams are those of its latent; where the qualities of the cells are sent, they come first.
    """

    def __init__(self, model: SwinRoi) -> None:
        self._model = model
        self._latent = model.latent.coder()

    def encode(self, pixels: Tensor, quality: float, weights: Tensor) -> tuple[list[bytes], Tensor]:
        """Return the streams, and the decoded picture."""
        x, model = from_pixels(pixels), self._model
        y, cells = model.latent_of(x, torch.tensor([quality]), weights[None])
        first = []
        if model.sent:
            stream, cells = pack_cells(cells)
            first = [stream]
        used = cells

        def rescale(side: Tensor) -> Tensor:
            nonlocal used
            used = cells if model.sent else self._found(quality, side)
            scaled: Tensor = y * model.gain(used)
            return scaled

        def measure(y_hat: Tensor, side: Tensor) -> Distortion:
            inverse = model.inverse_gain(used)
            return distortion(
                lambda y: model.synthesis(y * inverse),
                *(x, y_hat.float(), worth(weights, model.trade_off(quality))),
                squared_norms(model.synthesis.shortcut) * inverse[0].square(),
            )

        streams, y_hat = self._latent.encode(y * model.gain(cells), measure, rescale)
        return [*first, *streams], self._picture(y_hat, used)

    def decode(self, streams: Sequence[bytes], height: int, width: int, quality: float) -> Tensor:
        """Return the decoded picture."""
        rows, columns = height // BLOCK, width // BLOCK
        if self._model.sent:
            used = unpack_cells(streams[0] if streams else b"", rows, columns)
            y_hat = self._latent.decode(streams[1:], rows, columns)
        else:
            y_hat = self._latent.decode(streams, rows, columns)
            used = self._found(quality, self._latent.side(streams, rows, columns))
        return self._picture(y_hat, used)

    def _found(self, quality: float, side: Tensor) -> Tensor:
        with one_thread():
            return self._model.found(torch.tensor([quality]), side.float())

    def _picture(self, y_hat: Tensor, used: Tensor) -> Tensor:
        scaled = y_hat.float() * self._model.inverse_gain(used)
        return to_pixels(synthesize(self._model.synthesis, scaled))
