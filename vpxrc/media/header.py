"""The header of a WebM file with what PyAV cannot give to a stream.

ffmpeg's muxer writes the labels that a stream has. Some of them a stream has only if it comes from
a file. So a header is made here by hand, and ffmpeg's demuxer makes a stream of it.
"""

import struct

from vpxrc.media.labels import ContentLight, MasteringDisplay

# Element IDs of Matroska (RFC 9559).
_EBML, _DOC_TYPE, _DOC_TYPE_VERSION, _DOC_TYPE_READ_VERSION = 0x1A45DFA3, 0x4282, 0x4287, 0x4285
_SEGMENT, _INFO, _TIMESTAMP_SCALE, _TRACKS, _TRACK = (
    0x18538067,
    0x1549A966,
    0x2AD7B1,
    0x1654AE6B,
    0xAE,
)
_CLUSTER, _TIMESTAMP = 0x1F43B675, 0xE7
_TRACK_NUMBER, _TRACK_UID, _TRACK_TYPE, _CODEC_ID, _VIDEO = 0xD7, 0x73C5, 0x83, 0x86, 0xE0
_PIXEL_WIDTH, _PIXEL_HEIGHT, _COLOUR = 0xB0, 0xBA, 0x55B0
_MAX_CLL, _MAX_FALL, _MASTERING = 0x55BC, 0x55BD, 0x55D0
_CHROMATICITIES = range(0x55D1, 0x55D9)  # x and y of red, green, blue and white
_LUMINANCE_MAX, _LUMINANCE_MIN = 0x55D9, 0x55DA


def webm_header(
    width: int, height: int, mastering: MasteringDisplay | None, light: ContentLight | None
) -> bytes:
    """Return a WebM file with one VP9 stream that has no packets.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        mastering: The screen that the stream was made on; None where unknown.
        light: How light its pictures are; None where unknown.
    """
    colour = b""
    if light is not None:
        colour += _integer(_MAX_CLL, light.highest) + _integer(_MAX_FALL, light.highest_mean)
    if mastering is not None:
        screen = b"".join(map(_float, _CHROMATICITIES, mastering.chromaticities))
        if mastering.luminances:
            low, high = mastering.luminances
            screen += _float(_LUMINANCE_MAX, high) + _float(_LUMINANCE_MIN, low)
        colour += _element(_MASTERING, screen)
    picture = _integer(_PIXEL_WIDTH, width) + _integer(_PIXEL_HEIGHT, height)
    track = b"".join(
        (
            _integer(_TRACK_NUMBER, 1),
            _integer(_TRACK_UID, 1),
            _integer(_TRACK_TYPE, 1),  # video
            _element(_CODEC_ID, b"V_VP9"),
            _element(_VIDEO, picture + _element(_COLOUR, colour)),
        )
    )
    head = (
        _element(_DOC_TYPE, b"webm")
        + _integer(_DOC_TYPE_VERSION, 4)
        + _integer(_DOC_TYPE_READ_VERSION, 2)
    )
    segment = (
        _element(_INFO, _integer(_TIMESTAMP_SCALE, 1_000_000))  # nanoseconds
        + _element(_TRACKS, _element(_TRACK, track))
        + _element(_CLUSTER, _integer(_TIMESTAMP, 0))
    )
    return _element(_EBML, head) + _element(_SEGMENT, segment)


def _element(number: int, content: bytes) -> bytes:
    """Return an element with its length in eight bytes."""
    name = number.to_bytes((number.bit_length() + 7) // 8)
    return name + (1 << 56 | len(content)).to_bytes(8) + content


def _integer(number: int, value: int) -> bytes:
    return _element(number, value.to_bytes(8))


def _float(number: int, value: float) -> bytes:
    return _element(number, struct.pack(">d", value))
