"""What every codec has in common: a module that is trained, and a coder of pictures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vpxrc.codecs.attention import WINDOW, WindowAttention
from vpxrc.codecs.latents import Bits, LatentModel
from vpxrc.codecs.layers import GDN


@dataclass(frozen=True)
class Output:
    """What a model makes of pictures in training.

    Attributes:
        x_hat: The decoded pictures, ``[B, 3, H, W]``, about 0..1.
        bits: The estimated bits of each picture, ``[B]``, by stream.
    """

    x_hat: Tensor
    bits: Bits


@dataclass(frozen=True)
class Moment:
    """How far a training is.

    Attributes:
        step: Steps that are done.
        steps: Steps of the training.
    """

    step: int
    steps: int

    def between(self, start: float, end: float) -> float:
        """Return a number that goes from ``start`` to ``end`` in a straight line."""
        return start + (end - start) * self.step / self.steps


class PictureCoder(Protocol):
    """Codes one picture, whose sides are multiples of what the model asks for."""

    def encode(self, pixels: Tensor, quality: float, weights: Tensor) -> tuple[list[bytes], Tensor]:
        """Return the streams, and the picture as :meth:`decode` returns it.

        Args:
            pixels: ``[3, H, W]``, uint8, RGB.
            quality: 0..1; a codec of one quality ignores it.
            weights: How much a squared error counts at each pixel, ``[H, W]``: 0 in the padding,
                1 in the picture, and more in a region of interest. All may be smaller by one
                factor, for less than the lowest quality.
        """

    def decode(self, streams: Sequence[bytes], height: int, width: int, quality: float) -> Tensor:
        """Return the picture ``[3, H, W]``, uint8.

        Raises:
            InputError: A stream is damaged.
        """


class Model(nn.Module, ABC):
    """A codec's networks.

    Attributes:
        analysis: From pictures ``[B, 3, H, W]`` to latents.
        synthesis: From latents to pictures.
        multiple: Height and width of a picture have to be multiples of it.
        precision: What the transforms are computed in; in training it may be ``torch.bfloat16``,
            whose products some processors have in hardware. The latents' probabilities always have
            float32.
        has_regions: Whether its coder heeds weights above 1.
    """

    analysis: nn.Module
    synthesis: nn.Module
    multiple: int
    has_regions: ClassVar[bool] = False
    precision: torch.dtype = torch.float32

    @abstractmethod
    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """Code pictures as in training.

        Args:
            x: ``[B, 3, H, W]``, RGB in 0..1.
            quality: ``[B]``, 0..1; a codec of one quality ignores it.
        """

    @abstractmethod
    def coder(self) -> PictureCoder:
        """Return a coder with the weights as they are now."""

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pictures, and its parts by name.

        Args:
            x: ``[B, 3, H, W]``, RGB in 0..1.
            trade_off: lambda in ``lambda * MSE + bits per pixel``, MSE in levels of 8 bits.
            moment: How far the training is.
        """
        output = self(x, x.new_full((len(x),), 0.5))
        error, bpp = squared_error(output.x_hat, x), bits_per_pixel(output.bits, x)
        loss = (trade_off * error + bpp).mean()
        return loss, figures(loss, error, bpp)

    def transform(self, network: Callable[[Any], Any], x: Any) -> Any:
        """Return what a transform gives, in float32: a tensor, or a named tuple of tensors."""
        half = self.precision != torch.float32
        device = next(self.parameters()).device.type
        with torch.autocast(device, self.precision if half else None, enabled=half):
            y = network(x)
        return y.float() if isinstance(y, Tensor) else type(y)(*map(Tensor.float, y))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take statistics that no gradient gives, at the end of a training.

        Args:
            batches: Crops ``[B, 3, H, W]``, uint8.
        """


class VariableModel(Model):
    """Networks of which one set of weights has all qualities.

    Attributes:
        lambdas: lambda of the objective at the qualities 0 and 1.
    """

    lambdas: ClassVar[tuple[float, float]]

    @classmethod
    def trade_offs(cls, quality: Tensor) -> Tensor:
        """Return lambda of the objective at qualities 0..1."""
        low, high = cls.lambdas
        return low * (high / low) ** quality

    @classmethod
    def quality_of(cls, trade_off: float) -> float:
        """Return the quality 0..1 whose lambda is the nearest."""
        low, high = cls.lambdas
        return min(max(math.log(trade_off / low) / math.log(high / low), 0.0), 1.0)

    @classmethod
    def trade_off(cls, quality: float) -> float:
        """Return lambda of the objective at a quality 0..1."""
        return float(cls.trade_offs(torch.tensor(quality)))


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Return the mean squared error ``[B]`` in levels of 8 bits."""
    return 255**2 * (x_hat - x).square().flatten(1).mean(1)


def bits_per_pixel(bits: Bits, x: Tensor) -> Tensor:
    """Return the estimated bits per pixel ``[B]``."""
    total = torch.stack(list(bits.values())).sum(0)
    return total / (x.shape[-2] * x.shape[-1])


def figures(loss: Tensor, error: Tensor, bpp: Tensor) -> dict[str, float]:
    """Return what a curve shows of a batch."""
    parts = {"loss": loss, "mse": error.mean(), "bpp": bpp.mean()}
    return {name: float(part.detach()) for name, part in parts.items()}


class Coded(NamedTuple):
    """What a :class:`TransformModel` makes of pictures in training.

    Attributes:
        y: The latents.
        y_hat: The rounded latents.
        x_hat: The decoded pictures, ``[B, 3, H, W]``, about 0..1.
        bits: The estimated bits of each picture, ``[B]``, by stream.
    """

    y: Any
    y_hat: Any
    x_hat: Tensor
    bits: Bits


class TransformModel(Model):
    """An analysis transform, a latent, and a synthesis transform.

    ::

        x -> analysis -> y -> latent -> streams
                                 |
        x_hat <- synthesis <- y_hat

    Args:
        analysis: From a picture to its latent.
        synthesis: From the decoded latent to the decoded picture.
        latent: The model of the latent.
        multiple: See :class:`Model`.
    """

    def __init__(
        self,
        analysis: nn.Module,
        synthesis: nn.Module,
        latent: LatentModel[Any],
        multiple: int = 64,
    ) -> None:
        super().__init__()
        self.analysis, self.synthesis, self.latent = analysis, synthesis, latent
        self.multiple = multiple

    def forward(self, x: Tensor, quality: Tensor) -> Output:
        """Code pictures as in training."""
        coded = self.code(x)
        return Output(coded.x_hat, coded.bits)

    def code(self, x: Tensor) -> Coded:
        """Code pictures as in training; return the latents too."""
        y = self.transform(self.analysis, x)
        y_hat, rates = self.latent(y)
        return Coded(y, y_hat, self.transform(self.synthesis, y_hat), rates)

    def coder(self) -> "TransformCoder":
        """Return a coder with the weights as they are now."""
        return TransformCoder(self)


class TransformCoder:
    """The coder of a :class:`TransformModel`."""

    def __init__(self, model: TransformModel) -> None:
        self._model = model
        self._latent = model.latent.coder()

    def encode(self, pixels: Tensor, quality: float, weights: Tensor) -> tuple[list[bytes], Tensor]:
        """Return the streams, and the decoded picture."""
        streams, y_hat = self._latent.encode(self._model.analysis(from_pixels(pixels)))
        return streams, to_pixels(synthesize(self._model.synthesis, y_hat))

    def decode(self, streams: Sequence[bytes], height: int, width: int, quality: float) -> Tensor:
        """Return the decoded picture."""
        y_hat = self._latent.decode(streams, height // 16, width // 16)
        return to_pixels(synthesize(self._model.synthesis, y_hat))


def from_pixels(pixels: Tensor) -> Tensor:
    """Return ``[1, 3, H, W]`` in 0..1 of uint8 pixels ``[3, H, W]``."""
    return to_unit(pixels[None])


def to_unit(batch: Tensor) -> Tensor:
    """Return ``[B, 3, H, W]`` in 0..1 of uint8 pixels."""
    return batch.float() / 255


def to_pixels(x: Tensor) -> Tensor:
    """Return uint8 pixels ``[3, H, W]`` of ``[1, 3, H, W]``; what is no number becomes black."""
    return (x[0].nan_to_num() * 255).round().clamp(0, 255).to(torch.uint8)


def synthesize(synthesis: Callable[[Any], Tensor], latent: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the picture of a latent, or of a pair of them, the same for any number of threads."""
    single = (
        latent.float() if isinstance(latent, Tensor) else type(latent)(*map(Tensor.float, latent))
    )
    with one_thread():
        return synthesis(single)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread: a convolution's sums depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def run_counting(network: nn.Module, x: Any) -> tuple[Any, int]:
    """Return what a network gives, and how many multiplications its layers take.

    Args:
        network: The module that is called.
        x: What it is called with.
    """
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.ConvTranspose2d):
            stride = module.stride[0] * module.stride[1]
            total += output.numel() * module.weight[:, 0].numel() // stride
        elif isinstance(module, GDN):
            total += output.numel() * output.shape[1]
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        elif isinstance(module, WindowAttention):  # the two products of its windows
            total += 2 * output.numel() * WINDOW**2

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    try:
        result = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return result, total
