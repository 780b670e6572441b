"""What the hook and the dependency model cost: `python -m benchmarks`, JSON on standard output.

Every ratio is the median over pairs measured in turn in the same run, since machines drift; the
baseline encodes in one plain C++ loop with nothing attached. Q mode never recodes, so a replay
through q control is the very same encode.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vpxrc import (
    Decision,
    EncodeLog,
    EncoderOptions,
    EncodeSession,
    Video,
    _native,
    open_video,
    video_from_frames,
)
from vpxrc.datasets import load_clips
from vpxrc.encoder.first_pass import first_pass_stats
from vpxrc.encoder.types import State
from vpxrc.envs import RateControlEnv
from vpxrc.media.frames import frame_bytes

OPTIONS = EncoderOptions(
    target_bitrate=150, cpu_used=2, auto_alt_ref=6, rate_control="q", cq_level=40
)
NUM_FRAMES = 60


def sample() -> Video:
    (clip,) = (clip for clip in load_clips("samples") if clip.name == "bigbuckbunny")
    return dataclasses.replace(clip, num_frames=NUM_FRAMES).open()


def tiny() -> Video:
    """Frames that cost next to nothing to code: what is left is ours."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (150, frame_bytes(16, 16)), dtype=np.uint8)
    return video_from_frames(frames, 16, 16, 30, name="tiny")


def plain(video: Video, options: EncoderOptions) -> list[tuple[bytes, int]]:
    fps = video.fps
    return _native.run_plain_second_pass(
        video.frames,
        video.width,
        video.height,
        fps.numerator,
        fps.denominator,
        options,
        first_pass_stats(video, options),
    )


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(a: Callable[[], object], b: Callable[[], object], pairs: int) -> dict[str, float]:
    """Ratios of the time of a to the time of b, pair by pair, after a warm-up of each."""
    a(), b()
    ratios = []
    for index in range(pairs):
        # Whoever goes first alternates, so that a drift favours neither.
        first, second = (a, b) if index % 2 else (b, a)
        times = seconds(first), seconds(second)
        ratios.append(times[0] / times[1] if index % 2 else times[1] / times[0])
    return {
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "pairs": pairs,
    }


def q_indices(video: Video, options: EncoderOptions) -> list[int]:
    with EncodeSession(video, options, observe=True) as session:
        found: list[int] = session.log().coded["q_index"].tolist()
    return found


def environment(video: Video, options: EncoderOptions, dependency: bool = False) -> RateControlEnv:
    """By default without the dependency model, which is no part of what the hook costs."""
    asked = dataclasses.asdict(options)
    target = asked.pop("target_bitrate")
    return RateControlEnv(clips=[video], target_bitrate=target, dependency=dependency, **asked)


def replay(env: RateControlEnv, actions: list[int]) -> EncodeLog:
    env.reset(seed=0)
    for action in actions:
        env.step(action)
    assert env.log is not None  # these were all actions
    return env.log


def env_over_plain(pairs: int) -> dict[str, float]:
    video = sample()
    actions = q_indices(video, OPTIONS)
    env = environment(video, OPTIONS)
    assert replay(env, actions).packets == plain(video, OPTIONS), "not the same encode"
    result = paired(lambda: replay(env, actions), lambda: plain(video, OPTIONS), pairs)
    env.close()
    return result


def hand_over_microseconds(rounds: int) -> dict[str, float]:
    """Time per decision that the encoder's thread does not work, the session's step included."""
    video = tiny()
    options = dataclasses.replace(OPTIONS, cpu_used=5, tpl=False)
    decision = Decision(150)
    first_pass_stats(video, options)
    figures = []
    for _ in range(rounds):
        start = time.perf_counter()
        steps = 0
        with EncodeSession(video, options) as session:
            while session.state == State.FRAME:
                session.step(decision)
                steps += 1
            log = session.log()
        figures.append(1e6 * (time.perf_counter() - start - log.encode_seconds) / steps)
    return {"median": statistics.median(figures), "min": min(figures), "rounds": rounds}


def step_microseconds(rounds: int) -> dict[str, float]:
    """Time per env.step that the encoder's thread does not work: observation, reward, hand-over."""
    video = tiny()
    options = dataclasses.replace(OPTIONS, cpu_used=5, tpl=False)
    actions = q_indices(video, options)
    env = environment(video, options)
    figures = []
    for _ in range(rounds):
        env.reset(seed=0)
        start = time.perf_counter()
        worked = 0.0
        for action in actions:
            env.step(action)
            worked = env.log.encode_seconds if env.log is not None else 0.0
        figures.append(1e6 * (time.perf_counter() - start - worked) / len(actions))
    env.close()
    return {"median": statistics.median(figures), "min": min(figures), "rounds": rounds}


def dependency_over_encode(pairs: int, video: Video) -> dict[str, float]:
    """Processor time that the dependency model adds to an encode, over that of the encode.

    The model runs on the thread that steps, the encoder on one of its own: so each is measured
    without the other's noise, and an environment without the model takes off what is not the model.
    """
    actions = q_indices(video, OPTIONS)
    environments = {asked: environment(video, OPTIONS, asked) for asked in (True, False)}

    def cpu_seconds(dependency: bool) -> tuple[float, float]:
        start = time.thread_time()
        log = replay(environments[dependency], actions)
        return time.thread_time() - start, log.cpu_seconds

    cpu_seconds(True), cpu_seconds(False)
    ratios = []
    for index in range(pairs):
        # Whoever goes first alternates, as in paired.
        first = bool(index % 2)
        times = {asked: cpu_seconds(asked) for asked in (first, not first)}
        ratios.append((times[True][0] - times[False][0]) / times[False][1])
    for env in environments.values():
        env.close()
    return {
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "pairs": pairs,
    }


def two_sessions_over_one(pairs: int) -> dict[str, float]:
    """Encodes per second of two sessions at once over one after the other."""
    video = sample()
    script = [Decision(q) for q in q_indices(video, OPTIONS)]

    def one() -> None:
        with EncodeSession(video, OPTIONS, script=script) as session:
            session.log()

    def in_turn() -> None:
        one()
        one()

    def at_once() -> None:
        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return paired(in_turn, at_once, pairs)


def memory_of_one_encode(kind: str) -> None:
    """In a process of its own: print how far one encode takes the resident memory up, in KiB."""

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])

    video = sample()
    first_pass_stats(video, OPTIONS)
    video.frames.sum()  # maps the clip's pages, which both share with every other encode
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before = resident("VmRSS")
    if kind == "plain":
        plain(video, OPTIONS)
    else:
        with EncodeSession(video, OPTIONS, keep_reconstruction=True) as session:
            while session.frame is not None:
                session.step(Decision(session.frame.libvpx_q_index))
    print(resident("VmHWM") - before)


def extra_memory_mib(rounds: int) -> dict[str, float]:
    def measure(kind: str) -> float:
        command = [sys.executable, "-m", "benchmarks", "--memory-of", kind]
        return int(subprocess.run(command, check=True, capture_output=True).stdout) / 1024

    figures = [(measure("session"), measure("plain")) for _ in range(rounds)]
    return {
        "median": statistics.median(ours - theirs for ours, theirs in figures),
        "plain": statistics.median(theirs for _, theirs in figures),
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="PATH",
        help=f"only dependency_over_encode, on the first {NUM_FRAMES} frames of this file",
    )
    parser.add_argument("--memory-of", choices=["plain", "session"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of_one_encode(arguments.memory_of)
        return
    pairs = arguments.pairs
    video = open_video(arguments.clip, num_frames=NUM_FRAMES) if arguments.clip else sample()
    settings = "cpu-used 2, Q mode at cq 40, auto-alt-ref 6"
    report: dict[str, object] = {
        "cores": os.cpu_count(),
        "libvpx": _native.LIBVPX_VERSION,
        "clip": f"{video.name} {video.width}x{video.height}, {video.num_frames} frames, {settings}",
        "dependency_over_encode": {
            "goal": "<= 0.05, at most 0.10",
            **dependency_over_encode(pairs, video),
        },
    }
    if not arguments.clip:
        report |= hook_figures(pairs)
    print(json.dumps(report, indent=1))


def hook_figures(pairs: int) -> dict[str, object]:
    return {
        "env_step_over_plain_loop": {"goal": "<= 1.01", **env_over_plain(pairs)},
        "hand_over_us": {"goal": "<= 20", **hand_over_microseconds(pairs)},
        "env_step_python_us": {"goal": "<= 100", **step_microseconds(pairs)},
        "two_sessions_over_one": {"goal": ">= 1.9", **two_sessions_over_one(pairs)},
        "extra_memory_mib": {"goal": "<= 8 and the frame buffers", **extra_memory_mib(3)},
    }


if __name__ == "__main__":
    main()
