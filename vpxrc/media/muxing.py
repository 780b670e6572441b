"""Writing coded frames into IVF and WebM files."""

import heapq
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vpxrc.errors import InputError, OutputError
from vpxrc.media.audio import Audio
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.frames import Colours
from vpxrc.media.header import webm_header
from vpxrc.media.labels import (
    FULL_RANGE,
    LIMITED_RANGE,
    MATRICES,
    PRIMARIES,
    TRANSFERS,
    Labels,
    code,
)
from vpxrc.media.subtitles import Subtitles
from vpxrc.storage import atomic_write, temporary_folder

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

MAX_IVF_DIMENSION = 65535  # pixels; the header has 16 bits for a side
# ffmpeg's names of matrices and VP9's, from section 7.2.2 of its specification.
COLOUR_SPACES = {
    "bt470bg": "bt601",
    "smpte170m": "smpte170",
    "smpte240m": "smpte240",
    "bt709": "bt709",
    "bt2020nc": "bt2020",
}

# What makes the muxer write the same bytes for the same packets, and leave their times alone.
_EXACT = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
_MILLISECOND = Fraction(1, 1000)


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


@dataclass(frozen=True)
class Companions:
    """What goes into a WebM file beside the pictures; times are those of the source's own clock.

    Attributes:
        start: Time of the first picture in seconds.
        labels: What the source says of the pictures and of the whole.
        audio: The sound; None without.
        subtitles: The subtitles.
    """

    start: Fraction = Fraction(0)
    labels: Labels = field(default_factory=Labels)
    audio: Audio | None = None
    subtitles: tuple[Subtitles, ...] = ()

    @property
    def origin(self) -> Fraction:
        """The time that becomes the file's beginning: that of pictures or sound, what is first."""
        return self.start if self.audio is None else min(self.start, self.audio.start)


def write_webm(path: str | Path, ivf: bytes, companions: Companions | None = None) -> None:
    """Write the packets of an IVF file as WebM; the same packets give the same file.

    Args:
        path: The file to write.
        ivf: The bytes of an IVF file, as from :func:`ivf_bytes`.
        companions: What goes along.

    Raises:
        OutputError: The packets cannot be read, or the file cannot be written.
        MissingDependencyError: There is no ffmpeg, which pixels that are not square need.
    """
    import av  # loaded where it is needed: `import vpxrc` stays quick

    companions = companions or Companions()
    aspect = companions.labels.aspect
    with atomic_write(path) as temporary, temporary_folder() as folder:
        made = temporary if aspect == 1 else folder / "square.webm"
        try:
            with (
                av.open(BytesIO(ivf), "r", format="ivf") as pictures,
                open(made, "wb") as file,
                av.open(file, "w", format="webm", container_options=dict(_EXACT)) as output,
            ):
                _write(output, pictures, companions)
        except (av.FFmpegError, ValueError) as error:
            raise OutputError(f"cannot write {path}: {error}") from None
        if aspect != 1:
            width, height = struct.unpack_from("<HH", ivf, 12)
            _set_aspect(made, temporary, f"cannot write {path}", aspect * width / height)


def _write(output: "OutputContainer", pictures: "InputContainer", companions: Companions) -> None:
    """Write all streams of a file, in the order of their times."""
    labels, origin = companions.labels, companions.origin
    video = _video_stream(output, pictures.streams.video[0], labels)
    _label(video, labels)
    streams = [_video_packets(pictures, video, labels.colours, companions.start - origin)]
    if labels.title:
        output.metadata["title"] = labels.title
    output.set_chapters(
        [
            {
                "id": number,
                "start": round(max(chapter.start - origin, Fraction(0)) * 1000),
                "end": round((chapter.end - origin) * 1000),
                "time_base": _MILLISECOND,
                "metadata": {"title": chapter.title} if chapter.title else {},
            }
            for number, chapter in enumerate(labels.chapters, 1)
            if chapter.end > origin
        ]
    )
    with ExitStack() as opened:
        if companions.audio is not None:
            streams.append(_audio_packets(output, companions.audio, origin, opened))
        for subtitles in companions.subtitles:
            streams.append(_subtitle_packets(output, subtitles, origin))
        for _, packet in heapq.merge(*streams, key=lambda timed: timed[0]):
            output.mux(packet)


#: Pairs of a time in seconds, by which packets are interleaved, and a packet.
_Timed: TypeAlias = "tuple[Fraction, Packet[Any]]"


def _video_stream(
    output: "OutputContainer", pictures: "VideoStream", labels: Labels
) -> "VideoStream":
    """Add the stream of the pictures."""
    import av

    if labels.mastering is None and labels.light is None:
        return output.add_stream_from_template(pictures, opaque=True)
    size = pictures.codec_context.width, pictures.codec_context.height
    header = BytesIO(webm_header(*size, labels.mastering, labels.light))
    with av.open(header, "r", format="matroska") as file:
        return output.add_stream_from_template(file.streams.video[0], opaque=True)


def _label(stream: "VideoStream", labels: Labels) -> None:
    """Give the stream of the pictures its labels."""
    colours, context = labels.colours, stream.codec_context
    context.colorspace = code(MATRICES, colours.matrix)
    context.color_trc = code(TRANSFERS, colours.transfer)
    context.color_primaries = code(PRIMARIES, colours.primaries)
    context.color_range = FULL_RANGE if colours.full_range else LIMITED_RANGE
    if labels.stereo_mode:
        stream.metadata["stereo_mode"] = labels.stereo_mode
    if labels.language:
        stream.metadata["language"] = labels.language


def _video_packets(
    pictures: "InputContainer", target: "VideoStream", colours: Colours, start: Fraction
) -> "Iterator[_Timed]":
    """Yield the packets of the pictures; the headers of the key frames name the colours."""
    from av.bitstream import BitStreamFilterContext

    stream = pictures.streams.video[0]
    space = COLOUR_SPACES.get(colours.matrix, "unknown")
    shown = "pc" if colours.full_range else "tv"
    named = colours.matrix in COLOUR_SPACES or colours.full_range
    description = f"vp9_metadata=color_space={space}:color_range={shown}" if named else "null"
    headers = BitStreamFilterContext(description, stream)
    tick = stream.time_base or _MILLISECOND
    for packet in pictures.demux(stream):
        if packet.pts is None:
            continue
        time = start + packet.pts * tick
        for done in headers.filter(packet):
            yield time, _placed(done, target, time, tick)


def _audio_packets(
    output: "OutputContainer", audio: Audio, origin: Fraction, opened: ExitStack
) -> "Iterator[_Timed]":
    """Return the packets of the sound."""
    import av

    container = opened.enter_context(av.open(str(audio.path)))
    stream = container.streams.audio[0]
    target = output.add_stream_from_template(stream)
    _name(target, audio.language, audio.title)
    tick = stream.time_base or _MILLISECOND

    def packets() -> "Iterator[_Timed]":
        for packet in container.demux(stream):
            if packet.pts is not None:
                time = audio.start - origin + packet.pts * tick
                yield time, _placed(packet, target, time, (packet.duration or 0) * tick)

    return packets()


def _subtitle_packets(
    output: "OutputContainer", subtitles: Subtitles, origin: Fraction
) -> "Iterator[_Timed]":
    """Return the packets of subtitles."""
    from av.packet import Packet

    target = output.add_mux_stream("webvtt", time_base=_MILLISECOND)
    _name(target, subtitles.language, subtitles.title)

    def packets() -> "Iterator[_Timed]":
        for cue in subtitles.cues:
            # A cue may begin before pictures and sound do, and be shown when they have begun.
            time = max(cue.start - origin, Fraction(0))
            duration = cue.start + cue.duration - origin - time
            packet: Packet[Any] = Packet(cue.text)
            if duration > 0:
                yield time, _placed(packet, target, time, duration)

    return packets()


def _name(stream: "Stream", language: str, title: str) -> None:
    if language:
        stream.metadata["language"] = language
    if title:
        stream.metadata["title"] = title


def _placed(
    packet: "Packet[Any]", stream: "Stream", time: Fraction, duration: Fraction
) -> "Packet[Any]":
    """Return a packet that belongs to a stream and has its time in milliseconds, as WebM has it."""
    packet.stream = stream
    packet.time_base = _MILLISECOND
    packet.duration = round(duration * 1000)
    packet.pts = packet.dts = round(time * 1000)
    return packet


def _set_aspect(file: Path, target: Path, doing: str, display_aspect: Fraction) -> None:
    """Write a file again with an aspect ratio, which PyAV cannot give to a stream."""
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    ratio = f"{display_aspect.numerator}:{display_aspect.denominator}"
    stream = ffmpeg.input(f"file:{file}").output(
        f"file:{target}", format="webm", map=0, c="copy", **_EXACT, **{"aspect:v:0": ratio}
    )
    run_ffmpeg(stream.global_args("-copyts"), OutputError, doing)
