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

Offset = tuple[float, float]
Flat = NDArray[np.float32]

# Update types of the frames that others depend on.
REFERENCES = (UpdateType.KEY, UpdateType.GOLDEN, UpdateType.ARF)

_LEVELS = (0.0, -0.2, 0.2)
GROUP_OFFSETS: tuple[Offset, ...] = tuple(product(_LEVELS, _LEVELS))
FRAME_OFFSETS: tuple[Offset, ...] = tuple(
    (level, 0.0) for level in (0.0, -0.1, 0.1, -0.25, 0.25, -0.6, 0.6)
)


@dataclass(frozen=True)
class ResidualConfig:
    """The problem that an agent is to solve; ``dataclasses.asdict`` gives a form that JSON takes.

    Attributes:
        base: The policy whose decisions are corrected, as :func:`vpxrc.make_policy` takes it.
        decisions: ``group``: one action per golden-frame group, ``frame``: one per coded frame.
        offsets: (level, reference) per action, each in log2 of the quantiser step, above 0 coarser.
            ``level`` applies to all frames, ``reference`` is added for those that others depend on.
            The first is (0, 0), the base policy's own decision. None: ``GROUP_OFFSETS`` or
            ``FRAME_OFFSETS``.
    """

    base: str = "imitation"
    decisions: Literal["group", "frame"] = "group"
    offsets: tuple[Offset, ...] | None = None

    def __post_init__(self) -> None:
        """Check the values; lists, as JSON has them, become tuples."""
        if not isinstance(self.base, str):
            raise InputError(f"base must be a policy's name, not {self.base!r:.80}")
        if self.decisions not in ("group", "frame"):
            raise InputError(f"decisions must be 'group' or 'frame', not {self.decisions!r}")
        if self.offsets is None:
            return
        try:
            offsets = tuple((float(level), float(reference)) for level, reference in self.offsets)
        except (TypeError, ValueError) as error:
            raise InputError(f"offsets must be pairs of numbers, not {self.offsets!r}") from error
        if not offsets or offsets[0] != (0, 0) or not np.isfinite(offsets).all():
            raise InputError(f"offsets must be finite and begin with (0, 0), not {self.offsets!r}")
        object.__setattr__(self, "offsets", offsets)

    @property
    def actions(self) -> tuple[Offset, ...]:
        """The offsets, with those of the default filled in."""
        if self.offsets is not None:
            return self.offsets
        return GROUP_OFFSETS if self.decisions == "group" else FRAME_OFFSETS


def make_base(spec: str) -> Policy:
    """Make the policy that is to be corrected.

    Raises:
        InputError: There is no such policy, or it leaves its decisions to libvpx.
    """
    base = make_policy(spec)
    if base.observes:
        raise InputError(f"policy {spec!r} decides nothing itself: it cannot be a base policy")
    return base


def offset_decision(
    frame: Frame,
    decision: Decision,
    offset: Offset,
    log2_step: NDArray[np.float64] = LOG2_STEP,
) -> Decision:
    """Return a decision with its quantiser step offset.

    Args:
        frame: The frame that is to be coded.
        decision: The base policy's; where it leaves q to libvpx, libvpx's own q is offset.
        offset: (level, reference), log2 of the quantiser step.
        log2_step: The session's, float64 ``[256]``.

    Returns:
        The decision itself where the offset is 0; else one with q in 1..255.
    """
    level, reference = offset
    total = level + (reference if is_reference_frame(frame) else 0.0)
    if total == 0:
        return decision
    q_index = nearest_q(float(log2_step[own_q(frame, decision)]) + total, log2_step)
    return dataclasses.replace(decision, q_index=q_index, recode_trace=())


def is_reference_frame(frame: Frame) -> bool:
    """Return whether other frames depend on the frame."""
    return frame.update_type in REFERENCES


def own_q(frame: Frame, decision: Decision) -> int:
    """Return the q index of a decision; libvpx's own where the decision leaves it to libvpx."""
    return decision.q_index if decision.q_index >= 0 else frame.libvpx_q_index
