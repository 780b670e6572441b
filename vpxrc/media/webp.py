"""Animated WebP, which ffmpeg's libraries do not decode: read by Pillow and made QuickTime.

The container is specified in RFC 9649, section 2.
"""

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError, OutputError
from vpxrc.media.frames import check_geometry

if TYPE_CHECKING:
    from PIL.WebPImagePlugin import WebPImageFile

_HEADER = 12  # bytes before the first chunk
_ANIMATED = 0x02  # the flag in the chunk VP8X
_TICKS = 1000  # of a second
_NO_DURATION = 100  # ms of a frame whose duration is 0, as in ffmpeg
# ffmpeg's names for Pillow's modes: of an array, and of QuickTime.
_FORMATS = {"RGB": ("rgb24", "rgb24"), "RGBA": ("rgba", "argb")}


def is_animated_webp(file: IO[bytes]) -> bool:
    """Return whether a file, which is at its beginning and stays there, is an animated WebP."""
    start = file.read(_HEADER + 9)
    file.seek(0)
    return start[:4] + start[8:16] == b"RIFFWEBPVP8X" and bool(start[-1] & _ANIMATED)


def as_quicktime(path: str, file: IO[bytes]) -> tuple[IO[bytes], str]:
    """Return the frames of an animated WebP in a temporary file, and what is wrong with it.

    The frames are stored without loss, with their times and their transparency.

    Args:
        path: What messages call the file.
        file: The file, at its beginning.

    Returns:
        A QuickTime file at its beginning, which the caller closes, and the damage in words, empty
        for none.

    Raises:
        InputError: No frame can be decoded, or the size is out of range.
        OutputError: The temporary file cannot be written.
    """
    from PIL.WebPImagePlugin import WebPImageFile  # as PyAV: loaded where it is needed

    data, damage = _whole_chunks(file.read())
    try:
        image = WebPImageFile(BytesIO(data))  # Image.open has a limit of its own on pixels
    except (OSError, SyntaxError, ValueError):
        raise InputError(f"{path}: not a video, truncated or corrupt") from None
    check_geometry(path, image.width, image.height, Fraction(1))
    frames = _Frames(image)
    made = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        _write(made, image, frames)
    except OSError as error:
        made.close()
        raise OutputError(f"cannot write a temporary file: {error.strerror or error}") from error
    made.seek(0)
    return made, damage or frames.damage


def _whole_chunks(data: bytes) -> tuple[bytes, str]:
    """Return a file without a last chunk that is not whole, and whether there is one in words."""
    at, end = _HEADER, min(int.from_bytes(data[4:8], "little") + 8, len(data))
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        after = at + 8 + size + size % 2  # chunks have even lengths
        if after > end:
            break
        at = after
    if at == int.from_bytes(data[4:8], "little") + 8:
        return data, ""
    return data[:4] + (at - 8).to_bytes(4, "little") + data[8:at], "the end is missing"


class _Frames:
    """The frames of an image.

    Args:
        image: The image, at its first frame.

    Attributes:
        damage: What is wrong with the frames in words; empty for nothing.
    """

    def __init__(self, image: "WebPImageFile") -> None:
        self._image = image
        self.damage = ""

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Yield pixels, uint8 ``[height, width, 3 or 4]``, and ms, until one cannot be decoded."""
        for index in range(self._image.n_frames):
            try:
                self._image.seek(index)
                pixels = np.asarray(self._image)
            except (OSError, EOFError, ValueError):
                self.damage = f"frame {index} cannot be decoded"
                return
            yield pixels, self._image.info["duration"] or _NO_DURATION


def _write(file: IO[bytes], image: "WebPImageFile", frames: _Frames) -> None:
    """Write frames as QuickTime's own lossless codec.

    Raises:
        OSError: The file cannot be written.
    """
    import av

    with av.open(file, "w", format="mov") as output:
        stream = output.add_stream("qtrle", rate=_TICKS)
        stream.width, stream.height = image.size
        array_format, stream.pix_fmt = _FORMATS[image.mode]
        stream.time_base = Fraction(1, _TICKS)
        time = 0
        for pixels, duration in frames:
            frame = av.VideoFrame.from_ndarray(pixels, array_format)
            frame.pts = time
            for packet in stream.encode(frame):  # one, because this encoder keeps none back
                packet.duration = duration
                output.mux(packet)
            time += duration
