"""The command ``teach``: trajectories for agents to learn from."""

import json
import shlex
from pathlib import Path
from typing import Annotated, cast

import typer

from vpxrc.agents.teacher.curve import Quality
from vpxrc.agents.teacher.directions import Direction
from vpxrc.agents.teacher.lessons import bounds, pack, searches
from vpxrc.agents.teacher.search import SearchOptions, check_start
from vpxrc.agents.teacher.teaching import teach as run_searches
from vpxrc.cli.common import CORES, CpuUsed, Jobs, Json, gather_clips, numbers, watched
from vpxrc.encoder.options import EncoderOptions
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write

START = "imitation-prior"
ROUND = "lessons.parquet"
QUALITY = SearchOptions().quality

PerClip = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Search each clip at N of the targets, which the clips take in turn.",
    ),
]
Pixels = Annotated[
    int | None,
    typer.Option(metavar="P", min=1, help="Scale larger clips down to about P luma pixels."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Search on a Ray cluster, --jobs tasks at once: local (started here), auto (running "
        "here), HOST:PORT or ray://HOST:PORT. Its machines need vpxrc, and the clips and the "
        "folder under the same paths.",
    ),
]


def teach(
    clips: Annotated[
        list[str],
        typer.Argument(metavar="CLIPS", help="Sets, video files, folders or catalogues."),
    ],
    bitrates: Annotated[str, typer.Option(metavar="A,B,...", help="Target bitrates in kbit/s.")],
    out: Annotated[
        Path, typer.Option(help="Folder for the lessons. Searches that it has are not run again.")
    ],
    per_clip: PerClip = None,
    pixels: Pixels = None,
    start: Annotated[
        str, typer.Option(metavar="SPEC", help="The policy that the searches start from.")
    ] = START,
    quality: Annotated[
        Quality,
        typer.Option(
            help="The quality that a search holds while it saves bits; balanced is the mean of "
            "the bits saved in the four others."
        ),
    ] = QUALITY,
    directions: Annotated[
        str,
        typer.Option(
            metavar="A,B,...", help="The groups of decisions that a search varies, in this order."
        ),
    ] = ",".join(SearchOptions().directions),
    cpu_used: CpuUsed = 2,
    jobs: Jobs = CORES,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Search for the best decisions of clips: lessons for agents.

    There is a search for every clip and target. At the end bounds.md in the folder shows the bits
    that each search saved against libvpx-vbr, a bound for agents, and lessons.parquet has all of
    these lessons in one file, which `vpxrc train` and `vpxrc verify` read like the folder. A
    command that was interrupted or killed continues where it was when it is run again.

    \b
    Examples:
      vpxrc teach samples --bitrates 64,128 --out lessons
      vpxrc teach train/ --bitrates 40,60,85,120 --per-clip 1 --pixels 36864 --out lessons
      vpxrc teach train/ --bitrates 64 --start dependency --quality psnr_overall --out bounds
    """  # noqa: D301 - typer wants the \b as it is
    searching = SearchOptions(quality, cast(tuple[Direction, ...], tuple(directions.split(","))))
    check_start(make_policy(start))
    work = searches(
        gather_clips(clips, as_json)[0],
        numbers("bitrates", bitrates),
        EncoderOptions(cpu_used=cpu_used),
        out.absolute(),
        start=start,
        search_options=searching,
        per_clip=per_clip,
    )
    with watched(hidden=as_json) as progress:
        found = run_searches(work, pixels=pixels, jobs=jobs, ray=ray, progress=progress)
    pack(out / ROUND, sorted(found, key=lambda result: result["path"]))
    command = _command(
        clips,
        {
            "bitrates": bitrates,
            "per-clip": per_clip,
            "pixels": pixels,
            "start": start,
            "quality": quality,
            "directions": directions,
            "cpu-used": cpu_used,
            "out": out,
        },
    )
    # This draws: it takes as long to import as all else together.
    from vpxrc.reports.bounds import bounds_figures, bounds_page

    table = bounds(found)
    text = bounds_page(table, start, cpu_used, command)
    with atomic_write(out / "bounds.md") as temporary:
        temporary.write_text(text)
    print(json.dumps(bounds_figures(table, command)) if as_json else text.rstrip("\n"))


def _command(clips: list[str], options: dict[str, object]) -> str:
    """Return a command line that has the same results, with every option that they depend on."""
    words = ["vpxrc", "teach", *clips]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", f"{value}"]
    return shlex.join(words)
