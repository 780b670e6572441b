"""The command ``datasets``."""

from typing import Annotated

import typer

from vpxrc.cli.common import Json, gather_clips
from vpxrc.cli.doctor import _list_clips, _list_sets
from vpxrc.datasets import load_clips
from vpxrc.errors import InputError


def datasets(
    spec: Annotated[
        str | None,
        typer.Argument(help="A set's name, a folder, a video file or a catalogue; else all sets."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Make the clips that are missing from their originals."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the sets of clips, or the clips of a set, a folder or a catalogue (.toml, .csv).

    \b
    Examples:
      vpxrc datasets
      vpxrc datasets eval --download
      vpxrc datasets ~/videos
      vpxrc datasets catalogue.toml --json
    """  # noqa: D301 - typer wants the \b as it is
    if spec is not None:
        clips = gather_clips(spec, as_json)[0] if download else load_clips(spec)
        _list_clips(clips, as_json)
    elif download:
        raise InputError("--download needs the name of a set, or a catalogue")
    else:
        _list_sets(as_json)
