"""Networks whose results are the same on every machine.

The frequencies of a range coder have to be equal, to the last bit, where a picture is encoded and
where it is decoded. A convolution in floating point does not give that: its sums depend on the
processor and on the number of threads. Here weights and activations are multiples of a power of
two, computed in float64. All products and sums are then exact, so their order does not matter.

With weights below 2^3 in steps of 2^-14, activations up to 2^11 in steps of 2^-10, and at most
2^13 products in a sum, a sum needs 3 + 14 + 11 + 10 + 13 = 51 bits; float64 has 53.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.layers import Correction

WEIGHT_STEP = 2.0**-14
MAX_WEIGHT = 8.0 - WEIGHT_STEP
STEP = 2.0**-10  # of activations, and of the biases
MAX_ACTIVATION = 2.0**11
MAX_TERMS = 2**13

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
# Others, as sums of branches and shuffles, are exact by themselves.
_ROUNDED = (*_CONVOLUTIONS, nn.LeakyReLU)

Network = TypeVar("Network", bound=nn.Module)


def snap(x: Tensor) -> Tensor:
    """Return the nearest values that activations can have, float64."""
    # In place after the first product, which is a tensor of its own.
    scaled = x.double() * (1 / STEP)
    return scaled.round_().mul_(STEP).clamp_(-MAX_ACTIVATION, MAX_ACTIVATION)


def exact(network: Network) -> Network:
    """Return a copy of a network that computes exactly; its input has to be snapped.

    Args:
        network: Convolutions, transposed convolutions, LeakyReLU, and modules that add or move
            their results.

    Returns:
        A copy in float64 without gradients. Its results are multiples of :data:`STEP`.

    Raises:
        ValueError: A sum would have too many terms, or a module has parameters that are none of a
            convolution.
    """
    result = copy.deepcopy(network).double().eval().requires_grad_(False)
    for module in result.modules():
        if isinstance(module, _CONVOLUTIONS):
            terms = module.weight[:, 0] if module.transposed else module.weight[0]
            if terms.numel() > MAX_TERMS:
                raise ValueError(f"a sum of {terms.numel()} products may not be exact")
            weight = (module.weight / WEIGHT_STEP).round() * WEIGHT_STEP
            module.weight.copy_(weight.clamp(-MAX_WEIGHT, MAX_WEIGHT))
            if module.bias is not None:
                module.bias.copy_(snap(module.bias))
        elif next(module.parameters(recurse=False), None) is not None:
            raise ValueError(f"{type(module).__name__} is not computed exactly")
        if isinstance(module, _ROUNDED):
            module.register_forward_hook(_snap_output)
    return result


def _snap_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return snap(output)


@dataclass(frozen=True)
class ExactPointwise:
    """1x1 convolutions and LeakyReLU in a row, computed exactly and with little overhead.

    Attributes:
        layers: Weights and bias of a convolution, or the slope of a LeakyReLU.
        added: The inputs that are added to the outputs, as many as these; None for none.
    """

    layers: Sequence[tuple[Tensor, Tensor | None] | float]
    added: Tensor | None = None

    def __call__(self, features: Tensor) -> Tensor:
        """Return ``[outputs, n]`` of features ``[inputs, n]`` on the grid, float64."""
        shortcut = None if self.added is None else features[self.added]
        for layer in self.layers:
            if isinstance(layer, float):
                features = snap(functional.leaky_relu(features, layer))
            else:
                weight, bias = layer
                features = weight @ features
                features = snap(features if bias is None else features.add_(bias[:, None]))
        return features if shortcut is None else snap(features + shortcut)

    def only(self, outputs: Tensor) -> "ExactPointwise":
        """Return the network with some of its outputs; the last layer is a convolution."""
        *layers, last = self.layers
        assert not isinstance(last, float)
        weight, bias = last
        return ExactPointwise(
            [*layers, (weight[outputs], None if bias is None else bias[outputs])],
            None if self.added is None else self.added[outputs],
        )


def exact_pointwise(network: nn.Module) -> ExactPointwise:
    """Return a network that computes exactly what each cell gets.

    Args:
        network: A sequence of 1x1 convolutions and LeakyReLU, a :class:`Correction` with such a
            one, or an identity.

    Raises:
        ValueError: Another layer is among them.
    """
    layers: list[tuple[Tensor, Tensor | None] | float] = []
    inner = network.network if isinstance(network, Correction) else network
    for module in exact(inner).modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            layers.append((module.weight[:, :, 0, 0], module.bias))
        elif isinstance(module, nn.LeakyReLU):
            layers.append(module.negative_slope)
        elif not isinstance(module, nn.Sequential | nn.Identity):
            raise ValueError(f"{type(module).__name__} does not look at one cell at a time")
    if not isinstance(network, Correction):
        return ExactPointwise(layers)
    return ExactPointwise(layers, torch.arange(network.inputs - network.outputs, network.inputs))
