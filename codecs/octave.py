"""Generalised octave convolutions: features at two resolutions that inform each other.

Akbari et al., "Generalized octave convolutions for learned multi-frequency image compression",
arXiv 2002.10032. A feature map is a pair: a *high* part ``[B, (1 - a) C, H, W]`` and a *low* part
``[B, a C, H/2, W/2]``. In contrast to the plain octave convolution (Chen et al., ICCV 2019), the
exchange between the parts is learned, it starts from the outputs of both parts, and the activation
lies inside.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.layers import conv, deconv, leaky

Activation = Callable[[int], nn.Module]


class Octave(NamedTuple):
    """A feature map at two resolutions.

    Attributes:
        high: ``[B, C_high, H, W]``.
        low: ``[B, C_low, H/2, W/2]``.
    """

    high: Tensor
    low: Tensor


class Width(NamedTuple):
    """The numbers of channels of an :class:`Octave`."""

    high: int
    low: int


def split_width(channels: int, share: float = 0.5) -> Width:
    """Return the channels of both parts, if ``share`` of all channels are in the low part."""
    low = round(share * channels)
    return Width(channels - low, low)


def no_activation(channels: int) -> nn.Module:
    """Return a layer that changes nothing."""
    return nn.Identity()


def leaky_activation(channels: int) -> nn.Module:
    """Return LeakyReLU."""
    return leaky()


class GoConv(nn.Module):
    """Octave convolution: each part is convolved and activated, then both exchange.

    ``HH = act(f(H)); LL = act(f(L)); high = HH + act(up(LL)); low = LL + act(down(HH))``.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel: Size of the kernel of f.
        stride: Stride of f.
        activation: Makes an activation for a number of channels.
    """

    def __init__(
        self, inputs: Width, outputs: Width, kernel: int, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        self.high = nn.Sequential(
            conv(inputs.high, outputs.high, kernel, stride), activation(outputs.high)
        )
        self.low = nn.Sequential(
            conv(inputs.low, outputs.low, kernel, stride), activation(outputs.low)
        )
        self.down = nn.Sequential(conv(outputs.high, outputs.low, 3), activation(outputs.low))
        self.up = nn.Sequential(deconv(outputs.low, outputs.high, 3), activation(outputs.high))

    def forward(self, x: Octave) -> Octave:
        """Return both parts; each is divided in height and width by the stride."""
        high, low = self.high(x.high), self.low(x.low)
        return Octave(high + self.up(low), low + self.down(high))


class GoConvFirst(nn.Module):
    """The first octave convolution: its input, a picture, has no low part."""

    def __init__(
        self, inputs: int, outputs: Width, kernel: int, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        self.high = nn.Sequential(
            conv(inputs, outputs.high, kernel, stride), activation(outputs.high)
        )
        self.down = nn.Sequential(conv(outputs.high, outputs.low, 3), activation(outputs.low))

    def forward(self, x: Tensor) -> Octave:
        """Return both parts of ``[B, inputs, H, W]``."""
        high = self.high(x)
        return Octave(high, self.down(high))


class GoTransposedConv(nn.Module):
    """Transposed octave convolution: an activation precedes each transposed convolution.

    ``HH = g(act(H)); LL = g(act(L)); high = HH + up(act(LL)); low = LL + down(act(HH))``.
    """

    def __init__(
        self, inputs: Width, outputs: Width, kernel: int, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        self.high = nn.Sequential(
            activation(inputs.high), deconv(inputs.high, outputs.high, kernel, stride)
        )
        self.low = nn.Sequential(
            activation(inputs.low), deconv(inputs.low, outputs.low, kernel, stride)
        )
        self.down = nn.Sequential(activation(outputs.high), conv(outputs.high, outputs.low, 3))
        self.up = nn.Sequential(activation(outputs.low), deconv(outputs.low, outputs.high, 3))

    def forward(self, x: Octave) -> Octave:
        """Return both parts; each is multiplied in height and width by the stride."""
        high, low = self.high(x.high), self.low(x.low)
        return Octave(high + self.up(low), low + self.down(high))


class GoTransposedConvLast(nn.Module):
    """The last transposed octave convolution: both parts become one picture."""

    def __init__(
        self, inputs: Width, outputs: int, kernel: int, stride: int, activation: Activation
    ) -> None:
        super().__init__()
        self.high = nn.Sequential(
            activation(inputs.high), deconv(inputs.high, outputs, kernel, stride)
        )
        self.low = nn.Sequential(
            activation(inputs.low),
            deconv(inputs.low, outputs, kernel, stride),
            deconv(outputs, outputs, 3),
        )

    def forward(self, x: Octave) -> Tensor:
        """Return the picture ``[B, outputs, H, W]``."""
        result: Tensor = self.high(x.high) + self.low(x.low)
        return result


class OctaveResidual(nn.Module):
    """``x + body(x)`` for both parts."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Octave) -> Octave:
        """Return the sums, of the shapes of ``x``."""
        change: Octave = self.body(x)
        return Octave(x.high + change.high, x.low + change.low)


class OctaveConv(nn.Module):
    """The plain octave convolution, for comparison (Chen et al., ICCV 2019).

    ``high = f(H) + nearest(f(L)); low = f(L) + f(mean(H))``, each f with weights of its own. The
    exchange starts from the inputs, its resampling is fixed, and an activation follows outside.

    Args:
        inputs: Channels of the input; a low part of 0 for a picture.
        outputs: Channels of the output; a low part of 0 for a picture.
        layer: Makes f for numbers of channels.
        activation: Makes the activation outside for a number of channels; None for none.
    """

    def __init__(
        self,
        inputs: Width,
        outputs: Width,
        layer: Callable[[int, int], nn.Module],
        activation: Activation | None,
    ) -> None:
        super().__init__()
        act = activation or no_activation
        self.high_to_high = layer(inputs.high, outputs.high)
        self.low_to_high = layer(inputs.low, outputs.high) if inputs.low else None
        self.high_to_low = layer(inputs.high, outputs.low) if outputs.low else None
        self.low_to_low = layer(inputs.low, outputs.low) if inputs.low and outputs.low else None
        self.act_high = act(outputs.high)
        self.act_low = act(outputs.low) if outputs.low else None

    def forward(self, x: Octave | Tensor) -> Octave | Tensor:
        """Return both parts, or a picture where the output has no low part."""
        high = x if isinstance(x, Tensor) else x.high
        result: Tensor = self.high_to_high(high)
        if self.low_to_high is not None and isinstance(x, Octave):
            result = result + functional.interpolate(self.low_to_high(x.low), scale_factor=2.0)
        result = self.act_high(result)
        if self.high_to_low is None or self.act_low is None:
            return result
        low: Tensor = self.high_to_low(functional.avg_pool2d(high, 2))
        if self.low_to_low is not None and isinstance(x, Octave):
            low = low + self.low_to_low(x.low)
        return Octave(result, self.act_low(low))


class Merged(nn.Module):
    """The sum of what two layers make of both parts.

    Args:
        high: From the high part to a map.
        low: From the low part to one of the same shape.
    """

    def __init__(self, high: nn.Module, low: nn.Module) -> None:
        super().__init__()
        self.high, self.low = high, low

    def forward(self, x: Octave) -> Tensor:
        """Return the map."""
        result: Tensor = self.high(x.high) + self.low(x.low)
        return result
