"""What the agents of the planned problem share: the policy around a choice, and their checkpoints.

The problem itself is ``vpxrc.envs.planned``: a policy, the plan, decides every frame, and an agent
moves its decisions. As a policy an agent is that plan and a function of the observation.
"""

import dataclasses
import json
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from vpxrc.encoder import Decision, Frame, Session
from vpxrc.envs.planned import OBSERVATION, Move, PlannedConfig, PlannedEpisode, make_plan
from vpxrc.errors import InputError
from vpxrc.policy import Episode, PolicyWrapper


class PlannedPolicy(PolicyWrapper):
    """A plan whose decisions are moved by what :meth:`choose` makes of the observation.

    What it codes is, byte for byte, what the environment codes under the same actions.

    Args:
        config: The plan, when there is a decision, and the moves.

    Raises:
        InputError: There is no such plan.
    """

    def __init__(self, config: PlannedConfig) -> None:
        super().__init__(make_plan(config.plan))
        self.config = config

    @abstractmethod
    def choose(self, observation: NDArray[np.float32]) -> int | Move:
        """Return an action.

        Args:
            observation: float32 ``[len(OBSERVATION)]``.

        Returns:
            Index of one of ``config.actions``, or a (level, reference) of its own.
        """

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        self._relay = _Relay(episode._session)
        session = cast(Session, self._relay)
        self._episode = PlannedEpisode(session, self.policy, self.config)

    def decide(self, frame: Frame) -> Decision:
        """Return the plan's decision, moved."""
        observation = self._episode.advance()
        if observation is not None:
            self._episode.act(self.choose(observation))
        return self._relay.decision


class _Relay:
    """A session at rest whose step only keeps the decision, for its owner to take."""

    decision: Decision

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def step(self, decision: Decision) -> None:
        self.decision = decision


# Checkpoints


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a file of an agent has.

    Attributes:
        tensors: By name.
        config: The problem that it was trained on.
        clips: Content hashes of the clips that it was trained on.
        settings: All that is written beside the tensors, by name.
    """

    tensors: dict[str, NDArray[Any]]
    config: PlannedConfig
    clips: frozenset[str]
    settings: dict[str, str]


def checkpoint_metadata(
    form: str, config: PlannedConfig, clips: Iterable[str], **settings: str
) -> dict[str, str]:
    """Return what is written beside the tensors; :func:`read_checkpoint` checks it.

    Args:
        form: Name and version of the agent's format.
        config: The problem that it was trained on.
        clips: Content hashes of the clips that it was trained on.
        settings: More, by name.
    """
    return {
        "format": form,
        "observation": " ".join(OBSERVATION),
        "config": json.dumps(dataclasses.asdict(config)),
        "clips": " ".join(sorted(clips)),
        **settings,
    }


def read_checkpoint(path: str | Path, form: str) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: A safetensors file.
        form: What :func:`checkpoint_metadata` was given.

    Raises:
        InputError: It cannot be read, is none, or is another agent's or version's.
    """
    try:
        data = Path(path).read_bytes()
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: bfloat16
        raise InputError(f"{path}: not a checkpoint of an agent") from error
    settings = header.get("__metadata__", {})
    expected = {"format": form, "observation": " ".join(OBSERVATION)}
    for name, value in expected.items():
        if settings.get(name) != value:
            raise InputError(f"{path}: a checkpoint of another agent or version ({name})")
    config = planned_config(settings.get("config", ""), path)
    return Checkpoint(tensors, config, frozenset(settings.get("clips", "").split()), settings)


def planned_config(text: str, path: str | Path) -> PlannedConfig:
    """Return the problem that was written as JSON.

    Args:
        text: ``dataclasses.asdict`` of it in JSON.
        path: What to call it in an error.

    Raises:
        InputError: It is none.
    """
    try:
        return PlannedConfig(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not the settings of a planned problem: {error}") from error
