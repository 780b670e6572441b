"""Finished chunks, kept in the cache until the whole video is done."""

import dataclasses
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.cache import drop_entry, open_entry, write_entry
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import RECORD_DTYPE
from vpxrc.media.frames import ClipFormat, Video
from vpxrc.storage import cache_dir, digest


class Keeper:
    """Keeps the chunks of one encode.

    Args:
        video: The whole clip.
        recipe: All that a chunk depends on but the clip and the encoder's options: the policy, how
            it searches, and the code.
        reads: Whether chunks of an earlier encode are used; else they are only written.
    """

    def __init__(self, video: Video, recipe: str, reads: bool) -> None:
        self._content_hash = video.content_hash
        self._recipe = recipe
        self._reads = reads
        self._folder = cache_dir() / "chunks"
        self._kept: set[Path] = set()
        self._num_found = 0

    def find(self, start: int, stop: int, options: EncoderOptions) -> EncodeLog | None:
        """Return the encode of a part of the clip at these options; None without one.

        Args:
            start: The part's first frame in the clip.
            stop: The frame after its last one.
            options: The encoder's options with the part's own target.
        """
        path = self._path(start, stop, options)
        entry = open_entry(path, always=True) if self._reads else None
        if entry is None:
            return None
        with entry, suppress(ValueError, KeyError, TypeError, OSError):
            log = _load(entry.file.read(), entry.about)
            self._kept.add(path)
            self._num_found += 1
            return log
        return None

    def keep(self, start: int, stop: int, options: EncoderOptions, log: EncodeLog) -> None:
        """Write the encode of a part of the clip.

        Args:
            start: The part's first frame in the clip.
            stop: The frame after its last one.
            options: The encoder's options that were asked for.
            log: The encode.

        Raises:
            OutputError: The cache cannot be written.
        """
        path = self._path(start, stop, options)
        with write_entry(path) as (temporary, note):
            with open(temporary, "wb") as file:
                np.savez(file, allow_pickle=False, **_arrays(log))
            clip = dataclasses.asdict(log.clip)
            names = ("encode_seconds", "cpu_seconds", "encodes")
            note.about = {
                "clip": {**clip, "fps": str(log.clip.fps)},
                "options": dataclasses.asdict(log.options),
                **{name: getattr(log, name) for name in names},
            }
        self._kept.add(path)

    def finish(self) -> tuple[str, ...]:
        """Remove the chunks once the whole is written, and return a note on what was used."""
        for path in self._kept:
            drop_entry(path)
        used = f"{self._num_found} chunk(s) of an earlier encode were used"
        return (used,) if self._num_found else ()

    def _path(self, start: int, stop: int, options: EncoderOptions) -> Path:
        key = {
            "clip": self._content_hash,
            "frames": [start, stop],
            "options": dataclasses.asdict(options),
            "recipe": self._recipe,
        }
        return self._folder / f"{digest(key)}.npz"


def _arrays(log: EncodeLog) -> dict[str, NDArray[Any]]:
    return {
        "records": log.records,
        "first_pass": log.first_pass,
        "data": np.frombuffer(b"".join(data for data, _ in log.packets), np.uint8),
        "sizes": np.array([len(data) for data, _ in log.packets]),
        "times": np.array([pts for _, pts in log.packets]),
    }


def _load(data: bytes, about: dict[str, Any]) -> EncodeLog:
    """Return a log.

    Raises:
        ValueError: The data are another version's; so do KeyError and TypeError say.
    """
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        if arrays["records"].dtype != RECORD_DTYPE:
            raise ValueError("the records are another version's")
        ends = np.cumsum(arrays["sizes"]).tolist()
        stream = arrays["data"].tobytes()
        begins = [0, *ends[:-1]]
        packets = [
            (stream[begin:end], time)
            for begin, end, time in zip(begins, ends, arrays["times"].tolist(), strict=True)
        ]
        clip = about["clip"]
        return EncodeLog(
            clip=ClipFormat(**{**clip, "fps": Fraction(clip["fps"])}),
            options=EncoderOptions(**about["options"]),
            records=arrays["records"],
            packets=packets,
            first_pass=arrays["first_pass"],
            encode_seconds=about["encode_seconds"],
            cpu_seconds=about["cpu_seconds"],
            encodes=about["encodes"],
        )
