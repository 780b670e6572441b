"""The sound that goes with a video into WebM: copied where WebM takes it, else made Opus."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from vpxrc.errors import InputError
from vpxrc.media.ffmpeg import first_error, message_lines, start_ffmpeg

COPIED = ("opus", "vorbis")  # what WebM may have
LOWEST_BITRATE = 16_000  # bit/s


@dataclass(frozen=True)
class Audio:
    """A clip's sound in a file of its own.

    Attributes:
        path: A Matroska file; its times are the source's, from the source's beginning.
        source_codec: The source's, in ffmpeg's words.
        codec: ``opus`` or ``vorbis``.
        copied: Whether the packets are the source's own.
        num_bytes: Of the file, which is close to what the sound takes in a WebM.
        duration: Length in seconds, from the source's beginning.
        damage: What ffmpeg complained of, or an empty string.
    """

    path: Path
    source_codec: str
    codec: str
    copied: bool
    num_bytes: int
    duration: float
    damage: str

    @property
    def bitrate(self) -> float:
        """Mean bitrate in kbit/s."""
        return 8 * self.num_bytes / max(self.duration, 1e-3) / 1000

    def __str__(self) -> str:
        """Return what was done, in words."""
        if self.copied:
            return f"{self.source_codec} copied, {self.bitrate:.0f} kbit/s"
        return f"{self.source_codec} made Opus, {self.bitrate:.0f} kbit/s"


def extract_audio(
    source: str | Path, target: Path, codec: str, most_bytes: float | None = None
) -> Audio:
    """Write a video's first audio stream as WebM may have it.

    Opus and Vorbis are copied; the rest is made Opus at its encoder's usual rate: 64 kbit/s mono,
    96 kbit/s stereo, more for more channels.

    Args:
        source: The video file.
        target: The file to write.
        codec: Of the stream, as :func:`find_streams` says it.
        most_bytes: Where Opus takes more, its rate is lowered to that, 16 kbit/s at the least.
            What is copied stays as it is.

    Raises:
        InputError: ffmpeg cannot read the sound.
        MissingDependencyError: There is no ffmpeg.
    """
    copied = codec in COPIED
    audio = _extract(source, target, codec, {"c:a": "copy"} if copied else {"c:a": "libopus"})
    if copied or most_bytes is None or audio.num_bytes <= most_bytes:
        return audio
    rate = max(round(8 * most_bytes / max(audio.duration, 1e-3)), LOWEST_BITRATE)
    return _extract(source, target, codec, {"c:a": "libopus", "b:a": rate})


def _extract(source: str | Path, target: Path, codec: str, options: dict[str, object]) -> Audio:
    if options["c:a"] != "copy":
        # libopus does not know every layout of surround sound.
        options = {"af": "aformat=channel_layouts=7.1|5.1|stereo|mono", **options}
    # ffmpeg counts from the beginning of the file, here and where the pictures are decoded.
    stream = ffmpeg.input(f"file:{source}")["a:0"].output(
        f"file:{target}", format="matroska", fflags="+bitexact", **options
    )
    with start_ffmpeg(stream, stdin=subprocess.DEVNULL) as (process, messages):
        failed, words = process.wait(), first_error(messages)
        damage = any(re.search(r"\[error\]", line) for line in message_lines(messages))
    if failed:
        raise InputError(f"{source}: cannot read its audio ({codec}): {words}; try --no-audio")
    return Audio(
        path=target,
        source_codec=codec,
        codec=codec if codec in COPIED else "opus",
        copied=codec in COPIED,
        num_bytes=target.stat().st_size,
        duration=_duration(target),
        damage=words if damage else "",
    )


def _duration(path: Path) -> float:
    """Return the end of the last packet in seconds."""
    table = ffmpeg.input(f"file:{path}").output("pipe:", format="framecrc", c="copy")
    with start_ffmpeg(
        table.global_args("-copyts"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as (process, _):
        rows = process.communicate()[0].decode().splitlines()
    tick = next((row.split()[-1] for row in rows if row.startswith("#tb 0:")), "0/1")
    last = next((row for row in reversed(rows) if row and not row.startswith("#")), None)
    if last is None:
        return 0.0
    numerator, denominator = map(int, tick.split("/"))
    _, _, pts, length = (int(part) for part in last.split(",")[:4])
    return (pts + length) * numerator / denominator
