"""Decoding a video file with ffmpeg into a memory-mapped cache of raw frames."""

import hashlib
import json
import re
import subprocess
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.cache import map_file, open_entry, write_entry
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.ffmpeg import READING, first_error, message_lines, run_ffmpeg, start_ffmpeg
from vpxrc.media.frames import (
    MAX_DIMENSION,
    MIN_DIMENSION,
    Colours,
    Video,
    check_geometry,
    content_digest,
    content_prefix,
    frame_bytes,
    parse_fps,
    read_y4m_header,
)
from vpxrc.media.integrity import is_truncated
from vpxrc.media.probing import HDR, TO_8_BITS, TO_SDR, Source, check_file, probe
from vpxrc.storage import cache_dir, sha256_file

CACHE_FORMAT = 3
# What ffmpeg says where it has repaired or left out something. Other errors may be about parts of a
# file that are no pictures, as in MP4 a list of chapters.
_REPAIR = re.compile(r"concealing|ended prematurely|corrupt|\[(gif|in#\d+/matroska).*\[error\]")


@dataclass(frozen=True)
class _Wanted:
    """The arguments of :func:`open_video` that change the frames; None for the file's own."""

    width: int | None
    height: int | None
    fps: Fraction | None
    start: float
    num_frames: int | None

    def check(self) -> None:
        """Refuse what is out of range."""
        for label, size in (("width", self.width), ("height", self.height)):
            if size is not None and not MIN_DIMENSION <= size <= MAX_DIMENSION:
                raise InputError(f"{label} {size} is out of range {MIN_DIMENSION}..{MAX_DIMENSION}")
        if not 0 <= self.start < float("inf"):
            raise InputError(f"start {self.start} s must be finite and not negative")
        if self.num_frames is not None and self.num_frames < 2:
            raise InputError(
                f"num_frames {self.num_frames} is out of range: a clip has at least 2 frames"
            )


def open_video(
    source: str | Path | Source,
    *,
    name: str | None = None,
    width: int | None = None,
    height: int | None = None,
    fps: Fraction | int | str | None = None,
    start: float = 0.0,
    num_frames: int | None = None,
    cache: str | Path | None = None,
) -> Video:
    """Open anything that ffmpeg reads as 8-bit 4:2:0 frames at a constant frame rate.

    The frames are decoded once into a memory-mapped file of the cache, whose key is made of the
    source's bytes and of all arguments but ``name``. Odd dimensions are kept, the rotation that
    phones write is applied, and pixels count as square.

    Args:
        source: The video file, or what :func:`vpxrc.media.probing.probe` found in it. The first
            video stream that is not a cover picture is used.
        name: The name of the clip; the file's name without suffix by default.
        width: Scale to this width in pixels (Lanczos). Where only one of width and height is given
            the other keeps the aspect ratio, rounded to an even number.
        height: Scale to this height in pixels.
        fps: Resample to this frame rate by dropping and repeating frames; the stream's own by
            default. A string may be a ratio, as in ``"30000/1001"``.
        start: Skip this many seconds.
        num_frames: Stop after this many frames at most; all of them by default.
        cache: Cache folder; :func:`vpxrc.storage.cache_dir` by default.

    Raises:
        InputError: The file is missing, empty, truncated or corrupt, has no video stream, has more
            than 8 bits per sample or fewer than 2 frames, or an argument is out of range.
        OutputError: The cache cannot be written.
        MissingDependencyError: There is no ffmpeg.
    """
    path = source.path if isinstance(source, Source) else Path(source)
    check_file(path)
    rate = None if fps is None else parse_fps(fps)
    wanted = _Wanted(width, height, rate, float(start), num_frames)
    wanted.check()
    decoding = {
        "format": CACHE_FORMAT,
        "source": sha256_file(path),
        **asdict(wanted),
        "fps": None if rate is None else str(rate),
    }
    key = hashlib.sha256(json.dumps(decoding, sort_keys=True).encode()).hexdigest()
    folder = (cache_dir() if cache is None else Path(cache)) / "frames"
    frames_file = folder / f"{key}.i420"
    name = path.stem if name is None else name

    video = _open_cached(name, frames_file)
    if video is None:
        with write_entry(frames_file) as (temporary, note):
            found = source if isinstance(source, Source) else probe(path)
            note.about = about = _decode_file(found, temporary, wanted)
            geometry = about["width"], about["height"], about["fps"]
            note.prefix, note.sha256 = content_prefix(*geometry), about["content_hash"]
        video = _open_cached(name, frames_file)
    if video is None:
        raise InputError(f"{path}: its decoded frames vanished from {folder}")
    return video


def decode_vp9(stream: bytes | Path, width: int, height: int) -> NDArray[np.uint8]:
    """Decode a VP9 stream with ffmpeg's own decoder.

    Args:
        stream: An IVF or WebM file, or its bytes.
        width: Luma width in pixels that the stream must have.
        height: Luma height in pixels that the stream must have.

    Returns:
        uint8 ``[num_frames, frame_bytes]``, rows as in :class:`Video`: exactly the frames that are
        shown, none repeated and none dropped.

    Raises:
        EncoderError: The stream cannot be decoded or has another size.
        MissingDependencyError: There is no ffmpeg.
    """
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    # The decoder by name: where ffmpeg was built without its own, libvpx would decode itself.
    source = "pipe:" if isinstance(stream, bytes) else f"file:{stream}"
    output = (
        ffmpeg.input(source, **{"c:v": "vp9", "err_detect": "explode"})
        .output("pipe:", format="yuv4mpegpipe", pix_fmt="yuv420p", fps_mode="passthrough")
        .global_args("-xerror")
    )
    data = stream if isinstance(stream, bytes) else None
    y4m = run_ffmpeg(output, EncoderError, "ffmpeg cannot decode the stream", data)
    return y4m_frames(y4m, width, height)


def y4m_frames(y4m: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """Return the frames of a decoded stream, a view of the file.

    Args:
        y4m: The file that ffmpeg wrote, 8-bit 4:2:0.
        width: Luma width in pixels that it must have.
        height: Luma height in pixels that it must have.

    Returns:
        uint8 ``[num_frames, frame_bytes]``, rows as in :class:`Video`.

    Raises:
        EncoderError: It has no frames, or frames of another size.
    """
    try:
        header = y4m[: y4m.index(b"\n") + 1]
        decoded_width, decoded_height, _ = read_y4m_header(header)
    except ValueError:
        raise EncoderError("ffmpeg cannot decode the stream: it has no frames") from None
    if (decoded_width, decoded_height) != (width, height):
        raise EncoderError(
            f"the stream is {decoded_width}x{decoded_height}, its source {width}x{height}"
        )
    marker = len(b"FRAME\n")
    rows = np.frombuffer(y4m, np.uint8, offset=len(header))
    return rows.reshape(-1, marker + frame_bytes(width, height))[:, marker:]


def _open_cached(name: str, frames_file: Path) -> Video | None:
    """Map a decoded clip, or return None where it is not in the cache or not whole."""
    entry = open_entry(frames_file)
    if entry is None:
        return None
    with entry:
        try:
            about = entry.about
            width, height, num_frames = about["width"], about["height"], about["num_frames"]
            shape = (num_frames, frame_bytes(width, height))
            frames = map_file(entry.file, shape)
            fps, colours = Fraction(about["fps"]), Colours(**about["colours"])
            return Video(name, frames, width, height, fps, about["content_hash"], colours)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _decode_file(source: Source, target: Path, wanted: _Wanted) -> dict[str, Any]:
    """Decode a file into raw frames and return the description that goes beside them."""
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    _check_depth(source)
    path = source.path
    # "file:" keeps ffmpeg from reading a protocol or an option into the name. Errors end the
    # program instead of being concealed: a concealed frame would be a wrong source.
    stream = ffmpeg.input(f"file:{path}", ss=wanted.start, err_detect="explode", **READING)["V:0"]
    if wanted.width is not None or wanted.height is not None:
        stream = stream.filter("scale", wanted.width or -2, wanted.height or -2, flags="lanczos")
    if wanted.fps is not None:
        stream = stream.filter("fps", str(wanted.fps))
    options: dict[str, object] = {"pix_fmt": "yuv420p", "fps_mode": "cfr"}
    if wanted.num_frames is not None:
        options["frames:v"] = wanted.num_frames
    # Y4M, because its header has the exact size and frame rate after rotation and scaling.
    stream = stream.output("pipe:", format="yuv4mpegpipe", **options).global_args("-xerror")

    frames = 0
    with (
        start_ffmpeg(stream, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, log),
        open(target, "wb") as file,
    ):
        assert process.stdout is not None
        header, marker = process.stdout.readline(), process.stdout.readline()
        if marker:  # without a frame the header's rate means nothing
            geometry = read_y4m_header(header)
            check_geometry(str(path), *geometry)
            size = frame_bytes(geometry[0], geometry[1])
            digest = content_digest(*geometry)
        while marker:
            frame = process.stdout.read(size)
            if len(frame) < size:
                break
            file.write(frame)
            digest.update(frame)
            frames += 1
            marker = process.stdout.readline()
        if process.wait() or _is_damaged(log, path):
            raise InputError(f"{path}: truncated or corrupt: {first_error(log)}")
        if wanted.num_frames is None and is_truncated(path):
            raise InputError(f"{path}: truncated: the last frame is not whole")
        if frames < 2:
            after = f" after {wanted.start:g} s" if wanted.start else ""
            raise InputError(f"{path}: {frames} frame(s){after}; a clip has at least 2")
    return {
        "width": geometry[0],
        "height": geometry[1],
        "fps": str(geometry[2]),
        "num_frames": frames,
        "content_hash": digest.hexdigest(),
        "colours": asdict(source.colours),
    }


def _check_depth(source: Source) -> None:
    """Refuse samples that the encoder cannot take, and name a command that converts them."""
    if source.bit_depth > 8:
        command = TO_SDR if source.colours.transfer in HDR else TO_8_BITS
        raise InputError(
            f"{source.path}: {source.bit_depth} bits per sample ({source.pixel_format}); "
            f"only 8-bit video is supported, convert it first: {command}"
        )


def _is_damaged(messages: IO[bytes], path: Path) -> bool:
    """Whether ffmpeg has repaired or left out something, which does not change its exit status."""
    lines = [line.replace(str(path), "") for line in message_lines(messages)]
    return any(_REPAIR.search(line) for line in lines)
