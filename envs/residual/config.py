"""The problem of a residual agent: base policy, decision points and offsets."""

import dataclasses
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.quantizer import LOG2_STEP, nearest_q
from vpxrc.encoder.types import Decision, Frame, UpdateType
from vpxrc.errors import InputError
from vpxrc.policies.base import Policy
from vpxrc.policies.registry import make_policy

Move = tuple[float, float]
Flat = NDArray[np.float32]

# Update types of the frames that others depend on.
REFERENCES = (UpdateType.KEY, UpdateType.GOLDEN, UpdateType.ARF)

_LEVELS = (0.0, -0.2, 0.2)
GROUP_MOVES: tuple[Move, ...] = tuple(product(_LEVELS, _LEVELS))
FRAME_MOVES: tuple[Move, ...] = tuple(
    (level, 0.0) for level in (0.0, -0.1, 0.1, -0.25, 0.25, -0.6, 0.6)
)


@dataclass(frozen=True)
class ResidualConfig:
    """What an agent is to decide; ``dataclasses.asdict`` gives a form that JSON takes.

    Attributes:
        plan: The policy whose decisions are moved, as :func:`vpxrc.make_policy` takes it.
        decisions: ``group``: one action per golden-frame group, ``frame``: one per coded frame.
        moves: (level, reference) per action, each in log2 of the quantiser step, above 0 coarser;
            ``level`` moves all frames, ``reference`` besides it those that others depend on. The
            first is (0, 0), as planned. None: ``GROUP_MOVES`` or ``FRAME_MOVES``.
    """

    plan: str = "imitation"
    decisions: Literal["group", "frame"] = "group"
    moves: tuple[Move, ...] | None = None

    def __post_init__(self) -> None:
        """Check the values; lists, as JSON has them, become tuples."""
        if self.decisions not in ("group", "frame"):
            raise InputError(f"decisions must be 'group' or 'frame', not {self.decisions!r}")
        if self.moves is None:
            return
        try:
            moves = tuple((float(level), float(reference)) for level, reference in self.moves)
        except (TypeError, ValueError) as error:
            raise InputError(f"moves must be pairs of numbers, not {self.moves!r}") from error
        if not moves or moves[0] != (0, 0) or not np.isfinite(moves).all():
            raise InputError(f"moves must be finite and begin with (0, 0), not {self.moves!r}")
        object.__setattr__(self, "moves", moves)

    @property
    def actions(self) -> tuple[Move, ...]:
        """The moves, those of the default filled in."""
        if self.moves is not None:
            return self.moves
        return GROUP_MOVES if self.decisions == "group" else FRAME_MOVES


def make_plan(spec: str) -> Policy:
    """Make the policy that is to be moved.

    Raises:
        InputError: There is no such policy, or it leaves its decisions to libvpx.
    """
    plan = make_policy(spec)
    if plan.observes:
        raise InputError(f"policy {spec!r} decides nothing itself: it cannot be a plan")
    return plan


def moved(
    frame: Frame,
    planned: Decision,
    move: Move,
    log2_step: NDArray[np.float64] = LOG2_STEP,
) -> Decision:
    """Return the planned decision with its quantiser step moved.

    Args:
        frame: What is to be coded.
        planned: The plan's decision; where it leaves q to libvpx, libvpx's own is moved.
        move: (level, reference), log2 of the quantiser step.
        log2_step: The session's, float64 ``[256]``.

    Returns:
        The decision itself where nothing moves; else with q in 1..255.
    """
    level, reference = move
    offset = level + (reference if is_reference_frame(frame) else 0.0)
    if offset == 0:
        return planned
    q_index = nearest_q(float(log2_step[own_q(frame, planned)]) + offset, log2_step)
    return dataclasses.replace(planned, q_index=q_index, recode_trace=())


def is_reference_frame(frame: Frame) -> bool:
    """Return whether other frames depend on the frame."""
    return frame.update_type in REFERENCES


def own_q(frame: Frame, planned: Decision) -> int:
    """Return the q index of a decision; libvpx's own where the decision leaves it to libvpx."""
    return planned.q_index if planned.q_index >= 0 else frame.libvpx_q_index
