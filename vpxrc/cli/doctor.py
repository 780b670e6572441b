"""The command ``doctor``."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from vpxrc import _native
from vpxrc.cli.common import DEFAULT_POLICY, Json
from vpxrc.datasets import CLIPS_VARIABLE, Clip, clip_sets, load_clips
from vpxrc.errors import MissingDependencyError
from vpxrc.evaluation.verify import oracle_program
from vpxrc.media.ffmpeg import ffmpeg_program
from vpxrc.policies.registry import policy_names
from vpxrc.storage import cache_dir

# What libvpx has code for.
SIMD = ("sse2", "sse3", "ssse3", "sse4_1", "avx", "avx2", "avx512f", "asimd", "asimddp", "sve")


def doctor(as_json: Json = False) -> None:
    """Say what is built and found.

    \b
    Examples:
      vpxrc doctor
      vpxrc doctor --json
    """  # noqa: D301 - typer wants the \b as it is
    found = {
        "versions": {
            "vpxrc": importlib.metadata.version("vpxrc"),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "gymnasium")},
        },
        "libvpx": {
            "version": _native.LIBVPX_VERSION,
            "sha256": _native.LIBVPX_SHA256,
            "linked": _native.linked_version(),
        },
        "cpu": _cpu(),
        "ffmpeg": _ffmpeg(),
        "cache": _cache(),
        "oracle": oracle_program() is not None,
        "policies": policy_names(),
        "default_policy": DEFAULT_POLICY,
    }
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name + ':':16}{_in_words(value)}")


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


def _cpu() -> dict[str, Any]:
    """Return model, cores, and those features that libvpx makes use of."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    known = set(flags[1].replace("pni", "sse3").split()) if flags else set()
    return {
        "model": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "simd": [name for name in SIMD if name in known],
    }


def _ffmpeg() -> dict[str, Any] | None:
    try:
        program = ffmpeg_program()
        filters, encoders = (
            subprocess.run(
                [program, "-hide_banner", f"-{what}"], capture_output=True, text=True, check=True
            ).stdout
            for what in ("filters", "encoders")
        )
        version = imageio_ffmpeg.get_ffmpeg_version()
    except (MissingDependencyError, OSError, subprocess.CalledProcessError):
        return None
    return {
        "version": version,
        "libvmaf": " libvmaf " in filters,
        "libvpx": " libvpx-vp9 " in encoders,
    }


def _cache() -> dict[str, Any]:
    folder = cache_dir()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return {
        "folder": str(folder),
        "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def _in_words(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)
