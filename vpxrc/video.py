"""Videos as raw frames: decoding by ffmpeg into a memory-mapped cache, and Y4M for other tools."""

import functools
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import EncoderError, InputError, MissingDependencyError, VpxrcError
from vpxrc.files import atomic_write, cache_dir, sha256_file

CACHE_FORMAT = 1
MIN_DIMENSION = 16
MAX_DIMENSION = 16384
MAX_FPS = 300
# For what has no constant rate of its own.
USUAL_RATES = tuple(Fraction(rate) for rate in (1, 2, 5, 10, 12, 15, 20, 24, 25, 30, 50, 60))
TIME_STAMP_ERROR = 2e-3  # seconds; Matroska's are whole milliseconds
HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}  # transfers, by ffmpeg's names
TO_8_BITS = "ffmpeg -i IN -pix_fmt yuv420p -c:v ffv1 -c:a copy OUT.mkv"
TO_SDR = (
    "ffmpeg -i IN -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p -c:v ffv1 -c:a copy OUT.mkv"
)


@dataclass(frozen=True)
class ClipFormat:
    """All that is known of a clip but its frames.

    Attributes:
        name: What messages and tables call the clip.
        width: Luma width in pixels; may be odd.
        height: Luma height in pixels; may be odd.
        fps: Frames per second, constant.
        num_frames: Number of frames, at least 2.
        content_hash: See :class:`Video`.
    """

    name: str
    width: int
    height: int
    fps: Fraction
    num_frames: int
    content_hash: str

    @property
    def pixels(self) -> int:
        """Luma pixels of one frame."""
        return self.width * self.height

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, chroma included."""
        return frame_bytes(self.width, self.height)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return float(self.num_frames / self.fps)


@dataclass(frozen=True, eq=False)
class Video:
    """A clip as raw 8-bit 4:2:0 frames, shared read-only by every session of a process.

    Attributes:
        name: What messages and tables call the clip.
        frames: uint8 ``[num_frames, frame_bytes]``, C-contiguous and read-only, a memory map or an
            array. A row is one I420 frame: the luma plane ``[height, width]``, then the U and the V
            plane, each ``[ceil(height / 2), ceil(width / 2)]``, without padding.
        width: Luma width in pixels; may be odd.
        height: Luma height in pixels; may be odd.
        fps: Frames per second, constant.
        content_hash: SHA-256 in hexadecimal over width, height, fps and the bytes of all frames.
    """

    name: str
    frames: NDArray[np.uint8]
    width: int
    height: int
    fps: Fraction
    content_hash: str

    @property
    def format(self) -> ClipFormat:
        """All but the frames."""
        return ClipFormat(
            self.name, self.width, self.height, self.fps, self.num_frames, self.content_hash
        )

    @property
    def num_frames(self) -> int:
        """Number of frames, at least 2."""
        return len(self.frames)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, chroma included."""
        return frame_bytes(self.width, self.height)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return float(self.num_frames / self.fps)

    def planes(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the Y, U and V planes of one frame as ``[h, w]`` uint8 views.

        Args:
            index: Frame number; negative numbers count from the end, as in a list.

        Raises:
            IndexError: There is no such frame.
        """
        return split_planes(self.frames[index], self.width, self.height)


def frame_bytes(width: int, height: int) -> int:
    """Return the bytes of an I420 frame of ``width`` x ``height`` pixels."""
    return width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)


def split_planes(
    frames: NDArray[np.uint8], width: int, height: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return views of the Y, U and V planes.

    Args:
        frames: uint8 ``[..., frame_bytes]``.
        width: Luma width in pixels.
        height: Luma height in pixels.

    Returns:
        uint8 ``[..., height, width]`` and twice ``[..., ceil(height / 2), ceil(width / 2)]``.
    """
    shape = frames.shape[:-1]
    luma = width * height
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    chroma = half_width * half_height
    return (
        frames[..., :luma].reshape(*shape, height, width),
        frames[..., luma : luma + chroma].reshape(*shape, half_height, half_width),
        frames[..., luma + chroma :].reshape(*shape, half_height, half_width),
    )


def open_video(
    path: str | Path,
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
        path: The video file; its first video stream is used.
        name: What to call the clip; the file's name without suffix by default.
        width: Scale to this width in pixels (Lanczos). Where only one of width and height is given
            the other keeps the aspect ratio, rounded to an even number.
        height: Scale to this height in pixels.
        fps: Resample to this frame rate by dropping and repeating frames; the stream's own by
            default. A string may be a ratio, as in ``"30000/1001"``.
        start: Skip this many seconds.
        num_frames: Stop after this many frames at most; all of them by default.
        cache: Cache folder; :func:`vpxrc.files.cache_dir` by default.

    Raises:
        InputError: The file is missing, empty, truncated or corrupt, has no video stream, has more
            than 8 bits per sample or fewer than 2 frames, or an argument is out of range.
        OutputError: The cache cannot be written.
        MissingDependencyError: There is no ffmpeg.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a video file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    for label, size in (("width", width), ("height", height)):
        if size is not None and not MIN_DIMENSION <= size <= MAX_DIMENSION:
            raise InputError(f"{label} {size} is out of range {MIN_DIMENSION}..{MAX_DIMENSION}")
    if not 0 <= start < float("inf"):
        raise InputError(f"start {start} s must be finite and not negative")
    if num_frames is not None and num_frames < 2:
        raise InputError(f"num_frames {num_frames} is out of range: a clip has at least 2 frames")
    rate = None if fps is None else parse_fps(fps)

    decoding = {
        "format": CACHE_FORMAT,
        "source": sha256_file(path),
        "width": width,
        "height": height,
        "fps": None if rate is None else str(rate),
        "start": float(start),
        "num_frames": num_frames,
    }
    key = hashlib.sha256(json.dumps(decoding, sort_keys=True).encode()).hexdigest()
    folder = (cache_dir() if cache is None else Path(cache)) / "frames"
    frames_file, description_file = folder / f"{key}.i420", folder / f"{key}.json"
    name = path.stem if name is None else name

    video = _open_cached(name, frames_file, description_file)
    if video is None:
        with atomic_write(frames_file) as temporary:
            description = _decode_file(path, temporary, width, height, rate, start, num_frames)
        # The description comes last: where it is there, the frames are there.
        with atomic_write(description_file) as temporary:
            temporary.write_text(json.dumps(description))
        video = _open_cached(name, frames_file, description_file)
    if video is None:
        raise InputError(f"{path}: its decoded frames vanished from {folder}")
    return video


@dataclass(frozen=True)
class Colours:
    """How the numbers of :func:`open_video` are meant to be shown, as far as the file says.

    Attributes:
        matrix: From RGB, ffmpeg's name, as in ``"bt709"``; ``"unknown"``.
        transfer: Likewise, as in ``"bt709"``, or of HDR ``"smpte2084"``, ``"arib-std-b67"``.
        full_range: Black is 0 and white 255, not 16 and 235.
    """

    matrix: str = "unknown"
    transfer: str = "unknown"
    full_range: bool = False


def read_colours(path: str | Path) -> Colours:
    """Return what a video file says of its colours.

    Args:
        path: The video file; its first video stream is looked at. What is RGB becomes BT.601 by
            ffmpeg's conversion.

    Returns:
        All unknown where ffmpeg cannot read it; :func:`open_video` says why then.

    Raises:
        MissingDependencyError: There is no ffmpeg.
    """
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    stream = ffmpeg.input(f"file:{path}")["V:0"].output(
        "pipe:", format="null", pix_fmt="yuv420p", vframes=1
    )
    with start_ffmpeg(stream, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, log):
        process.communicate()
        lines = message_lines(log)
    words = [re.search(r"Stream #0.*: Video: [^,]+, (\w+)(?:\(([^)]*)\))?", one) for one in lines]
    formats = [match for match in words if match]
    if len(formats) < 2:
        return Colours()
    (source, _), (_, tags) = formats[0].groups(), formats[-1].groups(default="")
    named = [tag for tag in tags.split(", ") if tag not in ("tv", "pc", "progressive")]
    # "matrix/primaries/transfer", or one word where these are the same.
    matrix, _, transfer = (named[0].split("/") * 3)[:3] if named else ("unknown",) * 3
    if matrix == "unknown" and not source.startswith(("yuv", "nv", "gray", "uyvy", "y2", "p0")):
        matrix = "bt470bg"
    return Colours(matrix, transfer, "pc" in tags.split(", "))


def resampling_rate(path: str | Path) -> Fraction | None:
    """Return the ``fps`` for :func:`open_video` where frames do not come at a constant rate.

    It is the stream's own where its frames lie on that grid with gaps between, else a usual one, 60
    at most, that is no slower than three quarters of the frames come.

    Args:
        path: The video file; its first video stream is looked at, packets only.

    Returns:
        None where the rate is constant, or ffmpeg cannot tell; :func:`open_video` says why then.

    Raises:
        MissingDependencyError: There is no ffmpeg.
    """
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    stream = ffmpeg.input(f"file:{path}")["V:0"].output("pipe:", format="framecrc", c="copy")
    with start_ffmpeg(stream, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, log):
        table = process.communicate()[0].decode()
        tick = re.search(r"^#tb 0: (\d+/\d+)$", table, re.MULTILINE)
        words = [line for line in message_lines(log) if re.search(r"Stream #0.*: Video: ", line)]
    grid = re.search(r", ([\d.]+k?) tbr", words[0]) if words else None
    times = [int(row.split(",")[2]) for row in table.splitlines() if row[:1] not in ("#", "")]
    if process.returncode or tick is None or grid is None or len(times) < 3:
        return None
    steps = np.diff(np.sort(times)) * float(Fraction(tick[1]))
    rate = _exact_rate(float(grid[1].replace("k", "e3")))
    multiples = np.rint(steps * float(rate))
    if (abs(steps - multiples / float(rate)) <= TIME_STAMP_ERROR).all() and multiples.min() > 0:
        if multiples.max() == multiples.min():
            return None
        if rate <= USUAL_RATES[-1] or float(rate) <= 1.1 / steps.mean():
            return rate
    quick = float(np.quantile(steps, 0.25))
    return next((r for r in USUAL_RATES if float(r) >= 0.97 / max(quick, 1e-3)), USUAL_RATES[-1])


def video_from_frames(
    frames: NDArray[np.uint8],
    width: int,
    height: int,
    fps: Fraction | int | str,
    name: str = "array",
) -> Video:
    """Make a video of I420 frames in memory.

    Args:
        frames: uint8 ``[num_frames, frame_bytes]``; see :class:`Video`. A writeable array is
            copied.
        width: Luma width in pixels, 16..16384.
        height: Luma height in pixels, 16..16384.
        fps: Frames per second, above 0 and at most 300.
        name: What to call the clip.

    Raises:
        InputError: The shape, the type or a number is out of range.
    """
    rate = parse_fps(fps)
    _check_geometry(name, width, height, rate)
    if frames.dtype != np.uint8:
        raise InputError(f"{name}: frames are {frames.dtype}, not uint8 (8 bits per sample)")
    if frames.ndim != 2 or frames.shape[1] != frame_bytes(width, height):
        raise InputError(
            f"{name}: frames have the shape {frames.shape}, "
            f"not (num_frames, {frame_bytes(width, height)})"
        )
    if len(frames) < 2:
        raise InputError(f"{name}: {len(frames)} frame(s); a clip has at least 2")
    if frames.flags.writeable or not frames.flags.c_contiguous:
        frames = frames.copy(order="C")
        frames.flags.writeable = False
    digest = _content_digest(width, height, rate)
    digest.update(frames.data)
    return Video(name, frames, width, height, rate, digest.hexdigest())


def write_y4m(video: Video, path: str | Path) -> None:
    """Write a video as YUV4MPEG2, the uncompressed format that ``vpxenc`` reads.

    Raises:
        OutputError: The file cannot be written.
    """
    rate = f"{video.fps.numerator}:{video.fps.denominator}"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(f"YUV4MPEG2 W{video.width} H{video.height} F{rate} Ip A1:1 C420jpeg\n".encode())
        for frame in video.frames:
            file.write(b"FRAME\n")
            file.write(frame.data)


def parse_fps(fps: Fraction | int | float | str) -> Fraction:
    """Return a frame rate as an exact ratio.

    Args:
        fps: A number, or a string such as ``"30000/1001"``.

    Raises:
        InputError: It is not a number above 0 and at most 300.
    """
    try:
        rate = Fraction(fps)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise InputError(f"fps {fps!r} is not a number or a ratio such as 30000/1001") from None
    if not 0 < rate <= MAX_FPS:
        raise InputError(f"fps {fps} is out of range: above 0, at most {MAX_FPS}")
    return rate


def ffmpeg_program() -> str:
    """Return the path of imageio-ffmpeg's program, which has libvmaf where Debian's has not.

    Raises:
        MissingDependencyError: There is no program.
    """
    import imageio_ffmpeg  # as ffmpeg-python: where it is needed

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        raise MissingDependencyError(
            "no ffmpeg program: pip install --force-reinstall imageio-ffmpeg"
        ) from None


@contextmanager
def start_ffmpeg(
    stream: Any, **options: Any
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run an ffmpeg-python stream, and end the program when the block ends early.

    Args:
        stream: What ``ffmpeg.output`` returned.
        **options: More arguments for :class:`subprocess.Popen`.

    Yields:
        The process and the file of its messages, each marked with its level.

    Raises:
        MissingDependencyError: There is no ffmpeg.
    """
    command = stream.global_args("-nostdin", "-nostats", "-hide_banner", "-v", "level+info")
    program = ffmpeg_program()
    with tempfile.TemporaryFile() as messages:
        try:
            process = subprocess.Popen(
                command.compile(cmd=program, overwrite_output=True), stderr=messages, **options
            )
        except (FileNotFoundError, PermissionError) as error:
            raise MissingDependencyError(
                f"cannot start ffmpeg ({program}: {error.strerror}): "
                "pip install --force-reinstall imageio-ffmpeg, and unset IMAGEIO_FFMPEG_EXE"
            ) from None
        try:
            yield process, messages
        finally:
            process.kill()
            # Not Popen.__exit__: it would flush what the dead program never read.
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


def run_ffmpeg(
    stream: Any,
    error: type[VpxrcError],
    doing: str,
    data: bytes | None = None,
    cwd: str | Path | None = None,
) -> bytes:
    """Run an ffmpeg-python stream to its end.

    Args:
        stream: What ``ffmpeg.output`` returned.
        error: The exception to raise where ffmpeg fails.
        doing: How its message begins, as in ``"cannot decode the stream"``.
        data: Bytes for the program's standard input.
        cwd: The program's working folder.

    Returns:
        The program's standard output.

    Raises:
        error: ffmpeg failed; the message ends with its words.
        MissingDependencyError: There is no ffmpeg, or it lacks a filter.
    """
    stdin = subprocess.DEVNULL if data is None else subprocess.PIPE
    with start_ffmpeg(stream, stdin=stdin, stdout=subprocess.PIPE, cwd=cwd) as (process, messages):
        output, _ = process.communicate(data)
        if process.returncode:
            words = first_error(messages)
            if "No such filter" in words:
                raise MissingDependencyError(
                    f"{doing}: this ffmpeg is not imageio-ffmpeg's ({words}): "
                    "pip install imageio-ffmpeg, and unset IMAGEIO_FFMPEG_EXE"
                )
            raise error(f"{doing}: {words}")
    return output


def message_lines(messages: IO[bytes]) -> list[str]:
    """Return what ffmpeg has said so far, line by line, each marked with its level."""
    # Not seek and read: the running program writes at the file's shared position.
    size = os.fstat(messages.fileno()).st_size
    return os.pread(messages.fileno(), size, 0).decode(errors="replace").splitlines()


def first_error(messages: IO[bytes]) -> str:
    """Return ffmpeg's first error message, which is the cause where others follow."""
    for line in message_lines(messages):
        if match := re.search(r"\[(?:error|fatal|panic)\] (.*)", line):
            return match[1].strip()
    return "ffmpeg says nothing about it"


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


def read_y4m_header(line: bytes) -> tuple[int, int, Fraction]:
    """Return width, height and frame rate from the first line of an 8-bit 4:2:0 Y4M stream.

    Raises:
        ValueError: It is not such a line.
    """
    magic, *fields = line.decode("ascii").split()
    tags = {field[0]: field[1:] for field in fields if field[0] != "X"}
    if magic != "YUV4MPEG2" or tags.get("C", "420") not in {
        "420",
        "420jpeg",
        "420mpeg2",
        "420paldv",
    }:
        raise ValueError(f"not an 8-bit 4:2:0 Y4M header: {line!r}")
    try:
        return int(tags["W"]), int(tags["H"]), Fraction(tags["F"].replace(":", "/"))
    except (KeyError, ZeroDivisionError):
        raise ValueError(f"incomplete Y4M header: {line!r}") from None


def _open_cached(name: str, frames_file: Path, description_file: Path) -> Video | None:
    """Map a decoded clip, or return None where it is not in the cache or not whole."""
    try:
        description = json.loads(description_file.read_text())
        width, height = description["width"], description["height"]
        frames = np.memmap(frames_file, np.uint8, mode="r").reshape(-1, frame_bytes(width, height))
        if len(frames) != description["num_frames"]:
            return None
        fps = Fraction(description["fps"])
        return Video(name, frames, width, height, fps, description["content_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _decode_file(
    path: Path,
    target: Path,
    width: int | None,
    height: int | None,
    fps: Fraction | None,
    start: float,
    num_frames: int | None,
) -> dict[str, object]:
    """Decode a file into raw frames and return the description that goes beside them."""
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    # "file:" keeps ffmpeg from reading a protocol or an option into the name. Errors end the
    # program instead of being concealed: a concealed frame would be a wrong source.
    source = ffmpeg.input(f"file:{path}", ss=start, err_detect="explode")
    stream = source["V:0"]
    if width is not None or height is not None:
        stream = stream.filter("scale", width or -2, height or -2, flags="lanczos")
    if fps is not None:
        stream = stream.filter("fps", str(fps))
    options: dict[str, object] = {"pix_fmt": "yuv420p", "fps_mode": "cfr"}
    if num_frames is not None:
        options["frames:v"] = num_frames
    # Y4M, because its header has the exact size and frame rate after rotation and scaling.
    stream = stream.output("pipe:", format="yuv4mpegpipe", **options).global_args("-xerror")

    frames = 0
    with (
        start_ffmpeg(stream, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, log),
        open(target, "wb") as file,
    ):
        assert process.stdout is not None
        header, marker = process.stdout.readline(), process.stdout.readline()
        _check_source(path, log)
        if marker:  # without a frame the header's rate means nothing
            geometry = read_y4m_header(header)
            _check_geometry(str(path), *geometry)
            size = frame_bytes(geometry[0], geometry[1])
            digest = _content_digest(*geometry)
        while marker:
            frame = process.stdout.read(size)
            if len(frame) < size:
                break
            file.write(frame)
            digest.update(frame)
            frames += 1
            marker = process.stdout.readline()
        # Neither of the two changes ffmpeg's exit status.
        damage = [
            line for line in message_lines(log) if re.search("concealing|ended prematurely", line)
        ]
        if process.wait() or damage:
            raise InputError(f"{path}: truncated or corrupt: {first_error(log)}")
        # Y4M's demuxer drops a last frame that is not whole without a word.
        if num_frames is None and _is_truncated_y4m(path):
            raise InputError(f"{path}: truncated: the last frame is not whole")
        if frames < 2:
            after = f" after {start:g} s" if start else ""
            raise InputError(f"{path}: {frames} frame(s){after}; a clip has at least 2")
    return {
        "width": geometry[0],
        "height": geometry[1],
        "fps": str(geometry[2]),
        "num_frames": frames,
        "content_hash": digest.hexdigest(),
    }


def _check_source(path: Path, messages: IO[bytes]) -> None:
    """Refuse what ffmpeg reads but the encoder cannot take, by ffmpeg's description of it."""
    lines = message_lines(messages)
    if not any("Input #0," in line for line in lines):
        raise InputError(f"{path}: not a video, truncated or corrupt: {first_error(messages)}")
    for line in lines:
        if "matches no streams" in line:
            raise InputError(f"{path}: no video stream")
        match = re.search(r"Stream #0.*: Video: [^,]+, (\w+)", line)
        if match and "(attached pic)" not in line:
            depth = _bit_depths().get(match[1], 8)
            if depth > 8:
                raise InputError(
                    f"{path}: {depth} bits per sample ({match[1]}); only 8-bit video is supported, "
                    f"convert it first: {TO_SDR if re.search('|'.join(HDR), line) else TO_8_BITS}"
                )
            return


@functools.cache
def _bit_depths() -> dict[str, int]:
    """Return the bits per sample of ffmpeg's pixel formats, by name."""
    table = subprocess.run(
        [ffmpeg_program(), "-v", "error", "-pix_fmts"], capture_output=True, text=True, check=True
    ).stdout
    rows = re.findall(r"^[I.][O.]\S* (\w+) +\d+ +\d+ +([\d-]+)$", table, re.MULTILINE)
    return {name: max(int(depth) for depth in depths.split("-")) for name, depths in rows}


def _is_truncated_y4m(path: Path) -> bool:
    """Whether a Y4M file stops inside a frame; False for whatever is not 8-bit 4:2:0 Y4M."""
    with open(path, "rb") as file:
        header = file.readline(4096)
    try:
        width, height, _ = read_y4m_header(header)
    except ValueError:
        return False
    return (path.stat().st_size - len(header)) % (len(b"FRAME\n") + frame_bytes(width, height)) != 0


def _exact_rate(rate: float) -> Fraction:
    """Return the rate of which ffmpeg prints two decimals."""
    ntsc = Fraction(round(rate * 1.001) * 1000, 1001)
    if rate != round(rate) and abs(float(ntsc) - rate) <= 0.005:
        return ntsc
    return Fraction(rate).limit_denominator(1000)


def _check_geometry(name: str, width: int, height: int, fps: Fraction) -> None:
    if not (MIN_DIMENSION <= width <= MAX_DIMENSION and MIN_DIMENSION <= height <= MAX_DIMENSION):
        raise InputError(
            f"{name}: {width}x{height} pixels; each side must be {MIN_DIMENSION}..{MAX_DIMENSION}"
        )
    if not 0 < fps <= MAX_FPS:
        raise InputError(f"{name}: {float(fps):g} frames per second; at most {MAX_FPS}, give fps")


def _content_digest(width: int, height: int, fps: Fraction) -> "hashlib._Hash":
    return hashlib.sha256(f"{width}x{height} {fps}\n".encode())
