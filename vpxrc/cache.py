"""Files of the cache, believed because they are checked.

Beside every file ``NAME`` is a note ``NAME.json`` with its length, its SHA-256 and the caller's
words on it. A file without a fitting note counts as absent, so the caller makes it again. Several
processes may use a cache at the same time.

A file without a note was left by a process that was killed between the two, or by an older version
of this package. It is removed once it is old.
"""

import fcntl
import hashlib
import json
import os
import re
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vpxrc import _native
from vpxrc.errors import InputError, OutputError
from vpxrc.storage import atomic_write, parse_json, sweep

SIZE_VARIABLE = "VPXRC_CACHE_SIZE"  # environment variable: the most bytes, as in ``5GB``
DEFAULT_SIZE = 5 * 10**9  # bytes
OLD = 3600  # seconds after which a file without a note is a leftover
_ENTRY = re.compile(r"[0-9a-f]{16,}(\..*)?")  # what the package calls its files here: by a digest
_searched: set[Path] = set()  # folders in which this process has looked for leftovers
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass
class Note:
    """What is written beside a file of the cache, and filled in by who makes the file.

    Attributes:
        about: The caller's words, of types that JSON has.
        prefix: Text that the checksum begins with, before the file's bytes.
        sha256: The checksum in hexadecimal, where the caller knows it; else it is computed.
    """

    about: dict[str, Any]
    prefix: str = ""
    sha256: str = ""


def cache_limit() -> int:
    """Return the most bytes that files of the cache may take.

    Raises:
        InputError: ``$VPXRC_CACHE_SIZE`` is no size.
    """
    text = os.environ.get(SIZE_VARIABLE, "").strip()
    if not text:
        return DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]B|)", text.upper())
    if match is None:
        raise InputError(f"{SIZE_VARIABLE}: {text!r} is not a size such as 5GB or 500MB")
    return round(float(match[1]) * _UNITS[match[2]])


@contextmanager
def write_entry(path: Path) -> Iterator[tuple[Path, Note]]:
    """Yield a temporary path and a note, which become a file of the cache when the block succeeds.

    Then files that were used longest ago are removed until the cache keeps its limit. Files that
    are in use stay, and so does this one.

    Raises:
        OutputError: It cannot be written.
        InputError: ``$VPXRC_CACHE_SIZE`` is no size.
    """
    limit = cache_limit()
    if path.parent not in _searched:
        _searched.add(path.parent)
        _remove_leftovers(path.parent)
    note = Note({})
    try:
        with atomic_write(path) as temporary:
            yield temporary, note
            with open(temporary, "rb") as file:
                sha256 = note.sha256 or _checksum(file, note.prefix)
                facts = _facts(file)
    except OutputError as error:
        raise OutputError(f"{error} (VPXRC_CACHE names another folder for the cache)") from error
    text = {
        "size": path.stat().st_size,
        "sha256": sha256,
        "prefix": note.prefix,
        "facts": facts,
        "about": note.about,
    }
    # The note comes last: where it is there, the file is there.
    with atomic_write(_note_path(path)) as temporary:
        temporary.write_text(json.dumps(text))
    _make_room(path.parent.parent, limit, path)


@dataclass(frozen=True)
class Entry:
    """A file of the cache that is open; a context manager, which closes it.

    The file is not removed while it, or a memory map of it, is open.

    Attributes:
        file: The file, at its beginning.
        about: The words of who made it.
    """

    file: BufferedReader
    about: dict[str, Any]

    def __enter__(self) -> Self:
        """Return the entry."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file."""
        self.file.close()


def open_entry(path: Path, *, always: bool = False) -> Entry | None:
    """Return a file of the cache, or None where it is absent or damaged.

    Args:
        path: The file.
        always: Whether its bytes are compared with their checksum in any case. Else they are when
            anything has touched the file since the last comparison.
    """
    sweep(path.parent)
    note_path = _note_path(path)
    try:
        note = parse_json(note_path.read_text())
        # By a string: numpy keeps the name of what it maps only then.
        file = open(str(path), "rb")  # noqa: SIM115 - the entry closes it
    except (OSError, ValueError):
        return None
    try:
        _lock(file)
        if _is_whole(file, note, note_path, always):
            with suppress(OSError):
                os.utime(note_path)  # the time of last use
            return Entry(file, note["about"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    file.close()
    return None


def has_entry(path: Path) -> bool:
    """Return whether the cache has a file, and it is not damaged."""
    entry = open_entry(path)
    if entry is None:
        return False
    entry.file.close()
    return True


def read_entry(path: Path) -> bytes | None:
    """Return the bytes of a file of the cache; None where it is absent or damaged."""
    entry = open_entry(path, always=True)
    if entry is None:
        return None
    with entry:
        return entry.file.read()


def drop_entry(path: Path) -> None:
    """Remove a file of the cache unless it is in use."""
    _remove(path)


@dataclass(frozen=True)
class Content:
    """The files of one kind in the cache.

    Attributes:
        kind: The name of their folder.
        num_files: Their number, notes left out.
        num_bytes: What they take.
        can_be_made: Whether they count for the limit and can be made again without a download.
    """

    kind: str
    num_files: int
    num_bytes: int
    can_be_made: bool


def cache_contents(cache: Path) -> list[Content]:
    """Return what is in the cache, a row for each kind."""
    found = []
    folders = sorted(cache.iterdir()) if cache.is_dir() else []
    for folder in folders:
        sizes, noted = [], 0
        for path in folder.rglob("*") if folder.is_dir() else [folder]:
            with suppress(OSError):
                if path.is_file() and not _is_note(path):
                    sizes.append(path.stat().st_size)
                    noted += _note_path(path).exists()
        found.append(Content(folder.name, len(sizes), sum(sizes), bool(noted)))
    return found


def clear_cache(cache: Path) -> int:
    """Remove the files that can be made again, except those in use, and return their bytes."""
    freed = sum(map(_remove_leftovers, cache.iterdir())) if cache.is_dir() else 0
    for note in sorted(cache.glob("*/*.json")):
        path = note.with_suffix("")
        if _is_note(note) and path.is_file():
            size = path.stat().st_size
            freed += size if _remove(path) else 0
    return freed


def map_file(file: BufferedReader, shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """Return a file as an array, a memory map that survives when another program cuts the file.

    What has been cut off reads as zeros; :func:`check_not_cut` tells it.

    Args:
        file: The file.
        shape: The array's shape; by default all bytes, ``[size]``.

    Returns:
        uint8, read-only.

    Raises:
        OSError: The file cannot be mapped.
        ValueError: It is empty, or shorter than the shape.
    """
    data = np.memmap(file, np.uint8, mode="r", shape=shape)
    try:
        number = _native.watch_map(data, file.fileno())
    except RuntimeError as error:  # no descriptors are left
        raise OSError(str(error)) from error
    # The array outlives all views of it, and comes to its end before its map does.
    weakref.finalize(data, _native.forget_map, number).atexit = False
    return data


def check_not_cut(data: NDArray[Any], name: str) -> None:
    """Refuse results that come from a file which another program has cut meanwhile.

    Args:
        data: What :func:`map_file` returned, a view of it, or any other array.
        name: What the message calls it.

    Raises:
        InputError: The file is shorter than it was.
    """
    if _native.is_cut(data):
        raise InputError(
            f"{name}: another program has cut its file in the cache; "
            "the same command makes it again"
        )


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _lock(file: BufferedReader) -> None:
    """Keep others from removing the file as long as it is open."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_SH)


def _facts(file: BufferedReader) -> list[int]:
    """Return what changes when anything writes to the file."""
    status = os.fstat(file.fileno())
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _checksum(file: BufferedReader, prefix: str) -> str:
    file.seek(0)
    digest = hashlib.file_digest(file, lambda: hashlib.sha256(prefix.encode()))
    file.seek(0)
    return digest.hexdigest()


def _is_whole(file: BufferedReader, note: dict[str, Any], note_path: Path, always: bool) -> bool:
    facts = _facts(file)
    if os.fstat(file.fileno()).st_nlink == 0 or facts[1] != note["size"]:
        return False
    if facts == note["facts"] and not always:
        return True
    if _checksum(file, note["prefix"]) != note["sha256"]:
        return False
    if facts != note["facts"]:  # a cache that was copied is compared once
        with suppress(OutputError), atomic_write(note_path) as temporary:
            temporary.write_text(json.dumps({**note, "facts": facts}))
    return True


def _make_room(cache: Path, limit: int, kept: Path) -> None:
    """Remove what was used longest ago until all files take ``limit`` bytes at most."""
    found = []
    for note in cache.glob("*/*.json"):
        path = note.with_suffix("")
        with suppress(OSError):
            found.append((note.stat().st_mtime_ns, path.stat().st_size, path))
    if sum(size for _, size, _ in found) <= limit:
        return
    found = sorted(entry for entry in found if _is_note(_note_path(entry[-1])))
    total = sum(size for _, size, _ in found)
    for _, size, path in found:
        if total <= limit:
            return
        if path != kept and _remove(path):
            total -= size


def _remove_leftovers(folder: Path) -> int:
    """Remove old files without a note where other files have one, and return their bytes."""
    if not any(map(_is_note, folder.glob("*.json"))):
        return 0
    freed = 0
    names = {path.name for path in folder.iterdir()}
    for name in names:
        is_kept = f"{name}.json" in names or name.removesuffix(".json") in names - {name}
        if is_kept or _ENTRY.fullmatch(name) is None:
            continue
        with suppress(OSError):
            status = (folder / name).stat()
            if time.time() - status.st_mtime > OLD and _remove(folder / name):
                freed += status.st_size
    return freed


def _is_note(path: Path) -> bool:
    """Whether a file is a note of this module, and no other file that ends in .json."""
    try:
        note = parse_json(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(note, dict) and {"sha256", "facts", "prefix"} <= note.keys()


def _remove(path: Path) -> bool:
    """Remove a file of the cache and its note unless it is in use."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _note_path(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
