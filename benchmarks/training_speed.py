"""What training MuZero costs beside the encodes, and how far it grows.

python -m benchmarks.training_speed --rounds 3 --out docs/results/muzero/speed.md

Trains on a sample clip with one and with two actors, in turn with the same clip coded by libvpx
alone: the base policy's decisions replayed natively, two at once, without Python. Frames per
second are those between the first and the last result, so starting up does not count. Then the
learner takes recorded episodes as fast as it can, as it would from any number of actors. Divided by
the rate of one actor, that gives the number of actors at which the learner is too slow.
"""

import argparse
import dataclasses
import json
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from vpxrc import (
    Decision,
    EncodeLog,
    EncoderOptions,
    Policy,
    PolicyWrapper,
    Video,
    encode,
    make_policy,
)
from vpxrc.agents.muzero.actor import Job, Task, play
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.purpose import Purpose
from vpxrc.agents.muzero.training import Run, train
from vpxrc.cli.common import progress_bar
from vpxrc.datasets import load_clips
from vpxrc.encoder.session import SessionPool
from vpxrc.encoder.types import Frame
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.storage import atomic_write

BASE = "imitation"
TARGETS = (40, 60)
ENVS = 2
CONFIG = MuZeroConfig(warmup=32)
ACTORS = 1000


def tasks() -> tuple[Task, ...]:
    (clip,) = (clip for clip in load_clips("samples") if clip.name == "bigbuckbunny")
    clip = dataclasses.replace(clip, width=256)
    return tuple(Task(clip, EncoderOptions(target_bitrate=target)) for target in TARGETS)


def purpose() -> Purpose:
    return Purpose(tasks(), ResidualConfig(BASE), "augmented")


class Kept(PolicyWrapper):
    """A policy, with its decisions kept."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.decisions: list[Decision] = []

    def decide(self, frame: Frame) -> Decision:
        self.decisions.append(super().decide(frame))
        return self.decisions[-1]


def recorded(task: Task) -> tuple[Video, EncodeLog, list[Decision]]:
    """A clip, the base policy's encode of it and the decisions."""
    video, policy = task.clip.open(), Kept(make_policy(BASE))
    log = encode(video, task.options, policy)
    return video, log, policy.decisions


def alone(encodes: int) -> None:
    """In a process of its own: encodes by libvpx alone, two at once."""
    work = [recorded(task) for task in tasks()]
    wall, cpu, frames = time.perf_counter(), time.process_time(), 0
    pool = SessionPool()
    for number in range(encodes):
        video, log, decisions = work[number % len(work)]
        while len(pool) >= 2:
            frames += finish_one(pool)
        pool.open(video, log.options, script=decisions)
    while len(pool):
        frames += finish_one(pool)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"fps": frames / wall, "frames_per_cpu": frames / cpu}))


def finish_one(pool: SessionPool) -> int:
    session_id, session = pool.next()
    frames = len(session.log().records)
    pool.close_session(session_id)
    return frames


def training(jobs: int, episodes: int) -> None:
    """In a process of its own: a training; its frames per second, processor time and memory."""
    for task in tasks():
        task.clip.open()
    seen: list[tuple[float, float, float]] = []

    def progress(
        done: int, total: int | None, words: str, figures: Mapping[str, float] | None
    ) -> None:
        if figures is not None:
            me = psutil.Process()
            times = [process.cpu_times() for process in (me, *me.children())]
            cpu = sum(one.user + one.system for one in times)
            seen.append((figures["episodes"], time.perf_counter(), cpu))

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "agent.safetensors"
        train(
            out,
            purpose(),
            CONFIG,
            clips=frozenset(),
            episodes=episodes,
            jobs=jobs,
            envs=ENVS,
            progress=progress,
        )
        curve = pd.read_parquet(out.with_suffix(".curve.parquet"))
    (before, *start), (after, *end) = seen[0], seen[-1]
    frames = curve["frames_per_second"].iloc[-1] * curve["seconds"].iloc[-1]
    frames *= (after - before) / after
    own, actors = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        json.dumps(
            {
                "fps": frames / (end[0] - start[0]),
                "frames_per_cpu": frames / (end[1] - start[1]),
                "own_mib": own.ru_maxrss / 1024,
                "actor_mib": actors.ru_maxrss / 1024,
            }
        )
    )


def learner(episodes: int) -> dict[str, float]:
    """Seconds that the learner takes for an episode, with its updates and without, and bytes."""
    played = {}
    for reuse in (CONFIG.reuse, 0.0):
        config = dataclasses.replace(CONFIG, reuse=reuse)
        with tempfile.TemporaryDirectory() as folder:
            run = Run(
                Path(folder) / "agent.safetensors",
                purpose(),
                config,
                frozenset(),
                ENVS,
                "cpu",
                None,
            )
            network = run.network()
            job = Job(tasks(), purpose().residual, network, config, ((0, 0), (0, 1)))
            result = play(job)
            for _ in range(4):
                run.take(job, result)  # past the warm-up
            start = time.process_time()
            for _ in range(episodes // len(result)):
                run.take(job, result)
            played[reuse] = (time.process_time() - start) / (episodes // len(result)) / len(result)
    return {
        "seconds": played[CONFIG.reuse],
        "seconds_without_updates": played[0.0],
        "result_bytes": len(pickle.dumps(result)) / len(result),
        "network_bytes": len(pickle.dumps(network)),
        "decisions": sum(len(one.actions) for one in result) / len(result),
        "frames": sum(len(one.log.records) for one in result) / len(result),
    }


def child(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training_speed", *words]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]
    )
    return found


def measure(rounds: int, episodes: int) -> str:
    found: dict[str, list[dict[str, Any]]] = {"alone": [], "one": [], "two": []}
    with progress_bar(hidden=False) as bar:
        task = bar.add_task("rounds", total=3 * rounds)
        for _ in range(rounds):
            for name, words in (
                ("alone", ("--alone", str(episodes))),
                ("two", ("--training", "2", str(episodes))),
                ("one", ("--training", "1", str(episodes // 2))),
            ):
                found[name].append(child(*words))
                bar.update(task, advance=1)
    taken = learner(40)

    def ratio(top: str, bottom: str, figure: str) -> str:
        pairs = zip(found[top], found[bottom], strict=True)
        ratios = [a[figure] / b[figure] for a, b in pairs]
        return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"

    def median(name: str, figure: str) -> float:
        return float(statistics.median(one[figure] for one in found[name]))

    # An actor with a core to itself delivers at least what one beside the learner does here.
    per_second = median("one", "fps") / taken["frames"]  # episodes of one actor
    busy = 1 / (per_second * taken["seconds"])
    only_taking = 1 / (per_second * taken["seconds_without_updates"])
    # What is left of the learner's second once it has taken in what so many actors send.
    updating = taken["seconds"] - taken["seconds_without_updates"]
    left = max(1 / (ACTORS * per_second) - taken["seconds_without_updates"], 0) / updating
    traffic = per_second * (taken["result_bytes"] + taken["network_bytes"] / ENVS)
    rows = [
        (
            "frames per second, training with two actors over libvpx alone",
            ratio("two", "alone", "fps"),
        ),
        (
            "frames per second of processor time, the same",
            ratio("two", "alone", "frames_per_cpu"),
        ),
        ("frames per second, two actors over one", ratio("two", "one", "fps")),
        (
            "memory, learner and replay; the largest actor",
            f"{median('two', 'own_mib'):.0f} MiB; {median('two', 'actor_mib'):.0f} MiB",
        ),
        (
            "learner's processor time per episode; without updates",
            f"{1e3 * taken['seconds']:.0f} ms; {1e3 * taken['seconds_without_updates']:.1f} ms",
        ),
        (
            "an episode as it is sent; the networks, with every job",
            f"{taken['result_bytes'] / 1024:.0f} KiB; {taken['network_bytes'] / 1024:.0f} KiB",
        ),
        (
            f"actors that one learner keeps up with, each step drawn {CONFIG.reuse:g} times",
            f"{busy:.0f}",
        ),
        ("actors whose results it can take in, without learning", f"{only_taking:.0f}"),
        (
            f"traffic of {ACTORS} actors",
            f"{ACTORS * traffic / 2**20:.0f} MiB/s",
        ),
        (
            f"times that a step is drawn with {ACTORS} actors",
            f"{CONFIG.reuse * min(1.0, left):.1f}",
        ),
        (
            f"seconds in which {ACTORS} actors fill the replay ({CONFIG.capacity} steps)",
            f"{CONFIG.capacity / (ACTORS * per_second * taken['decisions']):.0f}",
        ),
    ]
    size = tasks()[0].clip.open()
    head = (
        f"{size.name} at {size.width}x{size.height}, {size.num_frames} frames, base policy {BASE}, "
        f"{CONFIG.simulations} simulations, {taken['decisions']:.1f} decisions per episode, "
        f"{ENVS} encodes at once in an actor; median [lowest, highest] of {rounds} rounds of "
        f"{episodes} episodes.\n\n"
    )
    lines = ["| what | measured |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)]
    return head + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=48)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--training", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        alone(arguments.alone)
    elif arguments.training:
        training(*arguments.training)
    else:
        text = measure(arguments.rounds, arguments.episodes)
        if arguments.out:
            with atomic_write(arguments.out) as temporary:
                temporary.write_text(text)
        print(text)


if __name__ == "__main__":
    main()
