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
            help="A video file, a folder, a catalogue or a set; or what `vpxrc teach` wrote: a "
            "lesson's .json, a .parquet file of lessons or, with --clips, the whole folder.",
        ),
    ],
    clips: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH_OR_SET",
            help="CLIP is a lesson, or a folder of them, and its video is one of these; "
            "repeatable. By default the video is where it was.",
        ),
    ] = None,
    cpu_used: Annotated[str, typer.Option(help="Speeds, e.g. 1,2,4.")] = "1,2,4",
    auto_alt_ref: Annotated[str, typer.Option(help="Layers of ARFs, e.g. 1,6.")] = "1,6",
    bitrate: Annotated[
        int | None, typer.Option(help="Target in kbit/s; by default it follows the clip's size.")
    ] = None,
    oracle: Annotated[
        Path | None, typer.Option(help="Another vpxenc 1.17.0 than the one built for tests.")
    ] = None,
) -> None:
    """Check on a clip that the hook changes nothing and replays exactly; exit code 1 if not.

    A lesson is checked by coding its trajectory again, to the same bits and errors in every frame.

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
