"""The command ``cache``."""

import json
from typing import Annotated

import typer

from vpxrc.cache import SIZE_VARIABLE, cache_contents, cache_limit, clear_cache
from vpxrc.cli.common import Json
from vpxrc.storage import cache_dir

MEGABYTE = 1_000_000  # bytes

_Clear = Annotated[
    bool,
    typer.Option(
        "--clear",
        help="Remove what can be made again without a download, except files that are in use.",
    ),
]


def cache(clear: _Clear = False, as_json: Json = False) -> None:
    """Show what the cache holds, or clear it.

    \b
    Examples:
      vpxrc cache
      vpxrc cache --clear
    """  # noqa: D301 - typer wants the \b as it is
    folder, limit = cache_dir(), cache_limit()
    freed = clear_cache(folder) if clear else None
    found = cache_contents(folder)
    if as_json:
        kinds = [
            {"kind": one.kind, "files": one.num_files, "bytes": one.num_bytes} for one in found
        ]
        print(json.dumps({"folder": str(folder), "limit": limit, "freed": freed, "kinds": kinds}))
        return
    made = sum(one.num_bytes for one in found if one.can_be_made)
    if freed is not None:
        print(f"{freed / MEGABYTE:,.1f} MB removed")
    for one in found:
        if not one.num_files:
            continue
        kept = "" if one.can_be_made else ", kept"
        print(f"{one.kind}: {one.num_files} files, {one.num_bytes / MEGABYTE:,.1f} MB{kept}")
    print(
        f"{folder}: {made / MEGABYTE:,.1f} of {limit / MEGABYTE:,.0f} MB that can be made again "
        f"({SIZE_VARIABLE} sets the limit)"
    )
