"""The cache folder, temporary files, atomic writes and checksums.

Temporary files and folders have the process that made them in their names. What a killed process
leaves is removed by the next one that works in the same folder.
"""

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vpxrc.errors import InputError, OutputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def cache_dir() -> Path:
    """Return the folder for everything that can be made again.

    It is ``$VPXRC_CACHE``, else ``$XDG_CACHE_HOME/vpxrc``, else ``~/.cache/vpxrc``: the rule that
    the build follows for libvpx's sources too. The folder may not exist yet.

    Raises:
        InputError: The user has no home folder.
    """
    if folder := os.environ.get("VPXRC_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "vpxrc"
    try:
        return Path.home() / ".cache" / "vpxrc"
    except RuntimeError:
        raise InputError(
            "this user has no home folder for the cache: set VPXRC_CACHE to a folder"
        ) from None


# Seconds after which temporary files are stale whose process cannot be looked for, because it ran
# elsewhere.
FOREIGN_AGE = 7 * 86400
_TEMPORARY = re.compile(r"\.?vpxrc-(\d+)-(\d+)-([0-9a-f]{8})-[0-9a-f]{12}(\.tmp)?")
_swept: set[Path] = set()


def _start_time(pid: int) -> str:
    """Return when a process began, in ticks since the machine did.

    Raises:
        OSError: There is no such process.
    """
    # proc_pid_stat(5): field 22, counted behind the command's name, which may have spaces.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


@functools.cache
def _process_space() -> str:
    """Return what numbers of processes are unique in: a machine, or a container on it."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # no /proc here
        space = uuid.uuid4().hex
    return hashlib.sha256(f"{os.uname().nodename} {space}".encode()).hexdigest()[:8]


def _temporary_name() -> str:
    """Return a new name that says which process made it."""
    pid = os.getpid()
    try:
        start = _start_time(pid)
    except OSError:  # no /proc here
        start = "0"
    return f"vpxrc-{pid}-{start}-{_process_space()}-{uuid.uuid4().hex[:12]}"


def _is_stale(path: Path) -> bool:
    """Whether a path is a temporary file or folder whose process is gone."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    pid, start, space = int(match[1]), match[2], match[3]
    try:
        if space != _process_space():
            return time.time() - path.lstat().st_mtime > FOREIGN_AGE
        _start_time(os.getpid())  # where it cannot be had, no process can be said to be dead
    except OSError:
        return False
    try:
        return _start_time(pid) != start
    except OSError:
        return True


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes have left in a folder.

    The folder is looked through once in this process. What cannot be removed stays.
    """
    if folder in _swept:
        return
    _swept.add(folder)
    with suppress(OSError):
        for path in folder.iterdir():
            if not _is_stale(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder for intermediate files, which is removed at the end of the block.

    Raises:
        OutputError: It cannot be made.
    """
    home = Path(tempfile.gettempdir())
    sweep(home)
    folder = home / _temporary_name()
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OutputError(f"cannot write to {home}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk.

    Raises:
        OSError: They cannot be brought there.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block succeeds.

    A reader sees the old file or the whole new one, never a part, after a loss of power too. When
    the block fails the temporary file is removed and ``path`` is untouched. Missing parent folders
    are made.

    Args:
        path: The file to write.

    Yields:
        Where to write; the name has no suffix of ``path``.

    Raises:
        OutputError: An ``OSError`` came up (read-only folder, disk full, ...).
    """
    path = Path(path)
    temporary = path.with_name(f".{_temporary_name()}.tmp")
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        yield temporary
        if not temporary.is_symlink():
            sync(temporary)
        temporary.replace(path)
        sync(path.parent)
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


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says, as ``json.loads`` does.

    Raises:
        ValueError: It is no JSON, or is nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_table(path: str | Path, columns: list[str] | None = None) -> "pa.Table":
    """Return a parquet file's columns, all of them by default.

    It starts no threads: where there are none to be had Arrow's own reader waits for ever.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no parquet file.
    """
    import pyarrow.parquet as pq  # loaded where it is needed: `import vpxrc` stays quick

    with pq.ParquetFile(path, pre_buffer=False) as file:
        return file.read(columns, use_threads=False)


def read_frame(path: str | Path) -> "pd.DataFrame":
    """Return a parquet file as a frame of pandas; see :func:`read_table`.

    What pandas has noted in the file about index and types is not read: where it is damaged, pandas
    raises errors of any kind.
    """
    frame: pd.DataFrame = read_table(path).replace_schema_metadata().to_pandas(use_threads=False)
    return frame


def write_frame(frame: "pd.DataFrame", target: "Path | BinaryIO") -> None:
    """Write a frame of pandas as a parquet file, without threads as in :func:`read_table`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pandas(frame, nthreads=1), target)


def digest(value: Any) -> str:
    """Return the SHA-256 in hexadecimal of anything that JSON takes; the order of keys is none."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def check_writable(folder: Path) -> None:
    """Make the folder where it is missing, before hours of work and not after.

    Raises:
        OutputError: Files cannot be made in it.
    """
    probe = folder / f".{_temporary_name()}.tmp"  # a name that is swept after a kill
    try:
        with atomic_write(probe) as temporary:
            temporary.touch()
    except OutputError as error:
        cause = error.__cause__
        words = cause.strerror if isinstance(cause, OSError) else None
        raise OutputError(f"cannot write to {folder}: {words or cause}") from cause
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
