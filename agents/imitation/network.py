"""The network in numpy, as it decides: loaded in milliseconds, and no learning framework needed.

``vpxrc.agents.imitation.learner`` has the same network in torch, for training; the two share the
parameters' names, and ``tests/test_imitation.py`` holds them against each other.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.imitation.features import FIRST_PASS, FRAME, GROUP, Features
from vpxrc.errors import InputError
from vpxrc.tensors import read_weights

Array = NDArray[np.float32]
FORMAT = 1
# Of offsets and lambdas (log2), and of real bits over the model's.
LIMITS = np.array([2.0, 1.0, 3.0], dtype=np.float32)
FRAME_WIDTH, FIRST_PASS_WIDTH, GROUP_WIDTH, HIDDEN, INNER = 32, 16, 48, 32, 64
HEADS = ("offset", "log2_lambda", "log2_bits", "log2_distortion")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the network says of a group of ``n`` frames.

    Attributes:
        offset: How much coarser each frame is than the prior has it, log2 step, ``[n]``.
        log2_lambda: log2 of the factor on its lambda, ``[n]``.
        log2_bits: log2 of its real bits over the model's at the same step, ``[n]``.
        log2_distortion: log2 of its real squared error over the model's, ``[n]``.
        excess: log2 of the bits that the group and all after it will take at this base, over what
            is left of the budget.
        hidden: The state after the group, ``[members, HIDDEN]``.
    """

    offset: Array
    log2_lambda: Array
    log2_bits: Array
    log2_distortion: Array
    excess: float
    hidden: Array


class Network:
    """Groups in, corrections out, with a recurrent state over the groups that were coded.

    A few members of the same form, trained apart, whose outputs are averaged: where the lessons
    left a question open they disagree, and the mean is cautious.

    Args:
        parameters: float32 arrays by name, ``MEMBER.NAME``.
        clips: Content hashes of the clips that they were trained on.
        settings: What else the training left, by name.
    """

    def __init__(
        self,
        parameters: dict[str, Array],
        clips: frozenset[str] = frozenset(),
        settings: dict[str, str] | None = None,
    ) -> None:
        self._members: list[_Member] = []
        while own := {
            name.removeprefix(f"{len(self._members)}."): value
            for name, value in parameters.items()
            if name.startswith(f"{len(self._members)}.")
        }:
            self._members.append(_Member(own))
        self.clips = clips
        self.settings = settings or {}

    @classmethod
    def load(cls, path: str | Path) -> "Network":
        """Read a checkpoint.

        Raises:
            InputError: It is not one, or another version's, or its tensors are not a network's.
        """
        parameters, settings = read_weights(path)
        if settings.get("format") != str(FORMAT) or settings.get("inputs") != inputs():
            raise InputError(f"{path}: a checkpoint of another version of vpxrc; train it again")
        members = {name.partition(".")[0] for name in parameters}
        expected = {
            f"{member}.{name}": shape
            for member in range(max(len(members), 1))
            for name, shape in _shapes().items()
        }
        if {name: value.shape for name, value in parameters.items()} != expected:
            raise InputError(f"{path}: a network of another form; train it again")
        clips = frozenset(settings.get("clips", "").split())
        return cls(parameters, clips, settings)

    def start(self) -> Array:
        """Return the state before the first group, ``[members, HIDDEN]``."""
        return np.zeros((len(self._members), HIDDEN), dtype=np.float32)

    def see(self, first_pass: Array) -> Array:
        """Return the embeddings of the first pass, ``[members, num_frames, FIRST_PASS_WIDTH]``."""
        return np.stack([member.see(first_pass) for member in self._members])

    def step(self, features: Features, seen: Array, hidden: Array) -> Outputs:
        """Return what to do with a group.

        Args:
            features: The group's.
            seen: What :meth:`see` returned for the clip.
            hidden: The state before it.
        """
        steps = [
            member.step(features, view, state)
            for member, view, state in zip(self._members, seen, hidden, strict=True)
        ]
        heads = np.mean([step[0] for step in steps], axis=0)
        return Outputs(
            offset=heads[:, 0],
            log2_lambda=heads[:, 1],
            log2_bits=heads[:, 2],
            log2_distortion=heads[:, 3],
            excess=float(np.mean([step[1] for step in steps])),
            hidden=np.stack([step[2] for step in steps]),
        )


class _Member:
    def __init__(self, parameters: dict[str, Array]) -> None:
        self._p = parameters

    def see(self, first_pass: Array) -> Array:
        return _relu(self._linear("first_pass", self._scaled("first_pass", first_pass)))

    def step(self, features: Features, seen: Array, hidden: Array) -> tuple[Array, float, Array]:
        """Return the heads ``[n, 4]``, the excess and the state."""
        x = self._scaled("frame", features.frames)
        embedded = _relu(self._linear("frame", x))
        inside = features.inside
        after = np.flatnonzero(inside)[-1] + 1 if inside.any() else len(inside)
        pools = [
            embedded.mean(axis=0),
            embedded.max(axis=0),
            seen.mean(axis=0),
            seen[inside].mean(axis=0) if inside.any() else np.zeros_like(seen[0]),
            seen[after:].mean(axis=0) if after < len(seen) else np.zeros_like(seen[0]),
        ]
        group = self._scaled("group", features.group)
        z = _relu(self._linear("group", np.concatenate([group, *pools])))
        hidden = self._recur(z, hidden)
        state = np.concatenate([z, hidden])
        wide = np.broadcast_to(state, (len(x), len(state)))
        inner = _relu(self._linear("inner", np.concatenate([x, embedded, wide], axis=1)))
        heads = self._linear("heads", inner)
        heads[:, :3] = np.tanh(heads[:, :3]) * LIMITS
        return heads, float(self._linear("excess", state)[0]), hidden

    def _scaled(self, name: str, values: Array) -> Array:
        scaled = (values - self._p[f"{name}_mean"]) * self._p[f"{name}_gain"]
        return np.asarray(np.clip(scaled, -4.0, 4.0))  # beyond what training saw, no further

    def _linear(self, name: str, values: Array) -> Array:
        return np.asarray(values @ self._p[f"{name}.weight"].T + self._p[f"{name}.bias"])

    def _recur(self, z: Array, hidden: Array) -> Array:
        """One step of a gated recurrent unit, as ``torch.nn.GRUCell`` has it."""
        p = self._p
        given = z @ p["recur.weight_ih"].T + p["recur.bias_ih"]
        kept = hidden @ p["recur.weight_hh"].T + p["recur.bias_hh"]
        (gr, gz, gn), (kr, kz, kn) = np.split(given, 3), np.split(kept, 3)
        reset, update = _sigmoid(gr + kr), _sigmoid(gz + kz)
        new = np.tanh(gn + reset * kn)
        return np.asarray((1 - update) * new + update * hidden, dtype=np.float32)


def inputs() -> str:
    """Return the names of all inputs, in order: what a checkpoint has to agree on."""
    return " ".join((*FRAME, "|", *GROUP, "|", *FIRST_PASS))


def _shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of a member's parameters, by name."""
    state = GROUP_WIDTH + HIDDEN
    layers = {
        "first_pass": (FIRST_PASS_WIDTH, len(FIRST_PASS)),
        "frame": (FRAME_WIDTH, len(FRAME)),
        "group": (GROUP_WIDTH, len(GROUP) + 2 * FRAME_WIDTH + 3 * FIRST_PASS_WIDTH),
        "inner": (INNER, len(FRAME) + FRAME_WIDTH + state),
        "heads": (len(HEADS), INNER),
        "excess": (1, state),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (width, given) in layers.items():
        shapes |= {f"{name}.weight": (width, given), f"{name}.bias": (width,)}
    for name, given in (("ih", GROUP_WIDTH), ("hh", HIDDEN)):
        shapes |= {f"recur.weight_{name}": (3 * HIDDEN, given), f"recur.bias_{name}": (3 * HIDDEN,)}
    for name, columns in (("first_pass", FIRST_PASS), ("frame", FRAME), ("group", GROUP)):
        shapes |= {f"{name}_{scale}": (len(columns),) for scale in ("mean", "gain")}
    return shapes


def _relu(values: Array) -> Array:
    return np.maximum(values, 0.0)


def _sigmoid(values: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-values)))
