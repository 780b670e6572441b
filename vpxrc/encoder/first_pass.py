"""libvpx's first pass: its statistics, kept in memory and in the cache."""

import dataclasses
import hashlib
import json
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vpxrc import _native, _native_high
from vpxrc.cache import check_not_cut, read_entry, write_entry
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import FIRST_PASS_FIELDS
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.frames import Samples, Video
from vpxrc.storage import atomic_write, cache_dir


def library(video: Video) -> ModuleType:
    """Return the extension with the libvpx for the bit depth of a clip."""
    return _native if video.bit_depth == 8 else _native_high


def geometry(video: Video) -> tuple[Samples, int, int, int, int]:
    """Return frames, width, height and frame rate as the extension takes them."""
    fps = video.fps
    return video.frames, video.width, video.height, fps.numerator, fps.denominator


# Options of the second pass alone: they do not change the first pass's statistics.
_SECOND_PASS_ONLY = EncoderOptions()


class FirstPassMemory:
    """First-pass statistics by key; those asked for longest ago are forgotten first.

    Args:
        most_bytes: Of all statistics together; the last ones are kept however large they are.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._stats: dict[str, bytes] = {}  # those asked for last are at the end
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """Return the statistics of a key, where they are still known."""
        with self._lock:
            stats = self._stats.pop(key, None)
            if stats is not None:
                self._stats[key] = stats
            return stats

    def put(self, key: str, stats: bytes) -> None:
        """Take the statistics of a key in place of those before."""
        with self._lock:
            self._stats.pop(key, None)
            self._stats[key] = stats
            total = sum(map(len, self._stats.values()))
            while total > self._most_bytes and len(self._stats) > 1:
                total -= len(self._stats.pop(next(iter(self._stats))))


_first_pass_memory = FirstPassMemory(64 * 2**20)  # some 300,000 frames


def _first_pass_options(options: EncoderOptions) -> EncoderOptions:
    return dataclasses.replace(
        _SECOND_PASS_ONLY,
        cpu_used=options.cpu_used,
        lag_in_frames=options.lag_in_frames,
        key_frame_max_distance=options.key_frame_max_distance,
    )


def first_pass_key(video: Video, options: EncoderOptions) -> str:
    """Return a hexadecimal key of all that first-pass statistics depend on."""
    asked = dataclasses.asdict(_first_pass_options(options))
    parts = [_native.LIBVPX_SHA256, video.content_hash, asked]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def keep_first_pass(key: str, stats: bytes) -> None:
    """Take statistics for :func:`first_pass_stats` of the clip and options with that key."""
    _first_pass_memory.put(key, stats)


def first_pass_stats(video: Video, options: EncoderOptions) -> bytes:
    """Return libvpx's first-pass statistics of a clip, as its opaque blob.

    They depend on the clip and a few options only, so they are kept in memory and in the cache.

    Raises:
        EncoderError: libvpx failed.
    """
    options = _first_pass_options(options)
    key = first_pass_key(video, options)
    stats = _first_pass_memory.get(key)
    if stats is None:
        path = cache_dir() / "first_pass" / f"{key}.bin"
        stats = read_entry(path)
        if stats is None:
            try:
                stats = library(video).run_first_pass(*geometry(video), options)
            except RuntimeError as error:
                raise EncoderError(f"{video.name}: first pass: {error}") from error
            check_not_cut(video.frames, video.name)
            with write_entry(path) as (temporary, _):
                temporary.write_bytes(stats)
        _first_pass_memory.put(key, stats)
    return stats


_LOG_MAGIC = b"vpxrc first pass 1\n"


def first_pass_table(stats: bytes) -> NDArray[np.float64]:
    """Return first-pass statistics as numbers, ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``).

    Args:
        stats: What :func:`first_pass_stats` returned: libvpx's structures, one per frame and one
            for the whole.
    """
    rows = np.frombuffer(stats).reshape(-1, len(FIRST_PASS_FIELDS) + 1)
    return rows[:-1, : len(FIRST_PASS_FIELDS)]


def use_first_pass_file(path: Path, video: Video, options: EncoderOptions) -> bool:
    """Take libvpx's first-pass statistics from a file, or write them where there is none.

    Returns:
        Whether the file was there.

    Raises:
        InputError: The file is not such a file, or of another clip, libvpx or other options.
        OutputError: It cannot be written.
    """
    key = first_pass_key(video, options)
    head = _LOG_MAGIC + key.encode() + b"\n"
    if not path.exists():
        stats = first_pass_stats(video, options)
        with atomic_write(path) as temporary:
            temporary.write_bytes(head + stats)
        return False
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if not data.startswith(_LOG_MAGIC):
        raise InputError(f"{path}: not a file that --two-pass-log wrote")
    if not data.startswith(head):
        raise InputError(f"{path}: of another clip, other options or another libvpx")
    stats = data[len(head) :]
    if len(stats) != (video.num_frames + 1) * 8 * (len(FIRST_PASS_FIELDS) + 1):
        raise InputError(f"{path}: not whole")
    keep_first_pass(key, stats)
    return True
