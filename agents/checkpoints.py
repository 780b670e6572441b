"""The checkpoint files of agents that correct another policy's decisions."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vpxrc.agents.tensors import read_tensors
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import InputError


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The contents of an agent's file.

    Attributes:
        tensors: The arrays, by name.
        config: The problem that the agent was trained on.
        clips: Content hashes of the clips that it was trained on.
        settings: Everything that is written beside the tensors, by name.
    """

    tensors: dict[str, NDArray[Any]]
    config: ResidualConfig
    clips: frozenset[str]
    settings: dict[str, str]


def checkpoint_metadata(
    form: str, config: ResidualConfig, clips: Iterable[str], **settings: str
) -> dict[str, str]:
    """Return the settings to write beside the tensors; :func:`read_checkpoint` checks them.

    Args:
        form: Name and version of the agent's format.
        config: The problem that the agent was trained on.
        clips: Content hashes of the clips that it was trained on.
        settings: Further settings, by name.
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
        form: The name and version that :func:`checkpoint_metadata` was given.

    Raises:
        InputError: The file cannot be read, is no checkpoint, or is another agent's or version's.
    """
    tensors, settings = read_tensors(path)
    expected = {"format": form, "observation": " ".join(OBSERVATION)}
    for name, value in expected.items():
        if settings.get(name) != value:
            raise InputError(f"{path}: a checkpoint of another agent or version ({name})")
    config = residual_config(settings.get("config", ""), path)
    return Checkpoint(tensors, config, frozenset(settings.get("clips", "").split()), settings)


def residual_config(text: str, path: str | Path) -> ResidualConfig:
    """Return the problem that a JSON text describes.

    Args:
        text: ``dataclasses.asdict`` of it in JSON.
        path: The file's name in an error.

    Raises:
        InputError: The text describes no problem.
    """
    try:
        return ResidualConfig(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not the settings of a residual problem: {error}") from error
