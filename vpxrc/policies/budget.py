"""The account of a clip's bits: what is spent, and the base at which what is left is spent."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder.complexity import frames_inside
from vpxrc.encoder.types import UpdateType
from vpxrc.policies.base import Episode
from vpxrc.policies.step_models import DependencyParameters, GroupView, Steps

#: Frames are booked by kind: golden frames as ARFs, overlays as leaves.
KINDS: tuple[int, ...] = (UpdateType.KEY, UpdateType.ARF, UpdateType.LEAF)
_MEMORY = 0.7  # of a group when the next one comes


@dataclass(eq=False)
class _GroupAccount:
    """The current group's bits; all but the paid ones are for a base of 0.

    Attributes:
        view: The group.
        effort: Effort of its frames after position 0, which the group before has coded.
        shares: Bits still expected, by position.
        bases: Base that each position was coded at.
        bits: Bits of the frames coded so far, by kind.
        growth: Bits of the base layer ARF over those that it would have if nothing came after the
            group.
        effort_after: Effort of the frames after the group; for ARFs weighed by that growth.
    """

    view: GroupView
    effort: float
    shares: NDArray[np.float64]
    bases: NDArray[np.float64]
    bits: dict[int, float]
    growth: float = 1.0
    effort_after: dict[int, float] = field(default_factory=dict)


class Budget:
    """Follows the bits of one encode of the policy ``dependency``.

    A step model foresees the bits of the group. They are corrected, by kind, by what frames of the
    kind really took. What follows the group is foreseen from the groups before: their bits, by the
    first pass's error, and how much depends on frames like theirs.

    Args:
        parameters: The policy's.
        episode: The encode.
        complexity: What :func:`vpxrc.encoder.complexity.log_complexity` returned for the clip.

    Attributes:
        target: Bits that the stream may take.
        spent: Bits so far.
        paid: Bits so far, by kind.
        expected: Bits that were foreseen of the same frames at the bases they were coded at.
    """

    def __init__(
        self,
        parameters: DependencyParameters,
        episode: Episode,
        complexity: NDArray[np.float64],
    ) -> None:
        p = self._parameters = parameters
        self._episode = episode
        self._num_frames = episode.video.num_frames
        # The bits of a frame at the coarseness that goes with its error.
        self._effort = 2 ** (complexity * (p.effort - p.slope * p.complexity))
        self._rows = 0
        self._group: _GroupAccount | None = None
        self.target = episode.target_bits * (1.0 - p.margin)
        self.spent = 0.0
        self.paid = dict.fromkeys(KINDS, 0.0)
        self.expected = dict.fromkeys(KINDS, 0.0)
        # Bits of the groups before, if nothing came after each, and the effort they stand for.
        self._past_bits: dict[int, float] = {UpdateType.ARF: 0.0, UpdateType.LEAF: 0.0}
        self._past_effort = 0.0
        self._key_bits = 0.0  # foreseen for the last key frame if nothing depended on it
        self._key_bits_after = 0.0  # of all key frames after the group
        self._potential: dict[int, float] = {}  # importance - 1 of keys and ARFs with all followers

    @property
    def has_past(self) -> bool:
        """Whether there are groups before, to foresee by what follows the current one."""
        return bool(self._past_effort)

    @property
    def usual_bits(self) -> float:
        """Bits of a leaf in the groups before, for a base of 0 and an average frame."""
        return self._past_bits[UpdateType.LEAF] / self._past_effort if self.has_past else 0.0

    def account(self) -> None:
        """Book the frames that the log has since the last call."""
        slope = self._parameters.slope
        for row in self._episode.records(self._rows):
            self._rows += 1
            bits, position = float(row["bits"]), int(row["group_position"])
            self.spent += bits
            group = self._group
            if group is None or row["is_shown_again"] or row["group_index"] != group.view.index:
                continue
            kind, base = int(group.view.kinds[position]), group.bases[position]
            self.paid[kind] += bits
            self.expected[kind] += group.shares[position] * 2 ** (-slope * base)
            group.shares[position] = 0.0
            if kind != UpdateType.KEY:
                group.bits[kind] += bits * 2 ** (slope * base)

    def open(self, view: GroupView) -> None:
        """Start a group; the one before becomes part of the past."""
        if self._group is not None:
            self._remember(self._group)
        size = len(view.places)
        self._group = _GroupAccount(
            view=view,
            effort=float(self._effort[frames_inside(view.first, view.last)].sum()),
            shares=np.zeros(size),
            bases=np.zeros(size),
            bits={UpdateType.ARF: 0.0, UpdateType.LEAF: 0.0},
        )

    def expect(self, steps: Steps) -> None:
        """Foresee the current group by a step model's answer, and with it what follows.

        The importance of a key frame or ARF grows with the frames that follow up to the next key
        frame, as far as the model looks. By way of its step, its bits grow too.
        """
        group = self._current
        view = group.view
        group.shares[view.coded] = steps.bits
        kinds = view.kinds[view.coded]
        self._learn_potential(view, kinds, steps)
        followers = self._followers(view)
        if kinds[0] == UpdateType.KEY:
            bits = group.shares[view.coded[0]]
            self._key_bits = float(bits / self._growth(UpdateType.KEY, followers[UpdateType.KEY]))
        frames = self._num_frames
        distance = max(self._episode.options.key_frame_max_distance, 1)
        keys = np.arange(view.end, frames, distance)  # as libvpx plans them
        sizes = np.minimum(distance, frames - keys)
        self._key_bits_after = float(np.sum(self._key_bits * self._growth(UpdateType.KEY, sizes)))
        after = np.arange(view.last + 1, frames)
        left = np.append(keys, frames)[np.searchsorted(keys, after, side="right")] - after
        effort = self._effort[after]
        group.growth = float(self._growth(UpdateType.ARF, followers[UpdateType.ARF]))
        group.effort_after = {
            UpdateType.ARF: float((effort * self._growth(UpdateType.ARF, left)).sum()),
            UpdateType.LEAF: float(effort.sum()),
        }

    def book(self, position: int, base: float) -> None:
        """Note the base that a position of the current group is coded at."""
        self._current.bases[position] = base

    def wanted(self) -> float:
        """Return the base at which what is left to code takes what is left of the budget."""
        p, group = self._parameters, self._current
        kinds = group.view.kinds
        here = {kind: self._cost(kind) * group.shares[kinds == kind].sum() for kind in KINDS}
        growth: dict[int, float] = {UpdateType.ARF: group.growth, UpdateType.LEAF: 1.0}
        after = sum(
            (self._past_bits[kind] + (group.bits[kind] + here[kind]) / growth[kind]) * effort
            for kind, effort in group.effort_after.items()
        ) / (self._past_effort + group.effort)
        bits = sum(here.values()) + after + self._cost(UpdateType.KEY) * self._key_bits_after
        budget = max(self.target - self.spent, 1e-3 * self.target)
        return float(np.log2(max(bits, 1e-9) / budget) / p.slope)

    @property
    def _current(self) -> _GroupAccount:
        assert self._group is not None  # a group is open at every decision
        return self._group

    def _remember(self, group: _GroupAccount) -> None:
        """Take a finished group for what later ones will cost; those before it fade."""
        growth: dict[int, float] = {UpdateType.ARF: group.growth, UpdateType.LEAF: 1.0}
        for kind, bits in group.bits.items():
            self._past_bits[kind] = _MEMORY * (self._past_bits[kind] + bits / growth[kind])
        if sum(self._past_bits.values()):
            self._past_effort = _MEMORY * (self._past_effort + group.effort)

    def _cost(self, kind: int) -> float:
        """Return real bits over the step model's."""
        p = self._parameters
        costs = (p.key_cost, p.arf_cost, p.leaf_cost)
        start = dict(zip(KINDS, costs, strict=True))[kind]
        weight = p.prior * self.target / self._num_frames
        return (self.paid[kind] + weight) / (self.expected[kind] + weight / start)

    # What depends on key frames and ARFs

    @staticmethod
    def _followers(view: GroupView) -> dict[int, int]:
        """Return the frames up to the next key frame that follow a key frame, and an ARF."""
        return {
            UpdateType.KEY: view.end - view.first,
            UpdateType.ARF: max(view.end - view.last, 1),
        }

    def _learn_potential(self, view: GroupView, kinds: NDArray[np.int64], steps: Steps) -> None:
        for kind, count in self._followers(view).items():
            if steps.dependency is not None and kind in kinds:
                share = min(1.0, max(count, 1) / self._reach(view))
                importance = steps.dependency.frame_importance[np.flatnonzero(kinds == kind)[0]]
                if share >= 0.5 or kind not in self._potential:
                    self._potential[kind] = float(importance - 1) / share

    def _reach(self, view: GroupView) -> int:
        """Return how many frames after a group's start the model looks at."""
        return view.length * (1 + self._parameters.tail)

    def _growth(self, kind: int, left: ArrayLike) -> NDArray[np.float64]:
        """Return the bits of such frames over those of frames that nothing depends on.

        Args:
            kind: ``KEY`` or ``ARF``.
            left: The frames that follow each up to the next key frame.
        """
        p = self._parameters
        strength = p.key_strength if kind == UpdateType.KEY else p.arf_strength
        share = np.minimum(1.0, np.asarray(left) / self._reach(self._current.view))
        importance = 1 + self._potential.get(kind, 0.0) * share
        return np.asarray(importance ** (0.5 * strength * p.slope))
