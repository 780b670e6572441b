"""Levels of a bounded latent at two resolutions: their bits in training, and their streams.

A latent between -1 and 1 has the levels ``-n/s ... n/s`` for ``s`` *steps*, of which ``n`` is the
whole part. A file has the nearest levels, so the bits are those of noisy ones. The levels of
stochastic rounding, which the synthesis sees in training, have a wider density.

The streams are the low and the high part.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vpxrc.codecs.coder import Decoder, Encoder, by_channel
from vpxrc.codecs.contexts import Checkerboard, Raster
from vpxrc.codecs.entropy import LAPLACE, FactorizedPrior, Mixture, between, bits
from vpxrc.codecs.exact import exact, snap
from vpxrc.codecs.frequencies import Table, fixed, frequencies
from vpxrc.codecs.latents import Bits, conditional_part
from vpxrc.codecs.layers import deconv
from vpxrc.codecs.octave import Octave, Width
from vpxrc.codecs.quantizers import add_noise

_FAR = 40.0  # a logit beyond which nothing is left


class StaticPart(nn.Module):
    """A part of a latent whose levels have one density for each channel.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prior = FactorizedPrior(channels, init_scale=1.0)

    def likelihood(self, levels: Tensor, steps: Tensor) -> Tensor:
        """Return the probabilities of levels ``[B, C, h, w]``, of the same shape.

        Args:
            levels: Whole numbers, or others in training.
            steps: ``[B]``, the largest level.
        """
        batch, _, height, width = levels.shape
        flat = levels.transpose(0, 1).flatten(1)
        of = steps[:, None].expand(batch, height * width).flatten()
        low, high = self.prior.logits((flat - 0.5) / of), self.prior.logits((flat + 0.5) / of)
        # All that lies outside belongs to the first and to the last level.
        low = low.masked_fill(flat < 0.5 - of.floor(), -_FAR)
        high = high.masked_fill(flat > of.floor() - 0.5, _FAR)
        return between(low, high).view(-1, batch, height, width).transpose(0, 1)

    @torch.no_grad()
    def tables(self, steps: float) -> list[Table]:
        """Return a table of levels for each channel."""
        count = int(steps)
        bounds = (torch.arange(1 - count, count + 1, dtype=torch.float64) - 0.5) / steps
        inner = self.prior.logits(bounds.expand(self.prior.channels, -1)).sigmoid()
        ends = inner.new_zeros(len(inner), 1)
        cdf = fixed(torch.cat([ends, inner, ends + 1], 1))
        return [Table(-count, frequencies(row)) for row in cdf]


class StaticLevels(nn.Module):
    """Levels whose density is that of their channel.

    Args:
        width: Channels of both parts.
    """

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.high, self.low = StaticPart(width.high), StaticPart(width.low)

    def forward(self, levels: Octave, steps: Tensor) -> Bits:
        """Return the bits of the noisy levels.

        Args:
            levels: Before they are rounded.
            steps: ``[B]``, the largest level; it need not be a whole number.
        """
        most = steps[:, None, None, None].floor()
        noisy = Octave(*(add_noise(part).clamp(-most, most) for part in levels))
        return {
            "high": bits(self.high.likelihood(noisy.high, steps)),
            "low": bits(self.low.likelihood(noisy.low, steps)),
        }

    def coder(self) -> "StaticLevelsCoder":
        """Return a coder with the weights as they are now."""
        return StaticLevelsCoder(self)


class StaticLevelsCoder:
    """The coder of :class:`StaticLevels`."""

    def __init__(self, model: StaticLevels) -> None:
        self._parts = model.low, model.high

    def encode(self, levels: Octave, steps: float) -> list[bytes]:
        """Return the streams.

        Args:
            levels: Whole numbers of one picture, float64, not beyond ``steps``.
            steps: The largest level; it need not be a whole number.
        """
        streams = []
        for part, values in zip(self._parts, (levels.low, levels.high), strict=True):
            encoder = Encoder()
            encoder.add(
                values.flatten().long(), by_channel(part.tables(steps), values[0, 0].numel())
            )
            streams.append(encoder.finish())
        return streams

    def decode(self, streams: Sequence[bytes], height: int, width: int, steps: float) -> Octave:
        """Return the levels; ``height`` and ``width`` are those of the high part.

        Raises:
            InputError: A stream is damaged.
        """
        found = []
        shapes = (height // 2, width // 2), (height, width)
        for part, stream, shape in zip(self._parts, streams, shapes, strict=True):
            decoder, channels, cells = Decoder(stream), part.prior.channels, shape[0] * shape[1]
            values = decoder.take(channels * cells, by_channel(part.tables(steps), cells))
            decoder.finish()
            found.append(values.double().view(1, channels, *shape))
        return Octave(found[1], found[0])


class ContextLevels(nn.Module):
    """Levels that are predicted from their neighbours, and the high part from the low one too.

    Args:
        width: Channels of both parts.
        hidden: Channels of the networks.
    """

    def __init__(self, width: Width, hidden: int) -> None:
        super().__init__()
        self.up = deconv(width.low, hidden, 3, 2)
        self.low = conditional_part(
            width.low, 1, hidden, partial(Raster, features=hidden), Mixture([LAPLACE], 1)
        )
        self.high = conditional_part(
            width.high,
            hidden + 1,
            hidden,
            partial(Checkerboard, features=hidden),
            Mixture([LAPLACE], 1),
        )
        self.width = width

    def forward(self, levels: Octave, steps: Tensor) -> Bits:
        """Return the bits of the noisy levels, as :meth:`StaticLevels.forward`."""
        which = _which(steps)[:, None, None, None]
        low_side = which.expand(-1, 1, *levels.low.shape[-2:])
        low, low_bits = self.low(levels.low, low_side)
        high_side = which.expand(-1, 1, *levels.high.shape[-2:])
        _, high_bits = self.high(levels.high, torch.cat([self.up(low), high_side], 1))
        return {"high": high_bits, "low": low_bits}

    def coder(self) -> "ContextLevelsCoder":
        """Return a coder with the weights as they are now."""
        return ContextLevelsCoder(self)


class ContextLevelsCoder:
    """The coder of :class:`ContextLevels`."""

    def __init__(self, model: ContextLevels) -> None:
        self._up, self._width = exact(model.up), model.width
        self._low, self._high = model.low.coder(), model.high.coder()

    def encode(self, levels: Octave, steps: float) -> list[bytes]:
        """Return the streams, as :meth:`StaticLevelsCoder.encode`."""
        which = _exact_which(steps)
        low_side = which.expand(1, *levels.low.shape[-2:])
        low_stream, low = self._low.encode(levels.low[0], low_side)
        high_stream, _ = self._high.encode(levels.high[0], self._high_side(low, which))
        return [low_stream, high_stream]

    def decode(self, streams: Sequence[bytes], height: int, width: int, steps: float) -> Octave:
        """Return the levels, as :meth:`StaticLevelsCoder.decode`."""
        which = _exact_which(steps)
        low_side = which.expand(1, height // 2, width // 2)
        low = self._low.decode(streams[0], low_side, self._width.low)
        high = self._high.decode(streams[1], self._high_side(low, which), self._width.high)
        return Octave(high[None], low[None])

    def _high_side(self, low: Tensor, which: Tensor) -> Tensor:
        up = snap(self._up(snap(low)[None]))[0]
        return torch.cat([up, which.expand(1, *up.shape[1:])])


def _exact_which(steps: float) -> Tensor:
    return snap(_which(torch.tensor(steps, dtype=torch.float64)))


def _which(steps: Tensor) -> Tensor:
    """Return the number of levels as a feature, about -1..1."""
    return steps.log2() / 4 - 1
