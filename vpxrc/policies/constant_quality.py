"""The policy ``constant-quality``: one base quantiser step for a whole clip, found by a probe."""

from dataclasses import dataclass

import numpy as np

from vpxrc.encoder.complexity import log_complexity
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import LOG2_STEP, nearest_q
from vpxrc.encoder.types import Decision, Frame, UpdateType
from vpxrc.policies.base import Episode, Policy
from vpxrc.policies.probe import probe
from vpxrc.policies.rate_model import RateModel, RateParameters
from vpxrc.policies.step_models import DependencyParameters, GroupView, StepModel

_PROBES = 2  # at most; another one follows where the first was far from the base that it gave
_FAR = 0.8  # log2 step
_GROUP_MOVE, _KEY_MOVE, _FIRST_MOVE = 0.3, 0.6, 0.4  # the most that the base moves, log2 step
_UP, _DOWN = 0.05, 0.02  # the same per frame within a group
_START = 9.0  # base of the first probe, log2 step


class ConstantQuality(Policy):
    def __init__(self, steps, parameters, rate=None, superblocks=False):
        self._model, self._parameters, self._rate = steps, parameters, rate or RateParameters()
        self.training_clips = steps.training_clips
    def options(self, options): return options.for_control()
    def begin(self, episode):
        self._episode = episode
        self._model.begin(episode)
        self._complexity = log_complexity(episode.first_pass)
        base = _START
        for _ in range(_PROBES):
            found = probe(episode.video, episode.options, base)
            self.budget = RateModel(self._rate, episode, found)
            base = self.budget.start()
            if abs(base - found.base) < _FAR: break
        self._base, self._group_index, self._arf_q = base, -1, -1
        self.probe = found
    def decide(self, frame):
        position = frame.group_position
        if frame.group_index != self._group_index:
            self._group_index = frame.group_index
            self._open(frame)
        elif position == 1 and not self.budget.has_seen_others:
            self._move(_FIRST_MOVE, _FIRST_MOVE)
        else:
            self._move(_UP, _DOWN)
        place = int(self._group.places[position])
        step = self._steps.step[place] if self._steps is not None and place >= 0 else 0.0
        q = nearest_q(self._base + self._group.shift - step, LOG2_STEP)
        self.budget.book(position, self._base)
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1: self._arf_q = q
        return Decision(q)
    def _move(self, up, down):
        w = self.budget.wanted(self._base)
        self._base += float(np.clip(w - self._base, -down, up))
    def _open(self, frame):
        if frame.coding_index:
            m = _KEY_MOVE if frame.is_key else _GROUP_MOVE
            self._base0 = self._base
            self._pending(frame)
            self._move(m, m)
        g = GroupView.of(self._episode, frame, self._parameters, complexity=self._complexity, base=self._base, arf_q=self._arf_q)
        self._group = g
        self._steps = self._model.steps(g) if g.has_model else None
        size = len(g.places); bits = np.zeros(size)
        if self._steps is not None: bits[g.coded] = self._steps.bits
        else: bits[g.coded] = 1.0
        self.budget.open(frame.group_index, min(g.last, g.end - 1), bits, g.kinds == UpdateType.KEY)
    def _pending(self, frame): self.budget.account()
