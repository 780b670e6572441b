"""The command ``verify``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from vpxrc.agents.teacher.lessons import replay, results
from vpxrc.cli.common import gather_clips, numbers
from vpxrc.evaluation import verify as verification
from vpxrc.evaluation.verify import Check

LESSONS = (".json", ".parquet")


def verify(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP",
            help="A video file, a folder, a catalogue or a set. Or the lessons of `vpxrc teach`: "
            "the .json of one, the .parquet file of many or, with --clips, their folder.",
        ),
    ],
    clips: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH_OR_SET",
            help="Where to look for the videos of lessons; repeatable. By default, where they were "
            "when they were searched.",
        ),
    ] = None,
    cpu_used: Annotated[str, typer.Option(help="Speed settings of libvpx to check.")] = "1,2,4",
    auto_alt_ref: Annotated[
        str, typer.Option(help="Numbers of layers of alternate reference frames to check.")
    ] = "1,6",
    bitrate: Annotated[
        int | None,
        typer.Option(help="Target bitrate in kbit/s. By default it follows from the clip's size."),
    ] = None,
    oracle: Annotated[
        Path | None,
        typer.Option(
            help="A vpxenc 1.17.0 to compare with. By default, the one built for the tests."
        ),
    ] = None,
) -> None:
    """Check that encodes are exact: with the hook, and replayed.

    With the hook, libvpx gives the bytes that it gives without it. Decisions that are replayed give
    the same bytes again. A lesson is checked by encoding its trajectory again: every frame has the
    same bits and errors. The exit code is 1 if a check fails.

    \b
    Examples:
      vpxrc verify samples
      vpxrc verify holiday.mp4 --cpu-used 2 --auto-alt-ref 1
      vpxrc verify lessons --clips train/
    """  # noqa: D301 - typer wants the \b as it is
    if clips or clip.endswith(LESSONS):
        checks = _replays(Path(clip), clips)
    else:
        speeds, layers = numbers("cpu-used", cpu_used), numbers("auto-alt-ref", auto_alt_ref)
        checks = (
            check
            for one in gather_clips(clip, hidden=False)[0]
            for check in verification.verify(one.open(), speeds, layers, bitrate, oracle)
        )
    failed = 0
    for check in checks:
        failed += not check.passed
        print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.figure}", flush=True)
    if failed:
        print(f"{failed} check(s) failed")
        raise typer.Exit(1)
    print("all checks passed")


def _replays(lessons: Path, clips: list[str] | None) -> Iterator[Check]:
    found = gather_clips(clips, hidden=False)[0] if clips else None
    for result in results(lessons):
        yield replay(result, found)
