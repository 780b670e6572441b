"""The sound that goes with a video into WebM: copied where WebM takes it, else made Opus."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpxrc.errors import InputError, OutputError
from vpxrc.media.probing import Track
from vpxrc.media.reading import Reading

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.filter import Graph

COPIED = ("opus", "vorbis")  # the codecs that WebM may have
LOWEST_BITRATE = 16_000  # bit/s
SAMPLE_RATE = 48_000  # Hz, Opus's
_FRAME = 960  # samples of a packet of Opus
_LONG_GAP = 10  # seconds; a longer gap stays one instead of becoming silence
# libopus's own rate: 64 kbit/s for every stream and 32 more for one of two channels.
_BITRATES = {"mono": 64_000, "stereo": 96_000, "5.1": 320_000, "7.1": 416_000}
# libopus does not know every layout. A gap or an overlap of 40 ms is made good.
_FILTERS = (
    ("aresample", f"{SAMPLE_RATE}:async=1:min_hard_comp=0.04"),
    ("aformat", "sample_fmts=s16:channel_layouts=7.1|5.1|stereo|mono"),
)


@dataclass(frozen=True)
class Audio:
    """A clip's sound in a file of its own.

    Attributes:
        path: A Matroska file; the times in it begin with the sound.
        source_codec: ffmpeg's name for the codec of the source's stream.
        codec: The codec of this file, ``opus`` or ``vorbis``.
        copied: Whether the packets are the source's own.
        num_bytes: The file's size, which is close to the bytes that the sound takes in a WebM.
        start: Time of the first sample on the source's own clock, in seconds.
        duration: Length in seconds.
        damage: What is wrong with the source's stream, or an empty string.
        language: Its language in three letters; empty without.
        title: Its title; empty without.
    """

    path: Path
    source_codec: str
    codec: str
    copied: bool
    num_bytes: int
    start: Fraction
    duration: float
    damage: str
    language: str = ""
    title: str = ""

    @property
    def bitrate(self) -> float:
        """Mean bitrate in kbit/s."""
        return 8 * self.num_bytes / max(self.duration, 1e-3) / 1000

    def __str__(self) -> str:
        """Return the codecs and the bitrate in words."""
        if self.copied:
            return f"{self.source_codec} copied, {self.bitrate:.0f} kbit/s"
        return f"{self.source_codec} made Opus, {self.bitrate:.0f} kbit/s"


def extract_audio(
    source: str | Path,
    target: Path,
    track: Track,
    most_bytes: float | None = None,
) -> Audio | None:
    """Write a video's first audio stream in a codec that WebM may have.

    Opus and Vorbis are copied. All else is made Opus at its encoder's usual rate: 64 kbit/s mono,
    96 kbit/s stereo, more for more channels. Times are those of the packets, so sound that is
    missing becomes silence.

    Args:
        source: The video file.
        target: The file to write.
        track: The stream, as in :attr:`vpxrc.media.probing.Source.audio`.
        most_bytes: Size that audio which is made Opus should not exceed; its rate is lowered, to
            16 kbit/s at the least. Audio that is copied stays as it is.

    Returns:
        The sound; None where the stream has no sample.

    Raises:
        InputError: The sound cannot be read.
        OutputError: ``target`` cannot be written.
    """
    audio = _extract(Path(source), target, track, None)
    if audio is None or audio.copied or most_bytes is None or audio.num_bytes <= most_bytes:
        return audio
    rate = max(round(8 * most_bytes / max(audio.duration, 1e-3)), LOWEST_BITRATE)
    return _extract(Path(source), target, track, rate)


def _extract(path: Path, target: Path, track: Track, bitrate: int | None) -> Audio | None:
    import av  # loaded where it is needed: `import vpxrc` stays quick

    copied = track.codec in COPIED
    with Reading(path) as reading:
        stream = reading.container.streams.audio[0]
        try:
            with open(target, "wb") as file:
                options = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
                with av.open(file, "w", format="matroska", container_options=options) as output:
                    work = _copy if copied else _Encoding(bitrate).run
                    start, end, damage = work(reading, stream, output)
        except av.FFmpegError as error:
            raise InputError(
                f"{path}: cannot read its audio ({track.codec}): {error.strerror}; try --no-audio"
            ) from None
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error
    if start is None or end is None:
        return None
    return Audio(
        path=target,
        source_codec=track.codec,
        codec=track.codec if copied else "opus",
        copied=copied,
        num_bytes=target.stat().st_size,
        start=start,
        duration=float(end - start),
        damage=damage,
        language=track.language,
        title=track.title,
    )


def _copy(
    reading: Reading, stream: "AudioStream", output: "OutputContainer"
) -> tuple[Fraction | None, Fraction | None, str]:
    """Copy packets, and return begin and end in seconds and what is wrong in words."""
    import av

    start = end = None
    damage, packets = "", reading.packets(stream)
    copy = output.add_stream_from_template(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return start, end, damage
        except av.FFmpegError as error:
            return start, end, f"it cannot be read to its end: {error.strerror}"
        if packet.pts is None or not packet.time_base or not packet.size:
            continue
        if packet.is_corrupt:
            damage = damage or "a packet is not whole"
        if start is None:
            start = packet.pts * packet.time_base + _pre_skip(stream)
        end = (packet.pts + (packet.duration or 0)) * packet.time_base
        moved = round(start / packet.time_base)
        packet.pts -= moved
        packet.dts = packet.pts
        packet.stream = copy
        output.mux(packet)


def _pre_skip(stream: "AudioStream") -> Fraction:
    """Return the seconds at the beginning of an Opus stream that are not heard (RFC 7845, 5.1)."""
    header = stream.codec_context.extradata or b""
    if stream.codec_context.codec.canonical_name != "opus" or len(header) < 12:
        return Fraction(0)
    return Fraction(int.from_bytes(header[10:12], "little"), SAMPLE_RATE)


class _Encoding:
    """Makes Opus of a stream.

    Args:
        bitrate: Bit/s; None for the encoder's usual rate.
    """

    def __init__(self, bitrate: int | None) -> None:
        self._bitrate = bitrate
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] | None = None
        self._output: AudioStream | None = None

    def run(
        self, reading: Reading, stream: "AudioStream", output: "OutputContainer"
    ) -> tuple[Fraction | None, Fraction | None, str]:
        """Encode it all, and return begin and end in seconds and what is wrong in words."""
        start = end = None
        decoded = _Decoding(reading, stream)
        for frame in self._resampled(decoded.frames()):
            assert frame.pts is not None
            if self._output is None:
                layout = frame.layout.name
                rate = self._bitrate or _BITRATES[layout]
                self._output = output.add_stream(
                    "libopus", rate=SAMPLE_RATE, layout=layout, bit_rate=rate, format="s16"
                )
            begin = Fraction(frame.pts, SAMPLE_RATE)
            if end is not None and begin < end:  # what follows a change begins before what it ends
                if end - begin > Fraction(_FRAME, 2 * SAMPLE_RATE):
                    continue
                begin = end
            start = begin if start is None else start
            end = begin + Fraction(frame.samples, SAMPLE_RATE)
            frame.pts = round((begin - start) * SAMPLE_RATE)
            output.mux(self._output.encode(frame))
        if self._output is not None:
            output.mux(self._output.encode(None))
        return start, end, decoded.damage

    def _resampled(self, frames: "Iterator[AudioFrame]") -> "Iterator[AudioFrame]":
        """Yield frames of 20 ms at Opus's rate; their times are in samples."""
        expected = None
        for frame in frames:
            begin = Fraction(frame.pts or 0, frame.sample_rate)
            is_late = expected is not None and begin > expected + _LONG_GAP
            expected = begin + Fraction(frame.samples, frame.sample_rate)
            wanted = (frame.format.name, frame.layout.name, frame.sample_rate)
            # What a stream is made of may change in the middle of a broadcast.
            if wanted != self._made_for or is_late:
                yield from (one for one in self._flush() if one.samples == _FRAME)
                self._graph, self._made_for = self._make_graph(frame), wanted
            assert self._graph is not None
            self._graph.push(frame)
            yield from self._pull()
        yield from self._flush()

    def _make_graph(self, frame: "AudioFrame") -> "Graph":
        from av.filter import Graph

        graph = Graph()
        graph.threads = 1  # as in pictures.py
        tick = Fraction(1, frame.sample_rate)
        nodes = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                time_base=tick,
            )
        ]
        nodes += [graph.add(name, arguments) for name, arguments in _FILTERS]
        if self._output is not None:  # as it began
            nodes.append(graph.add("aformat", f"channel_layouts={self._output.layout.name}"))
        graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
        graph.set_audio_frame_size(_FRAME)
        return graph

    def _flush(self) -> "Iterator[AudioFrame]":
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
        self._graph = self._made_for = None

    def _pull(self) -> "Iterator[AudioFrame]":
        import av

        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(frame, av.AudioFrame)
            yield frame


class _Decoding:
    """The samples of a stream, with the times of its packets.

    Attributes:
        damage: The first damage in words; empty without.
    """

    def __init__(self, reading: Reading, stream: "AudioStream") -> None:
        self._reading, self._stream = reading, stream
        self.damage = ""

    def frames(self) -> "Iterator[AudioFrame]":
        """Yield frames whose times are in samples."""
        import av

        expected = Fraction(0)
        packets = self._reading.packets(self._stream)
        while True:
            try:
                packet = next(packets)
                frames: list[Any] = packet.decode()
            except StopIteration:
                return
            except av.FFmpegError as error:
                self.damage = self.damage or f"a packet cannot be decoded: {error.strerror}"
                continue
            for frame in frames:
                tick = frame.time_base or self._stream.time_base or Fraction(1)
                begin = expected if frame.pts is None else frame.pts * tick
                expected = begin + Fraction(frame.samples, frame.sample_rate)
                frame.time_base = Fraction(1, frame.sample_rate)
                frame.pts = round(begin * frame.sample_rate)
                yield frame
