"""The checkpoint files of agents that correct another policy's decisions."""

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import InputError
from vpxrc.policies.registry import policy_names
from vpxrc.storage import parse_json
from vpxrc.tensors import read_weights


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
    tensors, settings = read_weights(path)
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
        InputError: The text describes no problem, or names a base policy that a file must not name.
    """
    try:
        config = ResidualConfig(**parse_json(text))
    except (TypeError, ValueError, InputError) as error:
        raise InputError(f"{path}: not the settings of a residual problem: {error}") from error
    return dataclasses.replace(config, base=named_in_file(config.base, path))


def named_in_file(spec: str, path: str | Path) -> str:
    """Return the policy that a file names, if it is one that cannot run code or read other files.

    Such a policy is an installed one without an argument, ``constant-q:N``, or
    ``imitation:FILE.safetensors``. Of the latter only the file's name counts: the file is beside
    the one that names it. Agents that correct another policy are refused, as is RLlib's folder.

    Args:
        spec: What the file has, as :func:`vpxrc.make_policy` takes it.
        path: The file.

    Raises:
        InputError: It is another one.
    """
    name, _, argument = spec.partition(":")
    if name in policy_names() and not argument:
        return spec
    if name == "constant-q" and re.fullmatch("[0-9]{1,3}", argument):
        return spec
    if name == "imitation" and argument.endswith(".safetensors"):
        beside = Path(path).parent / Path(argument).name
        if not beside.is_file():
            raise InputError(f"{path}: its base policy needs {beside.name} in the same folder")
        return f"{name}:{beside}"
    raise InputError(
        f"{path}: names the policy {spec[:80]!r}; a file may name one without an argument, "
        "constant-q:N, or imitation:FILE.safetensors in its folder"
    )
