"""Jobs in processes and on Ray: the same contract, and a Ray that nothing outside reaches."""

import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import make_video, skip_without_ray

from vpxrc import EncoderOptions
from vpxrc import parallel as workers
from vpxrc.errors import EncoderError, InputError, MissingDependencyError
from vpxrc.evaluation import study as evaluation
from vpxrc.parallel import open_workers

pytestmark = pytest.mark.xdist_group("ray")  # one Ray for all of them


@pytest.fixture(params=["processes", "ray"])
def place(request):
    """What to give as ``ray``."""
    if request.param == "processes":
        return None
    request.getfixturevalue("local_ray")
    return "local"


@pytest.fixture
def patience(monkeypatch):
    """On a busy machine a task of Ray's may take longer than it is given to tidy up."""
    monkeypatch.setattr(workers, "GRACE", 30.0)


@dataclass(frozen=True)
class Job:
    """Leaves a mark where it begins and where it ends."""

    folder: Path
    name: str
    waits_for: str = ""
    fails: bool = False
    dies: bool = False

    def mark(self, what):
        (self.folder / f"{self.name}.{what}").write_text(str(os.getpid()))


def work(job):
    job.mark("begun")
    try:
        end = time.monotonic() + 60
        while job.waits_for and not (job.folder / job.waits_for).exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        if job.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if job.fails:
            # A job that is stopped as it begins may leave no mark of its end.
            time.sleep(1)
            raise InputError(f"{job.name} cannot be used")
        return job.name.upper()
    finally:
        job.mark("ended")


def marks(folder, what):
    return {path.stem for path in folder.glob(f"*.{what}")}


def test_results_come_as_they_are_done(place, tmp_path):
    jobs = [Job(tmp_path, "a", waits_for="told"), Job(tmp_path, "b"), Job(tmp_path, "c")]
    seen = []
    with open_workers(2, place) as workers:
        for job, result in workers.unordered(work, iter(jobs)):
            seen.append((job, result))
            if len(seen) == 2:
                (tmp_path / "told").touch()
        assert {job.name for job, _ in seen[:2]} == {"b", "c"}
        assert seen[2] == (jobs[0], "A")
        assert all(result == job.name.upper() for job, result in seen)
        # The workers are there for more.
        assert list(workers.unordered(len, ["four"])) == [("four", 4)]
        assert list(workers.unordered(len, [])) == []


def test_a_jobs_error_arrives_as_itself_and_stops_the_others(place, patience, tmp_path):
    slow = [Job(tmp_path, f"slow{n}", waits_for="never") for n in range(9)]
    jobs = [Job(tmp_path, "bad", waits_for="slow0.begun", fails=True), *slow]
    start = time.monotonic()
    with (
        pytest.raises(InputError, match=r"^bad cannot be used$") as caught,
        open_workers(2, place) as workers,
    ):
        list(workers.unordered(work, jobs))
    assert caught.type is InputError
    assert time.monotonic() - start < 40
    assert_stopped(tmp_path)


def test_an_early_stop_stops_the_jobs(place, patience, tmp_path):
    slow = [Job(tmp_path, f"slow{n}", waits_for="never") for n in range(9)]
    before = set(psutil.Process().children())
    with open_workers(2, place) as workers:
        for job, _ in workers.unordered(
            work, [Job(tmp_path, "quick", waits_for="slow0.begun"), *slow]
        ):
            assert job.name == "quick"
            while not (tmp_path / "slow1.begun").exists():
                time.sleep(0.01)
            time.sleep(0.1)  # a job that is stopped as it begins may leave no mark of its end
            break
    assert_stopped(tmp_path)
    if place is None:
        spawned = set(psutil.Process().children()) - before
        assert not [process for process in spawned if "spawn_main" in str(process.cmdline())]


def has_ended(folder, name):
    """Whether a job has left its mark, or its process is gone."""
    if (folder / f"{name}.ended").exists():
        return True
    text = (folder / f"{name}.begun").read_text()
    return bool(text) and not psutil.pid_exists(int(text))


def assert_stopped(folder):
    """What had begun was told to stop, nothing began later."""
    begun = marks(folder, "begun")
    assert "slow0" in begun and len(begun) <= 3
    end = time.monotonic() + 20
    # Ray tells the caller of the end before the worker is through, and kills what stays too long.
    while (ended := {name for name in begun if has_ended(folder, name)}) != begun:
        assert time.monotonic() < end, f"{begun - ended} go on"
        time.sleep(0.05)
    time.sleep(0.5)
    assert marks(folder, "begun") == begun


def test_no_room_for_processes_is_one_line(monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(workers, "ProcessPoolExecutor", full)
    with pytest.raises(EncoderError, match=r"shm full.*No space left on device"), open_workers(2):
        pass


INTERRUPTED = """
import sys, time
from vpxrc.parallel import open_workers

def jobs(wait):
    yield 0.0
    yield 0.0
    time.sleep(wait)
    raise KeyboardInterrupt

if __name__ == "__main__":
    for wait in map(float, sys.argv[1:]):
        try:
            with open_workers(2) as workers:
                for _ in workers.unordered(time.sleep, jobs(wait)):
                    pass
        except KeyboardInterrupt:
            print("interrupted")
"""


def test_interrupted_workers_print_nothing(tmp_path):
    """Whether they are starting, waiting or ending."""
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    waits = ["0", "0.05", "0.2", "0.4", "0.8"]
    done = subprocess.run([sys.executable, script, *waits], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n" * len(waits), "")


def test_a_killed_worker_is_an_error(place, tmp_path):
    with pytest.raises(EncoderError, match="the same command goes on"), open_workers(1, place) as w:
        list(w.unordered(work, [Job(tmp_path, "doomed", dies=True)]))


@dataclass(frozen=True)
class Made:
    """A clip that needs no file."""

    name: str
    seed: int

    def open(self):
        return make_video(seed=self.seed)


def test_an_evaluation_is_the_same_on_ray(local_ray, tmp_path):
    results = [
        evaluation.evaluate(
            "libvpx-vbr-mlarf",
            ["libvpx-vbr"],
            [Made("one", 1), Made("two", 2)],
            [20, 40, 80, 160],
            tmp_path / str(ray),
            options=EncoderOptions(cpu_used=8),
            metrics=["psnr"],
            jobs=2,
            ray=ray,
        )
        for ray in (None, "local")
    ]
    tables = [
        result.encodes.drop(columns=["encode_seconds", "cpu_seconds"]).sort_index(axis=1)
        for result in results
    ]
    assert len(tables[0]) == 16
    one, other = results
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(one.frames, other.frames)


def test_a_local_ray_listens_on_loopback_only(local_ray):
    """Whoever reaches a port of Ray's may run code here."""
    assert list(local_ray.unordered(len, ["four"])) == [("four", 4)]
    listening = []
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            listening += [
                (process.name(), ipaddress.ip_address(connection.laddr.ip))
                for connection in process.net_connections()
                if connection.status == psutil.CONN_LISTEN
            ]
    assert {"raylet", "gcs_server"} <= {name for name, _ in listening}
    for name, address in listening:
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, (name, address)


UNREACHABLE = """
import sys
from vpxrc.errors import InputError
from vpxrc.parallel import open_workers
for address in sys.argv[1:]:
    try:
        with open_workers(1, address):
            print("connected")
    except InputError as error:
        print(error)
"""


def test_no_ray_at_the_address():
    """In a process of its own, which has no Ray yet."""
    skip_without_ray()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        addresses = [place, f"ray://{place}", "nonsense", "host:port"]
        process = subprocess.run(
            [sys.executable, "-c", UNREACHABLE, *addresses],
            capture_output=True,
            text=True,
            timeout=180,
            check=True,
        )
    lines = process.stdout.splitlines()
    assert len(lines) == len(addresses)
    for address, line in zip(addresses, lines, strict=True):
        assert line.startswith(f"no Ray at {address}: ") and len(line) < 200
    assert process.stderr == ""


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'vpxrc\[ray\]'"),
        open_workers(1, "local"),
    ):
        pass
