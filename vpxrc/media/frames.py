"""Videos as raw frames in memory, their colours on a screen, and Y4M for other tools."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError
from vpxrc.storage import atomic_write

MIN_DIMENSION = 16
MAX_DIMENSION = 16384
MAX_FPS = 300
BIT_DEPTHS = (8, 10)  # bits per sample
#: Samples of 8 bits, or of 10 in the low bits of two bytes.
Samples: TypeAlias = NDArray[np.uint8 | np.uint16]
_Sample = TypeVar("_Sample", bound=np.generic)
# The luma weights of red and blue by ffmpeg's names of the matrices: ITU-R BT.601, BT.709, BT.2020.
LUMA_WEIGHTS = {
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}


MAX_10_BITS = 1023
# Tags of the first line of a Y4M stream with 4:2:0 samples.
_Y4M_BIT_DEPTHS = {
    "420": 8,
    "420jpeg": 8,
    "420mpeg2": 8,
    "420paldv": 8,
    "420p9": 9,
    "420p10": 10,
    "420p12": 12,
    "420p14": 14,
    "420p16": 16,
}


@dataclass(frozen=True)
class Colours:
    """How the samples of a video are to be shown, as far as its file says.

    Attributes:
        matrix: The conversion from RGB by ffmpeg's name, as in ``"bt709"``; ``"unknown"``.
        transfer: The transfer characteristic by ffmpeg's name, as in ``"bt709"``, or for HDR
            ``"smpte2084"`` and ``"arib-std-b67"``; ``"unknown"``.
        full_range: Whether black is 0 and white 255. In the limited range they are 16 and 235.
        primaries: The colour primaries by ffmpeg's name, as in ``"bt709"``; ``"unknown"``.
    """

    matrix: str = "unknown"
    transfer: str = "unknown"
    full_range: bool = False
    primaries: str = "unknown"


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
        bit_depth: Bits per sample, 8 or 10.
    """

    name: str
    width: int
    height: int
    fps: Fraction
    num_frames: int
    content_hash: str
    bit_depth: int = 8

    @property
    def pixels(self) -> int:
        """Luma pixels of one frame."""
        return self.width * self.height

    @property
    def error_unit(self) -> int:
        """The squared error of a sample that is 1 in 8 bits."""
        return int(4 ** (self.bit_depth - 8))

    @property
    def frame_samples(self) -> int:
        """Samples of one frame, chroma included."""
        return frame_samples(self.width, self.height)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, chroma included."""
        return frame_bytes(self.width, self.height, self.bit_depth)

    @cached_property
    def duration(self) -> float:
        """Length in seconds."""
        return float(self.num_frames / self.fps)


@dataclass(frozen=True, eq=False)
class Video:
    """A clip as raw 4:2:0 frames, shared read-only by every session of a process.

    Attributes:
        name: What messages and tables call the clip.
        frames: ``[num_frames, frame_samples]``, C-contiguous and read-only, a memory map or an
            array; uint8 for 8 bits per sample, uint16 with values to 1023 for 10. A row is one I420
            frame: the luma plane ``[height, width]``, then the U and the V plane, each
            ``[ceil(height / 2), ceil(width / 2)]``, without padding.
        width: Luma width in pixels; may be odd.
        height: Luma height in pixels; may be odd.
        fps: Frames per second, constant.
        content_hash: SHA-256 in hexadecimal over width, height, fps, bit depth and the bytes of all
            frames.
        colours: How the samples are to be shown.
    """

    name: str
    frames: Samples
    width: int
    height: int
    fps: Fraction
    content_hash: str
    colours: Colours = Colours()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the clip itself: nothing of it changes, and its frames are large."""
        return self

    @cached_property
    def format(self) -> ClipFormat:
        """All but the frames."""
        return ClipFormat(
            self.name,
            self.width,
            self.height,
            self.fps,
            self.num_frames,
            self.content_hash,
            self.bit_depth,
        )

    @property
    def bit_depth(self) -> int:
        """Bits per sample, 8 or 10."""
        return 8 if self.frames.dtype == np.uint8 else 10

    @property
    def num_frames(self) -> int:
        """Number of frames, at least 2."""
        return len(self.frames)

    @property
    def frame_samples(self) -> int:
        """Samples of one frame, chroma included."""
        return frame_samples(self.width, self.height)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, chroma included."""
        return frame_bytes(self.width, self.height, self.bit_depth)

    @cached_property
    def duration(self) -> float:
        """Length in seconds."""
        return float(self.num_frames / self.fps)

    def planes(self, index: int) -> tuple[Samples, Samples, Samples]:
        """Return the Y, U and V planes of one frame as ``[h, w]`` views.

        Args:
            index: Frame number; negative numbers count from the end, as in a list.

        Raises:
            IndexError: There is no such frame.
        """
        return split_planes(self.frames[index], self.width, self.height)


def frame_samples(width: int, height: int) -> int:
    """Return the samples of an I420 frame of ``width`` x ``height`` pixels."""
    return width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)


def frame_bytes(width: int, height: int, bit_depth: int = 8) -> int:
    """Return the bytes of an I420 frame: a sample of more than 8 bits takes two."""
    return frame_samples(width, height) * (1 if bit_depth == 8 else 2)


def as_samples(data: NDArray[np.uint8], bit_depth: int) -> Samples:
    """Return bytes as samples of so many bits, without a copy."""
    return data if bit_depth == 8 else data.view(np.uint16)


def to_8_bits(samples: Samples) -> NDArray[np.uint8]:
    """Return samples rounded to 8 bits; those of 8 bits are returned as they are."""
    if samples.dtype == np.uint8:
        return samples.view(np.uint8)
    rounded = (samples.astype(np.uint16) + 2) >> 2
    return np.asarray(np.minimum(rounded, 255), dtype=np.uint8)


def split_planes(
    frames: NDArray[_Sample], width: int, height: int
) -> tuple[NDArray[_Sample], NDArray[_Sample], NDArray[_Sample]]:
    """Return views of the Y, U and V planes.

    Args:
        frames: ``[..., frame_samples]``.
        width: Luma width in pixels.
        height: Luma height in pixels.

    Returns:
        ``[..., height, width]`` and twice ``[..., ceil(height / 2), ceil(width / 2)]``.
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


def video_from_frames(
    frames: Samples,
    width: int,
    height: int,
    fps: Fraction | int | str,
    name: str = "array",
) -> Video:
    """Make a video of I420 frames in memory.

    Args:
        frames: uint8, or uint16 of 10 bits, ``[num_frames, frame_samples]``; see :class:`Video`. A
            writeable array is copied.
        width: Luma width in pixels, 16..16384.
        height: Luma height in pixels, 16..16384.
        fps: Frames per second, above 0 and at most 300.
        name: What to call the clip.

    Raises:
        InputError: The shape, the type, a sample or a number is out of range.
    """
    rate = parse_fps(fps)
    check_geometry(name, width, height, rate)
    if frames.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: frames are {frames.dtype}, not uint8 (8 bits per sample) or uint16 (10 bits)"
        )
    if frames.ndim != 2 or frames.shape[1] != frame_samples(width, height):
        raise InputError(
            f"{name}: frames have the shape {frames.shape}, "
            f"not (num_frames, {frame_samples(width, height)})"
        )
    if frames.dtype == np.uint16 and frames.max(initial=0) > MAX_10_BITS:
        raise InputError(f"{name}: a sample is {frames.max()}; those of 10 bits end at 1023")
    if len(frames) < 2:
        raise InputError(f"{name}: {len(frames)} frame(s); a clip has at least 2")
    if frames.flags.writeable or not frames.flags.c_contiguous:
        frames = frames.copy(order="C")
        frames.flags.writeable = False
    digest = content_digest(width, height, rate, 8 if frames.dtype == np.uint8 else 10)
    digest.update(frames.data)
    return Video(name, frames, width, height, rate, digest.hexdigest())


def write_y4m(video: Video, path: str | Path) -> None:
    """Write a video as YUV4MPEG2, the uncompressed format that ``vpxenc`` reads.

    Raises:
        OutputError: The file cannot be written.
    """
    rate = f"{video.fps.numerator}:{video.fps.denominator}"
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        kind = "420jpeg" if video.bit_depth == 8 else "420p10 XYSCSS=420P10"
        file.write(f"YUV4MPEG2 W{video.width} H{video.height} F{rate} Ip A1:1 C{kind}\n".encode())
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


def read_y4m_header(line: bytes) -> tuple[int, int, Fraction, int]:
    """Return width, height, frame rate and bit depth from the first line of a 4:2:0 Y4M stream.

    Raises:
        ValueError: It is not such a line.
    """
    magic, *fields = line.decode("ascii").split()
    tags = {field[0]: field[1:] for field in fields if field[0] != "X"}
    bit_depth = _Y4M_BIT_DEPTHS.get(tags.get("C", "420"))
    if magic != "YUV4MPEG2" or bit_depth is None:
        raise ValueError(f"not a 4:2:0 Y4M header: {line!r}")
    try:
        return int(tags["W"]), int(tags["H"]), Fraction(tags["F"].replace(":", "/")), bit_depth
    except (KeyError, ZeroDivisionError):
        raise ValueError(f"incomplete Y4M header: {line!r}") from None


def check_geometry(name: str, width: int, height: int, fps: Fraction) -> None:
    """Refuse sizes and frame rates that no encoder here takes.

    Raises:
        InputError: A side or the rate is out of range; the message names the clip.
    """
    if not (MIN_DIMENSION <= width <= MAX_DIMENSION and MIN_DIMENSION <= height <= MAX_DIMENSION):
        raise InputError(
            f"{name}: {width}x{height} pixels; each side must be {MIN_DIMENSION}..{MAX_DIMENSION}"
        )
    if not 0 < fps <= MAX_FPS:
        raise InputError(f"{name}: {float(fps):g} frames per second; at most {MAX_FPS}, give fps")


def content_prefix(width: int, height: int, fps: Fraction, bit_depth: int) -> str:
    """Return what the digest of a clip begins with; see :attr:`Video.content_hash`."""
    return f"{width}x{height} {fps}{'' if bit_depth == 8 else f' {bit_depth} bits'}\n"


def content_digest(width: int, height: int, fps: Fraction, bit_depth: int) -> "hashlib._Hash":
    """Return the digest of a clip before its frames are added; see :attr:`Video.content_hash`."""
    return hashlib.sha256(content_prefix(width, height, fps, bit_depth).encode())


def rgb(y: Samples, u: Samples, v: Samples, colours: Colours | None = None) -> NDArray[np.uint8]:
    """Return 4:2:0 planes as RGB, by the equations of ITU-T H.273, section 8.3.

    Every chroma sample counts for its four pixels, as in ffmpeg's fast conversion. Samples of 10
    bits are rounded to 8 first. HDR keeps its own transfer, so it looks pale.

    Args:
        y: Luma, ``[..., height, width]``.
        u: The first chroma plane, ``[..., ceil(height / 2), ceil(width / 2)]``.
        v: The second chroma plane, of the same shape.
        colours: The video's; an unknown matrix counts as BT.601's, and without ``colours`` the
            range is limited.

    Returns:
        uint8 ``[..., height, width, 3]``.
    """
    colours = colours or Colours()
    red, blue = LUMA_WEIGHTS.get(colours.matrix, LUMA_WEIGHTS["bt470bg"])
    green = 1 - red - blue
    black, luma_scale, chroma_scale = (
        (0, 1, 1) if colours.full_range else (16, 255 / 219, 255 / 224)
    )
    height, width = y.shape[-2:]

    def large(plane: Samples) -> NDArray[np.float32]:
        repeated = to_8_bits(plane).repeat(2, axis=-2).repeat(2, axis=-1)[..., :height, :width]
        return (repeated.astype(np.float32) - 128) * np.float32(chroma_scale)

    luma = (to_8_bits(y).astype(np.float32) - black) * np.float32(luma_scale)
    to_blue, to_red = large(u) * np.float32(2 * (1 - blue)), large(v) * np.float32(2 * (1 - red))
    picture = np.stack(
        (
            luma + to_red,
            luma - np.float32(blue / green) * to_blue - np.float32(red / green) * to_red,
            luma + to_blue,
        ),
        axis=-1,
    )
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)
