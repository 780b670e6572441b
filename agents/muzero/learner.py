"""Training: the networks in torch, their losses, and updates from batches of the replay."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.network import EPSILON, LIMIT, OUTCOMES, Array, Network
from vpxrc.agents.muzero.replay import Batch, Replay

LEAST_DEVIATION = 0.05  # an input that varies less is not scaled up further


class TorchNetwork(nn.Module):
    """:class:`vpxrc.agents.muzero.network.Network`, differentiable.

    Policy, value and outcomes start at 0 but for the policy's preference for action 0.

    Args:
        observations: N, the width of an observation.
        actions: A, the number of actions.
        config: Has the widths, and the preference for action 0.
    """

    observation_mean: Tensor
    observation_gain: Tensor

    def __init__(self, observations: int, actions: int, config: MuZeroConfig) -> None:
        super().__init__()
        hidden, width = config.hidden, config.width
        self.actions = actions
        self.represent1 = nn.Linear(observations, width)
        self.represent2 = nn.Linear(width, hidden)
        self.dynamics1 = nn.Linear(hidden + actions, width)
        self.dynamics2 = nn.Linear(width, hidden)
        self.outcome = nn.Linear(width, len(OUTCOMES))
        self.predict1 = nn.Linear(hidden, width)
        self.policy = nn.Linear(width, actions)
        self.value = nn.Linear(width, 1)
        for head in (self.outcome, self.policy, self.value):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        if config.base_share is not None and actions > 1:
            odds = config.base_share / (1 - config.base_share)
            nn.init.constant_(self.policy.bias[0], np.log(odds * (actions - 1)))
        self.register_buffer("observation_mean", torch.zeros(observations))
        self.register_buffer("observation_gain", torch.ones(observations))

    def represent(self, observations: Tensor) -> Tensor:
        """Return the latent states ``[B, H]`` of observations ``[B, N]``."""
        scaled = (observations - self.observation_mean) * self.observation_gain
        inner = self.represent1(scaled.clamp(-LIMIT, LIMIT)).relu()
        return self._normalised(self.represent2(inner))

    def predict(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the policy's logits ``[B, A]`` and the values ``[B]`` of states ``[B, H]``."""
        inner = self.predict1(states).relu()
        return self.policy(inner), self.value(inner)[:, 0]

    def step(self, actions: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outcomes ``[B, 3]`` of actions ``[B]`` and the states after ``[B, H]``."""
        chosen = nn.functional.one_hot(actions, self.actions).to(states.dtype)
        inner = self.dynamics1(torch.cat([states, chosen], dim=1)).relu()
        return self.outcome(inner), self._normalised(states + self.dynamics2(inner))

    def _normalised(self, states: Tensor) -> Tensor:
        return nn.functional.layer_norm(states, states.shape[1:], eps=EPSILON)


class Learner:
    """Trains the networks on batches of the replay; torch has one thread from then on.

    Args:
        observations: N, the width of an observation.
        actions: A, the number of actions.
        config: How.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self, observations: int, actions: int, config: MuZeroConfig, device: str = "cpu"
    ) -> None:
        self.config = config
        self.updates = 0
        torch.set_num_threads(1)  # the networks are small, and the workers need the cores
        torch.manual_seed(config.seed)
        self._network = TorchNetwork(observations, actions, config).to(device)
        self.device = device
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), config.rate, weight_decay=config.decay
        )

    def standardise(self, observations: NDArray[np.float32]) -> None:
        """Set mean and gain of the inputs from observations, float32 ``[n, N]``.

        Called once, before the first update: what was learned holds for these only.
        """
        mean = observations.mean(axis=0)
        gain = 1 / np.maximum(observations.std(axis=0), LEAST_DEVIATION)
        self._network.observation_mean.copy_(torch.from_numpy(mean))
        self._network.observation_gain.copy_(torch.from_numpy(gain))

    def network(self) -> Network:
        """Return the networks as they are now, in numpy."""
        state = self._network.state_dict()
        return Network({name: value.cpu().numpy().copy() for name, value in state.items()})

    def update(self, batch: Batch) -> tuple[dict[str, float], Array]:
        """Take one step of the optimizer.

        Returns:
            The mean losses by name, and the errors of the values at the batch's positions,
            float32 ``[B]``.
        """
        config, network = self.config, self._network
        given = {
            name: torch.from_numpy(np.ascontiguousarray(value)).to(self.device)
            for name, value in vars(batch).items()
        }
        losses, errors = _losses(network, given, config.unroll)
        weights = given["weights"]
        total = (
            losses["policy"]
            + config.value_weight * losses["value"]
            + config.reward_weight * losses["reward"]
            + config.auxiliary * (losses["bits"] + losses["distortion"])
        )
        self._optimizer.zero_grad()
        torch.autograd.backward((weights * total).mean())
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        self._optimizer.step()
        self.updates += 1
        means = {name: float(value.detach().mean()) for name, value in losses.items()}
        return means, errors.cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return all that :meth:`load_state_dict` needs, of tensors and plain numbers."""
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = int(state["updates"])


def _losses(
    network: TorchNetwork, batch: dict[str, Tensor], unroll: int
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses ``[B]`` of each output, and the errors of the first values ``[B]``.

    As in MuZero (Schrittwieser et al. 2020, appendix G) the first state's loss counts as much as
    those of the K unrolled steps together, and the gradient is halved on its way into each
    application of the dynamics. States after the end have no policy, and rewards and a value of 0.
    """
    huber = nn.functional.smooth_l1_loss
    zero = torch.zeros_like(batch["weights"])
    losses = {"policy": zero, "value": zero, "reward": zero, "bits": zero, "distortion": zero}
    states = network.represent(batch["observations"])
    errors = zero
    for step in range(unroll + 1):
        share = 1.0 if step == 0 else 1.0 / unroll
        logits, values = network.predict(states)
        wanted, policy = batch["values"][:, step], batch["policies"][:, step]
        if step == 0:
            errors = (values - wanted).detach()
        # The policy's own entropy is taken off, which moves no gradient: 0 is the best.
        surprise = torch.xlogy(policy, policy) - policy * logits.log_softmax(dim=1)
        losses["policy"] = losses["policy"] + share * surprise.sum(dim=1)
        losses["value"] = losses["value"] + share * huber(values, wanted, reduction="none")
        if step == unroll:
            break
        halved = 0.5 * states + 0.5 * states.detach()
        outcomes, states = network.step(batch["actions"][:, step].long(), halved)
        for column, (loss, name) in enumerate(
            (("reward", "rewards"), ("bits", "log2_bits"), ("distortion", "log2_distortion"))
        ):
            target = batch[name][:, step]
            known = target.isfinite()
            if loss != "reward":
                known &= batch["inside"][:, step]
            wrong = huber(outcomes[:, column], target.nan_to_num(), reduction="none")
            losses[loss] = losses[loss] + torch.where(known, wrong, zero) / unroll
    return losses, errors


def learn(learner: Learner, replay: Replay, rng: np.random.Generator) -> dict[str, float]:
    """Draw a batch, bring a share of it up to date, and update the networks.

    Returns:
        The mean losses by name.
    """
    config = learner.config
    rows = replay.draw(config.batch, rng)
    if count := round(config.reanalyse * config.batch):
        reanalyse(learner, replay, rows[:count])
    losses, errors = learner.update(replay.batch(rows, config.unroll))
    replay.update(rows, errors)
    return losses


def reanalyse(learner: Learner, replay: Replay, rows: NDArray[np.int64]) -> None:
    """Search again at positions and along the K steps after them; the replay keeps what is found.

    Policies learn from it, and so do values where TD(lambda) reads those of the steps after.

    Args:
        learner: Has the latest networks, and K.
        replay: Where.
        rows: int64 ``[B]``.
    """
    at, inside = replay.following(rows, learner.config.unroll + 1)
    fresh = np.unique(at[inside])
    config = learner.config
    found = learner.network().search(replay.observed(fresh), config.simulations, config=config)
    replay.refresh(fresh, found.action_weights, found.value)
