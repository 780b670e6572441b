"""Reading clip catalogues: named sets, files, folders, and tables with URLs and segments.

A named set is a TOML file beside this module. A catalogue, in TOML (``[[clips]]`` tables) or CSV
(a row per clip), has the fields of :class:`Clip` as keys or columns; ``name`` and ``source`` are
needed. ``source`` is a path relative to the catalogue, a URL (``https``, ``http`` or ``file``,
needs ``sha256``) or ``package://DISTRIBUTION/FILE``, a file of an installed Python package.
"""

import csv
import importlib.metadata
import re
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from vpxrc.errors import InputError, MissingDependencyError
from vpxrc.media.decoding import open_video
from vpxrc.media.frames import Video, parse_fps
from vpxrc.storage import atomic_write, cache_dir, sha256_file

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
DOWNLOAD_TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Clip:
    """A segment of a video file, and how to read it.

    Attributes:
        name: Unique in a set.
        source: Path, URL or ``package://`` address of the file.
        width: Scale to this width in pixels; see :func:`vpxrc.open_video` for this and the
            next four. None leaves the file's own.
        height: Scale to this height in pixels.
        fps: Resample to this frame rate.
        start: Skip this many seconds.
        num_frames: Stop after this many frames at most.
        sha256: Checksum of the whole file in hexadecimal; checked whenever the clip is opened.
        licence: Under which terms the file may be used, in words.
    """

    name: str
    source: str
    width: int | None = None
    height: int | None = None
    fps: Fraction | None = None
    start: float = 0.0
    num_frames: int | None = None
    sha256: str | None = None
    licence: str = ""

    def open(self, cache: str | Path | None = None) -> Video:
        """Return the clip's frames, downloading and decoding the file where the cache has not.

        Args:
            cache: Cache folder; :func:`vpxrc.storage.cache_dir` by default.

        Raises:
            InputError: The file is missing, cannot be downloaded, has another checksum or is not a
                video that can be used.
            OutputError: The cache cannot be written.
            MissingDependencyError: The package that carries the file is not installed.
        """
        path = self._path(cache_dir() if cache is None else Path(cache))
        if self.sha256 is not None and path.is_file():
            found = sha256_file(path)
            if found != self.sha256:
                raise InputError(f"{self.name}: {path} has the SHA-256 {found}, not {self.sha256}")
        return open_video(
            path,
            name=self.name,
            width=self.width,
            height=self.height,
            fps=self.fps,
            start=self.start,
            num_frames=self.num_frames,
            cache=cache,
        )

    def _path(self, cache: Path) -> Path:
        if "://" not in self.source:
            return Path(self.source)
        url = urlsplit(self.source)
        if url.scheme == "package":
            try:
                package = importlib.metadata.distribution(url.netloc)
            except importlib.metadata.PackageNotFoundError:
                raise MissingDependencyError(
                    f"clip {self.name} is a file of {url.netloc}: pip install {url.netloc}"
                ) from None
            return Path(str(package.locate_file(url.path.lstrip("/"))))
        return self._download(cache / "downloads" / f"{self.sha256}{Path(url.path).suffix}")

    def _download(self, path: Path) -> Path:
        """Fetch the source unless ``path`` has it already, whole and unchanged."""
        if path.is_file() and sha256_file(path) == self.sha256:
            return path
        with atomic_write(path) as temporary:
            with open(temporary, "wb") as file:
                for chunk in self._fetch():
                    file.write(chunk)
            found = sha256_file(temporary)
            if found != self.sha256:
                raise InputError(
                    f"{self.name}: {self.source} has the SHA-256 {found}, not {self.sha256}"
                )
        return path

    def _fetch(self) -> Iterator[bytes]:
        try:
            with urllib.request.urlopen(self.source, timeout=DOWNLOAD_TIMEOUT) as response:
                while chunk := response.read(1 << 20):
                    yield chunk
        except (OSError, ValueError, HTTPException) as error:
            raise InputError(f"{self.name}: cannot download {self.source}: {error}") from error


def clip_sets() -> list[str]:
    """Return the names of the sets that :func:`load_clips` knows."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))


def load_clips(spec: str | Path | Sequence[str | Path]) -> list[Clip]:
    """Return the clips that a name, a file or a folder stands for.

    Nothing is opened, downloaded or decoded yet: :meth:`Clip.open` does that.

    Args:
        spec: The name of a set (``samples``); a video file; a folder, searched for video files with
            its subfolders, in order of their paths; a catalogue (``.toml`` or ``.csv``); or a
            sequence of these. Where a folder or its parent has a ``MANIFEST.tsv`` (columns ``clip``
            and ``sha256``, paths relative to it) its checksums hold, and every clip it lists in
            that folder must be there.

    Returns:
        At least one clip; the names differ.

    Raises:
        InputError: Nothing has that name, there are no clips, a catalogue is malformed, or two
            clips have one name.
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
    return clips


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
        if unknown := document.keys() - {"clips"}:
            raise InputError(f"{path}: unknown key {min(unknown)!r}; clips are [[clips]] tables")
        rows = document.get("clips", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: clips are [[clips]] tables")
    return [_parse_clip(row, path, number) for number, row in enumerate(rows, start=1)]


def _parse_clip(row: Mapping[str, object], catalogue: Path, number: int) -> Clip:
    """Check one entry of a catalogue, whose values are strings where it is a CSV file."""
    where = f"{catalogue}, clip {number}"
    known = [field.name for field in fields(Clip)]
    if unknown := row.keys() - set(known):
        raise InputError(f"{where}: unknown field {min(unknown)!r}; there are {', '.join(known)}")

    def text(field: str) -> str | None:
        value = row.get(field)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{where}: {field} must be a string")
        return value

    def number_of(field: str, kind: type[int] | type[float]) -> float | None:
        value = row.get(field)
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
            raise InputError(f"{where}: {field} {value!r} is not a number it can be") from None

    def whole(field: str) -> int | None:
        value = number_of(field, int)
        return None if value is None else int(value)

    name, source, sha256 = text("name"), text("source"), text("sha256")
    if not name or not source:
        raise InputError(f"{where}: needs a name and a source")
    if sha256 is not None and not _is_sha256(sha256):
        raise InputError(f"{where}: sha256 must be 64 hexadecimal digits")
    if "://" in source:
        scheme = urlsplit(source).scheme
        if scheme not in {"http", "https", "file", "package"}:
            raise InputError(f"{where}: {scheme}:// is not http, https, file or package")
        if sha256 is None:
            raise InputError(f"{where}: a URL needs a sha256")
    else:
        source = str(catalogue.parent / source)
    fps = row.get("fps")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float | str)):
        raise InputError(f"{where}: fps must be a number or a ratio such as '30000/1001'")
    try:
        rate = None if fps is None else parse_fps(fps)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return Clip(
        name=name,
        source=source,
        width=whole("width"),
        height=whole("height"),
        fps=rate,
        start=number_of("start", float) or 0.0,
        num_frames=whole("num_frames"),
        sha256=None if sha256 is None else sha256.lower(),
        licence=text("licence") or "",
    )


def _is_sha256(value: str | None) -> bool:
    return value is not None and re.fullmatch(r"[0-9a-fA-F]{64}", value) is not None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
