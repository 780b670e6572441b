"""The flat observation of the direct environments: one vector, every column in [-1, 1]."""

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vpxrc.encoder.types import Decision, Frame
from vpxrc.envs.columns import Table
from vpxrc.envs.residual.facts import Sight
from vpxrc.envs.residual.observation import COMMON, ResidualObserver
from vpxrc.envs.view import EncodeView

#: The columns by subject: those of the residual environments without base policy and offsets.
FLAT_COLUMNS: dict[str, Table[Sight]] = COMMON
FLAT: Table[Sight] = Table.joined(FLAT_COLUMNS.values())


def flat_space() -> spaces.Box:
    """Return the space of the observations."""
    return unit_space(FLAT)


def unit_space(table: Table[Sight]) -> spaces.Box:
    """Return the space of rows of a table, scaled by :meth:`Table.unit`."""
    return spaces.Box(table.unit(table.low), table.unit(table.high), dtype=np.float32)


class FlatObserver:
    """Observes one encode.

    Args:
        view: The facts of the encode.
    """

    def __init__(self, view: EncodeView) -> None:
        self._view = view
        self._observer = ResidualObserver(view, FLAT)

    def observe(self, frame: Frame | None) -> NDArray[np.float32]:
        """Update the view, and return the observation, float32 ``[len(FLAT)]``.

        Args:
            frame: The frame that waits for its decision; None at the end, where all is 0.
        """
        view = self._view
        view.update(frame)
        if frame is None:
            return np.zeros(len(FLAT), np.float32)
        view.take_tpl()  # an action may scale libvpx's factors by it
        return FLAT.unit(self._observer.observation(Decision(frame.libvpx_q_index), ()))
