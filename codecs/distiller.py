"""Knowledge distillation: a student codec that is drawn to the features of a teacher's decoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vpxrc.codecs.layers import UpBlock
from vpxrc.codecs.model import Model, Moment, squared_error
from vpxrc.errors import InputError

FEATURE_WEIGHTS = 1.0, 0.01  # at the beginning and at the end of a training
PICTURE_WEIGHTS = 1.0, 0.1


@dataclass
class Record:
    """What went through a decoder.

    Attributes:
        features: The inputs of the blocks that double height and width, in their order.
        pictures: The decoded pictures.
    """

    features: list[Tensor] = field(default_factory=list)
    pictures: list[Tensor] = field(default_factory=list)


@contextmanager
def recorded(model: Model) -> Iterator[Record]:
    """Record what goes through a decoder."""
    record = Record()

    def keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        record.features.append(inputs[0].float())

    def keep_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        record.pictures.append(output.float())

    hooks = [block.register_forward_pre_hook(keep_input) for block in up_blocks(model)]
    hooks.append(model.synthesis.register_forward_hook(keep_output))
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def up_blocks(model: Model) -> list[nn.Module]:
    """Return the blocks of a decoder that double height and width.

    Where it has no residual ones, they are the shuffles of pixels behind its convolutions.
    """
    layers = list(model.synthesis.modules())
    blocks: list[nn.Module] = [layer for layer in layers if isinstance(layer, UpBlock)]
    return blocks or [layer for layer in layers if isinstance(layer, nn.PixelShuffle)]


class Distiller:
    """The loss of a student.

    It is the student's own loss, and the distance from a teacher's features and pictures: ``a``
    times the mean squared difference at the inputs of the blocks that double height and width, and
    ``b lambda`` times the mean squared error against the teacher's pictures. The weights a and b
    fall in a straight line. Both codecs see the same noise and, where they have several, the same
    qualities.

    Args:
        student: The codec that is trained.
        teacher: A trained codec of the same widths.

    Raises:
        InputError: The decoders have other widths, or no blocks with features.
    """

    def __init__(self, student: Model, teacher: Model) -> None:
        self._student, self._teacher = student, teacher.requires_grad_(False)
        shapes = [[one.shape for one in _features(model)] for model in (student, teacher)]
        if shapes[0] != shapes[1] or not shapes[0]:
            raise InputError("a teacher's decoder has residual blocks of the student's widths")

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pictures, and its parts by name; see ``Model.objective``."""
        devices = [x.device] if x.is_cuda else []
        with torch.random.fork_rng(devices), torch.no_grad(), recorded(self._teacher) as ideal:
            self._teacher.objective(x, trade_off, moment)
        with recorded(self._student) as own:
            loss, found = self._student.objective(x, trade_off, moment)
        pairs = zip(own.features, ideal.features, strict=True)
        distance = torch.stack([(one - other).square().mean() for one, other in pairs]).sum()
        error = squared_error(own.pictures[0], ideal.pictures[0]).mean()
        loss = loss + moment.between(*FEATURE_WEIGHTS) * distance
        loss = loss + moment.between(*PICTURE_WEIGHTS) * trade_off * error
        return loss, {**found, "loss": float(loss.detach()), "features": float(distance.detach())}


@torch.no_grad()
def _features(model: Model) -> list[Tensor]:
    """Return the features of one small picture."""
    with torch.random.fork_rng(()), recorded(model) as record:
        x = next(model.parameters()).new_zeros(1, 3, model.multiple, model.multiple)
        model(x, x.new_full((1,), 0.5))
    return record.features
