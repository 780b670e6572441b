"""The imitation policy: the steps of ``tpl``, corrected by a network."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.imitation.features import (
    Features,
    first_pass_features,
    frame_features,
    group_features,
)
from vpxrc.agents.imitation.network import Network, Outputs
from vpxrc.encoder import Decision, Frame, UpdateType
from vpxrc.policy import Episode
from vpxrc.tpl import Tpl, TplParameters

CHECKPOINT = Path(__file__).with_name("imitation.safetensors")

# Steps below the base at which the model is run, log2. They are the same in every group: the
# model's answer to its own answer for the group before can run away (docs/temporal-dependency.md).
KEY_STEP, ARF_STEP = 2.0, 1.5
# Mean PSNR wants nearly the same bits for all groups (a power of 1).
PRIOR = TplParameters(complexity=0.75)
TRUST = 0.8  # in the network's word on what is left of the budget, against the account's


class Prior(Tpl):
    """Where imitation starts from: ``tpl`` with its model run at the same steps in all groups."""

    def __init__(self, parameters: TplParameters = PRIOR) -> None:
        super().__init__(parameters)

    def _run_model(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        types, layers = self._kinds()
        is_arf = (types == UpdateType.ARF) | (types == UpdateType.GOLDEN)
        fixed = np.select(
            [types == UpdateType.KEY, is_arf], [np.full(len(types), KEY_STEP), ARF_STEP / layers]
        )
        return super()._run_model(fixed)

    def _kinds(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return update types and layer depths (at least 1) of the group's coded frames."""
        plan, coded = self._episode.group, self._group.coded
        return plan.update_type[coded], np.maximum(plan.layer_depth[coded], 1)

    def _features(self, prior: NDArray[np.float64]) -> Features:
        """Return what the network sees of the group, whose model gave the steps ``prior``."""
        group, episode = self._group, self._episode
        video = episode.video
        types, layers = self._kinds()
        dependency = group.dependency
        assert dependency is not None  # the model has run
        inside = np.zeros(video.num_frames, dtype=bool)
        inside[group.first + 1 : group.last + 1] = True
        expected = group.shares[group.coded].sum() * 2 ** (-self._parameters.slope * self._base)
        return Features(
            frames=frame_features(dependency, types, layers, prior, self._log_error),
            group=group_features(
                first=group.first,
                last=group.last,
                end=group.end,
                num_frames=video.num_frames,
                pixels=video.width * video.height,
                fps=float(video.fps),
                base=self._base,
                log_error=self._log_error,
                model_bits=float(expected),
                target_bits=self._target,
                spent=self._spent,
                records=episode.records(),
            ),
            inside=inside,
        )


@cache
def _load(path: Path, changed: float) -> Network:
    return Network.load(path)


class Imitation(Prior):
    """The prior's steps corrected by a network, and its budget by the bits that it predicts.

    Args:
        checkpoint: The network; the one that is shipped by default.

    Raises:
        InputError: The checkpoint cannot be read.
    """

    def __init__(self, checkpoint: str | Path = CHECKPOINT) -> None:
        super().__init__(dataclasses.replace(PRIOR, key_cost=1.0, arf_cost=1.0, leaf_cost=1.0))
        path = Path(checkpoint)
        self._network = _load(path, path.stat().st_mtime if path.is_file() else 0.0)
        self.training_clips = self._network.clips

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        super().begin(episode)
        self._hidden = self._network.start()
        self._outputs: Outputs | None = None
        self._seen = self._network.see(first_pass_features(episode.first_pass))

    def _start_group(self, frame: Frame) -> None:
        if self._outputs is not None:
            self._hidden = self._outputs.hidden
        self._outputs = None
        super()._start_group(frame)

    def _run_model(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        prior = super()._run_model(steps)
        self._outputs = out = self._network.step(self._features(prior), self._seen, self._hidden)
        coded, slope = self._group.coded, self._parameters.slope
        self._group.shares[coded] *= np.exp2(out.log2_bits - slope * out.offset)
        return np.asarray(prior - out.offset)

    def _wanted(self) -> float:
        wanted, group, out = super()._wanted(), self._group, self._outputs
        if out is None or group.bases.any():
            return wanted  # the network's word is of the group as it was before its first frame
        foreseen = self._base + out.excess / self._parameters.slope
        return float((1 - TRUST) * wanted + TRUST * foreseen)

    def decide(self, frame: Frame) -> Decision:
        """Return the base minus the frame's step, and the network's factor on lambda."""
        decision = super().decide(frame)
        place = int(self._group.places[frame.group_position])
        if self._outputs is None or place < 0:
            return decision
        factor = float(np.exp2(self._outputs.log2_lambda[place]))
        return Decision(decision.q_index, decision.lambda_scale * factor, decision.superblock_scale)
