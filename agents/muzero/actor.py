"""Playing: encodes under a network's search, a few at a time, in whatever process it is called."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.network import Array, Network
from vpxrc.datasets import Clip
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.pool import EpisodePool
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.env import ResidualProblem
from vpxrc.media.frames import Video
from vpxrc.policies.base import encode
from vpxrc.policies.registry import make_policy


@dataclass(frozen=True)
class Task:
    """A clip to be encoded at a target.

    Attributes:
        clip: The clip, at the size that it is coded at.
        options: The encoder's options, before the base policy changes them.
    """

    clip: Clip
    options: EncoderOptions

    def __str__(self) -> str:
        """What errors call it."""
        return f"{self.clip.name} at {self.options.target_bitrate} kbit/s"


@functools.cache
def open_task(task: Task) -> Video:
    """Return a task's clip; its frames are mapped into memory, and kept so."""
    return task.clip.open()


@dataclass(frozen=True, eq=False)
class Encoded:
    """One finished encode.

    Attributes:
        task: What was encoded.
        log: Its log.
    """

    task: Task
    log: EncodeLog


@dataclass(frozen=True)
class ReferenceJob:
    """Encodes under a policy as it is, for :func:`encode_all`.

    Attributes:
        tasks: What is encoded.
        policy: Its spec.
    """

    tasks: tuple[Task, ...]
    policy: str

    def __str__(self) -> str:
        """What errors call it."""
        return f"{self.policy}: {', '.join(map(str, self.tasks))}"


def encode_all(job: ReferenceJob) -> list[Encoded]:
    """Encode a job's tasks one after the other.

    Raises:
        InputError: A clip cannot be read, or there is no such policy.
        PolicyError: The policy failed.
        EncoderError: An encode failed.
    """
    policy = make_policy(job.policy)
    return [Encoded(task, encode(open_task(task), task.options, policy)) for task in job.tasks]


@dataclass(frozen=True, eq=False)
class Job:
    """Episodes for :func:`play`.

    Attributes:
        tasks: What is encoded, all at the same time.
        residual: The base policy, the decision points and the offsets.
        network: What chooses.
        config: How the search goes.
        seeds: Seeds of each task's noise; empty for the policy's most likely action, without a
            search.
    """

    tasks: tuple[Task, ...]
    residual: ResidualConfig
    network: Network
    config: MuZeroConfig
    seeds: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        """What errors call it."""
        return ", ".join(map(str, self.tasks))


@dataclass(frozen=True, eq=False)
class Played(Encoded):
    """One episode of T decisions.

    Attributes:
        observations: float32 ``[T, N]``.
        actions: int32 ``[T]``.
        policies: float32 ``[T, A]``: the search's improved policy, or the network's own.
        values: float32 ``[T]``: the search's value, or the network's own.
        steps: The rows of the log that each decision governed, first and past the last.
    """

    observations: Array
    actions: NDArray[np.int32]
    policies: Array
    values: Array
    steps: list[tuple[int, int]]


def play(job: Job) -> list[Played]:
    """Encode a job's tasks, all sessions at once.

    Their decisions are searched for together: a search begins when all sessions that still run wait
    for one. A process that has one core loses nothing by that, since the core is busy until then.

    Raises:
        InputError: A clip cannot be read.
        PolicyError: The base policy failed.
        EncoderError: An encode failed.
    """
    runs = [
        _Run(task, np.random.default_rng(job.seeds[number] if job.seeds else 0))
        for number, task in enumerate(job.tasks)
    ]
    pool = EpisodePool[Array]()
    try:
        for number, task in enumerate(job.tasks):
            problem = ResidualProblem(job.residual)
            pool.start(number, open_task(task), task.options, problem)
        waiting: dict[int, Array] = {}
        while len(pool):
            number, runs[number].episode, observation = pool.next()
            if number in pool:
                waiting[number] = observation
            if waiting and len(waiting) == len(pool):
                _decide(job, [(runs[key], seen) for key, seen in sorted(waiting.items())])
                waiting.clear()
        return [run.played() for run in runs]
    finally:
        pool.close()


@dataclass(eq=False)
class _Run:
    """An encode that is going on."""

    task: Task
    rng: np.random.Generator
    episode: EncodeEpisode[Array] | None = None
    observations: list[Array] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    policies: list[Array] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def played(self) -> Played:
        episode = self.episode
        assert episode is not None and episode.log is not None  # the pool is empty
        return Played(
            self.task,
            episode.log,
            np.stack(self.observations),
            np.array(self.actions, np.int32),
            np.stack(self.policies),
            np.array(self.values, np.float32),
            episode.steps,
        )


def _decide(job: Job, waiting: Sequence[tuple[_Run, Array]]) -> None:
    """Choose for all that wait, and let them go on."""
    observations = np.stack([seen for _, seen in waiting])
    actions, policies, values = _choose(job, observations, [run.rng for run, _ in waiting])
    for place, (run, seen) in enumerate(waiting):
        assert run.episode is not None  # it gave the observation
        run.observations.append(seen)
        run.actions.append(int(actions[place]))
        run.policies.append(policies[place])
        run.values.append(float(values[place]))
        run.episode.act(run.actions[-1])


def _choose(
    job: Job, observations: Array, rngs: Sequence[np.random.Generator]
) -> tuple[NDArray[np.int32], Array, Array]:
    """Return actions ``[B]``, policies ``[B, A]`` and values ``[B]``."""
    network, config = job.network, job.config
    if not job.seeds:
        logits, values = network.predict(network.represent(observations))
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        policies = weights / weights.sum(axis=1, keepdims=True)
        return logits.argmax(axis=1).astype(np.int32), policies, values
    noise = np.stack([rng.gumbel(size=network.actions) for rng in rngs]) * config.noise
    found = network.search(
        observations, config.simulations, config=config, noise=noise.astype(np.float32)
    )
    drawn = np.array([rng.integers(network.actions) for rng in rngs], np.int32)
    explores = np.array([rng.random() for rng in rngs]) < config.explore
    return np.where(explores, drawn, found.action), found.action_weights, found.value
