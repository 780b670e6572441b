"""Ways to turn a latent into whole numbers, in training and in coding."""

import torch
from torch import Tensor


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
