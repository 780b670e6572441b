"""One look at a media file: its streams, pixel format, colours and labels.

The file is read with PyAV, so every answer is a field of a stream or of a frame. No messages of
ffmpeg are searched, because a title of the file could imitate them.
"""

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vpxrc.media.frames import Colours
from vpxrc.media.labels import (
    FULL_RANGE,
    MATRICES,
    PRIMARIES,
    TRANSFERS,
    Chapter,
    ContentLight,
    Labels,
    MasteringDisplay,
)
from vpxrc.media.pictures import side_data, upright_filters
from vpxrc.media.reading import Reading

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.subtitles.stream import SubtitleStream
    from av.video.frame import VideoFrame

_YUV_FORMATS = ("yuv", "nv", "uyvy", "y2", "p0", "p2", "p4", "xv", "v30")  # how their names begin
# AVStereo3D of libavutil/stereo3d.h: its type, and whether its flags name the right eye first.
_STEREO_MODES = {
    (1, False): "left_right",
    (1, True): "right_left",
    (2, False): "top_bottom",
    (2, True): "bottom_top",
}
_OTHER_STEREO = "another arrangement of two eyes' pictures"
_TEXT_SUBTITLES = 1 << 17  # AV_CODEC_PROP_TEXT_SUB
UNKNOWN_CODEC = "none"  # of a stream that cannot be decoded
_LARGEST_ASPECT = Fraction(16)  # of pixels; in use is 2 at most
_NO_LANGUAGE = ("", "und")


@dataclass(frozen=True)
class Track:
    """An audio or subtitle stream.

    Attributes:
        codec: ffmpeg's name for the codec; ``"none"`` where there is no decoder.
        language: Its language in three letters; empty without.
        title: Its title; empty without.
        is_text: Whether it has text; false for audio and for subtitles that are pictures.
    """

    codec: str
    language: str = ""
    title: str = ""
    is_text: bool = False


@dataclass(frozen=True)
class Source:
    """The properties of a media file that decide how it is decoded and what goes along.

    Attributes:
        path: The file.
        pixel_format: ffmpeg's name for the video's pixel format, as in ``"yuv420p"``.
        bit_depth: Bits per sample of the video, the most of any plane.
        labels: What the file says beside its samples.
        audio: The audio streams in the file's order.
        subtitles: The subtitle streams in the file's order.
        notes: What of the file WebM cannot say, or this program does not, a line each.
    """

    path: Path
    pixel_format: str
    bit_depth: int
    labels: Labels
    audio: tuple[Track, ...] = ()
    subtitles: tuple[Track, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def colours(self) -> Colours:
        """How the frames are to be shown."""
        return self.labels.colours


def probe(path: str | Path) -> Source:
    """Read what a media file says of its streams.

    One frame is decoded, because some streams name their colours nowhere else.

    Args:
        path: The file; its first video stream that is not a cover picture is looked at.

    Raises:
        InputError: The file is missing, empty or no media file, or has no video stream that can be
            decoded.
    """
    path = Path(path)
    with Reading(path) as reading:
        video, streams = reading.video, reading.container.streams
        frame = _first_frame(reading)
        pixels = video.codec_context.format
        stereo_mode, notes = _stereo_mode(frame, video.metadata.get("stereo_mode", ""))
        if frame is not None and side_data(frame, "SPHERICAL") is not None:
            notes.append("the projection of a spherical video is left out")
        if video.metadata.get("alpha_mode") == "1":
            notes.append("transparency is left out")
        if reading.num_others:
            notes.append(f"{reading.num_others} more video stream(s) are left out")
        if streams.data or streams.attachments:
            notes.append("data streams and attachments are left out")
        return Source(
            path=path,
            pixel_format="unknown" if pixels is None else pixels.name,
            bit_depth=8 if pixels is None else max(part.bits for part in pixels.components),
            labels=Labels(
                colours=Colours() if frame is None else _colours(frame),
                aspect=_aspect(video.sample_aspect_ratio, frame),
                stereo_mode=stereo_mode,
                title=_tag(reading.container.metadata, "title"),
                language=_language(video.metadata),
                chapters=_chapters(reading),
                mastering=None if frame is None else _mastering(frame),
                light=None if frame is None else _light(frame),
            ),
            audio=tuple(_track(one) for one in streams.audio),
            subtitles=tuple(_track(one) for one in streams.subtitles),
            notes=tuple(notes),
        )


def _first_frame(reading: Reading) -> "VideoFrame | None":
    """Return the first frame that can be decoded; None where there is none."""
    import av

    with suppress(av.FFmpegError):
        for packet in reading.packets(reading.video):
            with suppress(av.FFmpegError):
                for frame in packet.decode():
                    return frame
    return None


def _colours(frame: "VideoFrame") -> Colours:
    """Return how a frame is to be shown once it is 4:2:0."""
    matrix = MATRICES.get(int(frame.colorspace), "unknown")
    transfer = TRANSFERS.get(int(frame.color_trc), "unknown")
    primaries = PRIMARIES.get(int(frame.color_primaries), "unknown")
    if frame.format.name.startswith(_YUV_FORMATS):
        return Colours(matrix, transfer, int(frame.color_range) == FULL_RANGE, primaries)
    # ffmpeg converts what is not YUV to the limited range, and RGB by BT.601.
    if matrix == "unknown" and not frame.format.name.startswith("gray"):
        matrix = "bt470bg"
    return Colours(matrix, transfer, primaries=primaries)


def _mastering(frame: "VideoFrame") -> MasteringDisplay | None:
    """Return AVMasteringDisplayMetadata of libavutil: ten fractions, and which of them are set."""
    data = side_data(frame, "MASTERING_DISPLAY_METADATA")
    if data is None or not data[1:20:2].all():
        return None
    values = (data[0:20:2] / data[1:20:2]).tolist()
    has_primaries, has_luminance = data[20:22].tolist()
    if not has_primaries and not has_luminance:
        return None
    return MasteringDisplay(
        tuple(values[:8]) if has_primaries else (), tuple(values[8:]) if has_luminance else ()
    )


def _light(frame: "VideoFrame") -> ContentLight | None:
    """Return AVContentLightMetadata of libavutil; WebM has either both of its figures or none."""
    data = side_data(frame, "CONTENT_LIGHT_LEVEL")
    if data is None or not data[:2].all():
        return None
    return ContentLight(*data.view(np.uint32)[:2].tolist())


def _aspect(aspect: Fraction | None, frame: "VideoFrame | None") -> Fraction:
    """Return the width of a pixel over its height once the picture is upright.

    What no pixel has counts as square: a damaged header must not fail the end of a long encode.
    """
    if not aspect or not 1 / _LARGEST_ASPECT <= aspect <= _LARGEST_ASPECT:
        return Fraction(1)
    turned = frame is not None and any(
        one.startswith("transpose") for one in upright_filters(frame)
    )
    return 1 / aspect if turned else aspect


def _stereo_mode(frame: "VideoFrame | None", tag: str) -> tuple[str, list[str]]:
    """Return the places of two eyes' pictures by the frame or by Matroska's tag, and notes."""
    data = None if frame is None else side_data(frame, "STEREO3D")
    if data is not None:
        kind, flags = data[:2].tolist()
        if kind == 0:
            return "", []
        mode = _STEREO_MODES.get((kind, bool(flags & 1)), _OTHER_STEREO)
    else:
        mode = tag
    if mode in ("", "mono") or mode in _STEREO_MODES.values():
        return mode.replace("mono", ""), []
    return "", [f"stereoscopic video is marked as one picture: WebM has no {mode}"]


def _chapters(reading: Reading) -> tuple[Chapter, ...]:
    return tuple(
        Chapter(
            _tag(one["metadata"], "title"),
            one["start"] * (one["time_base"] or Fraction(1)),
            one["end"] * (one["time_base"] or Fraction(1)),
        )
        for one in reading.container.chapters()
    )


def _tag(metadata: dict[str, str], name: str) -> str:
    """Return a tag; some formats write its name in capitals."""
    return metadata.get(name) or metadata.get(name.upper(), "")


def _language(metadata: dict[str, str]) -> str:
    language = _tag(metadata, "language")
    return "" if language in _NO_LANGUAGE else language


def _track(stream: "AudioStream | SubtitleStream") -> Track:
    """Return a stream's codec, which is not the name of its decoder, and its labels."""
    context = stream.codec_context
    if context is None:
        return Track(UNKNOWN_CODEC)
    return Track(
        str(context.codec.canonical_name),
        _language(stream.metadata),
        _tag(stream.metadata, "title"),
        bool(context.codec.properties & _TEXT_SUBTITLES),
    )
