"""The policy ``dependency``: q per frame and lambda per superblock from the dependency model."""

import dataclasses

import numpy as np

from vpxrc.encoder.complexity import log_complexity
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import nearest_q
from vpxrc.encoder.types import Decision, Frame, UpdateType
from vpxrc.policies.base import Episode, Policy
from vpxrc.policies.budget import Budget
from vpxrc.policies.step_models import (
    DependencyParameters,
    DependencySteps,
    GroupView,
    StepModel,
    Steps,
)

__all__ = ["DependencyParameters", "DependencyPolicy"]

_NEAR_END = 12  # frames
_KEY_MOVE = 1.0  # the most that the base moves at a key frame
# Steps below the base before any group is coded, over the layer.
_FIRST_STEPS: dict[int, float] = {
    UpdateType.KEY: 2.0,
    UpdateType.GOLDEN: 1.5,
    UpdateType.ARF: 2.0,
}


class DependencyPolicy(Policy):
    """Every frame is coded a step below one base, and the base follows the budget.

    At the first decision of a golden-frame group a step model gives each frame a step below the
    base, and its bits. From them the budget knows the base at which the target is met; between
    groups the base moves there freely, within a group slowly.

    Args:
        steps: The step model, by default the temporal dependency model at the same parameters.
        parameters: The constants of the policy and of its budget.
        follows_budget: Whether the base moves after the first group. Without, the target is missed.

    Attributes:
        budget: The account of the current encode.
    """

    budget: Budget

    def __init__(
        self,
        *,
        steps: StepModel | None = None,
        parameters: DependencyParameters | None = None,
        follows_budget: bool = True,
    ) -> None:
        self._parameters = parameters or DependencyParameters()
        self._model = steps or DependencySteps(self._parameters)
        self._follows_budget = follows_budget
        self.training_clips = self._model.training_clips

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in VBR mode (for its estimate of q) with all layers."""
        return options.for_prediction()

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        self._episode = episode
        self._log2_step = episode.log2_step
        self._complexity = log_complexity(episode.first_pass)
        self._group_index = -1
        self._usual: dict[tuple[int, int], float] = {}  # steps by update type and layer
        self._arf_q = -1
        self.budget = Budget(self._parameters, episode, self._complexity)
        self._model.begin(episode)

    def decide(self, frame: Frame) -> Decision:
        """Return the base minus the frame's step, and its lambda."""
        p = self._parameters
        if frame.coding_index == 0:
            self._base = self._log2_step[frame.libvpx_q_high] + p.start_step
        self.budget.account()
        if frame.group_index != self._group_index:  # position 0 may be an ARF shown again
            self._group_index = frame.group_index
            self._start_group(frame)
        elif self.budget.has_past:
            self._move_base(frame, self.budget.wanted())
        group, position = self._group, frame.group_position
        place = int(group.places[position])
        q_index = self._q_at(place)
        self.budget.book(position, self._base)
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1:
            self._arf_q = q_index
        scale = None
        is_mapped = (
            frame.takes_superblock_scale and frame.update_type == UpdateType.ARF and place >= 0
        )
        if p.superblock_strength and is_mapped and self._steps.dependency is not None:
            scale = self._steps.dependency.superblock_scale(place, p.superblock_strength)
        factors: dict[int, float] = {
            UpdateType.KEY: p.key_lambda,
            UpdateType.ARF: p.arf_lambda,
            UpdateType.LEAF: p.leaf_lambda,
        }
        factor = factors[int(group.kinds[position])]
        if place >= 0:
            factor *= float(np.exp2(self._steps.log2_lambda[place]))
        return Decision(q_index, factor, scale)

    def overruled(self, frame: Frame, decision: Decision) -> None:
        """Book the frame at the base that the quantiser step taken stands for."""
        position, q_index = frame.group_position, decision.q_index
        own = self._q_at(int(self._group.places[position]))
        moved = self._log2_step[q_index] - self._log2_step[own]
        self.budget.book(position, self._base + moved)
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1:
            self._arf_q = q_index

    def _q_at(self, place: int) -> int:
        """Return the q index of a frame in the group; -1 = one that has no place in its view."""
        step = self._steps.step[place] if place >= 0 else 0.0
        return nearest_q(self._base + self._group.shift - step, self._log2_step)

    def _start_group(self, frame: Frame) -> None:
        """Find the group's steps, and the base with them."""
        group = GroupView.of(
            self._episode,
            frame,
            self._parameters,
            complexity=self._complexity,
            base=self._base,
            arf_q=self._arf_q,
        )
        labels = list(zip(group.update_type.tolist(), group.layer_depth.tolist(), strict=True))
        usual = [self._usual.get(label, _first_step(*label)) for label in labels]
        group = dataclasses.replace(group, usual=np.array(usual))
        self.budget.open(group)
        if self.budget.has_past:
            steps = self._ask(group)
            self._move_base(frame, self._wanted(steps))
        else:
            # Nothing is known yet: the steps and the base have to find each other.
            for _ in range(3):
                steps = self._ask(group)
                if len(group.coded) >= 2:
                    self._base = self._wanted(steps)
                group = dataclasses.replace(group, base=self._base, usual=steps.step)
        self._group, self._steps = group, steps
        self._usual.update(zip(labels, steps.step.tolist(), strict=True))

    def _ask(self, group: GroupView) -> Steps:
        """Return the model's steps, those of the groups before where it cannot be run."""
        if group.has_model:
            steps = self._model.steps(group)
        else:
            count = len(group.coded)
            bits = np.full(count, self.budget.usual_bits)
            steps = Steps(group.usual, bits, log2_lambda=np.zeros(count))
        self.budget.expect(steps)
        return steps

    def _wanted(self, steps: Steps) -> float:
        """Return the base that budget and model want between them, before a group's first frame."""
        wanted = self.budget.wanted()
        if steps.wanted is None:
            return wanted
        return float((1 - steps.trust) * wanted + steps.trust * steps.wanted)

    def _move_base(self, frame: Frame, wanted: float) -> None:
        """Move the base towards the one that is wanted."""
        p = self._parameters
        if not self._follows_budget:
            return
        # What was spent too much must be saved by the end; what is left over need not be spent.
        near_end = self._episode.video.num_frames - frame.show_index <= _NEAR_END
        if frame.is_key:
            up = down = _KEY_MOVE
        elif frame.group_position <= 1:
            up = down = p.group_move
        else:
            up, down = (4 if near_end else 1) * p.max_move, p.max_move
        self._base += float(np.clip(wanted - self._base, -down, up))


def _first_step(update_type: int, layer_depth: int) -> float:
    return _FIRST_STEPS.get(update_type, 0.0) / max(layer_depth, 1)
