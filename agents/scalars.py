"""TensorBoard's scalars."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vpxrc.errors import MissingDependencyError
from vpxrc.storage import check_writable

Write = Callable[[Mapping[str, float], float], None]


def _summary_writer() -> Any:
    """Return the class of TensorBoard's writers."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError("TensorBoard is missing: pip install tensorboard") from error
    return SummaryWriter


@contextmanager
def open_board(folder: Path | None) -> Iterator[Write]:
    """Yield a function that writes figures by name, and the step that they are of, for TensorBoard.

    The folder is made with the first figures.

    Args:
        folder: Where they go; None for nowhere.

    Raises:
        MissingDependencyError: There is a folder, and TensorBoard is not installed.
    """
    kind = None if folder is None else _summary_writer()
    made: list[Any] = []

    def write(figures: Mapping[str, float], at: float) -> None:
        if kind is None or folder is None:
            return
        if not made:
            check_writable(folder)
            made.append(kind(str(folder)))
        for name, value in figures.items():
            if math.isfinite(value):
                made[0].add_scalar(name, value, at)

    try:
        yield write
    finally:
        for writer in made:
            writer.close()
