"""Damage at the end of a file that ffmpeg passes over without a word."""

import os
from io import BufferedReader
from pathlib import Path

from vpxrc.media.frames import frame_bytes, read_y4m_header

# Lengths of the packets of MPEG-TS, and where their first byte (0x47) is: plain, with a time in
# front (M2TS), and with a checksum behind.
_PACKETS = ((188, 0), (192, 4), (204, 0))
_SYNC = 0x47


def is_truncated(path: Path) -> bool:
    """Whether a Y4M file stops inside a frame, MPEG-TS inside a packet, or a GIF before its end.

    ffmpeg leaves out what is not whole. Files of other formats count as whole.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(6)
        file.seek(0)
        if start in (b"GIF87a", b"GIF89a"):
            return not _is_whole_gif(file)
        return not (_is_whole_y4m(file) and _is_whole_ts(file))


def _is_whole_y4m(file: BufferedReader) -> bool:
    """Whether the frames of 4:2:0 Y4M are whole; True for what is not such a file."""
    try:
        width, height, _, bit_depth = read_y4m_header(file.readline(4096))
    except ValueError:
        return True
    size = os.fstat(file.fileno()).st_size
    row_bytes = frame_bytes(width, height, bit_depth)
    while header := file.readline(4096):  # each frame may have parameters, so headers differ
        if not header.endswith(b"\n") or file.seek(row_bytes, 1) > size:
            return False
    return True


def _is_whole_ts(file: BufferedReader) -> bool:
    """Whether the packets of MPEG-TS are whole; True for what does not begin with three of them."""
    file.seek(0)
    start = file.read(3 * _PACKETS[-1][0])
    size = os.fstat(file.fileno()).st_size
    return not any(
        len(start) > 2 * length + first
        and all(start[length * number + first] == _SYNC for number in range(3))
        and size % length
        for length, first in _PACKETS
    )


def _is_whole_gif(file: BufferedReader) -> bool:
    """Whether blocks follow each other up to the trailer; GIF89a specification, appendix B."""

    def skip_table(packed: bytes) -> None:
        if packed and packed[0] & 0x80:
            file.seek(3 << ((packed[0] & 7) + 1), 1)

    def skip_parts() -> None:
        while length := int.from_bytes(file.read(1)):
            file.seek(length, 1)

    skip_table(file.read(13)[10:11])
    while True:
        match file.read(1):
            case b";":
                return True
            case b"!":  # an extension
                file.seek(1, 1)
            case b",":  # an image
                skip_table(file.read(9)[8:9])
                file.seek(1, 1)  # the number of bits that its data begin with
            case _:
                return False
        skip_parts()
