"""Layers that the codecs share: normalisation, residual blocks, attention, masked convolutions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of LeakyReLU, as in the TensorFlow code of the papers
_PEDESTAL = 2.0**-36  # keeps the square root's gradient finite at zero


class _LowerBound(torch.autograd.Function):
    """``max(x, bound)`` whose gradient passes where it leads back above the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        passes = (x >= ctx.bound) | (grads[0] < 0)
        return grads[0] * passes, None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """Return ``max(x, bound)``; the gradient passes above the bound, and where it points up."""
    # PyTorch has no types for what is called through autograd.Function.
    result: Tensor = _LowerBound.apply(x, bound)  # type: ignore[no-untyped-call]
    return result


class _Normalise(torch.autograd.Function):
    """``x / sqrt(norm)`` or ``x * sqrt(norm)`` with ``norm = beta + gamma x^2`` over the channels.

    The gradients are written out, because those that PyTorch puts together make several more
    passes over memory, which takes most of the time where there are few channels.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, inverse: bool) -> Tensor:
        # The weights stay in float32 where the features have half of the digits.
        gamma, beta = gamma.to(x), beta.to(x)
        norm = functional.conv2d(x * x, gamma[:, :, None, None], beta)
        factor = norm.sqrt() if inverse else norm.rsqrt()
        ctx.save_for_backward(x, gamma, factor)
        ctx.inverse = inverse
        return x * factor

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, gamma, factor = ctx.saved_tensors
        by_norm = grads[0] * x
        if ctx.inverse:
            by_norm.div_(factor).mul_(0.5)
        else:
            by_norm.mul_(factor).mul_(factor).mul_(factor).mul_(-0.5)
        by_x = functional.conv2d(by_norm, gamma.t()[:, :, None, None])
        by_x.mul_(x).mul_(2).addcmul_(grads[0], factor)
        flat = by_norm.flatten(2)
        wide = torch.promote_types(x.dtype, torch.float32)  # of the weights
        by_gamma = torch.bmm(flat, x.square().flatten(2).transpose(1, 2)).to(wide).sum(0)
        return by_x, by_gamma, flat.to(wide).sum((0, 2)), None


class GDN(nn.Module):
    """Generalised divisive normalisation, ``y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2)``.

    Ballé et al., "Density modeling of images using a generalized normalization transformation",
    ICLR 2016. The inverse multiplies instead. Square roots of beta and gamma are learned, which
    keeps both from becoming negative.

    Args:
        channels: Number of channels C of the input ``[B, C, H, W]`` and of the output.
        inverse: Whether to multiply (IGDN).
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter(torch.ones(channels).add(_PEDESTAL).sqrt())
        self.gamma_root = nn.Parameter((0.1 * torch.eye(channels)).add(_PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised tensor, of the shape of ``x``."""
        beta = lower_bound(self.beta_root, (1e-6 + _PEDESTAL) ** 0.5) ** 2 - _PEDESTAL
        gamma = lower_bound(self.gamma_root, _PEDESTAL**0.5) ** 2 - _PEDESTAL
        # PyTorch has no types for what is called through autograd.Function.
        result: Tensor = _Normalise.apply(x, gamma, beta, self.inverse)  # type: ignore[no-untyped-call]
        return result


def igdn(channels: int) -> GDN:
    """Return an inverse :class:`GDN`."""
    return GDN(channels, inverse=True)


def conv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """Return a convolution that divides height and width by the stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def deconv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """Return a transposed convolution that multiplies height and width by the stride."""
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, kernel // 2, stride - 1)


def leaky() -> nn.LeakyReLU:
    """Return the LeakyReLU of all codecs."""
    return nn.LeakyReLU(SLOPE)


class Residual(nn.Module):
    """``x + body(x)``."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, of the shape of ``x``."""
        result: Tensor = x + self.body(x)
        return result


class Sum(nn.Module):
    """``main(x) + shortcut(x)``, for blocks that change the resolution."""

    def __init__(self, main: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        result: Tensor = self.main(x) + self.shortcut(x)
        return result


class Correction(nn.Module):
    """``network(x) + tail(x)``, where the tail are the last channels of x.

    So a prediction that is among the inputs is corrected by what else is known.

    Args:
        network: 1x1 convolutions and LeakyReLU, a convolution last.
        inputs: Channels of x.
        outputs: Channels of the result.
    """

    network: nn.Sequential

    def __init__(self, network: nn.Sequential, inputs: int, outputs: int) -> None:
        super().__init__()
        self.network, self.inputs, self.outputs = network, inputs, outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, outputs, h, w]``."""
        result: Tensor = self.network(x) + x[:, -self.outputs :]
        return result


def silent(layer: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution whose weights are zeros at the start."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def residual_block(channels: int) -> nn.Module:
    """Return two 3x3 convolutions around which the input is added."""
    return Residual(
        conv(channels, channels, 3, 1), leaky(), conv(channels, channels, 3, 1), leaky()
    )


def concatenated_residual_block(channels: int) -> nn.Module:
    """Return two residual blocks in a row around which the input is added once more.

    Fu et al., arXiv 2107.06463, after the authors' code: with ``a = x + f(x)`` the result is
    ``x + a + g(a)``.
    """
    return Residual(residual_block(channels), residual_block(channels))


def bottleneck(channels: int, kernel: int = 3) -> nn.Module:
    """Return a residual block that convolves at half of the channels."""
    half = channels // 2
    return Residual(
        *(conv(channels, half, 1, 1), nn.ReLU()),
        *(conv(half, half, kernel, 1), nn.ReLU()),
        conv(half, channels, 1, 1),
    )


class EverySecond(nn.Conv2d):
    """A 1x1 convolution of every second row and column.

    PyTorch 2.13 has this as a convolution of stride 2. In half precision, with channels last, few
    input channels and a large picture, its gradient writes beyond its memory on the processor.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, outputs, H/2, W/2]``, rounded up."""
        return super().forward(x[..., ::2, ::2])


def down_block(inputs: int, channels: int) -> nn.Module:
    """Return a residual block that halves height and width, with GDN."""
    return Sum(
        nn.Sequential(
            conv(inputs, channels, 3, 2), leaky(), conv(channels, channels, 3, 1), GDN(channels)
        ),
        EverySecond(inputs, channels),
    )


class UpBlock(Sum):
    """A residual block that doubles height and width, with IGDN.

    Attributes:
        channels: Channels of the input and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Sequential(
                conv(channels, 4 * channels, 3, 1),
                leaky(),
                nn.PixelShuffle(2),
                conv(channels, channels, 3, 1),
                igdn(channels),
            ),
            nn.Sequential(conv(channels, 4 * channels, 1, 1), nn.PixelShuffle(2)),
        )
        self.channels = channels


class Attention(nn.Module):
    """Simplified attention, ``x + T(x) * sigmoid(conv(A(x)))`` (Cheng et al., CVPR 2020).

    T and A are each three bottleneck blocks. No part of it is non-local.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(bottleneck(channels) for _ in range(3)))
        inner = nn.Sequential(*(bottleneck(channels) for _ in range(3)))
        self.mask = nn.Sequential(inner, conv(channels, channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tensor, of the shape of ``x``."""
        result: Tensor = x + self.trunk(x) * self.mask(x)
        return result


class MaskedConv2d(nn.Conv2d):
    """A 5x5 convolution that sees only some cells of its window.

    The mask is applied to the weights at every call, so an optimiser cannot revive a tap.

    Args:
        inputs: Number of input channels.
        outputs: Number of output channels.
        taps: ``[5, 5]``, 1 where the window may be seen.
    """

    taps: Tensor

    def __init__(self, inputs: int, outputs: int, taps: Tensor) -> None:
        super().__init__(inputs, outputs, 5, padding=2)
        self.register_buffer("taps", taps.to(self.weight.dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, outputs, H, W]``; cells outside the map are zeros."""
        return functional.conv2d(x, self.weight * self.taps, self.bias, padding=2)
