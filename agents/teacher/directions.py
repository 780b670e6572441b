"""The directions that a search moves a trajectory along, and which frames it moves together."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.encoder.types import UpdateType

Direction = Literal["level", "key", "arf", "inner", "frame", "leaf_lambda", "arf_lambda"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

_BLOCK_FRAMES = 8  # least number of frames in a block; a shorter group joins its neighbours
_PHASES = {"key": 1, "frame": 4}  # every n-th unit is moved at once; every second where not named


def blocks(t: Trajectory) -> NDArray[np.int64]:
    """Return the block of every coded frame: one or more golden-frame groups, from 0; ``[T]``."""
    is_first = np.append(True, t.group_index[1:] != t.group_index[:-1])
    starts = np.flatnonzero(is_first)
    ends = np.append(starts[1:], len(t))
    block, frames, result = 0, 0, np.zeros(len(t), dtype=np.int64)
    for start, end in zip(starts, ends, strict=True):
        if frames >= _BLOCK_FRAMES and len(t) - start >= _BLOCK_FRAMES:
            block, frames = block + 1, 0
        result[start:end] = block
        frames += end - start
    return result


def units(t: Trajectory, direction: Direction) -> NDArray[np.int64]:
    """Return the unit that each coded frame is moved with along a direction, int64 ``[T]``.

    Units are numbered from 0; a frame that the direction does not move has -1. A unit is a single
    frame for ``key`` and ``frame``, and for the other directions their frames of one block.
    """
    is_base = (t.update_type == UpdateType.GOLDEN) | (
        (t.update_type == UpdateType.ARF) & (t.layer_depth <= 1)
    )
    is_inner = (t.update_type == UpdateType.ARF) & (t.layer_depth > 1)
    is_leaf, is_key = t.update_type == UpdateType.LEAF, t.update_type == UpdateType.KEY
    is_moved = {
        "level": np.ones(len(t), dtype=bool),
        "key": is_key,
        "arf": is_base,
        "inner": is_inner,
        "frame": is_leaf,
        "leaf_lambda": is_leaf,
        "arf_lambda": is_base | is_inner,
    }[direction]
    if direction in ("key", "frame"):
        return np.where(is_moved, np.cumsum(is_moved) - 1, -1)
    return np.where(is_moved, blocks(t), -1)


def phases(t: Trajectory, direction: Direction) -> list[NDArray[np.bool_]]:
    """Return which frames are moved at once, ``[T]`` each: neighbouring units never are."""
    numbers = units(t, direction)
    count = _PHASES.get(direction, 2)
    found = [(numbers >= 0) & (numbers % count == phase) for phase in range(count)]
    return [chosen for chosen in found if chosen.any()]


def moved_along(
    t: Trajectory, direction: Direction, move: NDArray[np.float64], level: float = 0.0
) -> Trajectory:
    """Return a trajectory that was moved along a direction.

    Args:
        t: The trajectory.
        direction: Decides what is moved: log2 of lambda for the directions named after it, else
            log2 of the quantiser step.
        move: How far each coded frame is moved, float64 ``[T]``.
        level: Added to log2 of all quantiser steps, whatever the direction.
    """
    if direction.endswith("lambda"):
        return t.moved(level, move)
    return t.moved(move + level)
