"""Jobs at the same time: in processes of this machine, or as tasks of a Ray cluster."""

import importlib
import itertools
import multiprocessing
import os
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from vpxrc.errors import EncoderError, InputError, MissingDependencyError

GRACE = 3.0  # seconds that a job has to tidy up when it is told to stop
CONNECT_TIMEOUT = 5.0  # seconds; Ray itself tries for longer than a minute

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers(Protocol):
    """What :func:`open_workers` gives: a number of jobs done at the same time."""

    def unordered(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Iterator[tuple[Job, Result]]:
        """Yield every job with its result as soon as it is done.

        Jobs are drawn as workers come free, so what is learned from a result can be in a later job;
        processes have one waiting besides, that none is idle while the caller is busy.

        What has not begun is cancelled when the caller stops before the end, or a job fails; what
        has begun is stopped then or when the workers are closed.

        Args:
            function: Called with a job; like jobs and results it must pickle, so it is a module's.
            jobs: What is to be done.

        Raises:
            EncoderError: A worker was killed.
            Exception: Whatever ``function`` raised, as it was.
        """


def open_workers(count: int, ray: str | None = None) -> AbstractContextManager[Workers]:
    """Return workers that are closed with the ``with`` block, however it ends.

    Processes are started afresh: a script calls this under ``if __name__ == "__main__":``. On Ray a
    job takes one CPU and is not tried again; every machine needs the packages and the files that
    the job reads. A Ray to which this process is connected already is used, whatever the address.

    Args:
        count: Jobs at the same time, at least 1.
        ray: None for processes of this machine, else a Ray address: ``local`` (one that is started
            on this machine with ``count`` CPUs and ends with the block; nothing outside reaches
            it, unless Ray was imported before this), ``auto`` (the one that runs on this machine),
            ``HOST:PORT`` or ``ray://HOST:PORT`` (with ``RAY_AUTH_MODE=token`` in the environment
            where that cluster asks for its token).

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: There is no Ray at the address.
        EncoderError: The system has no room for processes.
    """
    return _open_processes(count) if ray is None else _open_ray(count, ray)


# Processes: in the workers

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_stopping = threading.Event()
_working = threading.Event()


def _start_worker(stop: Connection) -> None:
    """Make the process end, tidily where it can, when ``stop`` closes or the parent dies."""

    def leave(number: int, frame: object) -> None:
        _stopping.set()
        if _working.is_set():
            raise SystemExit(1)
        os._exit(1)  # nothing to tidy up, and the pool would tell of an exception

    def watch() -> None:
        try:
            stop.recv()
        except (EOFError, OSError):
            signal.raise_signal(signal.SIGTERM)
            time.sleep(GRACE)
            os._exit(1)  # the main thread is in native code

    # A Ctrl-C in the terminal reaches every process of the group; the parent tells the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=watch, daemon=True).start()


def _call(function: Callable[[Job], Result], job: Job) -> Result:
    _working.set()
    try:
        if _stopping.is_set():  # the pool took the SystemExit for the job's before
            raise SystemExit(1)
        return function(job)
    finally:
        _working.clear()


# Processes: in the parent


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes that a Ctrl-C cannot hit before they know what to do about it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Processes:
    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self._pool = pool
        self._count = count
        self._left: list[Future[Any]] = []

    def unordered(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Iterator[tuple[Job, Result]]:
        waiting = iter(jobs)
        futures: dict[Future[Result], Job] = {}

        def submit(count: int) -> None:
            for job in itertools.islice(waiting, count):
                with _signals_blocked():  # it may start a process
                    futures[self._pool.submit(_call, function, job)] = job

        try:
            submit(self._count + 1)
            while futures:
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in [future for future in futures if future in done]:
                    job, result = futures.pop(future), future.result()
                    submit(1)
                    yield job, result
        except BrokenProcessPool as error:
            raise EncoderError(
                "a worker process was killed (out of memory?); "
                "the same command goes on where it was"
            ) from error
        finally:
            self._left += [future for future in futures if not future.cancel()]

    def busy(self) -> bool:
        """Whether a job still runs that nobody waits for."""
        return not all(future.done() for future in self._left)


@contextmanager
def _open_processes(count: int) -> Iterator[_Processes]:
    context = multiprocessing.get_context("spawn")
    try:
        reader, writer = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(count, context, initializer=_start_worker, initargs=(reader,))
    except OSError as error:  # no descriptors, or no room for semaphores
        words = error.strerror or error
        raise EncoderError(f"cannot start worker processes (/dev/shm full?): {words}") from error
    processes = _Processes(pool, count)
    try:
        yield processes
        if processes.busy():
            writer.close()
    except BaseException:
        writer.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


# Ray


class _RayTasks:
    def __init__(self, ray: Any, count: int) -> None:
        self._ray = ray
        self._count = count

    def unordered(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Iterator[tuple[Job, Result]]:
        task = self._ray.remote(num_cpus=1, max_retries=0)(_call)
        waiting = iter(jobs)
        running: dict[Any, Job] = {}
        try:
            for job in itertools.islice(waiting, self._count):
                running[task.remote(function, job)] = job
            while running:
                [done], _ = self._ray.wait(list(running), num_returns=1)
                finished = running.pop(done)  # Ray may abort where a task that ends is cancelled
                result = self._result(done, finished)
                for job in itertools.islice(waiting, 1):
                    running[task.remote(function, job)] = job
                yield finished, result
        finally:
            self._cancel(list(running))

    def _result(self, done: Any, job: object) -> Any:
        ray_error = self._ray.exceptions.RayError
        try:
            return self._ray.get(done)
        except ray_error as error:
            cause = getattr(error, "cause", error)
            if not isinstance(cause, ray_error):
                raise cause from error  # the job's own; Ray's has a traceback for a message
            words = str(error).strip().rpartition("\n")[2]
            raise EncoderError(
                f"{job}: Ray lost the task; the same command goes on where it was ({words})"
            ) from error

    def _cancel(self, running: list[Any]) -> None:
        if not running:
            return
        for task in running:
            self._ray.cancel(task)  # a KeyboardInterrupt, which native code may not notice
        _, stuck = self._ray.wait(running, num_returns=len(running), timeout=GRACE)
        for task in stuck:
            self._ray.cancel(task, force=True)


def import_ray() -> Any:
    """Import Ray so that one which is started later in this process stays on 127.0.0.1.

    Raises:
        MissingDependencyError: It is not installed.
    """
    # Read when Ray is imported.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
        importlib.import_module("ray.exceptions")  # a mere folder of that name has none
    except ImportError as error:
        raise MissingDependencyError("Ray is missing: pip install 'vpxrc[ray]'") from error
    return ray


@contextmanager
def _open_ray(count: int, address: str) -> Iterator[_RayTasks]:
    ray = import_ray()
    if ray.is_initialized():
        yield _RayTasks(ray, count)
        return
    try:
        _connect(ray, count, address)
        yield _RayTasks(ray, count)
    finally:
        ray.shutdown()


def _connect(ray: Any, count: int, address: str) -> None:
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options.update(num_cpus=count, include_dashboard=False)
    before = signal.getsignal(signal.SIGTERM)
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if place.hostname and place.port:
            socket.create_connection((place.hostname, place.port), CONNECT_TIMEOUT).close()
        ray.init(**options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        words = textwrap.shorten(str(error), 200)
        raise InputError(f"no Ray at {address}: {words}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's would end the program with its own code
