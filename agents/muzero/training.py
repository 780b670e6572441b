"""A training run: encodes in workers, updates between their results, and a state to go on from."""

import dataclasses
import json
import math
import pickle
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from vpxrc import provenance
from vpxrc.agents.muzero.actor import (
    Encoded,
    Job,
    Played,
    ReferenceJob,
    Task,
    encode_all,
    open_task,
    play,
)
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.learner import Learner, learn
from vpxrc.agents.muzero.network import Array, Network, Trained
from vpxrc.agents.muzero.replay import Replay, Trajectory
from vpxrc.agents.progress import Progress, silent
from vpxrc.encoder.log import EncodeLog, coded_rows
from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.gain import GainReward
from vpxrc.envs.residual.config import ResidualConfig, make_base
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import HistoricalOpponent, SelfCompetition, StepReward
from vpxrc.errors import InputError, VpxrcError
from vpxrc.parallel import open_workers
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write, check_writable, digest

RewardName = Literal["gain", "strict", "augmented", "opponent"]
REWARDS: tuple[str, ...] = get_args(RewardName)
STATE_EVERY = 120.0  # seconds between two states
WINDOW = 200  # episodes that the win rate is over
OUTDONE = 0.55  # win rate at which an opponent is replaced
EPISODES = 2000  # where neither episodes nor minutes are given
# The paper's dB per kbit/s was for targets about this one; a rate-distortion curve, of so many dB
# per doubling, is steeper at lower ones.
PAPER_PRICE, PAPER_TARGET = 0.005, 512
# A second target for the slope of a clip's curve, where it has one only; and where what is measured
# against does not spend more at a higher target, dB per doubling of the bits.
SECOND_TARGET, TYPICAL_SLOPE = 1.3, 3.0

_FORMAT = 1
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    pickle.UnpicklingError,
    SafetensorError,
    InputError,
)
# What the generators of a seed are for.
_ORDER, _NOISE, _DRAWS = range(3)

Row = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Purpose:
    """What an agent is trained for.

    Attributes:
        tasks: The clips and targets.
        residual: The base policy, the decision points and the offsets.
        reward: ``gain``: :class:`vpxrc.envs.GainReward`, percent of bits saved, paid step by step;
            ``strict`` and ``augmented``: :class:`vpxrc.envs.SelfCompetition`; ``opponent``:
            :class:`vpxrc.envs.HistoricalOpponent`, replaced by the agent of the time when it is
            beaten in 55 % of the last 200 episodes.
        overshoot_price: Of ``augmented``, dB per kbit/s. None: the paper's 0.005, which was for
            targets of 256 to 768 kbit/s, times 512 over the tasks' mean target.
        reference: Spec of the policy that ``gain`` and, at first, ``opponent`` measure against;
            None for the base policy.
    """

    tasks: tuple[Task, ...]
    residual: ResidualConfig
    reward: RewardName = "gain"
    overshoot_price: float | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without reading a clip."""
        if not self.tasks:
            raise InputError("nothing to train on: no clips or no bitrates")
        if self.reward not in REWARDS:
            raise InputError(f"unknown reward {self.reward!r}: choose from {', '.join(REWARDS)}")
        make_base(self.residual.base)
        if self.reference is not None:
            make_policy(self.reference)

    def make_reward(self) -> GainReward | SelfCompetition | HistoricalOpponent:
        """Return the reward, without a table."""
        if self.reward == "gain":
            return GainReward()
        if self.reward == "opponent":
            return HistoricalOpponent()
        if self.reward == "strict":
            return SelfCompetition()
        price = self.overshoot_price
        if price is None:
            targets = [math.log(task.options.target_bitrate) for task in self.tasks]
            price = PAPER_PRICE * PAPER_TARGET / math.exp(sum(targets) / len(targets))
        return SelfCompetition(overshoot_price=price)


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

    With one job all is the same at every run of the same call.

    Args:
        out: The checkpoint.
        purpose: What for.
        config: How.
        clips: Content hashes for the checkpoint to name.
        episodes: In all, those before a kill included.
        minutes: In all. Without both, 2000 episodes.
        jobs: Workers.
        envs: Encodes at the same time in each.
        ray: None for processes of this machine, else an address; see
            :func:`vpxrc.parallel.open_workers`.
        device: Of the learner, ``cpu`` or ``cuda``.
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
    run = _Run(out, purpose, config, clips, envs, device, progress)
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


class _Run:
    """Everything of a training that changes, and how."""

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
        self._learner = Learner(len(OBSERVATION), actions, config, device)
        self._replay = Replay(
            config.capacity,
            len(OBSERVATION),
            actions,
            priority=config.priority,
            correction=config.correction,
            trace=config.trace,
        )
        self._reward = purpose.make_reward()
        self._wins: deque[float] = deque(maxlen=WINDOW)
        self._rows: list[Row] = []
        self._urgent: deque[Job] = deque()
        self._network: Network | None = None
        self._count = {"episodes": 0, "decisions": 0, "frames": 0, "opponents": 0}
        self._generation = 0
        self._before = 0.0  # seconds of the runs before this one
        references = [] if purpose.reference is None else [purpose.reference]
        self._code = digest(provenance.causes(purpose.residual.base, *references))
        self._state = out.with_suffix(".state")
        if (self._state / "current").exists():
            self._load()
        self._started = self._saved = time.monotonic()
        self._frames = 0  # since then
        self._submitted = self._count["episodes"]
        self._changed = False

    # What the workers do

    def references(self) -> Iterator[ReferenceJob]:
        """Yield the encodes to measure against that are not there yet, a job per clip."""
        reward, purpose = self._reward, self._purpose
        if isinstance(reward, SelfCompetition):
            return
        if isinstance(reward, GainReward):
            known = {entry["clip"] for entry in reward.state_dict()["references"]}
        else:
            known = {clip for clip, _ in reward.table}
        by_clip: dict[str, list[Task]] = {}
        for task in purpose.tasks:
            by_clip.setdefault(open_task(task).content_hash, []).append(task)
        left = [tasks for clip, tasks in by_clip.items() if clip not in known]
        for place, tasks in enumerate(left):
            self._tell(len(by_clip) - len(left) + place, len(by_clip), "references", None)
            if len(tasks) == 1 and isinstance(reward, GainReward):
                other = round(SECOND_TARGET * tasks[0].options.target_bitrate)
                options = dataclasses.replace(tasks[0].options, target_bitrate=other)
                tasks = [*tasks, Task(tasks[0].clip, options)]
            yield ReferenceJob(tuple(tasks), purpose.reference or purpose.residual.base)

    def episodes(self) -> Iterator[Job]:
        """Yield episodes with the networks of the moment, until there are enough."""
        residual, config = self._purpose.residual, self._config
        while not self._enough():
            if self._urgent:
                yield self._urgent.popleft()
                continue
            count = self._envs
            if self.episodes_wanted is not None:
                count = min(count, self.episodes_wanted - self._submitted)
            numbers = range(self._submitted, self._submitted + count)
            self._submitted += count
            tasks = tuple(self._task(number) for number in numbers)
            seeds = tuple((config.seed, _NOISE, number) for number in numbers)
            yield Job(tasks, residual, self._latest(), config, seeds)

    def _enough(self) -> bool:
        if self.episodes_wanted is not None and self._submitted >= self.episodes_wanted:
            return True
        return self.seconds_wanted is not None and self._seconds() >= self.seconds_wanted

    def _task(self, number: int) -> Task:
        """Return the task of an episode: all of them in turn, in an order drawn anew each time."""
        tasks = self._purpose.tasks
        turn, place = divmod(number, len(tasks))
        rng = np.random.default_rng((self._config.seed, _ORDER, turn))
        return tasks[int(rng.permutation(len(tasks))[place])]

    def _latest(self) -> Network:
        if self._network is None:
            self._network = self._learner.network()
        return self._network

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    # What comes of it

    def measure(self, encoded: list[Encoded]) -> None:
        """Take in encodes of one clip that are to be measured against."""
        self._changed = True
        logs = [one.log for one in encoded]
        if isinstance(self._reward, GainReward):
            _add_references(self._reward, logs)
        elif isinstance(self._reward, HistoricalOpponent):
            for log in logs:
                self._reward.record(log)
        self._save_now_and_then()

    def take(self, job: Job, played: list[Played]) -> None:
        """Take in episodes, learn from them, and keep a state now and then."""
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
        returns = []
        for one, log in zip(played, logs, strict=True):
            rewards = self._rewards(log, one.steps)
            returns.append(float(rewards.sum()))
            self._replay.add(_trajectory(one, log, rewards))
            self._count["episodes"] += 1
            self._count["decisions"] += len(rewards)
            self._count["frames"] += len(log.records)
        losses = self._updates()
        self._note(played, logs, returns, losses)
        if (
            isinstance(self._reward, HistoricalOpponent)
            and len(self._wins) == WINDOW
            and sum(self._wins) > OUTDONE * WINDOW
        ):
            self._replace_opponent()

    def _rewards(self, log: EncodeLog, steps: list[tuple[int, int]]) -> Array:
        """Return the reward of each step, float32 ``[T]``; and keep account of wins."""
        reward = self._reward
        if isinstance(reward, StepReward):
            rewards = reward.per_step(log, steps)
            value, known = float(rewards.sum()), True
        else:
            known = (log.clip.content_hash, log.options.target_bitrate) in reward.table
            value = reward(log)
            rewards = np.zeros(len(steps), np.float32)
            rewards[-1] = value
        if known:
            self._wins.append(0.5 + 0.5 * float(np.sign(value)))
        return rewards

    def _updates(self) -> Row:
        """Update the networks as often as is due; return the mean losses."""
        config, learner = self._config, self._learner
        if len(self._replay) < config.warmup:
            return {}
        if learner.updates == 0:
            learner.standardise(self._replay.observations)
        due = int(config.reuse * self._count["decisions"] / config.batch)
        rng = np.random.default_rng((config.seed, _DRAWS, learner.updates))
        parts = [learn(learner, self._replay, rng) for _ in range(learner.updates, due)]
        self._network = None
        names = parts[0] if parts else {}
        return {name: float(np.mean([part[name] for part in parts])) for name in names}

    def _replace_opponent(self) -> None:
        """Have the agent of now encode everything, to be the opponent from then on."""
        self._wins.clear()
        self._count["opponents"] += 1
        tasks = self._purpose.tasks
        for start in range(0, len(tasks), self._envs):
            some = tasks[start : start + self._envs]
            job = Job(some, self._purpose.residual, self._latest(), self._config)
            self._urgent.append(job)

    def _note(
        self, played: list[Played], logs: list[EncodeLog], returns: list[float], losses: Row
    ) -> None:
        """Add a row to the curve, and tell."""
        actions = np.concatenate([one.actions for one in played])
        overshoots = np.array([log.overshoot for log in logs])
        self._frames += sum(len(log.records) for log in logs)
        value = float(np.mean(returns))
        row: Row = {
            "iteration": len(self._rows) + 1,
            "episodes": self._count["episodes"],
            "decisions": self._count["decisions"],
            "updates": self._learner.updates,
            "seconds": self._seconds(),
            "win_rate": float(np.mean(self._wins)) if self._wins else math.nan,
            "episode_return": value,
            "gain": value if isinstance(self._reward, GainReward) else math.nan,
            "overshoot": float(overshoots.mean()),
            "over_target": float((overshoots > 0).mean()),
            "psnr": float(np.mean([log.psnr for log in logs])),
            "kept": float((actions == 0).mean()),
            **self._averages(),
            "frames_per_second": self._frames / max(time.monotonic() - self._started, 1e-6),
            **{f"{name}_loss": value for name, value in losses.items()},
        }
        self._rows.append(row)
        self._tell(self._count["episodes"], self.episodes_wanted, _words(row), row)

    def _averages(self) -> Row:
        """Return what self-competition is against, over the pairs."""
        if not isinstance(self._reward, SelfCompetition):
            return {}
        quality, overshoot = np.mean([*self._reward.table.values()], axis=0)
        return {"average_quality": float(quality), "average_overshoot": float(overshoot)}

    def _tell(self, done: int, total: int | None, words: str, row: Row | None) -> None:
        self._progress(done, total, words, row)

    # What is kept

    def _settings(self) -> dict[str, Any]:
        """Return what a state has to agree on, through JSON."""
        purpose = self._purpose
        settings = {
            "format": _FORMAT,
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
        """Write the state; killed meanwhile, the one before it is there."""
        if not self._changed:
            return
        name = f"{self._generation + 1:06d}"
        folder = self._state / name
        with atomic_write(self._state / "current") as link:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            torch.save(self._learner.state_dict(), folder / "weights.pt")
            (folder / "replay.safetensors").write_bytes(save_tensors(self._replay.state()))
            self._curve().to_parquet(folder / "curve.parquet")
            (folder / "ema.json").write_text(json.dumps(self._reward.state_dict()) + "\n")
            state = {
                "settings": self._settings(),
                "count": self._count,
                "seconds": self._seconds(),
                "wins": list(self._wins),
            }
            (folder / "state.json").write_text(json.dumps(state) + "\n")
            link.symlink_to(name)
        self._remove_others(name)
        self._generation += 1
        self._saved = time.monotonic()
        self._changed = False

    def _remove_others(self, name: str) -> None:
        """Remove all states but one; a kill may leave the one before it, or half of the next."""
        for other in self._state.iterdir():
            if other.is_dir() and not other.is_symlink() and other.name != name:
                shutil.rmtree(other, ignore_errors=True)

    def _load(self) -> None:
        folder = (self._state / "current").resolve()
        try:
            state = json.loads((folder / "state.json").read_text())
            settings = self._settings()
            there = state["settings"]
            other = [name for name in settings if there.get(name) != settings[name]]
        except _UNREADABLE as error:
            raise InputError(f"{self._state}: not a state of a training; remove it") from error
        if other:
            raise InputError(
                f"{self._state} is of another {', '.join(other)}: remove it or choose another --out"
            )
        try:
            weights = torch.load(
                folder / "weights.pt", weights_only=True, map_location=self._learner.device
            )
            self._learner.load_state_dict(weights)
            self._replay.load_state(load_tensors((folder / "replay.safetensors").read_bytes()))
            self._reward.load_state_dict(json.loads((folder / "ema.json").read_text()))
            table = pd.read_parquet(folder / "curve.parquet")
            self._rows = [cast(Row, row) for row in table.to_dict("records")]
            self._count.update(state["count"])
            self._wins.extend(state["wins"])
            self._before = float(state["seconds"])
            self._generation = int(folder.name)
        except _UNREADABLE as error:
            raise InputError(f"{self._state}: not a state of a training; remove it") from error
        self._remove_others(folder.name)

    def _curve(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows)

    def write(self) -> None:
        """Write the curve and the checkpoint."""
        with atomic_write(self._out.with_suffix(".curve.parquet")) as temporary:
            self._curve().to_parquet(temporary)
        options = self._purpose.tasks[0].options
        default = EncoderOptions()
        shaping = {
            name: getattr(options, name)
            for name in ("auto_alt_ref",)
            if getattr(options, name) != getattr(default, name)
        }
        Trained(
            self._learner.network(), self._purpose.residual, self._config, self._clips, shaping
        ).save(self._out)

    def summary(self) -> dict[str, Any]:
        """Return what came of it; JSON takes it."""
        last = self._rows[-WINDOW:]
        means = pd.DataFrame(last).mean().to_dict() if last else {}
        names = ("episode_return", "gain", "overshoot", "over_target", "kept")
        found = {
            "output": str(self._out),
            "reward": self._purpose.reward,
            **self._count,
            "updates": self._learner.updates,
            "seconds": self._seconds(),
            "win_rate": float(np.mean(self._wins)) if self._wins else None,
            **{name: means.get(name) for name in names},
        }
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in found.items()
        }


def _words(row: Row) -> str:
    """Return a row in a line of the progress."""
    return (
        f"return {row['episode_return']:+.2f}, wins {row['win_rate']:.0%}, "
        f"overshoot {row['overshoot']:+.1%}, {row['updates']:.0f} updates"
    )


def _add_references(reward: GainReward, logs: Sequence[EncodeLog]) -> None:
    """Take the encodes of one clip to measure against, with a slope wherever they lie."""
    for slope in (None, TYPICAL_SLOPE):
        for log in logs:
            reward.reference(log, slope)
        try:
            for log in logs:
                reward(log)
            return
        except InputError:  # no slope
            if slope is not None:
                raise


def _trajectory(played: Played, log: EncodeLog, rewards: Array) -> Trajectory:
    """Return what the replay keeps of an episode."""
    pixels = log.clip.pixels
    parts = [log.records[first:last] for first, last in played.steps]
    bits = np.array([part["bits"].sum() for part in parts])
    coded = [coded_rows(part) for part in parts]
    errors = np.array([part["sse_y"].mean() if len(part) else np.nan for part in coded])
    return Trajectory(
        observations=played.observations,
        actions=played.actions,
        policies=played.policies,
        values=played.values,
        rewards=rewards,
        log2_bits=np.log2(np.maximum(bits, 1) / pixels).astype(np.float32),
        log2_distortion=np.log2(np.maximum(errors / pixels, 1e-3)).astype(np.float32),
    )
