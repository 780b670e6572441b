"""The policy ``layered``: fixed steps between layers, one base q, the bitrate met in one encode."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.complexity import coded_error
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import nearest_q
from vpxrc.encoder.types import Decision, Frame, Group, UpdateType
from vpxrc.policies.base import Episode, Policy


@dataclass(frozen=True)
class LayeredParameters:
    """What ``layered`` does not learn while it encodes.

    All come from clips of the training set alone: those in ``benchmarks/fit.py`` from its
    search, whose outcome is ``benchmarks/fit_layered.json``, the others from libvpx's Q mode there.

    Attributes:
        start_step: log2 step of the first base above the highest q that libvpx would take for the
            first key frame, which it derives from the target.
        key_step: log2 step of key frames below the base, less where fewer than ``key_reach`` frames
            follow up to the next.
        key_reach: See ``key_step``, in frames.
        arf_step: The same for alternate reference frames by layer, the base layer first and less in
            groups of fewer than ``arf_reach`` frames; deeper layers take the last.
        arf_reach: See ``arf_step``, in frames.
        golden_step: The same for golden frames without an alternate reference.
        slope: Bits fall by ``2 ** -slope`` when the step doubles.
        key_cost: Bits of a key frame in average frames.
        arf_cost: Bits of an alternate reference frame in leaves, by layer.
        prior: Weight of libvpx's own estimate of the level, in average frames.
        max_move: The most that the base moves per frame within a group, log2 step.
        margin: Part of the target that is left unspent.
    """

    start_step: float = 0.9
    key_step: float = 2.5
    key_reach: float = 128.0
    arf_step: tuple[float, ...] = (1.5, 0.5, 0.4, 0.3)
    arf_reach: float = 12.0
    golden_step: float = 1.5
    slope: float = 1.0
    key_cost: float = 20.0
    arf_cost: tuple[float, ...] = (22.0, 4.0, 2.5, 1.8)
    prior: float = 10.0
    max_move: float = 0.05
    margin: float = 0.01


class Layered(Policy):
    """Every layer a fixed step below one base q; the base follows the budget.

    The base is in log2 of the quantiser step. A frame is expected to cost ``level * effort *
    2 ** (-slope * base)`` bits: the effort is its share of the first pass's error, the level starts
    at libvpx's own estimate and is corrected by every frame coded. The base is set so that what is
    left costs what is left of the budget; between groups it moves freely, within one slowly.
    """

    def __init__(self, parameters: LayeredParameters | None = None) -> None:
        self._parameters = parameters or LayeredParameters()

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in VBR mode (for its estimate of q) with all layers."""
        return options.for_control()

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        p = self._parameters
        error = coded_error(episode.first_pass, floor=0.0)  # key_cost stands for the key frame
        self._effort = np.maximum(error, 1e-3) / max(error.mean(), 1e-3)  # per shown frame
        self._episode = episode
        self._log2_step = episode.log2_step
        self._target = episode.target_bits * (1.0 - p.margin)
        self._shares: NDArray[np.float64] = np.zeros(0)  # effort per position of the group
        self._effort_after = 0.0  # of the frames after the group
        self._spent = 0.0
        self._rows = 0
        self._shown = 0
        self._group_index = -1
        self._group_frames = 0  # shown ones

    def decide(self, frame: Frame) -> Decision:
        """Return the base minus the layer's step."""
        p = self._parameters
        if frame.coding_index == 0:
            self._base = self._log2_step[frame.libvpx_q_high] + p.start_step
            level = self._target / (self._effort.sum() + p.key_cost) * 2 ** (p.slope * self._base)
            self._expected = p.prior * 2 ** (-p.slope * self._base)
            self._paid = self._expected * level
            # of a key frame at a quantiser step of 1
            self._key_bits = level * p.key_cost * 2 ** (-p.slope * p.key_step)
        self._account()
        if frame.group_index != self._group_index:  # position 0 may be an ARF shown again
            self._group_index = frame.group_index
            self._share_out(self._episode.group)
        if frame.coding_index > 0:
            self._move_base(frame)
        self._bases[frame.group_position] = self._base
        return Decision(nearest_q(self._base - self._step(frame), self._log2_step))

    def _step(self, frame: Frame) -> float:
        p = self._parameters
        if frame.update_type == UpdateType.KEY:
            return self._key_step(frame.frames_to_key)
        if frame.update_type == UpdateType.GOLDEN:
            return p.golden_step
        if frame.update_type == UpdateType.ARF:
            depth = frame.layer_depth
            reach = min(1.0, self._group_frames / p.arf_reach) if depth == 1 else 1.0
            return p.arf_step[min(depth, len(p.arf_step)) - 1] * reach
        return 0.0

    def _key_step(self, frames_that_follow: int) -> float:
        p = self._parameters
        return p.key_step * min(1.0, frames_that_follow / p.key_reach)

    def _share_out(self, group: Group) -> None:
        """Spread the effort of the group's shown frames over its coded frames."""
        p = self._parameters
        kinds, depths = group.update_type, group.layer_depth
        costs = np.asarray((0.0, *p.arf_cost))[np.minimum(depths, len(p.arf_cost))]
        weights = np.select([kinds == UpdateType.LEAF, kinds == UpdateType.ARF], [1.0, costs], 0.0)
        # Position 0 shows the frame that the group before paid for as its ARF, or a key frame.
        first, end = group.first_show_index + 1, int(group.show_index.max()) + 1
        self._group_frames = end - first
        effort = self._effort[first:end].sum()
        self._bases = np.zeros(group.size)  # that the frames of the group were coded at
        self._shares = weights / max(weights.sum(), 1.0) * effort
        if kinds[0] == UpdateType.GOLDEN:
            self._shares[0] = p.arf_cost[0] * self._effort[first - 1]
        self._effort_after = float(self._effort[end:].sum())

    def _account(self) -> None:
        """Learn from the frames coded since the last decision."""
        for row in self._episode.records(self._rows):
            self._rows += 1
            self._spent += float(row["bits"])
            self._shown += int(row["is_shown"])
            position = int(row["group_position"])
            if row["is_shown_again"] or position >= len(self._shares):
                continue
            slope = self._parameters.slope
            if row["update_type"] == UpdateType.KEY:
                self._key_bits = float(row["bits"]) * 2 ** (slope * self._log2_step[row["q_index"]])
            else:
                self._paid += float(row["bits"])
                self._expected += self._shares[position] * 2 ** (-slope * self._bases[position])

    def _move_base(self, frame: Frame) -> None:
        p = self._parameters
        effort = self._shares[frame.group_position :].sum() + self._effort_after
        budget = max(self._target - self._spent, 1e-3 * self._target)
        keys = sum(2 ** (p.slope * step) for step in self._key_steps_left(frame))
        cost = self._paid / self._expected * max(effort, 1e-6) + keys * self._key_bits
        wanted = np.log2(cost / budget) / p.slope
        # What was spent too much must be saved by the end; what is left over need not be spent.
        near_end = self._episode.video.num_frames - frame.show_index <= 12
        up = 0.5 if frame.group_position <= 1 else (4 if near_end else 1) * p.max_move
        down = 0.25 if frame.group_position <= 1 and not near_end else p.max_move
        self._base += float(np.clip(wanted - self._base, -down, up))

    def _key_steps_left(self, frame: Frame) -> list[float]:
        """Return the steps of the key frames still to be coded, as libvpx plans them."""
        frames = self._episode.video.num_frames
        distance = max(self._episode.options.key_frame_max_distance, 1)
        steps = [self._key_step(frame.frames_to_key)] if frame.is_key else []
        for key in range(self._shown + frame.frames_to_key, frames, distance):
            steps.append(self._key_step(min(distance, frames - key)))
        return steps
