"""The n-th write, synchronisation, rename, large allocation or new process fails, for every n.

python -m benchmarks.faults --out build/faults

Each point is a fresh process that runs a small job on an empty cache, while one call of the system
fails. It must end with 0 and the right outputs, or with 2 and one line. All outputs that it leaves
must be whole. Then the same command runs without a fault on what is there: it must end with the
right outputs, and leave no temporary files. faults.c, which is loaded before the program, makes the
calls fail.
"""

import argparse
import ctypes
import hashlib
import importlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import pandas as pd
from PIL import Image

from vpxrc import video_from_frames
from vpxrc.media.frames import frame_bytes, write_y4m

KINDS = ("write", "sync", "rename", "allocation", "process")  # as faults.c numbers them
PATIENCE = 300  # seconds; a job that takes longer hangs
TEMPORARY = re.compile(r"\.?vpxrc-\d+-.*|.*\.tmp|tmp\w{8}")
# Stands for every number that differs between two runs without a fault.
MEASURED_TIME = re.compile(r"seconds|second_per|per_second|speed")
_TIME_IN_TEXT = re.compile(r"in \d+\.\d s|[\d.]+ s\b")


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: What tables call it.
        arguments: The command line, run in a folder with ``clip.y4m`` and, where ``lessons`` says
            so, lessons of that clip. Its outputs go to ``out``.
        lessons: Whether the folder ``lessons`` is there.
        pictures: Whether the folder ``pictures`` is there.
        states: A module that writes its state at each step in this job, and not after minutes.
    """

    name: str
    arguments: tuple[str, ...]
    lessons: bool = False
    pictures: bool = False
    states: str = ""


#: Arguments of commands that encode.
FAST = ("--cpu-used", "8", "--jobs", "1")
_TEACH = ("teach", "clip.y4m", "--bitrates", "60", "--quality", "psnr", "--directions", "level")
_POLICIES = ("--agent", "constant-quality", "--baseline", "libvpx-vbr")
_EVALUATE = ("evaluate", *_POLICIES, "--clips", "clip.y4m")
_TRAIN = ("train", "--agent", "imitation", "lessons", "--epochs", "2", "--jobs", "1")
JOBS = (
    Job("encode", ("encode", "clip.y4m", "-b", "60", "-o", "out/out.webm", *FAST)),
    Job(
        "encode --chunk",
        ("encode", "clip.y4m", "-b", "60", "-o", "out/out.ivf", "--chunk", "0.2", *FAST),
    ),
    Job(
        "evaluate",
        (*_EVALUATE, "--bitrates", "40,60,80,100", "--metrics", "psnr", "--out", "out", *FAST),
    ),
    Job("teach", (*_TEACH, "--out", "out", *FAST)),
    Job(
        "train",
        (*_TRAIN, "--out", "out/agent.safetensors"),
        lessons=True,
    ),
)


@dataclass
class Tally:
    """What came of the points of one job and kind."""

    points: int = 0
    refused: int = 0  # ended with 2 and one line
    passed: int = 0  # ended with 0 all the same
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count another one's points too."""
        self.points += other.points
        self.refused += other.refused
        self.passed += other.passed
        self.faults += other.faults


def make_clip(path: Path) -> None:
    """Write 12 frames of 64x48 with a cut."""
    rng = np.random.default_rng(5)
    frames = np.full((12, frame_bytes(64, 48)), 128, np.uint8)
    texture = rng.integers(40, 200, (2, 64, 80), dtype=np.uint8)
    for n, frame in enumerate(frames):
        frame[: 64 * 48] = texture[int(n >= 6), n : n + 48, n : n + 64].ravel()
    write_y4m(video_from_frames(frames, 64, 48, 30), path)


class _OneWorker:
    """Does the jobs in this process, where calls are counted.

    One is drawn ahead, as for a process: a killed training has work that was planned.
    """

    def unordered(
        self, function: Callable[[Any], Any], jobs: Iterable[Any]
    ) -> Iterator[tuple[Any, Any]]:
        waiting = iter(jobs)
        drawn = deque(itertools.islice(waiting, 2))
        while drawn:
            job = drawn.popleft()
            result = function(job)
            drawn.extend(itertools.islice(waiting, 1))
            yield job, result


# In the process of a point


def _run_job(job: Job, work: Path, kind: int, n: int, in_process: bool) -> NoReturn:
    """Run a command with the n-th call failing, write down how many there were, and exit."""
    code = 99
    try:
        signal.alarm(PATIENCE)
        os.environ |= {"VPXRC_CACHE": str(work / "cache"), "TMPDIR": str(work / "tmp")}
        tempfile.tempdir = None
        os.chdir(work)
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, number)
            os.close(file)
        # No `with`: the process ends with them open.
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        from vpxrc import cli

        library = ctypes.CDLL(None)
        can_fail = hasattr(library, "faults_arm")  # not where nothing is to fail
        inside = mock.patch("vpxrc.parallel._open_processes", lambda _: nullcontext(_OneWorker()))
        states = mock.patch(f"{job.states}.STATE_EVERY", 0.0) if job.states else nullcontext()
        with inside if in_process else nullcontext(), states:
            if can_fail:
                library.faults_arm(kind, ctypes.c_long(n))
            try:
                cli.app(list(job.arguments))
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                calls = library.faults_disarm() if can_fail else 0
        (work / "calls").write_text(str(calls))
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


# In the process that starts them


def start(job: Job, work: Path, kind: str, n: int = 0, *, in_process: bool = True) -> int:
    """Start a command in a process of its own; return the process."""
    child = os.fork()
    if child == 0:
        _run_job(job, work, KINDS.index(kind), n, in_process)
    return child


def run(job: Job, work: Path, kind: str, n: int = 0, *, in_process: bool = True) -> int:
    """Run a command in a process of its own; return its exit status, negative for a signal."""
    _, status = os.waitpid(start(job, work, kind, n, in_process=in_process), 0)
    return os.waitstatus_to_exitcode(status)


def contents(folder: Path) -> dict[str, str]:
    """Return a digest of every file, without the times that differ from run to run."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(_without_times(path)).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(io.BytesIO(data))
            timed = [name for name in table.columns if MEASURED_TIME.search(str(name))]
            return table.drop(columns=timed).to_csv().encode()
        if path.suffix == ".json":
            return json.dumps(_untimed(json.loads(data)), sort_keys=True).encode()
        if path.suffix in (".html", ".md", ".csv"):
            return _TIME_IN_TEXT.sub("", data.decode()).encode()
    except (ValueError, OSError):
        pass  # half a file: it differs from a whole one in any case
    return data


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if not MEASURED_TIME.search(k)}
    return [_untimed(one) for one in value] if isinstance(value, list) else value


def leftovers(work: Path) -> list[str]:
    """Return the temporary files and folders below a folder."""
    return [path.name for path in sorted(work.rglob("*")) if TEMPORARY.fullmatch(path.name)]


@contextmanager
def workplace(template: Path) -> Iterator[Path]:
    """Yield a new copy of a folder with the inputs of jobs."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        work = Path(folder) / "work"
        shutil.copytree(template, work)
        for name in ("out", "tmp", "cache"):
            (work / name).mkdir()
        yield work


class Campaign:
    """Points of faults for a job.

    Args:
        job: The command.
        template: A folder with its inputs.
    """

    def __init__(self, job: Job, template: Path) -> None:
        self.job = job
        self.template = template
        found = []
        for _ in range(2):
            with workplace(template) as work:
                status = run(job, work, "write")
                if status:
                    raise RuntimeError(f"{job.name}: {(work / 'stderr').read_text()}")
                found.append(contents(work / "out"))
        # A file whose bytes differ without a fault is compared by its presence alone.
        self.expected = {
            name: sha256 if found[1].get(name) == sha256 else ""
            for name, sha256 in found[0].items()
        }

    @property
    def unstable(self) -> list[str]:
        """The outputs that differ between two runs without a fault."""
        return [name for name, sha256 in self.expected.items() if not sha256]

    def count(self, kind: str, in_process: bool = True) -> int:
        """Return how many calls of a kind the job makes."""
        with workplace(self.template) as work:
            run(self.job, work, kind, in_process=in_process)
            return int((work / "calls").read_text())

    def point(self, kind: str, n: int, tally: Tally, in_process: bool = True) -> None:
        """Run the job with the n-th call failing, then without a fault."""
        where = f"{self.job.name}, {kind} {n}"
        with workplace(self.template) as work:
            status = run(self.job, work, kind, n, in_process=in_process)
            words = (work / "stderr").read_text(errors="replace")
            tally.points += 1
            tally.refused += status == 2
            tally.passed += status == 0
            said = " | ".join(words.splitlines()[-3:])[-300:]
            if status < 0 or status not in (0, 2):
                tally.faults.append(f"{where}: exit status {status}: {said}")
            elif "Traceback" in words or len(words.splitlines()) > 1:
                tally.faults.append(f"{where}: more than a line: {said}")
            if wrong := self._wrong(work, complete=status == 0):
                tally.faults.append(f"{where}: status {status}, wrong: {wrong}")
            status = run(self.job, work, kind, in_process=in_process)
            if status:
                said = (work / "stderr").read_text()[-300:]
                tally.faults.append(f"{where}: the next run: status {status}: {said}")
            if wrong := self._wrong(work, complete=True):
                tally.faults.append(f"{where}: the next run, wrong: {wrong}")
            if left := leftovers(work):
                tally.faults.append(f"{where}: the next run leaves {left}")

    def _wrong(self, work: Path, complete: bool) -> list[str]:
        """Return the outputs that are not as expected; a part of them may be missing."""
        found = contents(work / "out")
        wrong = [
            name
            for name, sha256 in found.items()
            if not TEMPORARY.fullmatch(Path(name).name)
            and self.expected.get(name, "state" if not complete else None) not in ("", sha256)
            and not (not complete and name not in self.expected)
        ]
        missing = [name for name in self.expected if name not in found] if complete else []
        return wrong + [f"no {name}" for name in missing]


def jobs_named(names: str, jobs: tuple[Job, ...] = JOBS) -> list[Job]:
    """Return jobs by their names, comma-separated."""
    known = {job.name: job for job in jobs}
    return [known[name] for name in names.split(",")]


def prepare(template: Path, jobs: list[Job]) -> None:
    """Make the inputs of jobs."""
    template.mkdir(parents=True, exist_ok=True)
    make_clip(template / "clip.y4m")
    if any(job.pictures for job in jobs):
        (template / "pictures").mkdir()
        for seed in range(3):
            pixels = np.random.default_rng(seed).integers(0, 256, (72, 96, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(template / "pictures" / f"{seed}.png")
    if not any(job.lessons for job in jobs):
        return
    lessons = Job("lessons", (*_TEACH, "--out", "lessons", *FAST))
    with workplace(template) as work:
        if run(lessons, work, "write"):
            raise RuntimeError((work / "stderr").read_text())
        shutil.copytree(work / "lessons", template / "lessons")


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """Return the counts in Markdown."""
    lines = [
        "| job | call that fails | points | refused in a line | passed all the same | faults |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (job, kind), one in tallies.items():
        counts = one.points, one.refused, one.passed, len(one.faults)
        lines.append(f"| {job} | {kind} | {' | '.join(map(str, counts))} |")
    total: Counter[str] = Counter()
    for one in tallies.values():
        total += Counter(a=one.points, b=one.refused, c=one.passed, d=len(one.faults))
    lines.append(f"| all | | {' | '.join(str(total[name]) for name in 'abcd')} |")
    return "\n".join(lines) + "\n"


def build_library(folder: Path) -> Path:
    """Compile faults.c."""
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "faults.so"
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    source = Path(__file__).with_name("faults.c")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def command(library: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return a command line and an environment in which calls can fail."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = {**os.environ, **threads, "LD_PRELOAD": str(library)}
    return [sys.executable, "-m", "benchmarks.faults", *arguments], environment


def campaign(
    jobs: list[Job], kinds: list[str], out: Path, most: int = 10**9, every: int = 1
) -> dict[str, Any]:
    """Run every n-th point of each job and kind, or ``most`` of them at equal distances.

    A table and the faults are written to ``out`` after each job and kind. Each point is kept there
    at once, so a campaign that was stopped goes on; for one with other code, remove the folder.
    """
    import_everything()
    tallies: dict[tuple[str, str], Tally] = {}
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "points.jsonl"
    lines = kept.read_text().splitlines(keepends=True) if kept.exists() else []
    if lines and not lines[-1].endswith("\n"):  # a kill has cut it
        del lines[-1]
        kept.write_text("".join(lines))
    known: dict[str, Any] = dict(map(json.loads, lines))
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        template = Path(folder) / "template"
        prepare(template, jobs)
        for job in jobs:
            points = Campaign(job, template)
            for kind in kinds:
                tally = tallies[job.name, kind] = Tally()
                calls = points.count(kind)
                step = max(every, -(-calls // most))
                for n in range(1, calls + 1, step):
                    line = json.dumps([job.name, kind, calls, n])
                    if line not in known:
                        one = Tally()
                        points.point(kind, n, one)
                        known[line] = asdict(one)
                        with kept.open("a") as file:
                            file.write(f"{json.dumps([line, known[line]])}\n")
                    tally.add(Tally(**known[line]))
                (out / "table.md").write_text(table(tallies))
                found = [fault for one in tallies.values() for fault in one.faults]
                (out / "faults.txt").write_text("\n".join(found))
                print(job.name, kind, calls, tally.points, len(tally.faults), flush=True)
    faults = [fault for one in tallies.values() for fault in one.faults]
    return {"points": sum(one.points for one in tallies.values()), "faults": faults}


def import_everything() -> None:
    """Import what jobs do, so that a forked process starts at once."""
    os.environ.pop("LD_PRELOAD", None)  # not for ffmpeg
    import torch

    torch.set_num_threads(1)
    for agent in ("imitation.training", "muzero.training", "teacher.teaching"):
        importlib.import_module(f"vpxrc.agents.{agent}")
    for name in ("cli", "codecs.papers", "codecs.training", "evaluation.study", "reports.pages"):
        importlib.import_module(f"vpxrc.{name}")
    importlib.import_module("scipy.interpolate")  # which the package imports where it is used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", default=",".join(job.name for job in JOBS))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--most", type=int, default=10**9, help="points for each job and kind")
    parser.add_argument("--every", type=int, default=1, help="run each N-th point alone")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        line, environment = command(build_library(arguments.out), *sys.argv[1:], "--inside")
        raise SystemExit(subprocess.run(line, env=environment).returncode)
    jobs, kinds = jobs_named(arguments.jobs), arguments.kinds.split(",")
    report = campaign(jobs, kinds, arguments.out, arguments.most, arguments.every)
    print((arguments.out / "table.md").read_text(), "\n".join(report["faults"]), sep="\n")
    raise SystemExit(1 if report["faults"] else 0)


if __name__ == "__main__":
    main()
