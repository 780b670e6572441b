"""The policy ``constant-quality``: one base quantiser step for a clip, which a probe finds.

What libvpx's constant-quality mode needs six encodes for, this needs one: a quick encode of a small
picture of the clip foresees where the bits will go, so that the base hardly has to move.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.complexity import log_complexity
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import LOG2_STEP, nearest_q
from vpxrc.encoder.types import Decision, Frame, UpdateType
from vpxrc.errors import InputError
from vpxrc.policies.base import Episode, Policy
from vpxrc.policies.libvpx_steps import libvpx_steps
from vpxrc.policies.probe import Probe, probe, small_picture
from vpxrc.policies.rate_model import RateModel, RateParameters
from vpxrc.policies.step_models import (
    DependencyParameters,
    DependencySteps,
    GroupView,
    StepModel,
    Steps,
)

# libvpx codes the key frame of a still 2 log2 steps finer than one of a clip that hardly moves, and
# the model has no bound. Neither is worth it beyond these steps.
_FINEST, _APART = 3.0, 1.2
_FAR = 0.8  # log2 step from the probe's base to the one that it gives, where it is not near
_START = 9.0  # base of the first probe, log2 step
# The most that the base moves, log2 step: at the start of a group, at a key frame, once the first
# key frame is coded; and per frame within a group, up and down.
_GROUP_MOVE, _KEY_MOVE, _FIRST_MOVE = 0.3, 0.6, 0.4
_UP, _DOWN = 0.05, 0.03
# Where the base lies outside of these, log2 step, the clip is left to libvpx: nearly lossless, or
# at a bitrate that even the coarsest step exceeds. At the faster speeds libvpx does not code frames
# again, and misses the target itself.
_TRUSTED = (4.6, LOG2_STEP[255] + 0.1)
_LAST_WITH_RECODES = 3  # speed up to which libvpx codes frames again that miss their bits
_LONG = 8  # frames from which a first group without an alternate reference frame is unusual


@dataclass(frozen=True)
class QualityParameters:
    """How the policy ``constant-quality`` spreads the bits of a clip.

    They are chosen on training clips alone.

    Attributes:
        dependency: Weight of the temporal dependency model's steps against libvpx's, 0..1.
        complexity: Exponent of the first pass's error in the quantiser step of a group. Above 0,
            groups that cost more are coded coarser.
        probes: How many probes at most. Each after the first follows where the base that the one
            before gives is far from its own.
        moves: Whether the base moves with the bits that are spent; else it stays as the probe
            foresaw it, and the target is missed.
        falls_back: Whether clips of a kind that the policy was not made on are left to libvpx.
    """

    dependency: float
    complexity: float
    probes: int = 2
    moves: bool = True
    falls_back: bool = True

    def with_values(self, text: str) -> "QualityParameters":
        """Return the parameters with some replaced.

        Args:
            text: ``NAME=VALUE,NAME=VALUE``; switches are 0 or 1.

        Raises:
            InputError: There is no such parameter, or its value is out of range.
        """
        values: dict[str, Any] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            low, high, kind = _RANGES.get(name, (0.0, 0.0, float))
            try:
                number = float(value)
            except ValueError:
                number = float("nan")
            if name not in _RANGES:
                raise InputError(f"constant-quality has no {name!r}: {', '.join(_RANGES)}")
            if not low <= number <= high or kind(number) != number:
                raise InputError(f"constant-quality: {name} must be in {low:g}..{high:g}")
            values[name] = kind(number)
        return dataclasses.replace(self, **values)


_RANGES: dict[str, tuple[float, float, type]] = {
    "dependency": (0.0, 1.0, float),
    "complexity": (-1.0, 1.0, float),
    "probes": (1, 4, int),
    "moves": (0, 1, bool),
    "falls_back": (0, 1, bool),
}


#: The parameters by what they are tuned for.
PARAMETERS: dict[str, QualityParameters] = {
    "balanced": QualityParameters(dependency=0.7, complexity=0.2),
    "psnr": QualityParameters(dependency=0.75, complexity=0.75),
    "ssim": QualityParameters(dependency=0.4, complexity=0.1),
    "vmaf": QualityParameters(dependency=0.9, complexity=0.4),
}


class BlendedSteps(StepModel):
    """Steps between those of libvpx's constant-quality mode and the dependency model's.

    Args:
        parameters: The dependency model's.
        weight: Weight of its steps, 0..1.
    """

    def __init__(self, parameters: DependencyParameters, weight: float) -> None:
        self._model, self._weight = DependencySteps(parameters), weight

    def steps(self, group: GroupView) -> Steps:
        """Return the blended steps; the model is run at libvpx's."""
        video = group.episode.video
        own = libvpx_steps(
            group.episode.group,
            group.coded,
            group.base + group.shift,
            video.width * video.height,
            _boosted_step(group.records, group.episode.log2_step),
        )
        own = np.minimum(own, _FINEST)
        model = self._model.steps(dataclasses.replace(group, usual=own))
        step = own + self._weight * np.clip(model.step - own, -_APART, _APART)
        if group.opens_with_overlay:
            step[0] = 0.0
        bits = model.bits * 2 ** (group.slope * (step - model.step))
        return dataclasses.replace(model, step=step, bits=bits)


def _boosted_step(records: NDArray[np.void], log2_step: NDArray[np.float64]) -> float | None:
    """Return the quantiser step of the last frame that others depend on; None without one."""
    kinds = (UpdateType.KEY, UpdateType.GOLDEN, UpdateType.ARF)
    boosted = records[np.isin(records["update_type"], kinds) & (records["layer_depth"] <= 1)]
    boosted = boosted[boosted["is_shown_again"] == 0]
    return float(log2_step[boosted["q_index"][-1]]) if len(boosted) else None


class ConstantQuality(Policy):
    """Every frame is coded a step below one base, which stays as constant as the budget allows.

    Args:
        steps: The step model.
        parameters: The parameters of the views that it is given.
        quality: The policy's own parameters.
        rate: The constants of the rate model.

    Attributes:
        budget: The account of the current encode.
        probe: The probe of the current clip.
        is_left: Whether the current clip is left to libvpx, which is then `libvpx-vbr-mlarf`.
    """

    budget: RateModel
    probe: Probe

    def __init__(
        self,
        steps: StepModel,
        parameters: DependencyParameters,
        quality: QualityParameters,
        rate: RateParameters | None = None,
    ) -> None:
        self._model, self._parameters, self._quality = steps, parameters, quality
        self._rate = rate or RateParameters()
        self.training_clips = steps.training_clips

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in VBR mode, which shapes the groups, with all layers."""
        return options.for_prediction()

    def begin(self, episode: Episode) -> None:
        """Start a clip: probe it, and find the base."""
        self._episode = episode
        self._model.begin(episode)
        self._complexity = log_complexity(episode.first_pass)
        self._base, small = _START, small_picture(episode.video)
        for _ in range(self._quality.probes):
            self.probe = probe(episode.video, small, episode.options, self._base)
            self.budget = RateModel(self._rate, episode, self.probe)
            self._base = self.budget.start()
            if abs(self._base - self.probe.base) < _FAR:
                break
        self._group_index, self._arf_q = -1, -1
        self.is_left = False

    def decide(self, frame: Frame) -> Decision:
        """Return the base minus the frame's step, or leave the frame to libvpx."""
        if self.is_left:
            return Decision(-1)
        position = frame.group_position
        if frame.group_index != self._group_index:  # position 0 may be an ARF shown again
            self._group_index = frame.group_index
            self._start_group(frame)
        elif not self.budget.has_seen_others:
            self._move(_FIRST_MOVE, _FIRST_MOVE)
        else:
            self._move(_UP, _DOWN)
        if frame.coding_index == 0:
            self.is_left = self._quality.falls_back and not self._is_trusted()
            if self.is_left:
                return Decision(-1)
        q_index = self._q_at(position)
        self.budget.book(position, self._base)
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1:
            self._arf_q = q_index
        return Decision(q_index)

    def _is_trusted(self) -> bool:
        """Whether the clip is of a kind that the policy was made on, once its base is known."""
        if self._episode.options.cpu_used > _LAST_WITH_RECODES:
            return True
        types = self._episode.group.update_type
        has_arf = bool((types == UpdateType.ARF).any())
        low, high = _TRUSTED
        return low <= self._base <= high and (has_arf or len(types) < _LONG)

    def overruled(self, frame: Frame, decision: Decision) -> None:
        """Book the frame at the base that the quantiser step taken stands for."""
        if self.is_left:
            return
        position = frame.group_position
        log2_step = self._episode.log2_step
        moved = log2_step[decision.q_index] - log2_step[self._q_at(position)]
        self.budget.book(position, self._base + moved)
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1:
            self._arf_q = decision.q_index

    def _q_at(self, position: int) -> int:
        place = int(self._group.places[position])
        step = self._steps.step[place] if self._steps is not None and place >= 0 else 0.0
        return nearest_q(self._base + self._group.shift - step, self._episode.log2_step)

    def _start_group(self, frame: Frame) -> None:
        """Move the base, and find the group's steps and bits."""
        if frame.is_key:
            self._ask(frame)  # its step says what it takes
        if frame.coding_index == 0:
            self._base = self.budget.start()
        else:
            most = _KEY_MOVE if frame.is_key else _GROUP_MOVE
            self._move(most, most)
        self._ask(frame)
        group = self._group
        bits = np.zeros(len(group.places))
        bits[group.coded] = 1.0 if self._steps is None else self._steps.bits
        last = min(group.last, group.end - 1)  # an overlay alone may lie past the next key frame
        self.budget.open(group.index, last, bits, group.kinds == UpdateType.KEY)

    def _ask(self, frame: Frame) -> None:
        """Ask the model for the steps of the group at the current base."""
        group = self._group = GroupView.of(
            self._episode,
            frame,
            self._parameters,
            complexity=self._complexity,
            base=self._base,
            arf_q=self._arf_q,
        )
        self._steps = self._model.steps(group) if group.has_model else None
        if frame.is_key and self._steps is not None:
            self.budget.expect_key(float(self._steps.step[0]), frame.show_index)

    def _move(self, up: float, down: float) -> None:
        """Move the base towards the one that the budget wants."""
        if not self._quality.moves:
            return
        self._base += float(np.clip(self.budget.wanted(self._base) - self._base, -down, up))


def constant_quality(spec: str = "balanced") -> ConstantQuality:
    """Return the policy, tuned for a measure.

    Args:
        spec: ``balanced`` (the mean of mean PSNR, overall PSNR, SSIM and VMAF), ``psnr``, ``ssim``
            or ``vmaf``; or ``NAME=VALUE,...``, which are :class:`QualityParameters` that differ
            from the balanced ones.

    Raises:
        InputError: It is none of these.
    """
    if "=" in spec:
        quality = PARAMETERS["balanced"].with_values(spec)
    elif spec in PARAMETERS:
        quality = PARAMETERS[spec]
    else:
        raise InputError(f"constant-quality is tuned for {', '.join(PARAMETERS)}, not {spec!r}")
    parameters = DependencyParameters(complexity=quality.complexity, superblock_strength=0.0)
    return ConstantQuality(BlendedSteps(parameters, quality.dependency), parameters, quality)
