"""The state that a training with RLlib goes on from."""

import importlib
import json
import pickle
import shutil
import uuid
from pathlib import Path
from typing import Any, cast

from vpxrc.agents.rllib.policy import PROBLEM
from vpxrc.envs.rewards import SelfCompetition
from vpxrc.errors import InputError, OutputError
from vpxrc.storage import atomic_write, parse_json


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

    def latest(self) -> tuple[int | None, list[dict[str, Any]] | None]:
        """Return the last iteration that there is a state of, and the reward's tables then."""
        numbers = [int(path.name) for path in self._folder.glob("*") if path.name.isdigit()]
        if not numbers:
            return None, None
        tables = self._folder / str(max(numbers)) / "tables.json"
        return max(numbers), parse_json(tables.read_text())

    def restore(self, algorithm: Any, number: int) -> None:
        """Go on from an iteration's state."""
        place = (self._folder / str(number)).absolute()
        if algorithm.env_runner_group is None:
            # The algorithm's own method hands the weights to the runners that bc and marwil lack.
            checkpoints: Any = importlib.import_module("ray.rllib.utils.checkpoints")
            checkpoints.Checkpointable.restore_from_path(algorithm, str(place))
        else:
            algorithm.restore_from_path(str(place))
        buffer = place / "replay.pkl"
        if buffer.is_file():  # RLlib leaves it out
            algorithm.local_replay_buffer.set_state(pickle.loads(buffer.read_bytes()))

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
            (temporary / "tables.json").write_text(json.dumps(_tables(algorithm)))
            (temporary / PROBLEM).write_text(about_problem)
            if algorithm.local_replay_buffer is not None:
                buffer = pickle.dumps(algorithm.local_replay_buffer.get_state())
                (temporary / "replay.pkl").write_bytes(buffer)
            temporary.rename(self._folder / str(number))
        except OSError as error:
            raise OutputError(f"cannot write {self._folder}: {error.strerror or error}") from error
        for path in self._folder.iterdir():
            if path.is_dir() and path.name != str(number):
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _tables(algorithm: Any) -> list[dict[str, Any]] | None:
    """Return the states of the runners' rewards where they change in the course of a training."""
    if algorithm.env_runner_group is None:
        return None
    found = algorithm.env_runner_group.foreach_env_runner(
        _reward_tables, local_env_runner=algorithm.config.num_env_runners == 0
    )
    return [table for part in found for table in part] or None


def _reward_tables(runner: Any) -> list[dict[str, Any]]:
    rewards = [cast(Any, env.unwrapped).reward for env in runner.env.unwrapped.envs]
    return [reward.state_dict() for reward in rewards if isinstance(reward, SelfCompetition)]
