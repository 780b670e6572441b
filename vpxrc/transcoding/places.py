"""Where a video comes from and where it goes, checked before the work."""

import os
import shutil
import stat
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from vpxrc.errors import InputError, OutputError
from vpxrc.storage import check_writable

STANDARD_INPUT = "-"


def check_output(output: Path, *sources: Path) -> None:
    """Refuse a place that cannot be written, and one at which a source would be lost.

    Args:
        output: The file that will be written; missing folders above it are made.
        sources: Files that are read; ``-`` is standard input.

    Raises:
        InputError: The output is one of the sources.
        OutputError: It cannot be written.
    """
    for source in sources:
        with suppress(OSError):
            if output.absolute() == source.absolute() or _is_file_of(output, source):
                raise InputError(f"{output}: it would replace {source}")
    try:
        if output.is_dir():
            raise OutputError(f"cannot write {output}: a folder")
        with suppress(FileNotFoundError):
            mode = output.lstat().st_mode  # also finds a name that is too long
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise OutputError(f"cannot write {output}: no file")
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    check_writable(output.parent)


def _is_file_of(output: Path, source: Path) -> bool:
    """Whether two names are the same file; standard input may be one, too.

    Raises:
        OSError: One of them does not exist.
    """
    if str(source) == STANDARD_INPUT:
        return os.path.samestat(output.stat(), os.fstat(0))
    return output.samefile(source)


def spool(source: Path, folder: Path) -> Path:
    """Return a file with all that comes out of a pipe; what is no pipe is returned as it is.

    Args:
        source: A pipe, such as ``/dev/stdin`` may be one; ``-`` is standard input.
        folder: Where the file goes.

    Raises:
        InputError: Nothing comes out of it.
        OutputError: The folder is full.
    """
    is_standard = str(source) == STANDARD_INPUT
    if not is_standard and not source.is_fifo() and not source.is_socket():
        return source
    made = folder / "stdin"
    try:
        with ExitStack() as opened:
            pipe = sys.stdin.buffer if is_standard else opened.enter_context(open(source, "rb"))
            shutil.copyfileobj(pipe, opened.enter_context(open(made, "wb")))
    except OSError as error:
        raise OutputError(f"cannot copy {source} to {folder}: {error.strerror or error}") from error
    if made.stat().st_size == 0:  # told here, where the pipe's name is known
        raise InputError(f"{source}: nothing came out of it")
    return made
