"""Reading clip catalogues: named sets, files, folders, and tables with URLs and segments.

A named set is a TOML file beside this module. A catalogue, in TOML (``[[clips]]`` tables) or CSV
(a row per clip), has the fields of :class:`Clip` as keys or columns; ``name`` and ``source`` are
needed. ``source`` is a path below the catalogue's folder, a URL (``https``, ``http`` or ``file``,
needs ``sha256``) or ``package://DISTRIBUTION/FILE``, a file of an installed Python package. In
TOML a table ``origin`` (:class:`Origin`, in it ``recipe``) may take the place of ``source``: the
clip is then any file on this machine with its ``sha256``, or made by the recipe.
"""

import csv
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from vpxrc.datasets.clip import Clip, Origin, Recipe
from vpxrc.datasets.local import CLIPS_VARIABLE, find_files
from vpxrc.errors import InputError
from vpxrc.media.frames import parse_fps

MANIFEST = "MANIFEST.tsv"
SUFFIXES = {
    ".264",
    ".265",
    ".avi",
    ".flv",
    ".h264",
    ".h265",
    ".ivf",
    ".m2ts",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".mts",
    ".mxf",
    ".ogv",
    ".ts",
    ".webm",
    ".wmv",
    ".y4m",
}
MAX_NAME = 100  # characters; names become part of file names

Value = TypeVar("Value")


def clip_sets() -> list[str]:
    """Return the names of the sets that :func:`load_clips` knows."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))


def load_clips(spec: str | Path | Sequence[str | Path]) -> list[Clip]:
    """Return the clips that a name, a file or a folder stands for.

    Nothing is downloaded or decoded yet: :meth:`Clip.open` does that. Files of a set that are on
    this machine already are found by their checksums, in the folder that the environment variable
    ``VPXRC_CLIPS`` names (with its subfolders) and among the cache's downloads.

    Args:
        spec: The name of a set (``samples``, ``eval``, ...); a video file; a folder, searched for
            video files with its subfolders, in order of their paths; a catalogue (``.toml`` or
            ``.csv``); or a sequence of these. Where a folder or its parent has a ``MANIFEST.tsv``
            (columns ``clip`` and ``sha256``, paths relative to it) its checksums hold, and every
            clip it lists in that folder must be there.

    Returns:
        At least one clip; the names differ. ``source`` is None for those whose file is not here
        and would have to be made, or cannot be had.

    Raises:
        InputError: Nothing has that name, there are no clips, a catalogue is malformed, two clips
            have one name, or ``VPXRC_CLIPS`` does not name a folder.
    """
    if isinstance(spec, str | Path):
        clips = _load(spec)
    else:
        clips = [clip for part in spec for clip in _load(part)]
    if not clips:
        raise InputError(f"no clips in {spec}")
    name, count = Counter(clip.name for clip in clips).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} clips are named {name!r}; names must differ")
    return _found(clips)


def _found(clips: Sequence[Clip]) -> list[Clip]:
    """Give those clips a source that are known by their checksum and on this machine."""
    wanted = [(clip.origin.size, clip.sha256) for clip in clips if clip.origin and clip.sha256]
    paths = find_files(wanted) if wanted else {}
    return [
        replace(clip, source=str(paths[clip.sha256]), origin=None)
        if clip.origin and clip.sha256 in paths
        else clip
        for clip in clips
    ]


def _load(spec: str | Path) -> list[Clip]:
    if isinstance(spec, str) and spec in clip_sets():
        return _read_catalogue(Path(__file__).with_name(f"{spec}.toml"))
    path = Path(spec)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise InputError(f"{path}: no such file or folder")
        raise InputError(
            f"unknown set {str(spec)!r}: choose from {', '.join(clip_sets())}, "
            "or give a video file, a folder or a catalogue"
        )
    if path.suffix in {".toml", ".csv"}:
        return _read_catalogue(path)
    return [Clip(name=path.stem, source=str(path))]


def _read_folder(folder: Path) -> list[Clip]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    listed = _read_manifest(folder)
    found = {path.resolve() for path in files}
    for path in listed:
        if path not in found:
            raise InputError(f"{folder}: {MANIFEST} lists {path.name}, which is missing")
    clips = []
    for path in files:
        row = listed.get(path.resolve(), {})
        clips.append(
            Clip(
                name=path.relative_to(folder).with_suffix("").as_posix(),
                source=str(path),
                sha256=row.get("sha256"),
                licence=row.get("licence") or "",
            )
        )
    return clips


def _read_manifest(folder: Path) -> dict[Path, dict[str, str]]:
    """Return the manifest's rows for the files below ``folder``, by resolved path."""
    folder = folder.resolve()
    for home in (folder, folder.parent):
        manifest = home / MANIFEST
        if not manifest.is_file():
            continue
        rows = list(csv.DictReader(_read_text(manifest).splitlines(), delimiter="\t"))
        for number, row in enumerate(rows, start=2):
            if not row.get("clip") or not _is_sha256(row.get("sha256")):
                raise InputError(f"{manifest}, line {number}: needs a clip and its sha256")
        paths = {(home / row["clip"]).resolve(): row for row in rows}
        return {path: row for path, row in paths.items() if path.is_relative_to(folder)}
    return {}


def _read_catalogue(path: Path) -> list[Clip]:
    text = _read_text(path)
    rows: object
    if path.suffix == ".csv":
        table = list(csv.DictReader(text.splitlines()))
        for number, row in enumerate(table, start=1):
            if None in row:
                raise InputError(f"{path}, clip {number}: more cells than columns")
        # An empty cell is a field that is not given.
        rows = [{key: value for key, value in row.items() if value} for row in table]
    else:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path}: {error}") from None
        except RecursionError:
            raise InputError(f"{path}: nested too deeply") from None
        if unknown := document.keys() - {"clips"}:
            raise InputError(f"{path}: unknown key {min(unknown)!r}; clips are [[clips]] tables")
        rows = document.get("clips", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: clips are [[clips]] tables")
    return [
        _parse_clip(_Table(row, f"{path}, clip {number}", Clip), path.parent)
        for number, row in enumerate(rows, start=1)
    ]


class _Table:
    """The fields of a clip, an origin or a recipe, checked as they are read.

    The values of a CSV file are strings, those of a TOML file have types.
    """

    def __init__(self, row: Mapping[str, object], where: str, of: type[Clip | Origin | Recipe]):
        known = [field.name for field in fields(of)]
        if unknown := row.keys() - set(known):
            raise InputError(
                f"{where}: unknown field {min(unknown)!r}; there are {', '.join(known)}"
            )
        self._row = row
        self.where = where

    def text(self, field: str) -> str | None:
        value = self._row.get(field)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{self.where}: {field} must be a string")
        return value

    def number(self, field: str) -> float | None:
        return self._number(field, float)

    def whole(self, field: str) -> int | None:
        value = self._number(field, int)
        return None if value is None else int(value)

    def flag(self, field: str) -> bool:
        value = self._row.get(field, False)
        if not isinstance(value, bool):
            raise InputError(f"{self.where}: {field} must be true or false")
        return value

    def rate(self, field: str) -> Fraction | None:
        value = self._row.get(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise InputError(
                f"{self.where}: {field} must be a number or a ratio such as '30000/1001'"
            )
        try:
            return parse_fps(value)
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from None

    def checksum(self, field: str) -> str | None:
        value = self.text(field)
        if value is not None and not _is_sha256(value):
            raise InputError(f"{self.where}: {field} must be 64 hexadecimal digits")
        return None if value is None else value.lower()

    def table(self, field: str, of: type[Origin | Recipe]) -> "_Table | None":
        value = self._row.get(field)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise InputError(f"{self.where}: {field} must be a table")
        return _Table(value, f"{self.where}, {field}", of)

    def needed(self, field: str, value: Value | None) -> Value:
        """Return a value that must be there."""
        if value is None or value == "":
            raise InputError(f"{self.where}: needs {field}")
        return value

    def _number(self, field: str, kind: type[int] | type[float]) -> float | None:
        value = self._row.get(field)
        if value is None:
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                raise ValueError
            result = kind(value)
            if not isinstance(value, str) and result != value:
                raise ValueError
            return result
        except (ValueError, OverflowError):
            raise InputError(f"{self.where}: {field} {value!r} is not a number it can be") from None


def _parse_clip(table: _Table, folder: Path) -> Clip:
    """Return the clip of one entry of a catalogue that is in ``folder``."""
    where = table.where
    name, source, sha256 = table.text("name"), table.text("source"), table.checksum("sha256")
    origin = _parse_origin(table, folder)
    if not name or (not source and origin is None):
        raise InputError(f"{where}: needs a name and a source")
    if not _is_name(name):
        raise InputError(
            f"{where}: {name!r} is not a name: letters, digits and ._- only, at most {MAX_NAME}"
        )
    if source and origin is not None:
        raise InputError(f"{where}: has a source and an origin; give one of them")
    if origin is not None and sha256 is None:
        raise InputError(f"{where}: an origin needs the sha256 of the clip's file")
    if source:
        source = _checked_source(source, sha256, where, folder)
    return Clip(
        name=name,
        source=source or None,
        width=table.whole("width"),
        height=table.whole("height"),
        fps=table.rate("fps"),
        start=table.number("start") or 0.0,
        num_frames=table.whole("num_frames"),
        sha256=sha256,
        licence=table.text("licence") or "",
        origin=origin,
    )


def _parse_origin(clip: _Table, folder: Path) -> Origin | None:
    table = clip.table("origin", Origin)
    if table is None:
        return None
    return Origin(
        name=table.needed("name", table.text("name")),
        size=table.needed("size", table.whole("size")),
        content_hash=table.needed("content_hash", table.checksum("content_hash")),
        recipe=_parse_recipe(table, folder),
    )


def _parse_recipe(origin: _Table, folder: Path) -> Recipe | None:
    table = origin.table("recipe", Recipe)
    if table is None:
        return None
    source = table.needed("source", table.text("source"))
    scheme = _scheme(source, table.where)
    if scheme not in {"http", "https", "file"}:
        raise InputError(f"{table.where}: the source must be a URL (http, https or file)")
    if scheme == "file":
        _check_file_url(source, table.where, folder)
    preset = table.needed("preset", table.text("preset"))
    if not re.fullmatch("[a-z]+", preset):
        raise InputError(f"{table.where}: {preset!r} is not one of x264's presets")
    return Recipe(
        source=source,
        width=table.needed("width", table.whole("width")),
        height=table.needed("height", table.whole("height")),
        crop=table.flag("crop"),
        fps=table.needed("fps", table.rate("fps")),
        start=table.needed("start", table.number("start")),
        num_frames=table.needed("num_frames", table.whole("num_frames")),
        preset=preset,
        crf=table.needed("crf", table.number("crf")),
        threads=table.needed("threads", table.whole("threads")),
        sha256=table.needed("sha256", table.checksum("sha256")),
        tried=table.needed("tried", table.text("tried")),
    )


def _checked_source(source: str, sha256: str | None, where: str, folder: Path) -> str:
    """Return a path below the catalogue's folder, or a URL that can be downloaded."""
    if "://" not in source:
        if not _stays_below(source):
            raise InputError(
                f"{where}: {source} leads out of the catalogue's folder: put the file into it, or "
                f"leave out the source, give an origin, and name its folder by {CLIPS_VARIABLE}"
            )
        return str(folder / source)
    scheme = _scheme(source, where)
    if scheme not in {"http", "https", "file", "package"}:
        raise InputError(f"{where}: {scheme}:// is not http, https, file or package")
    if sha256 is None:
        raise InputError(f"{where}: a URL needs a sha256")
    if scheme == "file":
        _check_file_url(source, where, folder)
    if scheme == "package":
        url = urlsplit(source)
        if not url.netloc or not _stays_below(unquote(url.path).removeprefix("/")):
            raise InputError(f"{where}: {source} is not package://DISTRIBUTION/FILE")
    return source


def _check_file_url(source: str, where: str, folder: Path) -> None:
    """Refuse a file URL that leads out of the catalogue's folder, by a link too."""
    url = urlsplit(source)
    path = Path(unquote(url.path))
    if url.netloc not in {"", "localhost"} or not _is_below(path, folder):
        raise InputError(f"{where}: {source} leads out of the catalogue's folder")


def _is_below(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a circle of links, a NUL
        return False


def _scheme(source: str, where: str) -> str:
    try:
        return urlsplit(source).scheme
    except ValueError as error:
        raise InputError(f"{where}: {source} is not a URL: {error}") from None


def _is_name(name: str) -> bool:
    """Say whether a catalogue's clip may be called so; results are named after clips."""
    return (
        len(name) <= MAX_NAME
        and re.fullmatch(r"[\w.-]+", name) is not None
        and name not in {".", ".."}
    )


def _stays_below(path: str) -> bool:
    """Say whether a path stays in the folder that it is joined to, on any system."""
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    return not (
        "\0" in path
        or posix.is_absolute()
        or windows.anchor
        or ".." in (*posix.parts, *windows.parts)
    )


def _is_sha256(value: str | None) -> bool:
    return value is not None and re.fullmatch(r"[0-9a-fA-F]{64}", value) is not None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
