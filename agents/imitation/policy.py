"""The imitation policy: the dependency policy with steps that a network corrects."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np

from vpxrc.agents.imitation.features import first_pass_features, group_features
from vpxrc.agents.imitation.network import Network
from vpxrc.policies.base import Episode
from vpxrc.policies.dependency import DependencyPolicy
from vpxrc.policies.step_models import DependencyParameters, FixedSteps, GroupView, StepModel, Steps

CHECKPOINT = Path(__file__).with_name("imitation.safetensors")

# Mean PSNR wants nearly the same bits for all groups (a power of 1).
PRIOR = DependencyParameters(complexity=0.75)
# The network foresees real bits: they need no correction before any are known.
PARAMETERS = dataclasses.replace(PRIOR, key_cost=1.0, arf_cost=1.0, leaf_cost=1.0)
TRUST = 0.8  # in the network's word on what is left of the budget, against the account's


class NetworkSteps(StepModel):
    """Another model's steps and bits, corrected by a network that sees the group.

    Args:
        network: The network.
        prior: The other model; it runs the temporal dependency model in every group.
        trust: Weight of the network's word on the budget against the account's, 0..1.
    """

    def __init__(self, network: Network, prior: StepModel, trust: float = TRUST) -> None:
        self._network, self._prior, self._trust = network, prior, trust
        self.training_clips = network.clips

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        self._prior.begin(episode)
        self._seen = self._network.see(first_pass_features(episode.first_pass))
        self._group_index = -1
        self._hidden = self._after = self._network.start()

    def steps(self, group: GroupView) -> Steps:
        """Return the corrected steps, with the network's lambdas and its word on the budget."""
        if group.index != self._group_index:
            self._group_index = group.index
            self._hidden = self._after
        prior = self._prior.steps(group)
        out = self._network.step(group_features(group, prior), self._seen, self._hidden)
        self._after = out.hidden
        return Steps(
            step=np.asarray(prior.step - out.offset),
            bits=prior.bits * np.exp2(out.log2_bits - group.slope * out.offset),
            log2_lambda=out.log2_lambda,
            dependency=prior.dependency,
            wanted=group.base + out.excess / group.slope,
            trust=self._trust,
        )


@cache
def _load(path: Path, changed: float) -> Network:
    return Network.load(path)


def imitation_prior(*, parameters: DependencyParameters = PRIOR) -> DependencyPolicy:
    """Return the policy that `imitation` corrects: `dependency` at fixed steps below the base.

    Args:
        parameters: The constants of policy and model.
    """
    return DependencyPolicy(steps=FixedSteps(parameters), parameters=parameters)


def imitation(
    checkpoint: str | Path = CHECKPOINT,
    *,
    parameters: DependencyParameters = PARAMETERS,
    trust: float = TRUST,
    follows_budget: bool = True,
) -> DependencyPolicy:
    """Return the trained agent: `imitation-prior`, corrected by a network.

    Args:
        checkpoint: The network's file; by default the one that is shipped.
        parameters: The constants of policy and model.
        trust: Weight of the network's word on the budget against the account's, 0..1.
        follows_budget: Whether the base moves after the first group.

    Raises:
        InputError: The checkpoint cannot be read.
    """
    path = Path(checkpoint)
    network = _load(path, path.stat().st_mtime if path.is_file() else 0.0)
    return DependencyPolicy(
        steps=NetworkSteps(network, FixedSteps(parameters), trust),
        parameters=parameters,
        follows_budget=follows_budget,
    )
