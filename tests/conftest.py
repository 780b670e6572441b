"""What several test files share."""

import gc
import importlib.util
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vpxrc import Video, _native, _native_high, video_from_frames
from vpxrc.media.frames import frame_bytes
from vpxrc.parallel import open_workers

SHARED_CLIPS = Path(__file__).parents[2] / "shared" / "clips"


def _held() -> dict[str, set[str]]:
    """Return what this process holds: threads that it would wait for, encoders, temporaries."""
    threads = {thread.name for thread in threading.enumerate() if not thread.daemon}
    running = _native.num_running() + _native_high.num_running()
    encoders = {f"encoder {number}" for number in range(running)}
    mine = Path(tempfile.gettempdir()).glob(f"vpxrc-{os.getpid()}-*")
    return {"threads": threads, "encoders": encoders, "temporary": {path.name for path in mine}}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Every test gives back what it takes; what fixtures of a module hold is there before it."""
    before = _held()
    yield
    end = time.monotonic() + 10
    while True:
        left = {name: sorted(now - before[name]) for name, now in _held().items()}
        if not any(left.values()):
            return
        if time.monotonic() > end:
            pytest.fail(f"the test leaves {left}")
        gc.collect()  # sessions in the cycles of a traceback
        time.sleep(0.05)


def make_video(width=64, height=48, num_frames=20, seed=0, name="made") -> Video:
    """A drifting texture with noise and a scene cut: small, but not trivial to code."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(40, 200, (2, height + num_frames, width + num_frames), dtype=np.uint8)
    frames = np.empty((num_frames, frame_bytes(width, height)), np.uint8)
    chroma = frame_bytes(width, height) - width * height
    for n in range(num_frames):
        luma = texture[int(n >= num_frames * 2 // 3), n : n + height, n : n + width]
        noise = rng.integers(0, 6, (height, width), dtype=np.uint8)
        frames[n, : width * height] = (luma + noise).ravel()
        frames[n, width * height :] = 128 + (np.arange(chroma) + n) % 16
    return video_from_frames(frames, width, height, 30, name=name)


@pytest.fixture(scope="session")
def video() -> Video:
    return make_video()


@contextmanager
def in_this_process(count, ray=None):
    """Workers that are none: for tests of what comes of jobs, not of the processes.

    A process starts in a second or more, which is longer than most jobs of the tests take.
    """

    class Here:
        def unordered(self, function, jobs):
            for job in jobs:
                yield job, function(job)

    yield Here()


def skip_without_ray():
    """Not ``importorskip``: that would import Ray before it is told to stay on loopback."""
    ray = importlib.util.find_spec("ray")
    if ray is None or ray.origin is None:  # a folder of that name is no Ray
        pytest.skip("Ray is not installed: pip install 'vpxrc[ray]'")


@pytest.fixture(scope="session")
def local_ray():
    """The one Ray of the session; whatever asks for one meanwhile gets it."""
    skip_without_ray()
    with pytest.MonkeyPatch.context() as patch:
        # Else Ray makes a token in the home folder.
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where Ray's workers find the tests
        # Else Ray's workers wait for whatever else the machine does, the other tests to begin with.
        patch.setenv("RAY_worker_niceness", "0")
        with open_workers(2, "local") as workers:
            yield workers
