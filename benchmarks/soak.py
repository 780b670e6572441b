"""Sessions closed at random points, and long jobs killed at random moments.

python -m benchmarks.soak --sessions 10000 --kills 50 --out build/soak

Sessions are stepped and closed by one, two or four threads, in pools, in forked children, and by
programs that end while daemon threads use them. No program may hang or abort, and threads,
descriptors and memory must come back. Jobs are killed with SIGKILL and run again until they end:
their outputs must be the same bytes as without a kill, times left out.
"""

import argparse
import faulthandler
import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import faults
from vpxrc import (
    Decision,
    EncoderOptions,
    EncodeSession,
    SessionPool,
    Video,
    _native,
    video_from_frames,
)
from vpxrc.encoder.types import State
from vpxrc.errors import EncoderError, PolicyError
from vpxrc.media.frames import frame_bytes

PATIENCE = 120  # seconds after which an action counts as hanging, and its stacks are printed
OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=8)


def small_clip() -> Video:
    """Return 8 frames of 32x32."""
    rng = np.random.default_rng(1)
    frames = rng.integers(90, 160, (8, frame_bytes(32, 32)), dtype=np.uint8)
    return video_from_frames(frames, 32, 32, 30, "small")


# One action with a session, or a few


def step(session: EncodeSession, most: int) -> None:
    """Answer up to ``most`` frames; another thread may do so too, or close the session."""
    for _ in range(most):
        try:
            if session.frame is None:
                return
            session.step(Decision(120))
        except (EncoderError, PolicyError):  # another thread was first
            return


def alone(video: Video, rng: random.Random) -> int:
    session = EncodeSession(video, OPTIONS, plan_groups=rng.random() < 0.3)
    while session.state == State.GROUP:
        session.step_group(None)
    step(session, rng.randrange(12))
    if rng.random() < 0.8:
        session.close()
    return 1


def together(video: Video, rng: random.Random) -> int:
    """Two or four threads step or close one session."""
    session = EncodeSession(video, OPTIONS)
    actions: list[Callable[[], None]] = [session.close]
    for _ in range(rng.choice((1, 3))):
        most = rng.randrange(12)
        actions.append(rng.choice((session.close, lambda most=most: step(session, most))))
    threads = [threading.Thread(target=action) for action in actions]
    rng.shuffle(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session.close()
    return 1


def pooled(video: Video, rng: random.Random) -> int:
    pool = SessionPool(timeout=PATIENCE)
    for _ in range(3):
        pool.open(video, OPTIONS)
    for _ in range(rng.randrange(12)):
        number, session = pool.next()
        if session.frame is None or rng.random() < 0.2:
            pool.close_session(number)
            if not len(pool):
                break
        else:
            session.step(Decision(120))
    if rng.random() < 0.8:
        pool.close()
    return 3


def forked(video: Video, rng: random.Random) -> int:
    """A child closes, steps or forgets its parent's session, and its own."""
    session = EncodeSession(video, OPTIONS)
    way = rng.randrange(3)
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        with suppress(BaseException):
            if way == 0:
                session.close()
            elif way == 1:
                with suppress(EncoderError):
                    session.step(Decision(120))
            else:
                del session
                gc.collect()
            with EncodeSession(video, OPTIONS) as own:
                step(own, 12)
                own.log()
            os._exit(0)
        os._exit(1)
    step(session, rng.randrange(12))
    _, status = os.waitpid(child, 0)
    session.close()
    if status:
        raise RuntimeError(f"a forked child ended with {os.waitstatus_to_exitcode(status)}")
    return 2


ACTIONS = (alone, together, pooled, forked)
WEIGHTS = (6, 4, 2, 1)
DAEMONS = """
    import sys, threading, time
    from benchmarks.soak import OPTIONS, Decision, EncodeSession, small_clip
    video = small_clip()
    begun = threading.Semaphore(0)
    def use():
        while True:
            with EncodeSession(video, OPTIONS) as session:
                begun.release()
                while session.frame is not None:
                    session.step(Decision(120))
    for _ in range(4):
        threading.Thread(target=use, daemon=True).start()
    for _ in range(6):
        begun.acquire()
    time.sleep({pause})
    sys.exit(3)
"""


def program_ends(rng: random.Random) -> None:
    """A program ends while four daemon threads use sessions."""
    program = textwrap.dedent(DAEMONS).format(pause=rng.random() * 0.02)
    ended = subprocess.run([sys.executable, "-c", program], timeout=PATIENCE).returncode
    if ended != 3:
        raise RuntimeError(f"a program with daemon threads ended with {ended}, not 3")


# The soak


def resources() -> dict[str, int]:
    """Return this process's threads, descriptors, running encoders and resident memory in KiB."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "threads": int(fields["Threads"]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "encoders": _native.num_running(),
        "memory_kib": int(fields["VmRSS"].split()[0]),
    }


def soak(count: int, programs: int, seed: int) -> dict[str, Any]:
    """Open ``count`` sessions and close them at random points.

    Raises:
        RuntimeError: A child ended otherwise than it should.
    """
    rng = random.Random(seed)
    video = small_clip()
    done: Counter[str] = Counter()
    before: dict[str, int] = {}
    sessions = 0
    while sessions < count:
        if not before and sessions >= count // 5:
            before = resources()  # memory is steady by now
        (action,) = rng.choices(ACTIONS, WEIGHTS)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        sessions += action(video, rng)
        done[action.__name__] += 1
    faulthandler.cancel_dump_traceback_later()
    for _ in range(programs):  # each has a limit of its own
        program_ends(rng)
    return {
        "sessions": sessions,
        "actions": dict(done),
        "programs": programs,
        "before": before,
        "after": resources(),
    }


# Kills

_TRAIN_MUZERO = ("train", "--agent", "muzero", "clip.y4m", "--bitrates", "40,80")
_MUZERO_SIZE = ("--base", "layered", "--episodes", "10", "--envs", "1", "--simulations", "4")
_TRAIN_RLLIB = (
    *("clip.y4m", "--bitrates", "40,80", "--base", "constant-q:120", "--reference", "libvpx-vbr"),
    *("--decisions", "frame", "--iterations", "40", "--set", "steps=16", "--set", "warmup=16"),
    *("--set", "batch=16", "--set", "minibatch=16", "--set", "reuse=16"),
)
_TRAIN_CODEC = ("codec", "train", "factorized/small", "pictures", "--crop", "64", "--batch", "2")
# The long jobs. Trainings are longer than where faults are looked for, with a state at each step.
JOBS = (
    *(job for job in faults.JOBS if job.name in ("encode --chunk", "evaluate", "teach")),
    faults.Job(
        "train imitation",
        (
            *("train", "--agent", "imitation", "lessons", "--epochs", "8", "--jobs", "1"),
            *("--out", "out/agent.safetensors"),
        ),
        lessons=True,
        states="vpxrc.agents.imitation.training",
    ),
    faults.Job(
        "train muzero",
        (*_TRAIN_MUZERO, *_MUZERO_SIZE, *faults.FAST, "--out", "out/agent.safetensors"),
        states="vpxrc.agents.muzero.training",
    ),
    *(
        faults.Job(
            f"train {agent}",
            (
                "train",
                "--agent",
                agent,
                *_TRAIN_RLLIB,
                *faults.FAST,
                "--out",
                f"out/{agent}.safetensors",
            ),
            states="vpxrc.agents.rllib.training",
        )
        for agent in ("ppo", "sac")
    ),
    faults.Job(
        "codec train",
        (*_TRAIN_CODEC, "--steps", "8", "--out", "out/codec.safetensors"),
        pictures=True,
        states="vpxrc.codecs.training",
    ),
)


def killed(
    job: faults.Job,
    template: Path,
    expected: dict[str, str],
    duration: float,
    rng: random.Random,
) -> int:
    """Kill a job up to three times at random moments, and run it to its end; return the kills.

    Args:
        job: The command.
        template: A folder with its inputs.
        expected: Digests of its outputs without a kill.
        duration: Seconds that it takes without a kill.
        rng: Draws the moments.

    Raises:
        RuntimeError: Its outputs are not those of a run without a kill, or temporary files stay.
    """
    kills = 0
    with faults.workplace(template) as work:
        for _ in range(rng.randint(1, 3)):
            # Kills come early and late alike: the time is drawn anew, from a hundredth of a second.
            child = faults.start(job, work, "write")
            time.sleep(rng.choice((10 ** rng.uniform(-2, 0.7), rng.uniform(0, duration))))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if status == 0:
                break
            kills += os.WIFSIGNALED(status)
        status = faults.run(job, work, "write")
        found = faults.contents(work / "out")
        wrong = {name for name in expected if expected[name] and found.get(name) != expected[name]}
        wrong |= found.keys() ^ expected.keys()
        left = faults.leftovers(work)
        if status or wrong or left:
            words = (work / "stderr").read_text()[-300:]
            raise RuntimeError(f"{job.name}: {status}, {wrong or left}: {words}")
    return kills


def kill(count: int, jobs: list[faults.Job], seed: int) -> dict[str, Any]:
    """Kill jobs in turn until there were ``count`` kills; return how many of each."""
    rng = random.Random(seed)
    kills: Counter[str] = Counter()
    # What a killed Ray leaves here may be in use for two minutes, by processes that watch Ray.
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        template = Path(folder) / "template"
        faults.prepare(template, jobs)
        expected, duration = {}, {}
        for job in jobs:
            begun = time.monotonic()
            expected[job.name] = faults.Campaign(job, template).expected
            duration[job.name] = (time.monotonic() - begun) / 2  # it runs twice
        while sum(kills.values()) < count:
            for job in jobs:
                name = job.name
                kills[name] += killed(job, template, expected[name], duration[name], rng)
                print("kills", dict(kills), flush=True)
    unstable = {
        name: [file for file in found if not found[file]] for name, found in expected.items()
    }
    return {"kills": dict(kills), "compared by presence only": unstable}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--programs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--jobs", default=",".join(job.name for job in JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {}
    if arguments.kills:  # first: it forks, and has no threads then
        faults.import_everything()
        report |= kill(arguments.kills, faults.jobs_named(arguments.jobs, JOBS), arguments.seed)
        (arguments.out / "soak.json").write_text(json.dumps(report, indent=1))
    with tempfile.TemporaryDirectory(prefix="soak-cache-") as cache:
        os.environ["VPXRC_CACHE"] = cache
        report |= soak(arguments.sessions, arguments.programs, arguments.seed)
    text = json.dumps(report, indent=1)
    (arguments.out / "soak.json").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
