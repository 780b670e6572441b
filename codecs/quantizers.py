"""Ways to turn a latent into whole numbers, in training and in coding."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def add_noise(y: Tensor) -> Tensor:
    """Return ``y + u`` with u uniform in [-1/2, 1/2].

    A stand-in for rounding that keeps the gradient. The likelihood of the noisy value is exact for
    the density convolved with a unit box (Ballé et al., ICLR 2017).
    """
    return y + torch.rand_like(y) - 0.5


def straight_through(y: Tensor) -> Tensor:
    """Return ``round(y)``; the gradient is that of the identity."""
    return y + (y.round() - y).detach()


def stochastic_round(y: Tensor) -> Tensor:
    """Return ``floor(y + u)`` with u uniform in [0, 1); the gradient is that of the identity.

    The mean over u is ``y`` itself.
    """
    return y + ((y + torch.rand_like(y)).floor() - y).detach()


@dataclass(frozen=True)
class Distortion:
    """What other values of a latent cost in the picture, in bits: a parabola for each value.

    A bit is worth ``1 / (lambda pixels)`` of mean squared error. Each value is seen alone.

    Attributes:
        at: Values of the latent, ``[M, h, w]``, at which the cost is 0.
        gradient: Of the cost there, ``[M, h, w]``.
        curvature: Of the cost, ``[M, h, w]``, not negative.
    """

    at: Tensor
    gradient: Tensor
    curvature: Tensor

    def cost(self, y: Tensor, channels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the cost of values of some channels at some cells.

        Args:
            y: ``[c, n]``.
            channels: ``[c]``, int64.
            rows: ``[n]``, int64.
            columns: ``[n]``, int64.
        """
        where = channels[:, None], rows, columns
        change = y - self.at[where]
        return change * (self.gradient[where] + self.curvature[where] * change / 2)


def distortion(
    synthesis: Callable[[Tensor], Tensor],
    x: Tensor,
    y_hat: Tensor,
    weight: Tensor,
    norms: Tensor,
) -> Distortion:
    """Return what changes of a rounded latent cost.

    Args:
        synthesis: From the latent to the picture.
        x: The picture ``[1, 3, H, W]`` in 0..1.
        y_hat: The latent ``[1, M, h, w]``.
        weight: Bits that a squared error of 1 is worth, ``[H, W]``; 0 outside of the picture.
        norms: ``[M, 1, 1]`` or ``[M, h, w]``, the squared error of a change by 1, about.
    """
    with torch.enable_grad():
        y = y_hat.detach().clone().requires_grad_(True)
        error = (weight * (synthesis(y) - x).square()).sum()
        (gradient,) = torch.autograd.grad(error, y)
    cells = functional.adaptive_avg_pool2d(weight[None], (y.shape[2], y.shape[3]))
    return Distortion(y_hat[0].detach(), gradient[0], 2 * norms * cells)
