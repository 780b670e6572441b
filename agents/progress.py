"""Progress of a training, told to whoever called it."""

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """A callback that is told how far a training is."""

    def __call__(
        self, done: int, total: int | None, words: str, figures: Mapping[str, float] | None
    ) -> None:
        """Tell how far it is.

        Args:
            done: Steps of the work at hand that are done: episodes, epochs, clips.
            total: Number of steps of that work; None where it is not known.
            words: A short description of it.
            figures: Figures to plot over ``done``, by name; None where there are no new ones.
        """


def silent(done: int, total: int | None, words: str, figures: Mapping[str, float] | None) -> None:
    """Show nothing: the :class:`Progress` of a caller that wants none."""
