"""The command ``teach``: trajectories for agents to learn from."""

import dataclasses
import json
import math
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import pandas as pd
import typer

from vpxrc import _native
from vpxrc.agents.teacher.curve import Quality
from vpxrc.agents.teacher.directions import Direction
from vpxrc.agents.teacher.lessons import bounds, learn, pack, results, scaled, searches
from vpxrc.agents.teacher.search import SearchOptions, check_start
from vpxrc.cli.common import CORES, CpuUsed, Json, gather_clips, numbers, progress_bar
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import OutputError
from vpxrc.parallel import open_workers
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write, check_writable

START = "imitation-prior"
ROUND = "lessons.parquet"

Jobs = Annotated[int, typer.Option(min=1, help="Encodes at the same time.")]


def teach(
    clips: Annotated[
        list[str],
        typer.Argument(metavar="CLIPS", help="Sets, video files, folders or catalogues."),
    ],
    bitrates: Annotated[str, typer.Option(metavar="A,B,...", help="Targets in kbit/s.")],
    out: Annotated[Path, typer.Option(help="Folder for the lessons; what is in it is kept.")],
    per_clip: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="So many of the targets per clip, by turns."),
    ] = None,
    pixels: Annotated[
        int | None,
        typer.Option(metavar="P", min=1, help="Scale larger clips to about so many luma pixels."),
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="SPEC", help="The policy that the searches start from.")
    ] = START,
    quality: Annotated[Quality, typer.Option(help="What is held equal.")] = "psnr",
    directions: Annotated[
        str, typer.Option(metavar="A,B,...", help="What is moved, in this order.")
    ] = ",".join(SearchOptions().directions),
    cpu_used: CpuUsed = 2,
    jobs: Jobs = CORES,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Search on a Ray cluster, --jobs tasks at once: local (started here), auto "
            "(running here), HOST:PORT or ray://HOST:PORT. Its machines need vpxrc, and the clips "
            "and the folder under the same paths.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for the best trajectory of every clip and target: lessons for agents, and a bound.

    Killed at any point, the same command goes on where it was. At the end bounds.md in the folder
    has what each search saved against libvpx-vbr, and lessons.parquet has all of these lessons in
    one file, which `vpxrc train` and `vpxrc verify` read like the folder.

    \b
    Examples:
      vpxrc teach samples --bitrates 64,128 --out lessons
      vpxrc teach train/ --bitrates 40,60,85,120 --per-clip 1 --pixels 36864 --out lessons
      vpxrc teach train/ --bitrates 64 --start dependency --quality psnr_overall --out bounds
    """  # noqa: D301 - typer wants the \b as it is
    searching = SearchOptions(quality, cast(tuple[Direction, ...], tuple(directions.split(","))))
    check_start(make_policy(start))
    given, _ = gather_clips(clips, as_json)
    rates = numbers("bitrates", bitrates)
    work = searches(
        given,
        rates,
        EncoderOptions(cpu_used=cpu_used),
        out.absolute(),
        start=start,
        search_options=searching,
        per_clip=per_clip,
    )
    with (
        progress_bar(hidden=as_json) as bar,
        open_workers(min(jobs, len(work)), ray) as workers,
    ):
        task = bar.add_task("opening the clips", total=None)
        sized = dict(workers.unordered(partial(scaled, pixels=pixels), given))
        work = [dataclasses.replace(job, clip=sized[job.clip]) for job in work]
        check_writable(out)
        bar.update(task, total=len(work), description="searching")
        for job, path in workers.unordered(learn, work):
            if not path.is_file():
                raise OutputError(f"{job}: the result is not in {out}, which has to be shared")
            bar.update(task, advance=1, description=str(job))
    options = {
        "bitrates": bitrates,
        "per-clip": per_clip,
        "pixels": pixels,
        "start": start,
        "quality": quality,
        "directions": directions,
        "cpu-used": cpu_used,
        "out": out,
    }
    words = ["vpxrc", "teach", *clips]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", f"{value}"]
    command = shlex.join(words)
    found = [next(results(job.path)) for job in work]
    pack(out / ROUND, sorted(found, key=lambda result: result["path"]))
    table = bounds(found)
    text = _page(table, start, cpu_used, command)
    with atomic_write(out / "bounds.md") as temporary:
        temporary.write_text(text)
    if as_json:
        figures = table[["encodes", *_figures(table)]]
        result = {
            "command": command,
            "lessons": table.to_dict("records"),
            "mean": figures.mean().to_dict(),
            "median": figures.median().to_dict(),
        }
        print(json.dumps(_without_nan(result)))
    else:
        print(text, end="")


def _page(table: pd.DataFrame, start: str, cpu_used: int, command: str) -> str:
    """Return what was saved, in Markdown."""
    figures = _figures(table)
    titles = [name.replace("_start", ", start").replace("_found", ", found") for name in figures]
    rows = [["clip", "size", "kbit/s", "encodes", *titles]]
    for row in table.to_dict("records"):
        names = [str(row[name]) for name in ("clip", "size", "target_bitrate", "encodes")]
        rows.append([*names, *(_signed(row[name]) for name in figures)])
    for name in ("mean", "median"):
        summary = table[["encodes", *figures]].agg(name)
        cells = [_signed(summary[figure]) for figure in figures]
        rows.append([name, "", "", f"{summary['encodes']:.1f}", *cells])
    rows.insert(1, ["---"] * len(rows[0]))
    parts = [
        f"Percent of bits saved at equal quality against libvpx-vbr: by `{start}`, where the "
        f"searches start, and by what they found. cpu-used {cpu_used}, libvpx "
        f"{_native.LIBVPX_VERSION}.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    if table[figures].isna().to_numpy().any():
        parts.append(
            "`-`: libvpx-vbr's quality does not rise with its rate there. Not in mean and median."
        )
    parts.append(f"```\n{command}\n```")
    return "\n\n".join(parts) + "\n"


def _figures(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name.endswith(("_start", "_found"))]


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.1f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
