"""Videos as raw frames in memory, their colours on a screen, and Y4M for other tools."""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError
from vpxrc.storage import atomic_write

MIN_DIMENSION = 16
MAX_DIMENSION = 16384
MAX_FPS = 300
# The luma weights of red and blue by ffmpeg's names of the matrices: ITU-R BT.601, BT.709, BT.2020.
LUMA_WEIGHTS = {
    "bt470bg": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
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
        colours: How the samples are to be shown.
    """

    name: str
    frames: NDArray[np.uint8]
    width: int
    height: int
    fps: Fraction
    content_hash: str
    colours: Colours = Colours()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the clip itself: nothing of it changes, and its frames are large."""
        return self

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
    check_geometry(name, width, height, rate)
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
    digest = content_digest(width, height, rate)
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


def content_prefix(width: int, height: int, fps: Fraction) -> str:
    """Return what the digest of a clip begins with; see :attr:`Video.content_hash`."""
    return f"{width}x{height} {fps}\n"


def content_digest(width: int, height: int, fps: Fraction) -> "hashlib._Hash":
    """Return the digest of a clip before its frames are added; see :attr:`Video.content_hash`."""
    return hashlib.sha256(content_prefix(width, height, fps).encode())


def rgb(
    y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8], colours: Colours | None = None
) -> NDArray[np.uint8]:
    """Return 4:2:0 planes as RGB, by the equations of ITU-T H.273, section 8.3.

    Every chroma sample counts for its four pixels, as in ffmpeg's fast conversion.

    Args:
        y: Luma, uint8 ``[..., height, width]``.
        u: The first chroma plane, uint8 ``[..., ceil(height / 2), ceil(width / 2)]``.
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

    def large(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
        repeated = plane.repeat(2, axis=-2).repeat(2, axis=-1)[..., :height, :width]
        return (repeated.astype(np.float32) - 128) * np.float32(chroma_scale)

    luma = (y.astype(np.float32) - black) * np.float32(luma_scale)
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
