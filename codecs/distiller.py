"""Knowledge distillation: a student codec that is drawn to the features of a teacher's decoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vpxrc.codecs.layers import UpBlock
from vpxrc.codecs.model import Moment, TransformModel, squared_error
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
def recorded(model: TransformModel) -> Iterator[Record]:
    """Record what goes through a decoder."""
    record = Record()

    def keep_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        record.features.append(inputs[0])

    def keep_output(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        record.pictures.append(output)

    hooks = [block.register_forward_pre_hook(keep_input) for block in up_blocks(model)]
    hooks.append(model.synthesis.register_forward_hook(keep_output))
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def up_blocks(model: TransformModel) -> list[UpBlock]:
    """Return the blocks of a decoder that double height and width."""
    return [block for block in model.synthesis.modules() if isinstance(block, UpBlock)]


class Distiller:
    """The loss of a student.

    It is the student's own loss, and the distance from a teacher's features and pictures: ``a``
    times the mean squared difference at the inputs of the blocks that double height and width, and
    ``b lambda`` times the mean squared error against the teacher's pictures. The weights a and b
    fall in a straight line.

    Args:
        student: The codec that is trained.
        teacher: A trained codec of the same widths.

    Raises:
        InputError: The decoders have other widths, or no blocks with features.
    """

    def __init__(self, student: TransformModel, teacher: TransformModel) -> None:
        widths = [[block.channels for block in up_blocks(one)] for one in (student, teacher)]
        if widths[0] != widths[1] or not widths[0]:
            raise InputError("a teacher's decoder has residual blocks of the student's widths")
        self._student, self._teacher = student, teacher.requires_grad_(False)

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pictures, and its parts by name; see ``Model.objective``."""
        with torch.no_grad(), recorded(self._teacher) as ideal:
            self._teacher.code(x)
        with recorded(self._student) as own:
            loss, found = self._student.objective(x, trade_off, moment)
        pairs = zip(own.features, ideal.features, strict=True)
        distance = torch.stack([(one - other).square().mean() for one, other in pairs]).sum()
        error = squared_error(own.pictures[0], ideal.pictures[0]).mean()
        loss = loss + moment.between(*FEATURE_WEIGHTS) * distance
        loss = loss + moment.between(*PICTURE_WEIGHTS) * trade_off * error
        return loss, {**found, "loss": float(loss.detach()), "features": float(distance.detach())}
