"""Sessions under threads, forks, the end of the interpreter and the garbage collector."""

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import psutil
import pytest
from conftest import make_video

from vpxrc import (
    Decision,
    EncoderError,
    EncoderOptions,
    EncodeSession,
    PolicyError,
    SessionPool,
    Video,
    _native,
)
from vpxrc.encoder.types import State
from vpxrc.envs.pool import EpisodePool

OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=4, auto_alt_ref=6)
PATIENCE = 60.0  # seconds; less than what a session waits where it hangs is not needed


@pytest.fixture(scope="module")
def small() -> Video:
    return make_video(48, 32, 12)


def step(session: EncodeSession) -> State:
    if session.state == State.GROUP:
        return session.step_group(None)
    return session.step(Decision(120))


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)


def soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


# Threads


@pytest.mark.parametrize("closers", [2, 4])
def test_several_threads_close_one_session(small, closers):
    draw = random.Random(closers)
    before = psutil.Process().num_threads()
    for _ in range(30):
        session = EncodeSession(small, OPTIONS, observe=draw.random() < 0.3)
        for _ in range(draw.randrange(8)):
            if session.state == State.FRAME:
                step(session)
        threads = [threading.Thread(target=session.close) for _ in range(closers)]
        for thread in threads:
            thread.start()
        join(threads)
        with pytest.raises(EncoderError, match=r"coded frame \d+: the session is closed"):
            session.wait()
    # A thread of Python's lives on for a moment after its end.
    assert soon(lambda: psutil.Process().num_threads() == before)


def test_one_thread_steps_and_reads_while_another_closes(small):
    draw = random.Random(1)
    wrong: list[BaseException] = []

    def use(session: EncodeSession) -> None:
        try:
            while session.state in (State.FRAME, State.GROUP):
                assert len(session.records()) == session.progress
                step(session)
        except EncoderError:
            pass  # closed between two calls, or under way
        except BaseException as error:
            wrong.append(error)

    for _ in range(40):
        session = EncodeSession(small, OPTIONS, plan_groups=True)
        thread = threading.Thread(target=use, args=(session,))
        thread.start()
        time.sleep(draw.random() * 0.02)
        session.close()
        join([thread])
    assert not wrong
    assert _native.num_running() == 0


def test_two_threads_step_one_session(small):
    """Their answers mix, and none is lost or given twice: the encode comes to its end."""
    session = EncodeSession(small, OPTIONS)

    def use() -> None:
        while session.state not in (State.DONE, State.FAILED):
            try:
                step(session)
            except EncoderError:  # the other one was quicker
                session.wait()

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    join(threads)
    assert session.log().records["is_shown"].sum() == small.num_frames
    session.close()


# Forks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12: a fork with threads
@pytest.mark.parametrize("use", ["close", "forget", "step", "next"])
def test_a_forked_child_neither_waits_for_a_session_nor_touches_it(small, use):
    pool = SessionPool()
    pool.open(small, OPTIONS)
    _, pooled = pool.next()
    session = EncodeSession(small, OPTIONS)
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(25)  # closing took 30 s
            if use == "close":
                session.close()
                pool.close()
            elif use == "forget":
                del session, pooled, pool
            else:
                with pytest.raises(EncoderError, match="another process"):
                    session.step(Decision(100)) if use == "step" else pooled.wait()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert time.monotonic() - begin < 20
    while session.state == State.FRAME:
        step(session)
    assert session.log().records["is_shown"].sum() == small.num_frames
    session.close()
    pool.close()


# The end of the interpreter

DAEMONS = """
    import sys, threading, time
    sys.path.insert(0, {tests!r})
    from conftest import make_video
    from vpxrc import Decision, EncoderOptions, EncodeSession, SessionPool, _native

    video = make_video(48, 32, 12)
    options = EncoderOptions(target_bitrate=60, cpu_used=4)
    begun = threading.Semaphore(0)

    def step():
        while True:
            with EncodeSession(video, options) as session:
                begun.release()
                while session.frame is not None:
                    session.step(Decision(q_index=120))

    def wait():
        pool = SessionPool()
        while True:
            number = pool.open(video, options, observe=True)
            begun.release()
            pool.next()
            pool.close_session(number)

    def measure():
        while True:
            begun.release()
            _native.ssim(video.frames, video.frames, video.width, video.height)

    threads = [threading.Thread(target=one, daemon=True) for one in ({targets})]
    for thread in threads:
        thread.start()
    for _ in range(8):
        begun.acquire()
    time.sleep({pause})
    print("the end")
    {end}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise KeyError('on purpose')"])
@pytest.mark.parametrize("targets", ["step, step, wait, wait", "measure, measure"])
def test_a_program_ends_while_daemon_threads_use_sessions(targets, end):
    for pause in (0.0, 0.011):
        program = textwrap.dedent(DAEMONS).format(
            tests=os.path.dirname(__file__), targets=targets, pause=pause, end=end
        )
        run = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
        )
        expected = 0 if not end else 3 if "3" in end else 1
        assert (run.returncode, run.stdout) == (expected, "the end\n"), run.stderr
        assert ("KeyError" in run.stderr) == ("KeyError" in end)


# Pools


def test_a_pool_drops_a_session_that_fails_and_goes_on(small):
    pool = SessionPool(timeout=PATIENCE)
    failing = pool.open(small, OPTIONS, script=[Decision(100)] * 3)
    with pytest.raises(EncoderError, match="script"):
        pool.next()
    assert failing not in pool and len(pool) == 0
    good = pool.open(small, OPTIONS, observe=True)
    begin = time.monotonic()
    assert pool.next()[0] == good
    with pytest.raises(EncoderError, match="no session of the pool is at work, 1 wait"):
        pool.next()
    pool.close_session(good)
    pool.close_session(good)
    with pytest.raises(EncoderError, match="no session of the pool is at work, 0 wait"):
        pool.next()
    assert time.monotonic() - begin < PATIENCE / 2


def test_a_pool_of_episodes_drops_one_that_fails(small):
    class Failing:
        plan_groups = False

        def options(self, options):
            return options

        def episode(self, session):
            raise PolicyError("on purpose")

    pool: EpisodePool[object] = EpisodePool(timeout=PATIENCE)
    pool.start(7, small, OPTIONS, Failing())  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="on purpose"):
        pool.next()
    assert 7 not in pool and len(pool) == 0
    with pytest.raises(EncoderError, match="no session of the pool is at work"):
        pool.next()
    assert soon(lambda: _native.num_running() == 0)


# Cycles


def test_sessions_in_reference_cycles_do_not_pile_up(small):
    gc.collect()
    gc.disable()  # Python sees a few small objects, too few for a collection of its own
    try:
        most = 0
        for _ in range(60):
            session = EncodeSession(small, OPTIONS)
            session.itself = session  # type: ignore[attr-defined]
            most = max(most, _native.num_running())
        assert most <= 17
        kept = [EncodeSession(small, OPTIONS) for _ in range(20)]
        assert sum(session.state == State.FRAME for session in kept) == 20
        for one in kept:
            one.close()
    finally:
        gc.enable()
        del session
        gc.collect()
    assert _native.num_running() == 0
