"""Decoding a video file into a memory-mapped cache of raw frames."""

import hashlib
import json
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc.cache import map_file, open_entry, write_entry
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.decoder import Decoder
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.frames import (
    BIT_DEPTHS,
    MAX_DIMENSION,
    MIN_DIMENSION,
    Colours,
    Samples,
    Video,
    as_samples,
    check_geometry,
    content_digest,
    content_prefix,
    frame_bytes,
    parse_fps,
    read_y4m_header,
)
from vpxrc.media.pictures import Pictures, has_transparency
from vpxrc.media.probing import Source, probe
from vpxrc.media.reading import Reading, check_file
from vpxrc.media.timing import arrange, at_rate, complete, find_timing
from vpxrc.storage import cache_dir, sha256_file

CACHE_FORMAT = 7
#: Options of an output of ffmpeg that has all frames of a stream as they are.
Y4M = {"format": "yuv4mpegpipe", "fps_mode": "passthrough", "strict": "unofficial"}


@dataclass(frozen=True)
class _Wanted:
    """The arguments of :func:`decode` that change the frames; None for the file's own."""

    width: int | None
    height: int | None
    fps: Fraction | None
    start: float
    num_frames: int | None
    deinterlace: bool
    bit_depth: int | None

    def check(self) -> None:
        """Refuse what is out of range."""
        for label, size in (("width", self.width), ("height", self.height)):
            if size is not None and not MIN_DIMENSION <= size <= MAX_DIMENSION:
                raise InputError(f"{label} {size} is out of range {MIN_DIMENSION}..{MAX_DIMENSION}")
        if self.bit_depth not in (None, *BIT_DEPTHS):
            raise InputError(f"bit_depth {self.bit_depth} is none of 8 and 10")
        if not 0 <= self.start < float("inf"):
            raise InputError(f"start {self.start} s must be finite and not negative")
        if self.num_frames is not None and self.num_frames < 2:
            raise InputError(
                f"num_frames {self.num_frames} is out of range: a clip has at least 2 frames"
            )


@dataclass(frozen=True)
class Decoded:
    """The frames of a file.

    Attributes:
        video: The frames.
        start: Time of the first frame on the file's own clock, in seconds.
        notes: What a user should know about the frames, a line each.
    """

    video: Video
    start: Fraction
    notes: tuple[str, ...]


def open_video(
    source: str | Path | Source,
    *,
    name: str | None = None,
    width: int | None = None,
    height: int | None = None,
    fps: Fraction | int | str | None = None,
    start: float = 0.0,
    num_frames: int | None = None,
    bit_depth: int | None = None,
    cache: str | Path | None = None,
) -> Video:
    """Open anything that ffmpeg reads as 4:2:0 frames of 8 or 10 bits at a constant frame rate.

    The frames are decoded once into a memory-mapped file of the cache, whose key is made of the
    source's bytes and of all arguments but ``name``. Odd dimensions are kept, the rotation that
    phones write is applied, interlaced frames are deinterlaced, and pixels count as square.

    Args:
        source: The video file, or what :func:`vpxrc.media.probing.probe` found in it. The first
            video stream that is not a cover picture is used.
        name: The name of the clip; the file's name without suffix by default.
        width: Scale to this width in pixels (Lanczos). Where only one of width and height is given
            the other keeps the aspect ratio, rounded to an even number.
        height: Scale to this height in pixels.
        fps: Resample to this frame rate by dropping and repeating frames; by default the stream's
            own, or a usual one if it varies. A string may be a ratio, as in ``"30000/1001"``.
        start: Skip this many seconds.
        num_frames: Stop after this many frames at most; all of them by default.
        bit_depth: Bits per sample, 8 or 10; by default 10 for a source that has more than 8.
        cache: Cache folder; :func:`vpxrc.storage.cache_dir` by default.

    Raises:
        InputError: The file is missing, empty, truncated or corrupt, has no video stream or fewer
            than 2 frames, or an argument is out of range.
        OutputError: The cache cannot be written.
    """
    return decode(
        source,
        name=name,
        width=width,
        height=height,
        fps=fps,
        start=start,
        num_frames=num_frames,
        bit_depth=bit_depth,
        cache=cache,
    ).video


def decode(
    source: str | Path | Source,
    *,
    name: str | None = None,
    width: int | None = None,
    height: int | None = None,
    fps: Fraction | int | str | None = None,
    start: float = 0.0,
    num_frames: int | None = None,
    bit_depth: int | None = None,
    cache: str | Path | None = None,
    strict: bool = True,
    deinterlace: bool = True,
) -> Decoded:
    """Do the work of :func:`open_video`, and say what was done.

    Args:
        source: As in :func:`open_video`, and so are the arguments that are not listed here.
        name: See there.
        width: See there.
        height: See there.
        fps: See there.
        start: See there.
        num_frames: See there.
        bit_depth: See there.
        cache: See there.
        strict: Whether a damaged file is refused. Else what can be decoded of it is kept.
        deinterlace: Whether frames that are marked as interlaced are deinterlaced.

    Raises:
        InputError: As in :func:`open_video`; a damaged file only if ``strict``.
        OutputError: The cache cannot be written.
    """
    path = source.path if isinstance(source, Source) else Path(source)
    check_file(path)
    rate = None if fps is None else parse_fps(fps)
    wanted = _Wanted(width, height, rate, float(start), num_frames, deinterlace, bit_depth)
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
    if name is None:  # of a file, whose bytes may be no text
        name = path.stem.encode(errors="surrogateescape").decode(errors="replace")

    found = _open_cached(name, frames_file, path, strict)
    if found is None:
        with write_entry(frames_file) as (temporary, note):
            source = source if isinstance(source, Source) else probe(path)
            note.about = about = _decode_file(source, temporary, wanted, strict)
            rate = Fraction(about["fps"])
            geometry = about["width"], about["height"], rate, about["bit_depth"]
            note.prefix, note.sha256 = content_prefix(*geometry), about["content_hash"]
        found = _open_cached(name, frames_file, path, strict)
    if found is None:
        raise InputError(f"{path}: its decoded frames vanished from {folder}")
    return found


def decode_vp9(stream: bytes | Path, width: int, height: int, bit_depth: int = 8) -> Samples:
    """Decode a VP9 stream with ffmpeg's own decoder.

    Args:
        stream: An IVF or WebM file, or its bytes.
        width: Luma width in pixels that the stream must have.
        height: Luma height in pixels that the stream must have.
        bit_depth: Bits per sample that the stream must have, 8 or 10.

    Returns:
        ``[num_frames, frame_samples]``, rows as in :class:`Video`: exactly the frames that are
        shown, none repeated and none dropped.

    Raises:
        EncoderError: The stream cannot be decoded, or has another size or bit depth.
        MissingDependencyError: There is no ffmpeg.
    """
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    # The decoder by name: where ffmpeg was built without its own, libvpx would decode itself.
    source = "pipe:" if isinstance(stream, bytes) else f"file:{stream}"
    output = (
        ffmpeg.input(source, **{"c:v": "vp9", "err_detect": "explode"})
        .output("pipe:", **Y4M)
        .global_args("-xerror")
    )
    data = stream if isinstance(stream, bytes) else None
    y4m = run_ffmpeg(output, EncoderError, "ffmpeg cannot decode the stream", data)
    return y4m_frames(y4m, width, height, bit_depth)


def y4m_frames(y4m: bytes, width: int, height: int, bit_depth: int = 8) -> Samples:
    """Return the frames of a decoded stream; those of 8 bits are a view of the file.

    Args:
        y4m: The file that ffmpeg wrote, 4:2:0.
        width: Luma width in pixels that it must have.
        height: Luma height in pixels that it must have.
        bit_depth: Bits per sample that it must have, 8 or 10.

    Returns:
        ``[num_frames, frame_samples]``, rows as in :class:`Video`.

    Raises:
        EncoderError: It has no frames, or frames of another size or bit depth.
    """
    try:
        header = y4m[: y4m.index(b"\n") + 1]
        decoded_width, decoded_height, _, decoded_depth = read_y4m_header(header)
    except ValueError:
        raise EncoderError("ffmpeg cannot decode the stream: it has no frames") from None
    if (decoded_width, decoded_height) != (width, height):
        raise EncoderError(
            f"the stream is {decoded_width}x{decoded_height}, its source {width}x{height}"
        )
    if decoded_depth != bit_depth:
        raise EncoderError(
            f"the stream has {decoded_depth} bits per sample, its source {bit_depth}"
        )
    marker = len(b"FRAME\n")
    rows = np.frombuffer(y4m, np.uint8, offset=len(header))
    frames = rows.reshape(-1, marker + frame_bytes(width, height, bit_depth))[:, marker:]
    return frames if bit_depth == 8 else as_samples(frames.copy(), bit_depth)  # aligned


def _open_cached(name: str, frames_file: Path, path: Path, strict: bool) -> Decoded | None:
    """Map a decoded clip, or return None where it is not in the cache or not whole."""
    entry = open_entry(frames_file)
    if entry is None:
        return None
    with entry:
        try:
            about = entry.about
            width, height, num_frames = about["width"], about["height"], about["num_frames"]
            shape = (num_frames, frame_bytes(width, height, about["bit_depth"]))
            frames = as_samples(map_file(entry.file, shape), about["bit_depth"])
            fps, colours = Fraction(about["fps"]), Colours(**about["colours"])
            video = Video(name, frames, width, height, fps, about["content_hash"], colours)
            found = Decoded(video, Fraction(about["start"]), tuple(about["notes"]))
            damage = str(about["damage"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    if not damage:
        return found
    _check_damage(path, damage, strict)
    kept = f"the file is damaged ({damage}); {about['num_read']} frames could be decoded"
    return replace(found, notes=(kept, *found.notes))


def _check_damage(path: Path, damage: str, strict: bool) -> None:
    if strict and damage:
        raise InputError(f"{path}: truncated or corrupt: {damage}")


def _decode_file(source: Source, target: Path, wanted: _Wanted, strict: bool) -> dict[str, Any]:
    """Decode a file into raw frames and return the description that goes beside them."""
    path = source.path
    bit_depth = wanted.bit_depth or (8 if source.bit_depth <= 8 else 10)
    read = _read_file(path, target, replace(wanted, bit_depth=bit_depth), strict)
    after = f" after {wanted.start:g} s" if wanted.start else ""
    if read.size is None or (len(read.times) < 2 and wanted.fps is None):
        raise InputError(f"{path}: {len(read.times)} frame(s){after}; a clip has at least 2")
    size = read.size
    check_geometry(str(path), *size, Fraction(1))
    times = complete(read.times, read.rates)
    last = read.last or 1 / next((rate for rate in read.rates if rate), Fraction(25))
    if wanted.fps is not None:
        # From the start that was asked for, where that is known, and not from the frame after it.
        origin = times[0] if read.origin is None or read.times[0] is None else read.origin
        timing = at_rate(str(path), times, wanted.fps, last, origin)
    else:
        timing = find_timing(str(path), times, read.rates, read.tick, read.last)
    shown = timing.shown[: wanted.num_frames]
    if len(shown) < 2:
        raise InputError(f"{path}: {len(shown)} frame(s){after}; a clip has at least 2")
    check_geometry(str(path), *size, timing.rate)
    digest = content_digest(*size, timing.rate, bit_depth)
    frames = arrange(target, shown, frame_bytes(*size, bit_depth), len(times))
    for row in frames:
        digest.update(row)
    notes = []
    if not timing.is_constant and wanted.fps is None:
        notes.append(
            f"variable frame rate, made {float(timing.rate):g} frames per second: "
            f"{len(times)} frames are shown in {len(shown)}"
        )
    if read.num_interlaced:
        done = "deinterlaced" if wanted.deinterlace else "left interlaced"
        notes.append(f"{read.num_interlaced} of {len(times)} frames are interlaced, {done}")
    if read.num_hidden:
        notes.append(f"{read.num_hidden} frame(s) are left out: the file says not to show them")
    if read.has_errors and not read.damage:
        notes.append("the decoder reports errors: frames may not look as they should")
    if read.is_transparent:
        notes.append("transparency is left out")
    if source.bit_depth > bit_depth:
        notes.append(f"{source.bit_depth} bits per sample are made {bit_depth}")
    return {
        "width": size[0],
        "height": size[1],
        "fps": str(timing.rate),
        "bit_depth": bit_depth,
        "num_frames": len(shown),
        "content_hash": digest.hexdigest(),
        "colours": asdict(source.colours),
        "start": str(times[0]),
        "notes": notes,
        "damage": read.damage,
        "num_read": len(times),
    }


@dataclass
class _Read:
    """What was read of a file.

    Attributes:
        rates: Rates that the file names, the best one first.
        tick: The unit of the times in seconds.
        times: Time of every frame in seconds, as far as the file has them.
        last: Seconds that the last frame is shown; 0 where the file does not say.
        size: Width and height in pixels; None without a frame.
        damage: What is wrong with the file in words; empty for a whole one.
        num_interlaced: Number of frames that are marked as interlaced.
        is_transparent: Whether any frame is not opaque.
        origin: The time of the start that was asked for; None for the first frame's.
        is_short: Whether fewer frames than packets came out, up to the end of the file.
        has_errors: Whether the decoder has logged errors.
        num_hidden: Number of frames that the file has, and says not to show.
    """

    rates: tuple[Fraction | None, ...]
    tick: Fraction
    times: list[Fraction | None]
    last: Fraction = Fraction(0)
    size: tuple[int, int] | None = None
    damage: str = ""
    num_interlaced: int = 0
    is_transparent: bool = False
    is_short: bool = False
    has_errors: bool = False
    num_hidden: int = 0
    origin: Fraction | None = None


def _read_file(path: Path, target: Path, wanted: _Wanted, strict: bool) -> _Read:
    """Write every frame of a file once; a damaged file is read again as well as it can be.

    Raises:
        InputError: The file cannot be read, or is damaged and ``strict``.
    """
    read = _read_frames(path, target, wanted, strict=True, threads=True)
    if (read.is_short or read.has_errors) and not read.damage:
        read = _read_frames(path, target, wanted, strict=True, threads=False)
    damage = read.damage
    if damage:
        _check_damage(path, damage, strict)
        read = _read_frames(path, target, wanted, strict=False, threads=False)
        read.damage = damage
    return read


def _read_frames(
    path: Path, target: Path, wanted: _Wanted, *, strict: bool, threads: bool
) -> _Read:
    """Write every frame of a file once.

    Args:
        path: The file.
        target: Where the rows go.
        wanted: Size and part of the frames.
        strict: Whether decoders report damage, and reading ends with it.
        threads: Whether several frames are decoded at the same time.
    """
    is_sought = wanted.start > 0 and _can_seek(path, wanted.start)
    with Reading(path) as reading, open(target, "wb") as file:
        if is_sought:
            reading.seek(wanted.start)
        video = reading.video
        bit_depth = wanted.bit_depth or 8
        pictures = Pictures(wanted.width, wanted.height, wanted.deinterlace, bit_depth)
        rates = (video.guessed_rate, video.average_rate, video.base_rate)
        read = _Read(rates, video.time_base or Fraction(1, 1000), [])
        read.origin = reading.begin + Fraction(wanted.start) if wanted.start else None
        decoder = Decoder(reading, strict, threads)
        before = 0  # frames before the start
        with closing(decoder.frames()) as frames:
            for frame, time in frames:
                if _is_before(wanted.start, reading, read, time, before):
                    before += 1
                    decoder.forget()
                    continue
                is_suspect = decoder.damage or (threads and decoder.has_errors)
                if _is_enough(wanted, read.times, time) or (strict and is_suspect):
                    break
                read.is_transparent = read.is_transparent or has_transparency(frame)
                read.times.append(time)
                read.last = (frame.duration or 0) * read.tick
                for row in pictures.push(frame):
                    file.write(row)
            else:
                read.is_short = decoder.num_frames < decoder.num_packets
        for row in pictures.flush():
            file.write(row)
        read.size, read.num_interlaced = pictures.size, pictures.num_interlaced
        read.damage, read.has_errors = decoder.damage, decoder.has_errors
        read.num_hidden = decoder.num_hidden
    return read


def _can_seek(path: Path, start: float) -> bool:
    """Whether a seek comes out at a frame that is not after the one asked for."""
    with Reading(path) as reading:
        if not reading.has_times or not reading.seek(start):
            return False
        with closing(Decoder(reading, strict=False, threads=False).frames()) as frames:
            for _, time in frames:
                return time is not None and time <= reading.begin + Fraction(start)
    return False


def _is_before(
    start: float, reading: Reading, read: _Read, time: Fraction | None, before: int
) -> bool:
    """Whether a frame is before the part that is wanted."""
    if not start or read.times:
        return False
    if time is None:
        time = before / next((rate for rate in read.rates if rate), Fraction(25))
        return time < Fraction(start) - read.tick / 2
    return time < reading.begin + Fraction(start) - read.tick / 2


def _is_enough(wanted: _Wanted, times: list[Fraction | None], time: Fraction | None) -> bool:
    """Whether the frames before one at a time are all that is wanted."""
    if wanted.num_frames is None or not times:
        return False
    if wanted.fps is None or time is None or times[0] is None:
        # At a higher rate than the file's they are more than needed.
        return wanted.fps is None and len(times) >= wanted.num_frames
    return (time - times[0]) * wanted.fps > wanted.num_frames + 1
