"""The networks as they decide: native, loaded in milliseconds, no learning framework needed.

``vpxrc.agents.muzero.learner`` has the same networks in torch, for training; the two share the
parameters' names, and ``tests/test_muzero.py`` holds them against each other.
"""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc import _search
from vpxrc.agents.checkpoints import checkpoint_metadata, read_checkpoint
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.search import (
    Root,
    SearchOutput,
    Step,
    gumbel_muzero_search,
)
from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import InputError
from vpxrc.storage import atomic_write, parse_json
from vpxrc.tensors import tensor_bytes

Array = NDArray[np.float32]
FORMAT = "muzero-1"
LIMIT = 4.0  # standardised inputs are clipped here: training has hardly seen larger ones
EPSILON = 1e-5  # added to the variance of latent states where they are normalised
OUTCOMES = ("reward", "log2_bits", "log2_distortion")


class Network:
    """Observations to latent states, latent states and actions to latent states, and what to do.

    - representation: the standardised observation through one hidden layer to a state;
    - dynamics: state and action through one hidden layer, added to the state; reward, bits and
      distortion of the step from that layer;
    - prediction: a state through one hidden layer to the policy's logits and the value.

    Every state has mean 0 and variance 1 over its H numbers.

    Args:
        parameters: float32 arrays by name; see :func:`shapes`.

    Attributes:
        native: The same, as :func:`~vpxrc.agents.muzero.search.gumbel_muzero_search` takes it.

    Raises:
        InputError: Shapes that do not agree, or a number that is not finite. The methods refuse
            their arguments likewise.
    """

    def __init__(self, parameters: dict[str, Array]) -> None:
        self.parameters = parameters
        with _refusals():
            self.native = _search.Network(
                parameters, limit=LIMIT, epsilon=EPSILON, reward=OUTCOMES.index("reward")
            )

    def __reduce__(self) -> tuple[type["Network"], tuple[dict[str, Array]]]:
        """Travel to another process as the parameters."""
        return Network, (self.parameters,)

    @property
    def actions(self) -> int:
        """A, the number of actions."""
        return len(self.parameters["policy.bias"])

    def represent(self, observations: Array) -> Array:
        """Return the latent states of observations.

        Args:
            observations: float32 ``[B, N]``.

        Returns:
            float32 ``[B, H]``.
        """
        with _refusals():
            return self.native.represent(observations)

    def predict(self, states: Array) -> tuple[Array, Array]:
        """Return the policy's logits ``[B, A]`` and the values ``[B]`` of states ``[B, H]``."""
        with _refusals():
            return self.native.predict(states)

    def step(self, actions: NDArray[np.int32], states: Array) -> Step:
        """Return what the model expects of actions.

        Args:
            actions: int32 ``[B]``.
            states: float32 ``[B, H]``.
        """
        with _refusals():
            return Step(*self.native.step(actions, states))

    def search(
        self,
        observations: Array,
        simulations: int,
        *,
        config: MuZeroConfig,
        noise: Array | None = None,
    ) -> SearchOutput:
        """Look ahead from observations.

        Args:
            observations: float32 ``[B, N]``.
            simulations: Steps of the model per observation.
            config: Has the search's other settings.
            noise: Gumbel noise at the root, float32 ``[B, A]``; None for none.
        """
        states = self.represent(observations)
        root = Root(*self.predict(states), states)
        return gumbel_muzero_search(
            root,
            self.native,
            num_simulations=simulations,
            gumbel=np.zeros_like(root.prior_logits) if noise is None else noise,
            max_considered=config.max_considered,
            value_scale=config.value_scale,
            rescale=False,
        )


@dataclass(frozen=True, eq=False)
class Trained:
    """What a checkpoint has.

    Attributes:
        network: The network.
        residual: The base policy, the decision points and the offsets.
        config: How it searches and was trained.
        clips: Content hashes of the clips that it was trained on.
        options: Fields of ``EncoderOptions`` that shaped what it saw, by name.
    """

    network: Network
    residual: ResidualConfig
    config: MuZeroConfig
    clips: frozenset[str]
    options: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> "Trained":
        """Read what :meth:`save` wrote.

        Raises:
            InputError: It is not a checkpoint, or another agent's or version's, or its tensors are
                not such a network's or not finite.
        """
        found = read_checkpoint(path, FORMAT)
        try:
            config = MuZeroConfig(**parse_json(found.settings["muzero"]))
            options = parse_json(found.settings["options"])
            EncoderOptions(**options)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise InputError(f"{path}: a network of another form; train it again") from error
        actions = len(found.config.actions)
        expected = shapes(len(OBSERVATION), actions, config.hidden, config.width)
        if {name: value.shape for name, value in found.tensors.items()} != expected:
            raise InputError(f"{path}: a network of another form; train it again")
        try:
            network = Network(found.tensors)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return cls(network, found.config, config, found.clips, options)

    def save(self, path: str | Path) -> None:
        """Write it, by atomic rename."""
        metadata = checkpoint_metadata(
            FORMAT,
            self.residual,
            self.clips,
            muzero=json.dumps(dataclasses.asdict(self.config)),
            options=json.dumps(self.options),
        )
        with atomic_write(path) as temporary:
            temporary.write_bytes(tensor_bytes(self.network.parameters, metadata))


def shapes(observations: int, actions: int, hidden: int, width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters, by name."""
    layers = {
        "represent1": (width, observations),
        "represent2": (hidden, width),
        "dynamics1": (width, hidden + actions),
        "dynamics2": (hidden, width),
        "outcome": (len(OUTCOMES), width),
        "predict1": (width, hidden),
        "policy": (actions, width),
        "value": (1, width),
    }
    found: dict[str, tuple[int, ...]] = {
        f"observation_{scale}": (observations,) for scale in ("mean", "gain")
    }
    for name, (outputs, inputs) in layers.items():
        found |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return found


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InputError(f"network: {error}") from None
