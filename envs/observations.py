"""The observation of the direct environments: its space, and the arrays that are written per step.

``first_pass``, ``history`` and ``group`` are matrices with a row per frame and a mask beside them
(``history_mask``: 1 = a row that counts, 0 = padding, whose values are 0); ``frame`` and ``budget``
are vectors. Besides these, ``importance`` is a map of the pending frame. All values are float32,
finite and within their bounds; values beyond are clipped.
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vpxrc.encoder.types import Frame
from vpxrc.envs.tables import BUDGET, FIRST_PASS, FRAME, GROUP, HISTORY, TABLES, CodedFrame
from vpxrc.envs.view import IMPORTANCE_GRID, MAX_GROUP, MAX_IMPORTANCE, EncodeView
from vpxrc.errors import InputError

Arrays = dict[str, NDArray[Any]]

DEFAULT_MAX_FRAMES = 150

# The column of a group that changes at every decision.
_AHEAD = GROUP.names.index("ahead")


def num_rows(max_frames: int) -> dict[str, int]:
    """Return how many rows each matrix has.

    An ARF is coded besides the frames that are shown, at most one in four frames of the clip.
    """
    return {
        "first_pass": max_frames,
        "history": max_frames * 5 // 4 + 1,
        "group": MAX_GROUP,
    }


def observation_space(max_frames: int = DEFAULT_MAX_FRAMES) -> spaces.Dict:
    """Return the space of the observations.

    Args:
        max_frames: The most frames of a clip, at least 2.
    """
    if max_frames < 2:
        raise InputError(f"max_frames must be at least 2, not {max_frames}")
    rows = num_rows(max_frames)
    space: dict[str, spaces.Space[Any]] = {}
    for key, table in TABLES.items():
        shape = (rows[key], len(table)) if key in rows else (len(table),)
        space[key] = spaces.Box(
            np.broadcast_to(table.low, shape), np.broadcast_to(table.high, shape), dtype=np.float32
        )
        if key in rows:
            space[f"{key}_mask"] = spaces.MultiBinary(rows[key])
    space["importance"] = spaces.Box(0.0, MAX_IMPORTANCE, IMPORTANCE_GRID, dtype=np.float32)
    return spaces.Dict(space)


class DictObserver:
    """Writes the observation of one encode; per decision only the parts that have changed.

    Args:
        view: The facts of the encode.
        space: The space that :func:`observation_space` returned for ``view.max_frames``.

    Attributes:
        arrays: The observation, of the shapes of ``space``; ``write`` changes it in place.
    """

    def __init__(self, view: EncodeView, space: spaces.Dict) -> None:
        self._view = view
        self._group_index = -1
        self._num_rows = 0  # of the log, taken in
        self._num_coded = 0
        self.arrays: Arrays = {
            key: np.zeros(part.shape or (), np.dtype(part.dtype)) for key, part in space.items()
        }
        self._write_rows("first_pass", FIRST_PASS.rows(view))

    def write(self, frame: Frame | None) -> None:
        """Update the view and the arrays.

        Args:
            frame: The frame that waits for its decision; None at the end.
        """
        view, arrays = self._view, self.arrays
        view.update(frame)
        self._write_history()
        arrays["budget"][...] = BUDGET.row(view)
        if frame is None:
            for key in ("frame", "group", "group_mask", "importance"):
                arrays[key][...] = 0
            return
        arrays["frame"][...] = FRAME.row(view)
        arrays["importance"][...] = view.importance
        if view.take_tpl() or frame.group_index != self._group_index:
            self._group_index = frame.group_index
            self._write_rows("group", GROUP.rows(view))
        ahead = view.ahead[:MAX_GROUP]
        low, high = GROUP.low[_AHEAD], GROUP.high[_AHEAD]
        np.clip(ahead, low, high, out=arrays["group"][: len(ahead), _AHEAD])

    def observe(self, frame: Frame | None) -> Arrays:
        """Update the view and the arrays, and return a copy of these.

        Args:
            frame: The frame that waits for its decision; None at the end.
        """
        self.write(frame)
        return {key: array.copy() for key, array in self.arrays.items()}

    def _write_history(self) -> None:
        view, first = self._view, self._num_rows
        self._num_rows = len(view.rows)
        for row, psnr in zip(view.rows[first:], view.psnr[first:], strict=True):
            if not row.is_shown_again:
                self.arrays["history"][self._num_coded] = HISTORY.row(CodedFrame(view, row, psnr))
                self.arrays["history_mask"][self._num_coded] = 1
                self._num_coded += 1

    def _write_rows(self, key: str, rows: NDArray[np.float32]) -> None:
        out, mask = self.arrays[key], self.arrays[f"{key}_mask"]
        count = min(len(rows), len(out))
        out[:count] = rows[:count]
        out[count:] = 0
        mask[:count] = 1
        mask[count:] = 0
