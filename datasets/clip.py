"""A clip: a segment of a video file, where the file comes from, and how to open it."""

import importlib.metadata
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

import ffmpeg

from vpxrc.datasets.local import CLIPS_VARIABLE
from vpxrc.errors import InputError, MissingDependencyError
from vpxrc.media.decoding import open_video
from vpxrc.media.ffmpeg import READING, run_ffmpeg
from vpxrc.media.frames import Video
from vpxrc.storage import atomic_write, cache_dir, sha256_file

DOWNLOAD_TIMEOUT = 60  # seconds without a byte
MAX_DOWNLOAD = 1 << 30  # bytes; a longer answer is not one of the clips
RAW_H264 = {".264", ".h264"}


@dataclass(frozen=True)
class Recipe:
    """How a clip's file was made from a public original, with ffmpeg and x264.

    x264 is lossy, so the same steps have to be taken again to get the same frames. They give the
    same file with the ffmpeg that it was made with (5.1), and the same frames with many others.

    Attributes:
        source: URL of the original.
        width: Luma width in pixels that the frames were scaled to (Lanczos).
        height: Luma height in pixels.
        crop: Whether the aspect ratio was kept, and what did not fit cut off on both sides. Without
            it the frames were stretched.
        fps: Frame rate that the original was resampled to.
        start: Seconds of the original that were skipped.
        num_frames: The most frames that were taken.
        preset: x264's preset.
        crf: x264's constant rate factor.
        threads: x264's number of threads, which changes its output.
        sha256: Checksum of the original in hexadecimal.
        tried: The versions of ffmpeg that were seen to give the clip's frames.
    """

    source: str
    width: int
    height: int
    crop: bool
    fps: Fraction
    start: float
    num_frames: int
    preset: str
    crf: float
    threads: int
    sha256: str
    tried: str

    def make(self, original: Path, target: Path) -> None:
        """Write the clip's file.

        Args:
            original: The file that ``source`` names.
            target: Where to write; an MP4 file whatever its name.

        Raises:
            InputError: The original cannot be read.
            MissingDependencyError: There is no ffmpeg.
        """
        # Raw H.264 has no time stamps: it is read from its start, at the clip's frame rate.
        raw = original.suffix in RAW_H264
        reading = {"r": str(self.fps)} if raw else {"ss": self.start}
        filters = f"fps={self.fps},scale={self.width}:{self.height}:flags=lanczos"
        if self.crop:
            filters += ":force_original_aspect_ratio=increase"
            filters += f",crop={self.width}:{self.height}"
        stream = ffmpeg.input(f"file:{original}", **reading, **READING).output(
            f"file:{target}",
            an=None,
            vf=filters,
            pix_fmt="yuv420p",
            format="mp4",
            vcodec="libx264",
            preset=self.preset,
            crf=self.crf,
            threads=self.threads,
            **{"frames:v": self.num_frames},
        )
        run_ffmpeg(stream, InputError, f"cannot make a clip of {self.source}")


@dataclass(frozen=True)
class Origin:
    """Where the file of a set's clip comes from.

    Attributes:
        name: The original in words: ``OWNER/REPOSITORY:PATH@COMMIT`` on GitHub, or a package.
        size: Bytes of the clip's file.
        content_hash: :attr:`vpxrc.Video.content_hash` of the clip's frames.
        recipe: How the file was made; None where no public file is enough to make it again.
    """

    name: str
    size: int
    content_hash: str
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Clip:
    """A segment of a video file, and how to read it.

    Attributes:
        name: Unique in a set.
        source: Path, URL or ``package://`` address of the file. None: the file is known by its
            checksum only, and not on this machine; ``origin`` says how it can be made.
        width: Scale to this width in pixels; see :func:`vpxrc.open_video` for this and the
            next four. None leaves the file's own.
        height: Scale to this height in pixels.
        fps: Resample to this frame rate.
        start: Skip this many seconds.
        num_frames: Stop after this many frames at most.
        sha256: Checksum of the whole file in hexadecimal; checked whenever the clip is opened.
        licence: Under which terms the file may be used, in words.
        origin: Where the file comes from, for a clip without a source.
    """

    name: str
    source: str | None
    width: int | None = None
    height: int | None = None
    fps: Fraction | None = None
    start: float = 0.0
    num_frames: int | None = None
    sha256: str | None = None
    licence: str = ""
    origin: Origin | None = None

    @property
    def obtainable(self) -> bool:
        """Whether the file is named, or there is a recipe to make it from a public original."""
        return self.source is not None or (
            self.origin is not None and self.origin.recipe is not None
        )

    def find(self, cache: str | Path | None = None) -> Path | None:
        """Return the clip's file where it is on this machine; nothing is downloaded.

        Args:
            cache: Cache folder; :func:`vpxrc.storage.cache_dir` by default.
        """
        cache = cache_dir() if cache is None else Path(cache)
        if self.source is not None:
            try:
                path = self._place(self.source, cache)
            except MissingDependencyError:
                return None
        elif self.origin is not None:
            path = _made_place(self.origin, cache)
        else:
            return None
        return path if path.is_file() else None

    def open(self, cache: str | Path | None = None) -> Video:
        """Return the clip's frames, downloading and decoding the file where the cache has not.

        Args:
            cache: Cache folder; :func:`vpxrc.storage.cache_dir` by default.

        Raises:
            InputError: The file is missing, cannot be downloaded or made, has another checksum or
                is not a video that can be used.
            OutputError: The cache cannot be written.
            MissingDependencyError: The package that carries the file is not installed.
        """
        if self.source is None:
            return self.obtain(cache).open(cache)
        path = self._place(self.source, cache_dir() if cache is None else Path(cache))
        if "://" in self.source and not self.source.startswith("package:"):
            self._download(self.source, self.sha256, path)
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

    def obtain(self, cache: str | Path | None = None) -> "Clip":
        """Return this clip with a source: where it has none, its file is made from the original.

        Args:
            cache: Cache folder, where the original and the file go.

        Raises:
            InputError: The file cannot be made: there is no public original, it cannot be
                downloaded, or other frames came out.
            OutputError: The cache cannot be written.
            MissingDependencyError: There is no ffmpeg.
        """
        if self.source is not None:
            return self
        if self.origin is None or self.origin.recipe is None:
            raise InputError(
                f"{self.name}: its file is not on this machine and cannot be downloaded: "
                f"put it into a folder named by {CLIPS_VARIABLE}"
            )
        path = self._made(
            self.origin, self.origin.recipe, cache_dir() if cache is None else Path(cache)
        )
        # The bytes may differ from the catalogue's where the frames do not.
        return replace(self, source=str(path), sha256=sha256_file(path), origin=None)

    def _made(self, origin: Origin, recipe: Recipe, cache: Path) -> Path:
        """Make the clip's file unless the cache has it, and return its path."""
        path = _made_place(origin, cache)
        if path.is_file() and _has_frames(path, origin.content_hash, cache):
            return path
        original = _download_place(recipe.source, recipe.sha256, cache)
        self._download(recipe.source, recipe.sha256, original)
        with atomic_write(path) as temporary:
            recipe.make(original, temporary)
            if not _has_frames(temporary, origin.content_hash, cache):
                raise InputError(
                    f"{self.name}: this ffmpeg makes other frames of {recipe.source} "
                    f"(the recipe was seen to work with {recipe.tried})"
                )
        return path

    def _place(self, source: str, cache: Path) -> Path:
        """Return where the file of a source is, or goes when it is downloaded."""
        if "://" not in source:
            return Path(source)
        url = urlsplit(source)
        if url.scheme != "package":
            return _download_place(source, self.sha256, cache)
        try:
            package = importlib.metadata.distribution(url.netloc)
        except importlib.metadata.PackageNotFoundError:
            raise MissingDependencyError(
                f"clip {self.name} is a file of {url.netloc}: pip install {url.netloc}"
            ) from None
        return Path(str(package.locate_file(url.path.lstrip("/"))))

    def _download(self, source: str, sha256: str | None, path: Path) -> None:
        """Fetch a URL unless ``path`` has it already, whole and unchanged."""
        if sha256 is not None and path.is_file() and sha256_file(path) == sha256:
            return
        with atomic_write(path) as temporary:
            with open(temporary, "wb") as file:
                for chunk in self._fetch(source):
                    file.write(chunk)
            found = sha256_file(temporary)
            if sha256 is not None and found != sha256:
                raise InputError(f"{self.name}: {source} has the SHA-256 {found}, not {sha256}")

    def _fetch(self, source: str) -> Iterator[bytes]:
        url = urlsplit(source)
        if url.scheme == "file" and not Path(unquote(url.path)).is_file():
            raise InputError(f"{self.name}: cannot download {source}: no such file")
        size = 0
        try:
            with urllib.request.urlopen(source, timeout=DOWNLOAD_TIMEOUT) as response:
                # HTTP's length, which read() does not compare with what came.
                length = response.headers.get("Content-Length", "")
                while chunk := response.read(1 << 20):
                    size += len(chunk)
                    if size > MAX_DOWNLOAD:
                        raise InputError(
                            f"{self.name}: {source} has more than {MAX_DOWNLOAD >> 20} MiB"
                        )
                    yield chunk
        except (OSError, ValueError, HTTPException) as error:
            raise InputError(f"{self.name}: cannot download {source}: {error}") from error
        if length.isdecimal() and size < int(length):
            raise InputError(
                f"{self.name}: cannot download {source}: {size} of {length} bytes came"
            )


def _download_place(source: str, sha256: str | None, cache: Path) -> Path:
    """Return where the file of a URL goes."""
    return cache / "downloads" / f"{sha256}{Path(urlsplit(source).path).suffix}"


def _made_place(origin: Origin, cache: Path) -> Path:
    """Return where the file of a recipe goes."""
    return cache / "clips" / f"{origin.content_hash}.mp4"


def _has_frames(path: Path, content_hash: str, cache: Path) -> bool:
    """Say whether a file decodes to these frames; one that does not decode has others."""
    try:
        return open_video(path, cache=cache).content_hash == content_hash
    except InputError:
        return False
