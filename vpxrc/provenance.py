"""The code and the files that a result depends on; caches and states are kept under a key of them.

Of vpxrc this is every module, extension and network in the package except the commands and the
reports, which only show results. The rule is one for everything that is kept, so that no list of
modules has to follow the code, and an edit is noticed wherever it is.
"""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from vpxrc import _native
from vpxrc.policies.registry import MadePolicy, make_policy, trace_policies
from vpxrc.storage import digest, sha256_file

CACHE_FORMAT = 2
# Folders of the package that no result depends on.
SHOWING = ("cli", "reports")
# Folders of the package that lie beside it in a checkout; pyproject.toml puts them into a wheel.
BESIDE = ("datasets", "envs", "agents", "codecs")
# Modules, extensions, and networks that are in the package.
SUFFIXES = (".py", ".so", ".safetensors")

_PACKAGE = Path(__file__).parent


def causes(*policies: str, metrics: Sequence[str] = ()) -> dict[str, Any]:
    """Return the code and the files that a result depends on.

    Clips, options and settings are the caller's to add.

    Args:
        policies: Specs of the policies that take part, as :func:`vpxrc.make_policy` takes them.
            Their files count, the modules of those from another package, and in the same way every
            policy that they make, such as the base policy that a checkpoint names.
        metrics: The quality metrics that are measured; ffmpeg takes part in these.

    Returns:
        A dictionary that JSON takes, the same for the same code and files.

    Raises:
        InputError: There is no such policy, or a file cannot be read.
    """
    with trace_policies() as made:
        for spec in policies:
            make_policy(spec)
    found: dict[str, Any] = {
        "format": CACHE_FORMAT,
        "package": digest(_hashes(package_files())),
        "libvpx": _native.LIBVPX_SHA256,
        "policies": list(policies),
        "files": {one.spec: _hashes(named_files(one.spec)) for one in made},
        "modules": {name: _hash(path) for one in made for name, path in _modules(one)},
    }
    if metrics:
        found |= {"metrics": sorted(metrics), "ffmpeg": imageio_ffmpeg.get_ffmpeg_version()}
    return found


def versions() -> dict[str, str]:
    """Return the versions of vpxrc, libvpx, ffmpeg, Python and NumPy."""
    return {
        "vpxrc": importlib.metadata.version("vpxrc"),
        "libvpx": _native.LIBVPX_VERSION,
        "ffmpeg": imageio_ffmpeg.get_ffmpeg_version(),
        "python": platform.python_version(),
        "numpy": importlib.metadata.version("numpy"),
    }


def package_files() -> dict[str, Path]:
    """Return the files of vpxrc that a result depends on, by their path within the package.

    The names are the same in a wheel and in an editable install, whose parts lie in several places.
    """
    found = {}
    for place, folder in package_folders():
        for name, path in _files(folder).items():
            name = f"{place}/{name}" if place else name
            if path.suffix in SUFFIXES and name.partition("/")[0] not in SHOWING:
                found[name] = path
    return found


def package_folders() -> list[tuple[str, Path]]:
    """Return the folders that the package is in, each with its path within the package."""
    folders = [("", _PACKAGE), ("", Path(_native.__file__).parent)]
    for name in BESIDE:
        spec = importlib.util.find_spec(f"vpxrc.{name}")
        if spec is not None and spec.origin is not None:
            folders.append((name, Path(spec.origin).parent))
    return folders


def named_files(spec: str) -> dict[str, Path]:
    """Return the files that a policy's spec names, by their path below the argument.

    The argument of ``NAME:FILE``, ``NAME:FILE@SETTING`` and ``NAME:FOLDER`` is a path; other
    arguments name no files.
    """
    argument = spec.partition(":")[2]
    for text in (argument, argument.rpartition("@")[0]):
        if os.path.isfile(text):
            return {"": Path(text)}
        if text and os.path.isdir(text):
            return _files(Path(text))
    return {}


def _modules(made: MadePolicy) -> Iterator[tuple[str, Path]]:
    """Yield the modules outside vpxrc that a policy depends on, with a name each.

    These are all modules of the package that names the policy as an entry point, and the modules of
    the policy's classes. The classes may come from a third package, whose other modules are left.
    """
    bases = {base.__module__ for base in type(made.policy).__mro__}
    for name in sorted({made.module, *bases}):
        file = _file_of(name)
        if file is not None and name.partition(".")[0] != "vpxrc":
            yield name, file
    parts = made.module.split(".")
    if parts[0] == "vpxrc":
        return
    # The first part of the name has no file where it is a namespace that packages share.
    prefixes = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for prefix in prefixes:
        file = _file_of(prefix)
        if file is not None and hasattr(sys.modules[prefix], "__path__"):
            for name, path in _files(file.parent).items():
                if path.suffix in SUFFIXES:
                    yield f"{prefix}/{name}", path
            return


def _file_of(module: str) -> Path | None:
    """Return the file of an imported module; None where it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return None if file is None else Path(file)


def _files(folder: Path) -> dict[str, Path]:
    """Return all files below a folder by their path in it."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _hashes(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: _hash(path) for name, path in files.items()}


def _hash(path: Path) -> str:
    """Return a file's SHA-256; it is read again only after a change."""
    about = path.stat()
    return _read(path, about.st_mtime_ns, about.st_size)


@cache
def _read(path: Path, changed: int, size: int) -> str:
    return sha256_file(path)
