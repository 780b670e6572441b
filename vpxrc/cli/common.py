"""Options and helpers that the commands share."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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

from vpxrc.agents.progress import Progress as Callback
from vpxrc.agents.scalars import open_board
from vpxrc.datasets import CLIPS_VARIABLE, Clip, load_clips
from vpxrc.errors import InputError, MissingDependencyError
from vpxrc.policies.region import DEFAULT_WEIGHT

DEFAULT_POLICY = "constant-quality"  # one encode, and it meets the bitrate

CORES = len(os.sched_getaffinity(0))

CpuUsed = Annotated[
    int, typer.Option(help="Speed setting of libvpx, from 0 (slowest, best) to 8 (fastest).")
]
EncoderSpec = Annotated[
    str,
    typer.Option(
        "--encoder",
        metavar="SPEC",
        help="vp9; or learned:CODEC, a codec of the zoo or a checkpoint, which codes picture by "
        "picture.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and show no progress.")]
RoiWeight = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="How much more an error inside --roi counts, above 1 and at most 64; by default "
        f"{DEFAULT_WEIGHT:g}.",
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="Number of encodes that run at the same time.")]


def numbers(name: str, text: str) -> list[int]:
    """Return the integers of a comma-separated list.

    Raises:
        InputError: One of them is not an integer; ``name`` is the option's.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--{name} takes integers with commas between, not {text!r}") from None


def gather_clips(spec: str | Sequence[str], hidden: bool) -> tuple[list[Clip], list[str]]:
    """Return the clips that can be had of those asked for, each with a source.

    Those of a set that are not on this machine are made from their originals. Where some cannot
    be, one line on stderr names them, so that nobody takes the rest for the whole.

    Args:
        spec: As :func:`vpxrc.datasets.load_clips` takes it.
        hidden: Show no progress.

    Returns:
        The clips, and the names of those left out.

    Raises:
        InputError: The clips cannot be used, or none is left.
    """
    clips = load_clips(spec)
    ready: list[Clip] = []
    failed: dict[str, str] = {}
    all_here = all(clip.source is not None for clip in clips)
    with progress_bar(hidden or all_here) as bar:
        task = bar.add_task("", total=len(clips))
        for clip in clips:
            bar.update(task, description=f"getting {clip.name}")
            try:
                ready.append(clip.obtain())
            except (InputError, MissingDependencyError) as error:
                failed[clip.name] = str(error)
            bar.update(task, advance=1)
    if failed:
        asked = spec if isinstance(spec, str) else ", ".join(spec)
        words = (
            f"{asked}: {len(failed)} of {len(clips)} clips cannot be had: {', '.join(failed)}; put "
            f"the files into a folder named by {CLIPS_VARIABLE} (of the first: "
            f"{next(iter(failed.values()))})"
        )
        if not ready:
            raise InputError(words)
        typer.echo(words, err=True)
    return ready, list(failed)


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


@contextmanager
def watched(hidden: bool, tensorboard: Path | None = None) -> Iterator[Callback]:
    """Yield a callback that moves a progress bar and writes figures for TensorBoard.

    Args:
        hidden: Whether to show no bar.
        tensorboard: The folder for the figures; None for nowhere.
    """
    with progress_bar(hidden) as bar, open_board(tensorboard) as write:
        task = bar.add_task("starting", total=None)

        def progress(
            done: int, total: int | None, words: str, figures: Mapping[str, float] | None
        ) -> None:
            bar.update(task, completed=done, total=total, description=words)
            if figures is not None:
                write(figures, done)

        yield progress
