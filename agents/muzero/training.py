"""A training run: encodes in workers, updates between their results, and a state to go on from."""

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vpxrc import provenance
from vpxrc.agents.muzero.actor import (
    Encoded,
    Job,
    Played,
    ReferenceJob,
    encode_all,
    open_task,
    play,
)
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.curve import Row, episode_figures, last_means, win_rate, words
from vpxrc.agents.muzero.learner import Learner, learn
from vpxrc.agents.muzero.network import Array, Network, Trained
from vpxrc.agents.muzero.purpose import Purpose
from vpxrc.agents.muzero.references import add_references, episode_rewards, missing_references
from vpxrc.agents.muzero.replay import PlayedEpisode, Replay
from vpxrc.agents.muzero.state import FORMAT, Memory, Planned, StateFolder
from vpxrc.agents.progress import Progress, silent
from vpxrc.encoder.log import EncodeLog, coded_rows
from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import HistoricalOpponent
from vpxrc.errors import InputError, VpxrcError
from vpxrc.parallel import open_workers
from vpxrc.storage import atomic_write, check_writable, digest, write_frame

STATE_EVERY = 120.0  # seconds between two states
OUTDONE = 0.55  # win rate at which an opponent is replaced
EPISODES = 2000  # where neither episodes nor minutes are given

# What the generators of a seed are for.
_ORDER, _NOISE, _DRAWS = range(3)


def train(
    out: Path,
    purpose: Purpose,
    config: MuZeroConfig,
    *,
    clips: frozenset[str],
    episodes: int | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    envs: int = 4,
    ray: str | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train an agent and write its checkpoint.

    Beside it, in place of its suffix, ``.state`` has what the same call goes on from, after a kill
    or with more episodes: ``current`` in it is the last whole one, with the reward's table in
    ``ema.json``. It holds encodes to measure against, so another vpxrc, or a base policy whose code
    or files have changed, refuses it. ``.curve.parquet`` has a row per iteration, which is one
    result of a worker:

    ``iteration``, ``episodes``, ``decisions``, ``updates``, ``seconds`` (so far); ``win_rate``
    (over the last 200 episodes: against the average, the opponent, or for ``gain`` the reference);
    ``episode_return`` and ``gain`` (percent of bits saved, with ``gain`` only), ``overshoot``,
    ``over_target``, ``psnr``, ``kept`` (share of action 0): means over the iteration's
    episodes; ``average_quality`` and ``average_overshoot`` (with self-competition: what it is
    against, the mean of the table); the losses (means over its updates); ``frames_per_second``
    (coded in all workers since the run was last started).

    With one job all is the same at every run of the same call, killed and gone on with or not; of
    the curve all but ``seconds`` and ``frames_per_second``.

    Args:
        out: The checkpoint.
        purpose: What the agent is trained for.
        config: How it is trained.
        clips: Content hashes for the checkpoint to name.
        episodes: Number of episodes in all, those before a kill included.
        minutes: Duration in all; without both, it is 2000 episodes.
        jobs: Number of workers.
        envs: Encodes at the same time in each worker.
        ray: None for processes of this machine, else an address; see
            :func:`vpxrc.parallel.open_workers`.
        device: Device of the learner, ``cpu`` or ``cuda``.
        progress: Told after each result, with the new row of the curve.

    Returns:
        A summary that JSON takes.

    Raises:
        InputError: The device is not there, or the state is another training's.
        EncoderError: An encode failed, or a worker was killed; the state is there.
        OutputError: The checkpoint's folder cannot be written.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: torch finds none here")
    check_writable(out.parent)
    if episodes is None and minutes is None:
        episodes = EPISODES
    run = Run(out, purpose, config, clips, envs, device, progress)
    run.episodes_wanted, run.seconds_wanted = episodes, None if minutes is None else 60 * minutes
    try:
        with open_workers(jobs, ray) as workers:
            for _, encoded in workers.unordered(encode_all, run.references()):
                with _undisturbed():
                    run.measure(encoded)
            for job, played in workers.unordered(play, run.episodes()):
                with _undisturbed():
                    run.take(job, played)
    except (KeyboardInterrupt, SystemExit, VpxrcError):
        with _undisturbed():
            run.save()
        raise
    with _undisturbed():
        run.save()
        run.write()
    return run.summary()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let a Ctrl-C or a SIGTERM wait until the block is done: a state holds together or is none."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *given: came.append(given[0])) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    for signal_number in came:
        signal.raise_signal(signal_number)


class Run:
    """A training: what its workers are to do, and what comes of it.

    A state beside the checkpoint is gone on from.

    Args:
        out: The checkpoint.
        purpose: What is trained for.
        config: How it is trained.
        clips: Content hashes for the checkpoint to name.
        envs: Encodes at the same time in each worker.
        device: Device of the learner, ``cpu`` or ``cuda``.
        progress: Told after each result.

    Attributes:
        memory: All of it that lasts, and that the state keeps.
        episodes_wanted: Number of episodes after which it ends, or None.
        seconds_wanted: Seconds after which it ends, or None.
    """

    def __init__(
        self,
        out: Path,
        purpose: Purpose,
        config: MuZeroConfig,
        clips: frozenset[str],
        envs: int,
        device: str,
        progress: Progress,
    ) -> None:
        self.episodes_wanted: int | None = None
        self.seconds_wanted: float | None = None
        self._out, self._purpose, self._config, self._clips = out, purpose, config, clips
        self._envs, self._progress = envs, progress
        actions = len(purpose.residual.actions)
        replay = Replay(
            config.capacity,
            len(OBSERVATION),
            actions,
            priority=config.priority,
            correction=config.correction,
            trace=config.trace,
        )
        learner = Learner(len(OBSERVATION), actions, config, device)
        self.memory = Memory(learner, replay, purpose.make_reward())
        self._jobs: dict[Job, Planned] = {}  # what the workers have
        self._network: Network | None = None
        references = [] if purpose.reference is None else [purpose.reference]
        self._code = digest(provenance.causes(purpose.residual.base, *references))
        self._folder = StateFolder(out.with_suffix(".state"))
        if self._folder.exists():
            self._folder.load(self.memory, self._settings())
        self._started = self._saved = time.monotonic()
        self._frames = 0  # coded since then
        planned = sum(len(one.numbers) for one in self.memory.planned)
        self._submitted = self.memory.count["episodes"] + planned
        self._changed = False

    # What the workers do

    def references(self) -> Iterator[ReferenceJob]:
        """Yield the encodes to measure against that are not there yet, a job per clip."""
        jobs, clips = missing_references(self._purpose, self.memory.reward)
        for place, job in enumerate(jobs):
            self._tell(clips - len(jobs) + place, clips, "references", None)
            yield job

    def episodes(self) -> Iterator[Job]:
        """Yield what is planned, then episodes with the network of the moment."""
        while (planned := self._next()) is not None:
            tasks = tuple(self._purpose.tasks[place] for place in planned.tasks)
            seeds = tuple((self._config.seed, _NOISE, number) for number in planned.numbers)
            job = Job(tasks, self._purpose.residual, planned.network, self._config, seeds)
            self._jobs[job] = planned
            yield job

    def _next(self) -> Planned | None:
        """Return what no worker has yet; None where it is enough."""
        wanted, memory = self.episodes_wanted, self.memory
        if self.seconds_wanted is not None and self._seconds() >= self.seconds_wanted:
            return None
        given = self._jobs.values()
        for planned in memory.planned:
            # A state may be of a call that wanted more.
            is_wanted = wanted is None or not planned.numbers or planned.numbers[0] < wanted
            if planned not in given and is_wanted:
                return planned
        count = self._envs if wanted is None else min(self._envs, wanted - self._submitted)
        if count <= 0:
            return None
        numbers = tuple(range(self._submitted, self._submitted + count))
        self._submitted += count
        planned = Planned(tuple(map(self._task, numbers)), numbers, self.network())
        memory.planned.append(planned)
        return planned

    def _task(self, number: int) -> int:
        """Return the place of an episode's task: all in turn, in an order drawn anew each time."""
        turn, place = divmod(number, len(self._purpose.tasks))
        rng = np.random.default_rng((self._config.seed, _ORDER, turn))
        return int(rng.permutation(len(self._purpose.tasks))[place])

    def network(self) -> Network:
        """Return the network of the moment."""
        if self._network is None:
            self._network = self.memory.learner.network()
        return self._network

    def _seconds(self) -> float:
        return self.memory.seconds + time.monotonic() - self._started

    # What comes of it

    def measure(self, encoded: list[Encoded]) -> None:
        """Take in encodes of one clip that are to be measured against."""
        self._changed = True
        add_references(self.memory.reward, [one.log for one in encoded])
        self._save_now_and_then()

    def take(self, job: Job, played: list[Played]) -> None:
        """Take in episodes, learn from them, and keep a state now and then."""
        self.memory.planned.remove(self._jobs.pop(job))
        if job.seeds:
            self._changed = True
            self._learn_from(played, [one.log for one in played])
            self._save_now_and_then()
        else:  # the opponent's
            self.measure([*played])

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved >= STATE_EVERY:
            self.save()

    def _learn_from(self, played: list[Played], logs: list[EncodeLog]) -> None:
        memory = self.memory
        returns = []
        for one, log in zip(played, logs, strict=True):
            rewards, win = episode_rewards(memory.reward, log, one.steps)
            if win is not None:
                memory.wins.append(win)
            returns.append(float(rewards.sum()))
            memory.replay.add(played_episode(one, log, rewards))
            memory.count["episodes"] += 1
            memory.count["decisions"] += len(rewards)
            memory.count["frames"] += len(log.records)
        losses = self._updates()
        self._note(played, logs, returns, losses)
        if (
            isinstance(memory.reward, HistoricalOpponent)
            and len(memory.wins) == memory.wins.maxlen
            and win_rate(memory.wins) > OUTDONE
        ):
            self._replace_opponent()

    def _updates(self) -> Row:
        """Update the networks as often as is due; return the mean losses."""
        config, learner = self._config, self.memory.learner
        if len(self.memory.replay) < config.warmup:
            return {}
        if learner.updates == 0:
            learner.standardise(self.memory.replay.observations)
        due = int(config.reuse * self.memory.count["decisions"] / config.batch)
        rng = np.random.default_rng((config.seed, _DRAWS, learner.updates))
        parts = [learn(learner, self.memory.replay, rng) for _ in range(learner.updates, due)]
        self._network = None
        names = parts[0] if parts else {}
        return {name: float(np.mean([part[name] for part in parts])) for name in names}

    def _replace_opponent(self) -> None:
        """Have the agent of now encode everything, to be the opponent from then on."""
        self.memory.wins.clear()
        self.memory.count["opponents"] += 1
        places = range(len(self._purpose.tasks))
        self.memory.planned += [
            Planned(tuple(places[start : start + self._envs]), (), self.network())
            for start in range(0, len(places), self._envs)
        ]

    def _note(
        self, played: list[Played], logs: list[EncodeLog], returns: list[float], losses: Row
    ) -> None:
        """Add a row to the curve, and tell."""
        memory = self.memory
        self._frames += sum(len(log.records) for log in logs)
        row: Row = {
            "iteration": len(memory.rows) + 1,
            "episodes": memory.count["episodes"],
            "decisions": memory.count["decisions"],
            "updates": memory.learner.updates,
            "seconds": self._seconds(),
            "win_rate": win_rate(memory.wins),
            **episode_figures(memory.reward, played, logs, returns),
            "frames_per_second": self._frames / max(time.monotonic() - self._started, 1e-6),
            **{f"{name}_loss": value for name, value in losses.items()},
        }
        memory.rows.append(row)
        self._tell(memory.count["episodes"], self.episodes_wanted, words(row), row)

    def _tell(self, done: int, total: int | None, words: str, row: Row | None) -> None:
        self._progress(done, total, words, row)

    # What is kept

    def _settings(self) -> dict[str, Any]:
        """Return what a state has to agree on, through JSON."""
        purpose = self._purpose
        settings = {
            "format": FORMAT,
            "code": self._code,
            "observation": OBSERVATION,
            "residual": dataclasses.asdict(purpose.residual),
            "config": dataclasses.asdict(self._config),
            "reward": [purpose.reward, purpose.overshoot_price, purpose.reference],
            "tasks": [
                [open_task(task).content_hash, dataclasses.asdict(task.options)]
                for task in purpose.tasks
            ],
        }
        read: dict[str, Any] = json.loads(json.dumps(settings))
        return read

    def save(self) -> None:
        """Write the state, if anything has changed; until it is whole, the one before it stays."""
        if not self._changed:
            return
        self._folder.save(self.memory, self._settings(), self._seconds())
        self._saved = time.monotonic()
        self._changed = False

    def write(self) -> None:
        """Write the curve and the checkpoint."""
        with atomic_write(self._out.with_suffix(".curve.parquet")) as temporary:
            write_frame(pd.DataFrame(self.memory.rows), temporary)
        options = self._purpose.tasks[0].options
        default = EncoderOptions()
        shaping = {
            name: getattr(options, name)
            for name in ("auto_alt_ref",)
            if getattr(options, name) != getattr(default, name)
        }
        Trained(
            self.memory.learner.network(),
            self._purpose.residual,
            self._config,
            self._clips,
            shaping,
        ).save(self._out)

    def summary(self) -> dict[str, Any]:
        """Return what came of it; JSON takes it."""
        memory = self.memory
        found = {
            "output": str(self._out),
            "reward": self._purpose.reward,
            **memory.count,
            "updates": memory.learner.updates,
            "seconds": self._seconds(),
            "win_rate": win_rate(memory.wins),
            **last_means(memory.rows),
        }
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in found.items()
        }


def played_episode(played: Played, log: EncodeLog, rewards: Array) -> PlayedEpisode:
    """Return what the replay keeps of an episode."""
    pixels = log.clip.pixels
    parts = [log.records[first:last] for first, last in played.steps]
    bits = np.array([part["bits"].sum() for part in parts])
    coded = [coded_rows(part) for part in parts]
    unit = log.clip.error_unit
    errors = np.array([part["sse_y"].mean() / unit if len(part) else np.nan for part in coded])
    return PlayedEpisode(
        observations=played.observations,
        actions=played.actions,
        policies=played.policies,
        values=played.values,
        rewards=rewards,
        log2_bits=np.log2(np.maximum(bits, 1) / pixels).astype(np.float32),
        log2_distortion=np.log2(np.maximum(errors / pixels, 1e-3)).astype(np.float32),
    )
