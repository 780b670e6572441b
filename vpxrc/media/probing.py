"""One look at a media file: its streams, pixel format, colours and frame rate.

The file is read with PyAV, so every answer is a field of a stream or of a frame. No messages of
ffmpeg are searched, because a title of the file could imitate them.
"""

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError
from vpxrc.media.ffmpeg import NOT_READ, READING
from vpxrc.media.frames import Colours

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Formats without an index or a header, in which a file may begin anywhere.
STREAMS = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc")
# The rates to choose from where the frames lie on no grid.
USUAL_RATES = tuple(Fraction(rate) for rate in (1, 2, 5, 10, 12, 15, 20, 24, 25, 30, 50, 60))
TIME_STAMP_ERROR = 2e-3  # seconds; Matroska rounds to whole milliseconds
HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}  # transfers by ffmpeg's names
TO_8_BITS = "ffmpeg -i IN -pix_fmt yuv420p -c:v ffv1 -c:a copy OUT.mkv"
TO_SDR = (
    "ffmpeg -i IN -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p -c:v ffv1 -c:a copy OUT.mkv"
)
# Code points of ITU-T H.273 and the names that ffmpeg has for them.
_MATRICES = {1: "bt709", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
_TRANSFERS = {1: "bt709", 6: "smpte170m", 13: "iec61966-2-1", 16: "smpte2084", 18: "arib-std-b67"}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_YUV_FORMATS = ("yuv", "nv", "uyvy", "y2", "p0")  # how their names begin


@dataclass(frozen=True)
class Source:
    """The properties of a media file that decide how it is decoded and what goes along.

    Attributes:
        path: The file.
        pixel_format: ffmpeg's name for the video's pixel format, as in ``"yuv420p"``.
        bit_depth: Bits per sample of the video, the most of any plane.
        colours: How the frames are to be shown.
        resampling_rate: The ``fps`` for :func:`vpxrc.open_video` where the frames do not come at a
            constant rate; None where they do.
        audio_codecs: ffmpeg's names for the codecs of the audio streams, in the file's order.
        num_subtitles: Number of subtitle streams.
    """

    path: Path
    pixel_format: str
    bit_depth: int
    colours: Colours
    resampling_rate: Fraction | None
    audio_codecs: tuple[str, ...]
    num_subtitles: int


def check_file(path: Path) -> None:
    """Refuse a path that is no file with something in it.

    Raises:
        InputError: The path is a folder, does not exist or is an empty file.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a video file")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")


def probe(path: str | Path) -> Source:
    """Read what a media file says of its streams.

    The time stamps of all packets are read, and one frame is decoded, because some streams name
    their colours nowhere else.

    Args:
        path: The file; its first video stream that is not a cover picture is looked at.

    Raises:
        InputError: The file is missing, empty or no media file, has no video stream, or begins
            between key frames.
    """
    import av  # loaded where it is needed: `import vpxrc` stays quick

    path = Path(path)
    check_file(path)
    try:
        # "file:" keeps the libraries from reading a protocol into the name.
        container = av.open(
            f"file:{path}", metadata_errors="replace", container_options=dict(READING)
        )
    except av.ArgumentError:  # so it calls what is not among the formats
        raise InputError(f"{path}: {NOT_READ}") from None
    except av.FFmpegError as error:
        raise InputError(f"{path}: not a video, truncated or corrupt: {error.strerror}") from None
    with container:
        streams = container.streams
        cover = av.stream.Disposition.attached_pic
        video = next((one for one in streams.video if not one.disposition & cover), None)
        if video is None:
            raise InputError(f"{path}: no video stream")
        if video.codec_context is None:
            raise InputError(f"{path}: its video has a codec that is not known")
        frame, times, early = _read(container, video)
        if early and container.format.name in STREAMS:
            raise InputError(
                f"{path}: the beginning is missing: {early} frame(s) come before the first key "
                "frame; leave them out first: ffmpeg -i IN -map 0 -c copy OUT"
            )
        pixels = video.codec_context.format
        return Source(
            path=path,
            pixel_format="unknown" if pixels is None else pixels.name,
            bit_depth=8 if pixels is None else max(part.bits for part in pixels.components),
            colours=Colours() if frame is None else _colours(frame),
            resampling_rate=None if video.base_rate is None else _steady(times, video.base_rate),
            audio_codecs=tuple(_codec(one) for one in streams.audio),
            num_subtitles=len(streams.subtitles),
        )


def _read(
    container: "InputContainer", video: "VideoStream"
) -> tuple["VideoFrame | None", NDArray[np.float64], int]:
    """Return the first frame, None where it cannot be decoded, and all time stamps in seconds.

    The third result is the number of packets before the first key frame.

    A damaged file is read up to the damage; decoding it says more.
    """
    import av

    frame: VideoFrame | None = None
    early = 0
    shown: list[int | None] = []
    decoded: list[int | None] = []
    with suppress(av.FFmpegError):
        for packet in container.demux(video):
            # An empty packet repeats a frame; the last one has no time either and ends the decoder.
            is_end = not packet.size and packet.dts is None
            # What comes before the first key frame is not shown.
            if not is_end and (shown or packet.is_keyframe):
                shown.append(packet.pts)
                decoded.append(packet.dts)
            elif not is_end:
                early += 1
            if frame is None and (packet.size or is_end):
                with suppress(av.FFmpegError):
                    frame = next(iter(packet.decode()), None)
    # AVI and other old containers have only times of decoding.
    times = [time for time in (decoded if None in shown else shown) if time is not None]
    return frame, np.sort(np.array(times, np.float64)) * float(video.time_base or 1), early


def _colours(frame: "VideoFrame") -> Colours:
    """Return how a frame is to be shown once it is 4:2:0."""
    matrix = _MATRICES.get(int(frame.colorspace), "unknown")
    transfer = _TRANSFERS.get(int(frame.color_trc), "unknown")
    if frame.format.name.startswith(_YUV_FORMATS):
        return Colours(matrix, transfer, int(frame.color_range) == _FULL_RANGE)
    # ffmpeg converts what is not YUV to the limited range, and RGB by BT.601.
    if matrix == "unknown" and not frame.format.name.startswith("gray"):
        matrix = "bt470bg"
    return Colours(matrix, transfer)


def _codec(stream: "AudioStream") -> str:
    """Return ffmpeg's name for a stream's codec, which is not the name of its decoder."""
    context = stream.codec_context
    return "none" if context is None else str(context.codec.canonical_name)


def _steady(times: NDArray[np.float64], grid: Fraction) -> Fraction | None:
    """Return a constant rate for frames that do not come at one; None for those that do.

    The rate is the stream's own where its frames lie on that grid with gaps between. Elsewhere it
    is a usual one, 60 at most, that is no slower than three quarters of the frames come.

    Args:
        times: Sorted time stamps in seconds.
        grid: The lowest rate at which ffmpeg can represent all time stamps that it has seen.
    """
    if len(times) < 3:
        return None
    steps = np.diff(times)
    rate = _exact_rate(float(grid))
    multiples = np.rint(steps * float(rate))
    if (abs(steps - multiples / float(rate)) <= TIME_STAMP_ERROR).all() and multiples.min() > 0:
        if multiples.max() == multiples.min():
            return None
        if rate <= USUAL_RATES[-1] or float(rate) <= 1.1 / steps.mean():
            return rate
    quick = float(np.quantile(steps, 0.25))
    return next((r for r in USUAL_RATES if float(r) >= 0.97 / max(quick, 1e-3)), USUAL_RATES[-1])


def _exact_rate(rate: float) -> Fraction:
    """Return the rate that was meant by its first two decimals: 29.97 is 30000/1001."""
    rate = round(rate, 2)
    ntsc = Fraction(round(rate * 1.001) * 1000, 1001)
    if rate != round(rate) and abs(float(ntsc) - rate) <= 0.005:
        return ntsc
    return Fraction(rate).limit_denominator(1000)
