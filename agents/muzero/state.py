"""What a training goes on from: in memory, and in a folder beside its checkpoint."""

import json
import shutil
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from vpxrc.agents.muzero.curve import WINDOW, Row
from vpxrc.agents.muzero.learner import Learner
from vpxrc.agents.muzero.network import Network
from vpxrc.agents.muzero.purpose import MuZeroReward
from vpxrc.agents.muzero.replay import Replay
from vpxrc.errors import InputError
from vpxrc.storage import atomic_write, parse_json, read_frame, sync, write_frame
from vpxrc.tensors import DAMAGED

FORMAT = 2


@dataclass(frozen=True, eq=False)
class Planned:
    """Work that a worker has or will get, with the network that it was planned with.

    A state keeps it: gone on with a newer network, the training would be another one.

    Attributes:
        tasks: Places of the tasks among the purpose's.
        numbers: Numbers of the episodes; empty for encodes of a new opponent.
        network: What chooses.
    """

    tasks: tuple[int, ...]
    numbers: tuple[int, ...]
    network: Network


@dataclass(eq=False)
class Memory:
    """All of a training that lasts.

    Attributes:
        learner: The networks and their optimiser.
        replay: The episodes that the learner draws from.
        reward: The reward with its table.
        count: Numbers of ``episodes``, ``decisions``, ``frames`` and replaced ``opponents`` so far.
        wins: 1 for a win, 0.5 for a draw and 0 for a loss, of the last 200 episodes.
        rows: The curve so far, a row per iteration.
        planned: What is to be done next, what workers are doing now included.
        seconds: Duration of the runs before this one.
    """

    learner: Learner
    replay: Replay
    reward: MuZeroReward
    count: dict[str, int] = field(
        default_factory=lambda: {"episodes": 0, "decisions": 0, "frames": 0, "opponents": 0}
    )
    wins: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    rows: list[Row] = field(default_factory=list)
    planned: list[Planned] = field(default_factory=list)
    seconds: float = 0.0


class StateFolder:
    """A folder whose link ``current`` leads to the last whole state.

    Args:
        path: The folder, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._generation = 0

    def save(self, memory: Memory, settings: dict[str, Any], seconds: float) -> None:
        """Write a state; killed meanwhile, the one before it is there.

        Args:
            memory: What is kept.
            settings: What a training has to have in common with the state to go on from it.
            seconds: Duration of the training so far.

        Raises:
            OutputError: The folder cannot be written.
        """
        name = f"{self._generation + 1:06d}"
        folder = self._path / name
        with atomic_write(self._path / "current") as link:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            torch.save(memory.learner.state_dict(), folder / "weights.pt")
            (folder / "replay.safetensors").write_bytes(save_tensors(memory.replay.state()))
            _write_planned(folder, memory.planned)
            write_frame(pd.DataFrame(memory.rows), folder / "curve.parquet")
            (folder / "ema.json").write_text(json.dumps(memory.reward.state_dict()) + "\n")
            state = {
                "settings": settings,
                "count": memory.count,
                "seconds": seconds,
                "wins": list(memory.wins),
            }
            (folder / "state.json").write_text(json.dumps(state) + "\n")
            for path in (*folder.iterdir(), folder):
                sync(path)
            link.symlink_to(name)
        self._remove_others(name)
        self._generation += 1

    def exists(self) -> bool:
        """Return whether there is a state."""
        return (self._path / "current").exists()

    def load(self, memory: Memory, settings: dict[str, Any]) -> None:
        """Put the last state into a memory.

        Args:
            memory: Where it goes.
            settings: As :meth:`save` had them.

        Raises:
            InputError: The state cannot be read, or is of other settings.
        """
        folder = (self._path / "current").resolve()
        try:
            state = parse_json((folder / "state.json").read_text())
            there = state["settings"]
            other = [name for name in settings if there.get(name) != settings[name]]
        except DAMAGED as error:
            raise InputError(f"{self._path}: not a state of a training; remove it") from error
        if other:
            raise InputError(
                f"{self._path} is of another {', '.join(other)}: remove it or choose another --out"
            )
        try:
            weights = torch.load(
                folder / "weights.pt", weights_only=True, map_location=memory.learner.device
            )
            memory.learner.load_state_dict(weights)
            memory.replay.load_state(load_tensors((folder / "replay.safetensors").read_bytes()))
            memory.planned = _read_planned(folder)
            memory.reward.load_state_dict(parse_json((folder / "ema.json").read_text()))
            table = read_frame(folder / "curve.parquet")
            memory.rows = [cast(Row, row) for row in table.to_dict("records")]
            memory.count.update(state["count"])
            memory.wins.extend(state["wins"])
            memory.seconds = float(state["seconds"])
            self._generation = int(folder.name)
        except (*DAMAGED, InputError) as error:
            raise InputError(f"{self._path}: not a state of a training; remove it") from error
        self._remove_others(folder.name)

    def _remove_others(self, name: str) -> None:
        """Remove all states but one; a kill may leave the one before it, or half of the next."""
        for other in self._path.iterdir():
            if other.is_dir() and not other.is_symlink() and other.name != name:
                shutil.rmtree(other, ignore_errors=True)


def _write_planned(folder: Path, planned: list[Planned]) -> None:
    """Write plans, and every network of theirs once."""
    networks = list({id(one.network): one.network for one in planned}.values())
    tensors = {
        f"{place}.{name}": values
        for place, network in enumerate(networks)
        for name, values in network.parameters.items()
    }
    plans = [
        {"tasks": one.tasks, "numbers": one.numbers, "network": networks.index(one.network)}
        for one in planned
    ]
    (folder / "planned.safetensors").write_bytes(save_tensors(tensors))
    (folder / "planned.json").write_text(json.dumps(plans) + "\n")


def _read_planned(folder: Path) -> list[Planned]:
    plans = parse_json((folder / "planned.json").read_text())
    parameters: dict[int, dict[str, Any]] = {}
    for name, values in load_tensors((folder / "planned.safetensors").read_bytes()).items():
        place, _, own = name.partition(".")
        parameters.setdefault(int(place), {})[own] = values
    networks = {place: Network(own) for place, own in parameters.items()}
    return [
        Planned(tuple(one["tasks"]), tuple(one["numbers"]), networks[one["network"]])
        for one in plans
    ]
