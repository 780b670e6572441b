"""What RLlib's own checkpoint of an algorithm leaves out, so that a training goes on exactly.

RLlib keeps the networks, the optimisers, the counters and the metrics. What comes next depends on
more: the generators of random numbers, the episodes that are going on, the replay, the order of the
lessons, and numbers that learners adapt. Importing this imports RLlib and torch.
"""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ray.rllib.utils.checkpoints import Checkpointable

from vpxrc.envs.problem import EncodeEnv, Played
from vpxrc.envs.rewards import SelfCompetition

# Attributes of RLlib's runner: whether environments are to be reset before the next step, what the
# network sees next, and the episodes that are going on, in the parts that were handed out.
_RUNNER = (
    "_needs_initial_reset",
    "_cached_to_module",
    "_shared_data",
    "_ongoing_episodes",
    "_ongoing_episodes_for_metrics",
    "_weights_seq_no",
    "num_env_steps_sampled_lifetime",
)
# Of Gymnasium: which environments have ended, and have a reset for their next step.
_ENDED = "_autoreset_envs"
# Of RLlib's learners, tensors by module: sac's temperature, marwil's mean of squared advantages.
_LEARNER = ("curr_log_alpha", "moving_avg_sqd_adv_norms_per_module")


def left_out(algorithm: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what there is beside RLlib's checkpoint of an algorithm.

    Returns:
        What JSON takes, and RLlib's objects.
    """
    ours = {"generators": _generators(), "learner": _on_learner(algorithm, _learner_state)}
    theirs: dict[str, Any] = {}
    if algorithm.env_runner_group is None:
        ours["lessons"] = algorithm.offline_data.state_dict()
    else:
        runners = _on_runners(algorithm, _runner_state)
        ours["runners"], theirs["runners"] = ([part[n] for part in runners] for n in (0, 1))
    if algorithm.local_replay_buffer is not None:
        ours["replay"] = algorithm.local_replay_buffer.rng.bit_generator.state
        theirs["replay"] = algorithm.local_replay_buffer.get_state()
    return ours, theirs


def restore(algorithm: Any, place: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Go on where another algorithm was.

    With another number of runners, these have their rewards' tables and begin new episodes.

    Args:
        algorithm: One that was just built, of the same training.
        place: RLlib's checkpoint.
        ours: What :func:`left_out` returned, as JSON has it.
        theirs: What :func:`left_out` returned.
    """
    if algorithm.env_runner_group is None:
        algorithm.offline_data.load_state_dict(ours["lessons"])  # before the network has learned
        # The algorithm's own method hands the weights to the runners that bc and marwil lack.
        Checkpointable.restore_from_path(algorithm, str(place))
    else:
        algorithm.restore_from_path(str(place))
        states = list(zip(ours["runners"], theirs["runners"], strict=True))
        _on_runners(algorithm, partial(_restore_runner, states=states))
    if algorithm.local_replay_buffer is not None:
        algorithm.local_replay_buffer.set_state(theirs["replay"])
        algorithm.local_replay_buffer.rng.bit_generator.state = ours["replay"]
    _on_learner(algorithm, partial(_restore_learner, state=ours["learner"]))
    _set_generators(ours["generators"])  # last, for nothing draws from them afterwards


# The generators of a process


def _generators() -> dict[str, Any]:
    """Return the states of this process's generators, those of GPUs left out."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
    }


def _set_generators(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))


# The runners


def _on_runners(algorithm: Any, function: Callable[[Any], Any]) -> list[Any]:
    """Return what a function makes of each runner that acts, by the runners' numbers."""
    found: list[Any] = algorithm.env_runner_group.foreach_env_runner(
        function, local_env_runner=algorithm.config.num_env_runners == 0
    )
    return found


def _runner_state(runner: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what JSON takes of a runner, and RLlib's objects."""
    vector = runner.env.unwrapped
    ours = {
        "generators": _generators(),
        "environments": [_environment_state(env.unwrapped) for env in vector.envs],
        "ended": getattr(vector, _ENDED).tolist(),
    }
    theirs = {name: getattr(runner, name) for name in _RUNNER}
    return ours, {**theirs, "metrics": runner.metrics.get_state()}


def _restore_runner(runner: Any, states: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    place = max((runner.worker_index or 0) - 1, 0)  # 0 is the one of this process
    ours, theirs = states[place % len(states)]
    vector = runner.env.unwrapped
    environments = [env.unwrapped for env in vector.envs]
    for env, state in zip(environments, ours["environments"], strict=True):
        if state["table"] is not None:
            cast(SelfCompetition, env.reward).load_state_dict(state["table"])
    if len(states) != max(runner.config.num_env_runners, 1):
        return
    runner.env.reset()  # Gymnasium's wrappers refuse steps before it
    for env, state in zip(environments, ours["environments"], strict=True):
        _restore_environment(env, state)
    getattr(vector, _ENDED)[:] = ours["ended"]
    for name in _RUNNER:
        setattr(runner, name, theirs[name])
    runner.metrics.set_state(theirs["metrics"])
    _set_generators(ours["generators"])


def _environment_state(env: EncodeEnv[Any]) -> dict[str, Any]:
    """Return the generator of tasks, the decisions so far and the table of the reward."""
    played, table = env.played, None
    if isinstance(env.reward, SelfCompetition):
        table = env.reward.state_dict()
    return {
        "generator": env.np_random.bit_generator.state,
        "played": played and [played.clip, played.options.target_bitrate, played.actions],
        "table": table,
    }


def _restore_environment(env: EncodeEnv[Any], state: dict[str, Any]) -> None:
    if state["played"] is not None:
        clip, target, actions = state["played"]
        choice = {"clip": clip, "target_bitrate": target}
        _, options = env.tasks.draw(env.np_random, choice)
        offsets = [tuple(one) if isinstance(one, list) else one for one in actions]
        env.resume(Played(clip, options, offsets))
    env.np_random.bit_generator.state = state["generator"]


# The learner


def _on_learner(algorithm: Any, function: Callable[[Any], Any]) -> Any:
    """Return what a function makes of the learner."""
    (found,) = algorithm.learner_group.foreach_learner(function)
    return found.get()


def _learner_state(learner: Any) -> dict[str, dict[str, Any]]:
    """Return the numbers that a learner adapts, by attribute and module."""
    return {
        name: {module: tensor.tolist() for module, tensor in getattr(learner, name).items()}
        for name in _LEARNER
        if hasattr(learner, name)
    }


def _restore_learner(learner: Any, state: dict[str, dict[str, Any]]) -> None:
    for name, numbers in state.items():
        tensors = getattr(learner, name)
        for module, values in numbers.items():
            with torch.no_grad():  # an optimiser has the tensor
                tensors[module].copy_(torch.tensor(values))
