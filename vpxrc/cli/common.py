"""Options and helpers that the commands share."""

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vpxrc.errors import InputError

DEFAULT_POLICY = "imitation"  # one encode, and it meets the bitrate; the README has its figures

CORES = len(os.sched_getaffinity(0))

CpuUsed = Annotated[int, typer.Option(help="libvpx's speed, 0 (slowest) to 8.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and no progress.")]
Jobs = Annotated[int, typer.Option(help="Encodes at the same time.")]


def numbers(name: str, text: str) -> list[int]:
    """Return the integers of a comma-separated list.

    Raises:
        InputError: One of them is not an integer; ``name`` is the option's.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--{name} takes integers with commas between, not {text!r}") from None


def progress_bar(hidden: bool) -> Progress:
    """Return a progress bar on stderr, shown only where that is a terminal."""
    console = Console(stderr=True)
    return Progress(
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        disable=hidden or not console.is_terminal,
        transient=True,
    )
