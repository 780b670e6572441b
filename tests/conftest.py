"""What several test files share."""

import gc
import importlib.util
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio_ffmpeg
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


# Black and silent, then white and loud: what must stay together.
FLASH = "color=black:s=96x80:r=30:d=2,drawbox=color=white:t=fill:enable='gte(t,1)'"
BEEP = "aevalsrc='if(gte(t,1),0.5*sin(2000*t),0)':d=2:s=48000"


def ffmpeg(*arguments, check=True):
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert not check or (done.returncode == 0 and not done.stderr), done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Two seconds with a flash and a beep, H.264 and AAC."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", FLASH, "-f", "lavfi", "-i", BEEP, "-pix_fmt", "yuv420p", path)
    return path


@pytest.fixture(scope="session")
def scenes():
    """Four scenes of 20 frames."""
    parts = [make_video(num_frames=60, seed=seed).frames[:20] for seed in range(4)]
    return video_from_frames(np.concatenate(parts), 64, 48, 25, "scenes")


@pytest.fixture(scope="session")
def scenes_file(scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "scenes.mkv"
    raw = path.with_suffix(".yuv")
    scenes.frames.tofile(raw)
    geometry = ("-f", "rawvideo", "-video_size", "64x48", "-framerate", "25")
    sound = ("-f", "lavfi", "-i", "sine=d=3.2")
    ffmpeg(*geometry, "-i", raw, *sound, "-c:v", "ffv1", "-c:a", "libopus", path)
    return path


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
