"""Subtitles made WebVTT, the only ones that WebM has."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vpxrc.errors import InputError
from vpxrc.media.probing import Source
from vpxrc.media.reading import Reading

_MILLISECOND = Fraction(1, 1000)


@dataclass(frozen=True)
class Cue:
    """A piece of text.

    Attributes:
        start: Its beginning in seconds, on the source's own clock.
        duration: Seconds for which it is shown.
        text: WebVTT's text of a cue in UTF-8.
    """

    start: Fraction
    duration: Fraction
    text: bytes


@dataclass(frozen=True)
class Subtitles:
    """A stream of subtitles.

    Attributes:
        language: Its language in three letters; empty without.
        title: Its title; empty without.
        cues: In the order of their beginnings.
    """

    language: str
    title: str
    cues: tuple[Cue, ...]


def read_subtitles(source: Source) -> tuple[Subtitles, ...]:
    """Return the subtitle streams of a file that are text, converted by ffmpeg's encoder of WebVTT.

    Args:
        source: What :func:`vpxrc.media.probing.probe` found in the file.

    Raises:
        InputError: The file cannot be read.
    """
    found = []
    for index, track in enumerate(source.subtitles):
        if track.is_text:
            cues = sorted(_cues(source.path, index), key=lambda cue: cue.start)
            if cues:
                found.append(Subtitles(track.language, track.title, tuple(cues)))
    return tuple(found)


def _cues(path: Path, index: int) -> list[Cue]:
    """Return the cues of a stream; what cannot be decoded is left out."""
    import av  # loaded where it is needed: `import vpxrc` stays quick
    from av.subtitles.codeccontext import SubtitleCodecContext

    cues = []
    encoder = av.CodecContext.create("webvtt", "w")
    assert isinstance(encoder, SubtitleCodecContext)
    with Reading(path) as reading:
        stream = reading.container.streams.subtitles[index]
        tick = stream.time_base or _MILLISECOND
        try:
            for packet in reading.packets(stream):
                if not packet.size or packet.pts is None:
                    continue
                try:
                    shown = stream.codec_context.decode2(packet)
                    if shown is None or not len(shown):
                        continue
                    if not encoder.is_open:
                        encoder.subtitle_header = stream.codec_context.subtitle_header
                        encoder.time_base = _MILLISECOND
                        encoder.open()
                    text = bytes(encoder.encode_subtitle(shown))
                except (av.FFmpegError, ValueError):
                    continue
                duration = (packet.duration or 0) * tick
                duration = duration or shown.end_display_time * _MILLISECOND
                cues.append(Cue(packet.pts * tick, duration, text))
        except av.FFmpegError as error:
            raise InputError(f"{path}: cannot read its subtitles: {error.strerror}") from None
    return cues
