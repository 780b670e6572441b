"""The streams, colours and frame rate of a media file."""

import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import ffmpeg
import numpy as np

from vpxrc.media.ffmpeg import message_lines, start_ffmpeg

# For what has no constant rate of its own.
USUAL_RATES = tuple(Fraction(rate) for rate in (1, 2, 5, 10, 12, 15, 20, 24, 25, 30, 50, 60))
TIME_STAMP_ERROR = 2e-3  # seconds; Matroska's are whole milliseconds
HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}  # transfers, by ffmpeg's names
TO_8_BITS = "ffmpeg -i IN -pix_fmt yuv420p -c:v ffv1 -c:a copy OUT.mkv"
TO_SDR = (
    "ffmpeg -i IN -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,"
    "zscale=t=bt709:m=bt709:r=tv,format=yuv420p -c:v ffv1 -c:a copy OUT.mkv"
)


@dataclass(frozen=True)
class Colours:
    """How the numbers of :func:`open_video` are meant to be shown, as far as the file says.

    Attributes:
        matrix: From RGB, ffmpeg's name, as in ``"bt709"``; ``"unknown"``.
        transfer: Likewise, as in ``"bt709"``, or of HDR ``"smpte2084"``, ``"arib-std-b67"``.
        full_range: Black is 0 and white 255, not 16 and 235.
    """

    matrix: str = "unknown"
    transfer: str = "unknown"
    full_range: bool = False


def read_colours(path: str | Path) -> Colours:
    """Return what a video file says of its colours.

    Args:
        path: The video file; its first video stream is looked at. What is RGB becomes BT.601 by
            ffmpeg's conversion.

    Returns:
        All unknown where ffmpeg cannot read it; :func:`open_video` says why then.

    Raises:
        MissingDependencyError: There is no ffmpeg.
    """
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    stream = ffmpeg.input(f"file:{path}")["V:0"].output(
        "pipe:", format="null", pix_fmt="yuv420p", vframes=1
    )
    with start_ffmpeg(stream, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, log):
        process.communicate()
        lines = message_lines(log)
    words = [re.search(r"Stream #0.*: Video: [^,]+, (\w+)(?:\(([^)]*)\))?", one) for one in lines]
    formats = [match for match in words if match]
    if len(formats) < 2:
        return Colours()
    (source, _), (_, tags) = formats[0].groups(), formats[-1].groups(default="")
    named = [tag for tag in tags.split(", ") if tag not in ("tv", "pc", "progressive")]
    # "matrix/primaries/transfer", or one word where these are the same.
    matrix, _, transfer = (named[0].split("/") * 3)[:3] if named else ("unknown",) * 3
    if matrix == "unknown" and not source.startswith(("yuv", "nv", "gray", "uyvy", "y2", "p0")):
        matrix = "bt470bg"
    return Colours(matrix, transfer, "pc" in tags.split(", "))


def resampling_rate(path: str | Path) -> Fraction | None:
    """Return the ``fps`` for :func:`open_video` where frames do not come at a constant rate.

    It is the stream's own where its frames lie on that grid with gaps between, else a usual one, 60
    at most, that is no slower than three quarters of the frames come.

    Args:
        path: The video file; its first video stream is looked at, packets only.

    Returns:
        None where the rate is constant, or ffmpeg cannot tell; :func:`open_video` says why then.

    Raises:
        MissingDependencyError: There is no ffmpeg.
    """
    import ffmpeg  # where it is needed: `import vpxrc` stays quick

    stream = ffmpeg.input(f"file:{path}")["V:0"].output("pipe:", format="framecrc", c="copy")
    with start_ffmpeg(stream, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, log):
        table = process.communicate()[0].decode()
        tick = re.search(r"^#tb 0: (\d+/\d+)$", table, re.MULTILINE)
        words = [line for line in message_lines(log) if re.search(r"Stream #0.*: Video: ", line)]
    grid = re.search(r", ([\d.]+k?) tbr", words[0]) if words else None
    times = [int(row.split(",")[2]) for row in table.splitlines() if row[:1] not in ("#", "")]
    if process.returncode or tick is None or grid is None or len(times) < 3:
        return None
    steps = np.diff(np.sort(times)) * float(Fraction(tick[1]))
    rate = _exact_rate(float(grid[1].replace("k", "e3")))
    multiples = np.rint(steps * float(rate))
    if (abs(steps - multiples / float(rate)) <= TIME_STAMP_ERROR).all() and multiples.min() > 0:
        if multiples.max() == multiples.min():
            return None
        if rate <= USUAL_RATES[-1] or float(rate) <= 1.1 / steps.mean():
            return rate
    quick = float(np.quantile(steps, 0.25))
    return next((r for r in USUAL_RATES if float(r) >= 0.97 / max(quick, 1e-3)), USUAL_RATES[-1])


def _exact_rate(rate: float) -> Fraction:
    """Return the rate of which ffmpeg prints two decimals."""
    ntsc = Fraction(round(rate * 1.001) * 1000, 1001)
    if rate != round(rate) and abs(float(ntsc) - rate) <= 0.005:
        return ntsc
    return Fraction(rate).limit_denominator(1000)


def find_streams(path: str | Path) -> tuple[list[str], int]:
    """Return the codecs of a file's audio streams, and how many subtitles it has.

    Raises:
        MissingDependencyError: There is no ffmpeg.
    """
    # Nothing is read: a file of no seconds is written to say what there is.
    probe = ffmpeg.input(f"file:{path}").output("-", format="null", t=0, c="copy")
    with start_ffmpeg(probe, stdin=subprocess.DEVNULL) as (process, messages):
        process.wait()
        lines = message_lines(messages)
    end = next((n for n, line in enumerate(lines) if "Output #0" in line), len(lines))
    inputs = [line for line in lines[:end] if "Stream #0:" in line]
    codecs = [match[1] for line in inputs if (match := re.search(r": Audio: (\w+)", line))]
    return codecs, sum(": Subtitle: " in line for line in inputs)
