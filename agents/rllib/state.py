"""The state that a training with RLlib goes on from."""

import importlib
import json
import pickle
import shutil
import uuid
from pathlib import Path
from typing import Any

from vpxrc.agents.rllib.policy import PROBLEM
from vpxrc.errors import InputError, OutputError
from vpxrc.storage import atomic_write, parse_json

_RESUMING = "vpxrc.agents.rllib.resuming"  # imports Ray
# What RLlib's checkpoint leaves out: in JSON, and RLlib's objects.
_OURS, _THEIRS = "resuming.json", "resuming.pkl"


class TrainingState:
    """The state of a training, in a folder beside its checkpoint.

    Args:
        out: The checkpoint.
        key: Tells this training from every other.

    Raises:
        InputError: There is another training's.
    """

    def __init__(self, out: Path, key: str) -> None:
        self._folder, self._key = out.with_suffix(".state"), key
        about = self._folder / "training.json"
        try:
            if about.is_file() and parse_json(about.read_text())["key"] != key:
                raise InputError(
                    f"{self._folder}: a state of another training; remove it to start anew"
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{about}: not a state of a training") from error

    def latest(self) -> int | None:
        """Return the last iteration that there is a state of."""
        numbers = [int(path.name) for path in self._folder.glob("*") if path.name.isdigit()]
        return max(numbers, default=None)

    def restore(self, algorithm: Any, number: int) -> None:
        """Go on from an iteration's state.

        Args:
            algorithm: RLlib's algorithm, just built.
            number: The iteration.

        Raises:
            InputError: It cannot be read.
        """
        place = (self._folder / str(number)).absolute()
        try:
            ours = parse_json((place / _OURS).read_text())
            theirs = pickle.loads((place / _THEIRS).read_bytes())
        except (OSError, ValueError, pickle.UnpicklingError, EOFError) as error:
            raise InputError(f"{place}: not a state of a training; remove it") from error
        importlib.import_module(_RESUMING).restore(algorithm, place, ours, theirs)

    def save(self, algorithm: Any, about_problem: str, number: int) -> None:
        """Keep the state after an iteration, and none before it.

        Args:
            algorithm: RLlib's algorithm.
            about_problem: What :func:`vpxrc.agents.rllib.policy.problem` returned.
            number: The iteration.

        Raises:
            OutputError: It cannot be written.
        """
        temporary = self._folder / f".{uuid.uuid4().hex[:12]}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._folder / "training.json") as about:
                about.write_text(json.dumps({"key": self._key}))
            algorithm.save_to_path(str(temporary.absolute()))
            ours, theirs = importlib.import_module(_RESUMING).left_out(algorithm)
            (temporary / _OURS).write_text(json.dumps(ours))
            (temporary / _THEIRS).write_bytes(pickle.dumps(theirs))
            (temporary / PROBLEM).write_text(about_problem)
            temporary.rename(self._folder / str(number))
        except OSError as error:
            raise OutputError(f"cannot write {self._folder}: {error.strerror or error}") from error
        for path in self._folder.iterdir():
            if path.is_dir() and path.name != str(number):
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder; killed meanwhile, no state is left that is not whole."""
        for path in self._folder.glob("[0-9]*"):
            path.rename(path.with_name(f".{path.name}"))
        shutil.rmtree(self._folder, ignore_errors=True)
