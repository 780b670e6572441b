"""The cache folder, atomic writes and checksums."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vpxrc.errors import InputError, OutputError


def cache_dir() -> Path:
    """Return the folder for everything that can be made again.

    It is ``$VPXRC_CACHE``, else ``$XDG_CACHE_HOME/vpxrc``, else ``~/.cache/vpxrc``: the rule that
    the build follows for libvpx's sources too. The folder may not exist yet.
    """
    if folder := os.environ.get("VPXRC_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "vpxrc"
    return Path.home() / ".cache" / "vpxrc"


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block succeeds.

    A reader sees the old file or the whole new one, never a part. When the block fails the
    temporary file is removed and ``path`` is untouched. Missing parent folders are made.

    Args:
        path: The file to write.

    Yields:
        Where to write; the name has no suffix of ``path``.

    Raises:
        OutputError: An ``OSError`` came up (read-only folder, disk full, ...).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # Nothing is left after a success; where nothing could be written nothing can be removed.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def digest(value: Any) -> str:
    """Return the SHA-256 in hexadecimal of anything that JSON takes; the order of keys is none."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_writable(folder: Path) -> None:
    """Make the folder where it is missing, before hours of work and not after.

    Raises:
        OutputError: Files cannot be made in it.
    """
    probe = folder / f".writable.{os.getpid()}"
    with atomic_write(probe) as temporary:
        temporary.touch()
    probe.unlink(missing_ok=True)
