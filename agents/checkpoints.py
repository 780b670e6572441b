"""The checkpoint files of agents that correct another policy's decisions."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import InputError

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
    config: ResidualConfig
    clips: frozenset[str]
    settings: dict[str, str]


def checkpoint_metadata(
    form: str, config: ResidualConfig, clips: Iterable[str], **settings: str
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
    config = residual_config(settings.get("config", ""), path)
    return Checkpoint(tensors, config, frozenset(settings.get("clips", "").split()), settings)


def residual_config(text: str, path: str | Path) -> ResidualConfig:
    """Return the problem that was written as JSON.

    Args:
        text: ``dataclasses.asdict`` of it in JSON.
        path: What to call it in an error.

    Raises:
        InputError: It is none.
    """
    try:
        return ResidualConfig(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: not the settings of a planned problem: {error}") from error
