"""The file format of coded pictures.

All numbers are little-endian.

| bytes | content |
| --- | --- |
| 4 | ``VLC`` and the version, 1 |
| 8 | the first bytes of the hash of the codec's weights |
| 2, 2 | width and height in pixels, from 1 |
| 2 | quality in steps of 1/65535; 0 for a codec of one quality |
| 1 | number of streams |
| 4, 4 for each stream | its length, and its CRC-32 |
| 4 | CRC-32 of all of the above |
| | the streams |
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from vpxrc.errors import InputError

MAGIC = b"VLC\x01"
IDENTITY_BYTES = 8
MAX_SIDE = 0xFFFF
MAX_PIXELS = 1 << 26  # more would not fit into memory while it is decoded
QUALITY_STEPS = 0xFFFF

_HEADER = struct.Struct(f"<4s{IDENTITY_BYTES}sHHHB")
_STREAM = struct.Struct("<II")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class CodedPicture:
    """The content of a file.

    Attributes:
        identity: The first 8 bytes of the hash of the codec's weights.
        width: Pixels, 1..65535.
        height: Pixels, 1..65535.
        quality: 0..65535, for 0..1.
        streams: The streams of the codec, at most 255.
    """

    identity: bytes
    width: int
    height: int
    quality: int
    streams: Sequence[bytes]


def pack(picture: CodedPicture) -> bytes:
    """Return the bytes of a file."""
    parts = [
        _HEADER.pack(
            MAGIC,
            picture.identity,
            picture.width,
            picture.height,
            picture.quality,
            len(picture.streams),
        )
    ]
    parts += [_STREAM.pack(len(stream), zlib.crc32(stream)) for stream in picture.streams]
    header = b"".join(parts)
    return b"".join([header, _CRC.pack(zlib.crc32(header)), *picture.streams])


def unpack(data: bytes) -> CodedPicture:
    """Return the content of a file.

    Raises:
        InputError: It is damaged, cut off, of another version, or no such file.
    """
    if data[: len(MAGIC) - 1] != MAGIC[:-1]:
        raise InputError("this is not a picture of a learned codec")
    if data[len(MAGIC) - 1 : len(MAGIC)] != MAGIC[-1:]:
        raise InputError("the picture is of another version of the file format")
    if len(data) < _HEADER.size:
        raise InputError("the picture is cut off in its header")
    _, identity, width, height, quality, count = _HEADER.unpack_from(data)
    end = _HEADER.size + count * _STREAM.size
    start = end + _CRC.size
    if len(data) < start:
        raise InputError("the picture is cut off in its header")
    if _CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise InputError("the picture is damaged in its header")
    if not (width and height and width * height <= MAX_PIXELS):
        raise InputError(f"the picture has an impossible size, {width}x{height}")
    streams = []
    for number in range(count):
        length, crc = _STREAM.unpack_from(data, _HEADER.size + number * _STREAM.size)
        stream = data[start : start + length]
        if len(stream) < length:
            raise InputError(f"the picture is cut off in stream {number + 1} of {count}")
        if zlib.crc32(stream) != crc:
            raise InputError(f"the picture is damaged in stream {number + 1} of {count}")
        streams.append(stream)
        start += length
    if start != len(data):
        raise InputError("the picture is damaged: its file goes on after the last stream")
    return CodedPicture(identity, width, height, quality, streams)
