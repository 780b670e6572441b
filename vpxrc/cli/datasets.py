"""The command ``datasets``."""

import dataclasses
import json
from typing import Annotated

import typer

from vpxrc.cli.common import Json
from vpxrc.datasets import clip_sets, load_clips


def datasets(
    spec: Annotated[
        str, typer.Argument(help="The name of a set, a folder, a video file or a catalogue.")
    ] = "samples",
    as_json: Json = False,
) -> None:
    """List the clips of a set, a folder or a catalogue.

    A catalogue is a .toml or .csv file. The clips themselves are not opened.

    \b
    Examples:
      vpxrc datasets
      vpxrc datasets ~/videos
      vpxrc datasets catalogue.toml --json
    """  # noqa: D301 - typer wants the \b as it is
    clips = load_clips(spec)
    if as_json:
        rows = [dataclasses.asdict(clip) for clip in clips]
        print(json.dumps([{**row, "fps": row["fps"] and str(row["fps"])} for row in rows]))
        return
    listing = [["name", "size", "fps", "start", "frames", "source", "licence"]]
    for clip in clips:
        size = f"{clip.width or '*'}x{clip.height or '*'}" if clip.width or clip.height else "own"
        frames = f"<= {clip.num_frames}" if clip.num_frames else "all"
        fps, start = str(clip.fps or "own"), f"{clip.start:g} s"
        listing.append([clip.name, size, fps, start, frames, clip.source, clip.licence])
    widths = [max(map(len, column)) for column in zip(*listing, strict=True)]
    for row in listing:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"{len(clips)} clip(s); the sets are: {', '.join(clip_sets())}")
