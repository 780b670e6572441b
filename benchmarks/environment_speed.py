"""Steps per second of the environments beside the plain encode, by number and batch mode.

    python -m benchmarks.environment_speed [--out FILE.json]

Every mode plays the same constant q on the same clip. The figures are steps per second of wall
time, over those of libvpx alone with the same decisions (``native``, a script without Python).
``memory_mb`` is the growth of the process, and ``fairness`` the fewest over the most steps of an
environment. Run it on a machine that does nothing else.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil

import vpxrc.envs  # noqa: F401 - registers the environments
from vpxrc import Decision, EncoderOptions, EncodeSession
from vpxrc.datasets import load_clips

CLIP, TARGET, Q_INDEX = "medium-train", 96, 150
NUMBERS = (1, 2, 8, 64)


def native(steps: int) -> float:
    """Return the steps per second of libvpx alone."""
    video = load_clips(CLIP)[0].open()
    options = EncoderOptions(target_bitrate=TARGET, cpu_used=5)
    done, begun = 0, time.perf_counter()
    while done < steps:
        with EncodeSession(video, options, script=[Decision(Q_INDEX)] * 200) as session:
            done += len(session.log().coded)
    return done / (time.perf_counter() - begun)


def arguments(dependency: bool) -> dict[str, Any]:
    """Return the arguments of the environments."""
    clip = load_clips(CLIP)[0]
    return {
        "clips": [clip],
        "target_bitrate": TARGET,
        "cpu_used": 5,
        "max_frames": 48,
        "dependency": dependency,
    }


def single(steps: int, dependency: bool) -> dict[str, float]:
    """Play one environment by ``step``."""
    env = gymnasium.make("vpxrc/RateControl-v2", **arguments(dependency))
    env.reset(seed=0)

    def step() -> int:
        if env.step(Q_INDEX)[2]:
            env.reset()
        return 1

    return measured(steps, step, env.close)


def batch(count: int, steps: int, mode: str) -> dict[str, float]:
    """Play a vector environment by ``step`` or by ``recv`` and ``send``."""
    own: dict[str, Any] = {"batch_size": max(count // 2, 1)} if mode == "recv" else {}
    if mode == "async":
        own = {"vectorization_mode": "async"}
    env: Any = gymnasium.make_vec("vpxrc/RateControl-v2", num_envs=count, **own, **arguments(False))
    played = np.zeros(count, int)
    if mode == "recv":
        env.async_reset(seed=0)
    else:
        env.reset(seed=0)

    def step() -> int:
        if mode != "recv":
            env.step(np.full(count, Q_INDEX))
            played[...] += 1
            return count
        ids = env.recv()[4]["env_id"]
        env.send(np.full(len(ids), Q_INDEX), ids)
        played[ids] += 1
        return len(ids)

    found = measured(steps, step, env.close)
    return {**found, "fairness": float(played.min() / played.max())}


def clones(rounds: int = 5) -> dict[str, float]:
    """Return the milliseconds until a copy has taken a step, by the frames coded before."""
    env = gymnasium.make("vpxrc/RateControl-v2", **arguments(False))
    found = {}
    for frames in (0, 10, 20, 40):
        times = []
        for _ in range(rounds):
            env.reset(seed=0)
            for _ in range(frames):
                env.step(Q_INDEX)
            plain: Any = env.unwrapped
            begun = time.perf_counter()
            copied = plain.clone()
            copied.step(Q_INDEX)
            times.append(1000 * (time.perf_counter() - begun))
            copied.close()
        found[f"after {frames} frames"] = float(np.median(times))
    env.close()
    return found


def measured(steps: int, step: Callable[[], int], close: Callable[[], None]) -> dict[str, float]:
    """Return the steps per second of calls that return how many they took."""
    process = psutil.Process()
    before, done, begun = process.memory_info().rss, 0, time.perf_counter()
    while done < steps:
        done += step()
    seconds = time.perf_counter() - begun
    grown = (process.memory_info().rss - before) / 2**20
    close()
    return {"steps_per_second": done / seconds, "memory_mb": grown}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {"native": {"steps_per_second": native(args.steps)}}
    found["1 by step"] = single(args.steps, False)
    found["1 by step, dependency model"] = single(args.steps, True)
    for count in NUMBERS:
        for mode in ("step", "recv", *(("async",) if count <= 8 else ())):
            found[f"{count} by {mode}"] = batch(count, args.steps, mode)
            print(f"{count} by {mode}: {found[f'{count} by {mode}']}", flush=True)
    found["clone and a step, ms"] = clones()
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
