"""Training with RLlib's new API stack, in a run that can be stopped and gone on with."""

import dataclasses
import importlib
import json
import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc import provenance
from vpxrc.agents.checkpoints import checkpoint_metadata
from vpxrc.agents.progress import Progress, silent
from vpxrc.agents.rllib.config import ALGORITHMS, OFFLINE, RllibConfig, split_options
from vpxrc.agents.rllib.offline import (
    Demonstration,
    Survey,
    Surveyed,
    contents,
    demonstrate,
    read_episodes,
    survey,
    write_episodes,
)
from vpxrc.agents.rllib.policy import FORMAT, exported, problem
from vpxrc.agents.rllib.state import TrainingState
from vpxrc.agents.teacher.lessons import find_clip, results
from vpxrc.cache import has_entry
from vpxrc.datasets import Clip
from vpxrc.encoder.registry import make_options
from vpxrc.envs.gain import GainReward
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import Reward, SelfCompetition
from vpxrc.errors import EncoderError, InputError, VpxrcError, needing
from vpxrc.media.frames import Video
from vpxrc.parallel import Workers, open_workers
from vpxrc.storage import atomic_write, digest
from vpxrc.tensors import tensor_bytes

COMPONENTS = "vpxrc.agents.rllib.components"  # imports Ray
STATE_EVERY = 120.0  # seconds between two states of a training
_PRICE = 0.005  # price of overshoot in augmented self-competition, dB per kbit/s
_LEAST_DEVIATION = 0.05  # an input that varies less is not scaled up further
_MODULE = "default_policy"


def train(
    algorithm: str,
    out: Path,
    *,
    config: ResidualConfig,
    clips: Sequence[Clip | Video],
    target_bitrates: Sequence[int],
    options: dict[str, Any],
    iterations: int,
    runners: int,
    seed: int,
    ray: str | None,
    lessons: Sequence[Path],
    device: str,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train an agent and write its checkpoint.

    Killed at any point, the same call goes on with the state beside ``out`` (``.state``), which is
    also a checkpoint of RLlib's own. In that folder are pickles: it is to be trusted like code.

    Args:
        algorithm: ``ppo`` or ``sac``, which act themselves, or ``bc`` or ``marwil``, which learn
            from the teacher's trajectories.
        out: The checkpoint, ``.safetensors``; :class:`vpxrc.agents.rllib.Rllib` loads it.
        config: The problem. sac has (level, reference) for actions, whatever the offsets.
        clips: What ppo and sac train on; for bc and marwil where the lessons' clips are, none for
            where they were.
        target_bitrates: Targets in kbit/s, for ppo and sac.
        options: Fields of :class:`RllibConfig`, and arguments of
            :func:`vpxrc.encoder.registry.make_options` for ppo and sac; lessons have their own.
        iterations: How many; one is a batch of steps and its updates for ppo, ``steps`` steps and
            their updates for sac, and an update for bc and marwil.
        runners: Processes that encode; 0: this one, for ppo and sac.
        seed: Seed of everything random.
        ray: A Ray address as :func:`vpxrc.parallel.open_workers` takes it; None starts one here,
            which ends with the training. Every machine needs vpxrc and the clips.
        lessons: Folders or files of ``vpxrc teach``, for bc and marwil.
        device: Device of the learner, ``cpu`` or ``cuda``.
        progress: Told after every iteration, with figures by name:
            ``return`` (mean of the episodes that ended), ``overshoot`` (likewise), losses.

    Returns:
        What the training was, in a form that JSON takes: ``output``, ``algorithm``,
        ``iterations``, ``clips`` (their number), ``left_out`` (clips that no gain can be counted
        on, with the reason) and the last ``figures``.

    Raises:
        InputError: An argument cannot be used, or there is another training's state beside ``out``.
        MissingDependencyError: Ray or torch is not installed.
        PolicyError: The base policy failed.
        EncoderError: An encode failed, or a process was killed.
        OutputError: The checkpoint cannot be written.
    """
    _check(algorithm, out, iterations, runners, seed, device)
    own, encoder_options = split_options(options)
    with open_workers(max(1, runners), ray or "local") as workers:
        _prepare_rllib()
        course = _Course(algorithm, config, own, runners, seed, device)
        if algorithm in OFFLINE:
            course.learn_from(lessons, clips, workers)
        else:
            course.learn_on(clips, target_bitrates, encoder_options, workers)
        key = digest(
            [
                [algorithm, dataclasses.asdict(config), dataclasses.asdict(own), seed],
                [sorted(course.contents), list(target_bitrates), encoder_options],
                [path.name for path in course.episodes],
                course.code,
            ]
        )
        try:
            return _run(course, TrainingState(out, key), out, iterations, progress)
        except Exception as error:
            own_error = _own(error)
            if own_error is error:
                raise
            raise own_error from error


def _check(
    algorithm: str, out: Path, iterations: int, runners: int, seed: int, device: str
) -> None:
    """Refuse arguments of :func:`train` that cannot be used."""
    if algorithm not in ALGORITHMS:
        raise InputError(f"unknown algorithm {algorithm!r}: choose from {', '.join(ALGORITHMS)}")
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: a checkpoint's name ends in .safetensors")
    if iterations < 1 or runners < 0 or seed < 0:
        raise InputError("iterations must be above 0, runners and seed at least 0")
    if device not in ("cpu", "cuda"):
        raise InputError(f"device must be cpu or cuda, not {device!r}")


def _prepare_rllib() -> None:
    """Import RLlib and torch, and set what they take from the process.

    Raises:
        MissingDependencyError: One of them is not installed.
    """
    with needing("training needs", "ray"):
        importlib.import_module(COMPONENTS)
    # The networks are small, and the other processors encode.
    importlib.import_module("torch").set_num_threads(1)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # it explains itself at length


class _Course:
    """What is trained on what.

    Attributes:
        clips: Number of clips.
        contents: Content hashes of the clips.
        episodes: Files of episodes; for bc and marwil.
        left_out: Clips that no gain can be counted on, with the reason.
        environment: Arguments of the environment; for ppo and sac.
        code: Hash of the code and the files that its encodes depend on.
    """

    def __init__(
        self,
        name: str,
        config: ResidualConfig,
        own: RllibConfig,
        runners: int,
        seed: int,
        device: str,
    ) -> None:
        self.name, self.config, self.own = name, config, own
        self.runners, self.seed, self.device = runners, seed, device
        references = [] if own.reference is None else [own.reference]
        self.code = digest(provenance.causes(config.base, *references))
        self.clips = 0
        self.contents: frozenset[str] = frozenset()
        self.episodes: list[Path] = []
        self.left_out: dict[str, str] = {}
        self.environment: dict[str, Any] = {}
        self._variance = 1.0  # variance of the episodes' returns
        self._seen = np.zeros((0, len(OBSERVATION)), np.float32)

    def learn_on(
        self,
        clips: Sequence[Clip | Video],
        targets: Sequence[int],
        options: dict[str, Any],
        workers: Workers,
    ) -> None:
        """Prepare the environment: see what the inputs are like, and what gains are counted from.

        Raises:
            InputError: There is nothing to train on.
        """
        if not clips or not targets:
            raise InputError(f"{self.name} needs clips and target bitrates")
        own, config = self.own, self.config
        if len({clip.name for clip in clips}) < len(clips):
            raise InputError("the names of the clips must differ")
        hashes = dict(workers.unordered(contents, clips))
        # A learned codec's options have the hash of its weights.
        self.code = digest([self.code, dataclasses.asdict(make_options(**options))])
        facts = (options, config, own.reference, own.reward == "gain", self.code)
        jobs = [Survey(clip, hashes[clip][0], tuple(targets), *facts) for clip in clips]
        missing = [job for job in jobs if not has_entry(job.path)]
        for job, surveyed in workers.unordered(survey, missing):
            surveyed.write(job.path)
        done = {job.clip: Surveyed.read(job.path) for job in jobs}
        self.left_out = {clip.name: seen.complaint for clip, seen in done.items() if seen.complaint}
        kept = [clip for clip in clips if clip.name not in self.left_out]
        if not kept:
            raise InputError("; ".join(self.left_out.values()))
        self._seen = np.concatenate([done[clip].observations for clip in kept])
        self.clips = len(kept)
        self.contents = frozenset(content for clip in kept for content in hashes[clip])
        reward: Reward = SelfCompetition(overshoot_price=_PRICE)
        if own.reward == "gain":
            reward = GainReward()
            references = [r for clip in kept for r in done[clip].references["references"]]
            reward.load_state_dict({"references": references})
        self.environment = {
            "clips": kept,
            "target_bitrate": list(targets),
            "base": config.base,
            "decisions": config.decisions,
            "reward": reward,
            "max_frames": own.max_frames,
            **options,
        }
        if self.name == "sac":
            self.environment["reach"] = own.reach
        else:
            self.environment["offsets"] = config.offsets

    def learn_from(
        self, lessons: Sequence[Path], clips: Sequence[Clip | Video], workers: Workers
    ) -> None:
        """Prepare the episodes of the teacher's lessons.

        Raises:
            InputError: There are none, or one cannot be used.
        """
        own = self.own
        if not lessons:
            raise InputError(f"{self.name} needs lessons of `vpxrc teach`")
        known = [clip for clip in clips if isinstance(clip, Clip)] or None
        contrast = own.contrast if self.name == "marwil" else None
        jobs = [
            Demonstration(
                result, find_clip(result, known), self.config, contrast, self.seed, self.code
            )
            for place in lessons
            for result in results(place)
        ]
        for job, episodes in workers.unordered(
            demonstrate, [job for job in jobs if not has_entry(job.path)]
        ):
            write_episodes(job.path, episodes)
        hashes = dict(workers.unordered(contents, {job.clip for job in jobs}))
        self.clips = len(hashes)
        self.contents = frozenset(content for pair in hashes.values() for content in pair)
        self.contents |= {job.result["content_hash"] for job in jobs}
        self.episodes = [job.path for job in jobs]
        found = [episode for path in self.episodes for episode in read_episodes(path)]
        self._seen = np.concatenate([episode.observations[:-1] for episode in found])
        returns = [float(episode.rewards.sum()) for episode in found]
        self._variance = max(float(np.var(returns)), 1e-6)

    def algorithm(self) -> Any:
        """Return RLlib's algorithm."""
        components: Any = importlib.import_module(COMPONENTS)
        deviation = np.maximum(self._seen.std(axis=0), _LEAST_DEVIATION)
        algorithm = components.algorithm_config(
            self.name,
            self.config,
            self.own,
            mean=self._seen.mean(axis=0).tolist(),
            gain=(1 / deviation).tolist(),
            seed=self.seed,
            runners=self.runners,
            device=self.device,
            environment=self.environment,
            episodes=[str(path) for path in self.episodes],
            variance=self._variance,
        ).build_algo()
        # RLlib makes it in the home folder for every algorithm, and nothing in it.
        folder = Path(algorithm.logdir)
        with suppress(OSError):
            folder.rmdir()
            folder.parent.rmdir()
        return algorithm


# The run and its state


def _run(
    course: _Course, state: TrainingState, out: Path, iterations: int, progress: Progress
) -> dict[str, Any]:
    begun = state.latest()
    algorithm = course.algorithm()
    figures: dict[str, float] = {}
    try:
        if algorithm.local_replay_buffer is not None:  # RLlib gives it no seed
            algorithm.local_replay_buffer.rng = np.random.default_rng([course.seed, 0])
        if begun is not None:
            state.restore(algorithm, begun)
        kept = -math.inf  # the first state comes after the first iteration
        for number in range(begun or 0, iterations):
            figures = _figures(algorithm.train())
            progress(number + 1, iterations, "iterations", figures)
            if number + 1 < iterations and time.monotonic() - kept >= STATE_EVERY:
                about = problem(course.config, course.contents, course.own.reach)
                state.save(algorithm, about, number + 1)
                kept = time.monotonic()
        weights = algorithm.learner_group.get_weights()[_MODULE]
    finally:
        algorithm.stop()
    _write(course, out, weights)
    state.remove()
    return {
        "output": str(out),
        "algorithm": course.name,
        "iterations": iterations,
        "clips": course.clips,
        "left_out": course.left_out,
        "figures": figures,
    }


def _write(course: _Course, out: Path, weights: dict[str, NDArray[np.float32]]) -> None:
    own = course.own
    tensors = exported(course.name, weights)
    about = checkpoint_metadata(
        FORMAT,
        course.config,
        course.contents,
        algorithm=course.name,
        activation=own.activation,
        reach=str(own.reach),
        training=json.dumps({"seed": course.seed, **dataclasses.asdict(own)}),
    )
    with atomic_write(out) as temporary:
        temporary.write_bytes(tensor_bytes(tensors, about))


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """Return what is worth telling of an iteration."""
    acted, learned = result.get("env_runners", {}), result.get("learners", {}).get(_MODULE, {})
    figures = {
        "return": acted.get("episode_return_mean"),
        "overshoot": acted.get("overshoot"),
        **{name: value for name, value in learned.items() if name in _LEARNED},
    }
    numbers = {name: float(value) for name, value in figures.items() if value is not None}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


_LEARNED = (
    "policy_loss",
    "vf_loss",
    "vf_explained_var",
    "entropy",
    "mean_kl_loss",
    "qf_loss",
    "qf_mean",
    "alpha_value",
)


def _own(error: Exception) -> Exception:
    """Return our own error where Ray's or RLlib's has one for a cause, else the error itself."""
    exceptions: Any = importlib.import_module("ray.exceptions")
    cause: BaseException | None = error
    while cause is not None:
        # Ray's is of its cause's class too, with a traceback for a message.
        inner = getattr(cause, "cause", None) or cause.__cause__
        if isinstance(cause, VpxrcError) and not isinstance(inner, VpxrcError):
            return cause
        if isinstance(cause, exceptions.ActorDiedError):
            return EncoderError(
                "a process that encodes was killed (out of memory?); "
                "the same command goes on where it was"
            )
        cause = inner
    return error
