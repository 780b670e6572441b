"""The command ``doctor``."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from vpxrc import _native
from vpxrc.cli.common import DEFAULT_POLICY, Json
from vpxrc.errors import MissingDependencyError
from vpxrc.evaluation.verify import oracle_program
from vpxrc.media.ffmpeg import ffmpeg_program
from vpxrc.policies.registry import policy_names
from vpxrc.storage import cache_dir

# The features that libvpx has code for.
SIMD = ("sse2", "sse3", "ssse3", "sse4_1", "avx", "avx2", "avx512f", "asimd", "asimddp", "sve")


def doctor(as_json: Json = False) -> None:
    """Show the versions, programs and policies that are found.

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
