"""A policy that RLlib has trained: from a file, with numpy alone, or from RLlib's checkpoint."""

import dataclasses
import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.checkpoints import read_checkpoint, residual_config
from vpxrc.agents.residual import ResidualPolicy
from vpxrc.agents.rllib.config import ALGORITHMS
from vpxrc.envs.residual.config import Offset, ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import InputError, needing
from vpxrc.parallel import import_ray
from vpxrc.storage import parse_json

Array = NDArray[np.float32]
FORMAT = "rllib 1"
PROBLEM = "residual.json"  # beside RLlib's own files: what the checkpoint was trained on
LIMIT = 5.0  # standardised inputs are clipped here, in standard deviations
REACH = 0.5  # log2 step that an action of 1 stands for, where nothing else is said
# Where the networks of the policy are in the state of each algorithm's default module.
_PARTS = {
    "ppo": ("encoder.actor_encoder", "pi"),
    "marwil": ("encoder.actor_encoder", "pi"),
    "bc": ("_encoder", "_pi_head"),
    "sac": ("pi_encoder", "pi"),
}
# Where a module is in the checkpoints of an Algorithm, a Learner, a MultiRLModule, or alone.
_PLACES = (
    "learner_group/learner/rl_module/default_policy",
    "rl_module/default_policy",
    "default_policy",
    ".",
)


class _Decider(Protocol):
    """What turns an observation into an action."""

    def action(self, observation: Array) -> int | Offset: ...


class Network:
    """An MLP over standardised inputs, as RLlib's default modules decide with, in numpy.

    Args:
        tensors: float32 arrays: ``mean`` and ``gain`` of the inputs, and per layer N
            ``layers.N.weight`` and ``layers.N.bias``.
        activation: ``tanh`` or ``relu``, after each layer but the last.
        reach: None where it puts out logits; else means are in the first half, before tanh, and
            the offset that an action of 1 stands for, log2 step.
    """

    def __init__(
        self, tensors: dict[str, Array], activation: str, reach: float | None = None
    ) -> None:
        self._mean, self._gain = tensors["mean"], tensors["gain"]
        count = sum(name.endswith(".weight") for name in tensors)
        self._layers = [
            (tensors[f"layers.{n}.weight"], tensors[f"layers.{n}.bias"]) for n in range(count)
        ]
        self._activation = np.tanh if activation == "tanh" else _relu
        self._reach = reach

    def forward(self, observations: Array) -> Array:
        """Return the outputs, float32 ``[..., outputs]``, for ``[..., len(OBSERVATION)]``."""
        values = np.clip((observations - self._mean) * self._gain, -LIMIT, LIMIT)
        for place, (weight, bias) in enumerate(self._layers):
            values = values @ weight.T + bias
            if place < len(self._layers) - 1:
                values = self._activation(values)
        return np.asarray(values, np.float32)

    def action(self, observation: Array) -> int | Offset:
        """Return the best action: the likeliest, or the mean's (level, reference)."""
        out = self.forward(observation)
        if self._reach is None:
            return int(out.argmax())
        return _offset(np.tanh(out[: len(out) // 2]), self._reach)


class RayModule:
    """An RLModule of RLlib's, as its checkpoint has it, without exploration.

    Its inputs are the observations as they are: connectors between an environment and a module are
    not part of it.

    Args:
        folder: The checkpoint of an RLModule, or one with it inside.
        reach: The offset that an action of 1 stands for, log2 step, where actions are no indices.

    Raises:
        InputError: There is none, or it cannot be loaded.
        MissingDependencyError: Ray or torch is not installed.
    """

    def __init__(self, folder: Path, reach: float = REACH) -> None:
        self._reach = reach
        places = [folder / place for place in _PLACES]
        found = [place for place in places if (place / "class_and_ctor_args.pkl").is_file()]
        if not found:
            raise InputError(f"{folder}: no checkpoint of RLlib's")
        import_ray()
        with needing(f"{folder} needs", "ray"):
            self._torch: Any = importlib.import_module("torch")
            rl_module: Any = importlib.import_module("ray.rllib.core.rl_module.rl_module")
        try:
            # RLlib keeps the module's class as a pickle.
            self._module: Any = rl_module.RLModule.from_checkpoint(str(found[0].absolute()))
            shape, actions = self._module.observation_space.shape, self._module.action_space
        except Exception as error:
            raise InputError(f"{found[0]}: cannot be loaded: {error!r}") from error
        if shape != (len(OBSERVATION),):
            raise InputError(f"{folder}: trained on observations of {shape}: another version's")
        self._is_discrete = hasattr(actions, "n")
        self.num_actions = int(actions.n) if self._is_discrete else None

    def action(self, observation: Array) -> int | Offset:
        """Return the best action."""
        with self._torch.no_grad():
            batch = {"obs": self._torch.from_numpy(observation[None])}
            out = self._module.forward_inference(batch)
        if "actions" in out:
            action = out["actions"][0].numpy()
            return int(action) if self._is_discrete else _offset(action, self._reach)
        inputs = out["action_dist_inputs"][0].numpy()
        if self._is_discrete:
            return int(inputs.argmax())
        kind = self._module.get_inference_action_dist_cls().__name__
        mean = inputs[: len(inputs) // 2]
        return _offset(np.tanh(mean) if "Squashed" in kind else mean, self._reach)


class Rllib(ResidualPolicy):
    """A base policy corrected by a policy that RLlib has trained, without exploration.

    Args:
        checkpoint: A file of ``vpxrc train``; or the folder of a checkpoint of RLlib's own, of an
            ``Algorithm`` or an ``RLModule``. What the latter was trained on is read from
            ``residual.json`` in it, ``{"config": {...}, "clips": [content hashes], "reach": 0.5}``;
            without, it is ``ResidualConfig()``. Such a folder holds pickles, which can run any
            code: load none that you would not run.

    Raises:
        InputError: It cannot be read, or is another version's.
        MissingDependencyError: A folder is given, and Ray is not installed.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        path = Path(checkpoint)
        self._decider: _Decider
        if path.is_dir():
            config, clips, reach = _problem(path)
            self._decider = module = RayModule(path, reach)
            count = module.num_actions
            if count not in (None, len(config.actions)):
                raise InputError(f"{path}: {count} actions, where the problem has others")
        else:
            changed = path.stat().st_mtime if path.is_file() else 0.0
            self._decider, config, clips = _load(path, changed)
        super().__init__(config)
        self.training_clips |= clips

    def choose(self, observation: Array) -> int | Offset:
        """Return the best action by the network."""
        return self._decider.action(observation)


def exported(algorithm: str, state: dict[str, Array]) -> dict[str, Array]:
    """Return the tensors of :class:`Network` from the state of an algorithm's module.

    Args:
        algorithm: One of ``ALGORITHMS``.
        state: float32 arrays by their names in RLlib.
    """
    encoder, head = _PARTS[algorithm]
    tensors = {name: state[f"{encoder}.{name}"] for name in ("mean", "gain")}
    place = 0
    for part in (encoder, head):
        prefix, suffix = f"{part}.net.mlp.", ".weight"
        own = [name for name in state if name.startswith(prefix) and name.endswith(suffix)]
        for number in sorted(int(name[len(prefix) : -len(suffix)]) for name in own):
            for kind in ("weight", "bias"):
                tensors[f"layers.{place}.{kind}"] = state[f"{prefix}{number}.{kind}"]
            place += 1
    return {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()}


def problem(config: ResidualConfig, clips: frozenset[str], reach: float) -> str:
    """Return the contents of ``residual.json``."""
    words = {"config": dataclasses.asdict(config), "clips": sorted(clips), "reach": reach}
    return json.dumps(words, indent=1) + "\n"


def _problem(folder: Path) -> tuple[ResidualConfig, frozenset[str], float]:
    path = folder / PROBLEM
    if not path.is_file():
        return ResidualConfig(), frozenset(), REACH
    try:
        words = parse_json(path.read_text())
        clips = frozenset(str(clip) for clip in words.get("clips", []))
        config, reach = json.dumps(words.get("config", {})), float(words.get("reach", REACH))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return residual_config(config, path), clips, reach


@cache
def _load(path: Path, changed: float) -> tuple[Network, ResidualConfig, frozenset[str]]:
    kept = read_checkpoint(path, FORMAT)
    algorithm = kept.settings.get("algorithm", "")
    if algorithm not in ALGORITHMS:
        raise InputError(f"{path}: by an unknown algorithm {algorithm!r}")
    try:
        reach = float(kept.settings["reach"]) if algorithm == "sac" else None
        network = Network(kept.tensors, kept.settings["activation"], reach)
        outputs = network.forward(np.zeros(len(OBSERVATION), np.float32))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: a network of another form") from error
    if outputs.shape != ((len(kept.config.actions),) if reach is None else (4,)):
        raise InputError(f"{path}: a network of another form")
    return network, kept.config, kept.clips


def _offset(action: NDArray[Any], reach: float) -> Offset:
    level, reference = (reach * float(part) for part in np.clip(action, -1, 1))
    return level, reference


def _relu(values: Array) -> Array:
    return np.maximum(values, 0.0)
