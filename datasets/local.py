"""Clips that are on this machine already, found by their checksums under whatever name."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from vpxrc.errors import InputError, OutputError
from vpxrc.storage import atomic_write, cache_dir, parse_json, sha256_file

CLIPS_VARIABLE = "VPXRC_CLIPS"  # environment variable: a folder that has clips of the sets


def find_files(wanted: Iterable[tuple[int, str]]) -> dict[str, Path]:
    """Look for files in the folder that ``$VPXRC_CLIPS`` names, then among the cache's downloads.

    Only files of a wanted size are read. Their checksums are remembered in the cache for as long
    as path, size and time of change stay the same.

    Args:
        wanted: Size in bytes and SHA-256 in hexadecimal of each file.

    Returns:
        A path by SHA-256, for those that are there.

    Raises:
        InputError: The environment variable does not name a folder.
    """
    wanted = set(wanted)
    sizes = {size for size, _ in wanted}
    hashes = {sha256 for _, sha256 in wanted}
    known = _Checksums(cache_dir() / "checksums.json")
    found: dict[str, Path] = {}
    for path in _candidates():
        if len(found) == len(hashes):
            break
        try:
            status = path.stat()
            if status.st_size not in sizes:
                continue
            sha256 = known.of(path, status)
        except (OSError, InputError):  # gone, or not to be read
            continue
        if sha256 in hashes:
            found.setdefault(sha256, path)
    known.save()
    return found


def _candidates() -> Iterator[Path]:
    """Yield the files to look at, in an order that is always the same."""
    folders = [cache_dir() / "downloads"]
    if given := os.environ.get(CLIPS_VARIABLE):
        folder = Path(given).absolute()
        if not folder.is_dir():
            raise InputError(f"{CLIPS_VARIABLE}: {given} is not a folder")
        folders.insert(0, folder)
    for folder in folders:
        for home, below, names in os.walk(folder):
            below.sort()
            yield from (Path(home, name) for name in sorted(names))


class _Checksums:
    """SHA-256 of files, kept in a file of the cache, which is only there to save time."""

    def __init__(self, path: Path):
        self._path = path
        self._rows: dict[str, list[object]] = {}
        self._changed = False
        with suppress(OSError, ValueError):
            rows = parse_json(path.read_text())
            if isinstance(rows, dict):
                self._rows = rows

    def of(self, path: Path, status: os.stat_result) -> str:
        """Return a file's checksum, from the rows where nothing has changed since."""
        facts = [status.st_size, status.st_mtime_ns]
        row = self._rows.get(str(path))
        if isinstance(row, list) and row[:2] == facts and isinstance(row[-1], str):
            return row[-1]
        sha256 = sha256_file(path)
        self._rows[str(path)] = [*facts, sha256]
        self._changed = True
        return sha256

    def save(self) -> None:
        """Write the rows where there are new ones, without those of files that are gone."""
        if self._changed:
            rows = {path: row for path, row in self._rows.items() if os.path.exists(path)}
            # A cache that cannot be written costs time only.
            with suppress(OutputError), atomic_write(self._path) as temporary:
                temporary.write_text(json.dumps(rows))
