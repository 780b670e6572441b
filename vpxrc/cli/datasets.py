"""The command ``datasets``."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from vpxrc.cli.common import Json, gather_clips, progress_bar
from vpxrc.datasets import CLIPS_VARIABLE, Clip, clip_sets, load_clips
from vpxrc.errors import InputError
from vpxrc.evaluation.axes import clip_axes, counts_table, describe


def datasets(
    spec: Annotated[
        str | None,
        typer.Argument(
            help="A set, a folder, a video file or a catalogue. By default, all sets are listed."
        ),
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Make the clips that are missing from their originals."),
    ] = False,
    axes: Annotated[
        bool,
        typer.Option(
            "--axes",
            help="Count the clips by size, frame rate, length, motion, cuts and error of the first "
            "pass. This decodes every clip.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the sets of clips, or the clips of one of them.

    Instead of a set it may be a folder or a catalogue, a .toml or .csv file. The clips themselves
    are opened for --axes only.

    \b
    Examples:
      vpxrc datasets
      vpxrc datasets eval --download
      vpxrc datasets ~/videos
      vpxrc datasets train --axes
      vpxrc datasets catalogue.toml --json
    """  # noqa: D301 - typer wants the \b as it is
    if spec is not None:
        clips = gather_clips(spec, as_json)[0] if download else load_clips(spec)
        if axes:
            _show_axes(spec, clips, as_json)
        else:
            _list_clips(clips, as_json)
    elif download or axes:
        option = "--download" if download else "--axes"
        raise InputError(f"{option} needs the name of a set, or a catalogue")
    else:
        _list_sets(as_json)


def _list_sets(as_json: bool) -> None:
    rows = [_set_row(name, load_clips(name)) for name in clip_sets()]
    if as_json:
        print(json.dumps(rows))
        return
    counts = ("set", "clips", "megabytes", "here", "to_download", "missing")
    _print_table(
        [[name.replace("_", " ") for name in counts], *([r[n] for n in counts] for r in rows)]
    )
    for row in rows:
        terms = (f"{licence} ({count})" for licence, count in row["licences"].items())
        print(f"\nlicences of {row['set']}: {', '.join(terms)}")
    print(f"\nFiles are looked for in the folder that {CLIPS_VARIABLE} names, and in the cache.")


def _set_row(name: str, clips: Sequence[Clip]) -> dict[str, Any]:
    """Return what there is to say of a set: how many clips, and how many of them can be had."""
    paths = [clip.find() for clip in clips]
    sizes = [
        clip.origin.size if clip.origin else path.stat().st_size if path else 0
        for clip, path in zip(clips, paths, strict=True)
    ]
    absent = [clip.obtainable for clip, path in zip(clips, paths, strict=True) if path is None]
    return {
        "set": name,
        "clips": len(clips),
        "megabytes": round(sum(sizes) / 1e6, 1),
        "here": len(clips) - len(absent),
        "to_download": sum(absent),
        "missing": len(absent) - sum(absent),
        "licences": dict(
            Counter(re.split(r" ?[(;,]", clip.licence)[0] for clip in clips).most_common()
        ),
    }


def _list_clips(clips: Sequence[Clip], as_json: bool) -> None:
    if as_json:
        rows = [dataclasses.asdict(clip) for clip in clips]
        for row in rows:
            if row["origin"] is None:
                del row["origin"]
        print(json.dumps(rows, default=str))
        return
    listing = [["name", "size", "fps", "start", "frames", "source", "licence"]]
    for clip in clips:
        size = f"{clip.width or '*'}x{clip.height or '*'}" if clip.width or clip.height else "own"
        frames = f"<= {clip.num_frames}" if clip.num_frames else "all"
        fps, start = str(clip.fps or "own"), f"{clip.start:g} s"
        listing.append([clip.name, size, fps, start, frames, _source(clip), clip.licence])
    _print_table(listing)
    print(f"{len(clips)} clip(s); the sets are: {', '.join(clip_sets())}")


def _show_axes(spec: str, clips: Sequence[Clip], as_json: bool) -> None:
    """Print what is measured of the clips that are here, or how many there are of each kind."""
    here = [clip for clip in clips if clip.find() is not None]
    if not here:
        raise InputError(f"{spec}: none of its clips is on this machine; --download makes them")
    if missing := [clip.name for clip in clips if clip not in here]:
        typer.echo(
            f"{spec}: {len(missing)} of {len(clips)} clips are not on this machine and not "
            f"counted: {', '.join(missing)}",
            err=True,
        )
    with progress_bar(as_json) as bar:
        rows = describe(clip.open() for clip in bar.track(here, description="measuring"))
    if as_json:
        print(json.dumps(rows.to_dict("records")))
    else:
        print(counts_table(clip_axes(rows)))


def _source(clip: Clip) -> str:
    """Say where a clip's file is or comes from."""
    if clip.source is not None:
        return clip.source
    made = clip.find()
    if made is not None:
        return str(made)
    assert clip.origin is not None
    if clip.origin.recipe is not None:
        return f"to be made from {clip.origin.recipe.source}"
    return f"not to be had: {clip.origin.name}"


def _print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows of cells in columns, the last one as it comes."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())
