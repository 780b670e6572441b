"""Writing coded frames into IVF and WebM files."""

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from vpxrc.errors import InputError, OutputError
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.frames import Colours
from vpxrc.storage import atomic_write

MAX_IVF_DIMENSION = 65535  # pixels; the header has 16 bits for a side
# ffmpeg's names of matrices and VP9's, from section 7.2.2 of its specification.
COLOUR_SPACES = {
    "bt470bg": "bt601",
    "smpte170m": "smpte170",
    "smpte240m": "smpte240",
    "bt709": "bt709",
    "bt2020nc": "bt2020",
}


def ivf_bytes(
    packets: Iterable[tuple[bytes, int]], width: int, height: int, fps: Fraction, fourcc: str
) -> bytes:
    """Return an IVF file, byte for byte what ``vpxenc --ivf`` makes of the same packets.

    Args:
        packets: Pairs of a packet and its time stamp in frames, in the order of decoding.
        width: Luma width in pixels, 1..65535.
        height: Luma height in pixels, 1..65535.
        fps: Frames per second; the time base is its inverse.
        fourcc: The codec in four characters, such as ``VP90``.

    Raises:
        InputError: The geometry does not fit IVF's header.
    """
    if not (0 < width <= MAX_IVF_DIMENSION and 0 < height <= MAX_IVF_DIMENSION):
        raise InputError(
            f"{width}x{height} pixels do not fit IVF: sides are 1..{MAX_IVF_DIMENSION}"
        )
    body = []
    for packet, pts in packets:
        body += [struct.pack("<Iq", len(packet), pts), packet]
    header = struct.pack(
        "<4sHH4sHHIIII",
        b"DKIF",
        0,  # version
        32,  # bytes of this header
        fourcc.encode(),
        width,
        height,
        fps.numerator,
        fps.denominator,
        len(body) // 2,
        0,  # unused
    )
    return b"".join([header, *body])


def ivf_packets(stream: bytes, fourcc: str) -> list[bytes]:
    """Return the packets of an IVF file in the order of decoding.

    Args:
        stream: The bytes of the file, as from :func:`ivf_bytes`.
        fourcc: The codec that it has to be of.

    Raises:
        InputError: It is no such file.
    """
    if len(stream) < 32 or stream[:4] != b"DKIF" or stream[8:12] != fourcc.encode():
        raise InputError(f"not an IVF file of {fourcc}")
    packets, place = [], int.from_bytes(stream[6:8], "little")
    while place < len(stream):
        start = place + 12
        end = start + int.from_bytes(stream[place : place + 4], "little")
        if end > len(stream):
            raise InputError("the IVF file ends within a packet")
        packets.append(stream[start:end])
        place = end
    return packets


def write_webm(
    path: str | Path,
    ivf: bytes,
    audio: str | Path | None = None,
    colours: Colours | None = None,
) -> None:
    """Write the packets of an IVF file as WebM; the same packets give the same file.

    Args:
        path: The file to write.
        ivf: The bytes of an IVF file, as from :func:`ivf_bytes`.
        audio: A file whose first audio stream, Opus or Vorbis, goes along at its own times.
        colours: The colours that the headers of the key frames name, where anything is known.

    Raises:
        OutputError: ffmpeg cannot read the packets or cannot write the file.
        MissingDependencyError: There is no ffmpeg.
    """
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    with atomic_write(path) as temporary:
        # bitexact leaves out the random identifier and ffmpeg's version.
        streams = [ffmpeg.input("pipe:", format="ivf")]
        if audio is not None:
            streams.append(ffmpeg.input(f"file:{audio}")["a:0"])
        headers = {}
        if colours and (colours.matrix in COLOUR_SPACES or colours.full_range):
            space = COLOUR_SPACES.get(colours.matrix, "unknown")
            shown = "pc" if colours.full_range else "tv"
            headers["bsf:v"] = f"vp9_metadata=color_space={space}:color_range={shown}"
        stream = ffmpeg.output(
            *streams, f"file:{temporary}", format="webm", c="copy", fflags="+bitexact", **headers
        ).global_args("-copyts")  # sound that begins after the pictures stays there
        run_ffmpeg(stream, OutputError, f"cannot write {path}", ivf)
