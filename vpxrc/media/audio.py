"""The sound that goes with a video into WebM: copied where WebM takes it, else made Opus."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from vpxrc.errors import InputError
from vpxrc.media.ffmpeg import READING, first_error, message_lines, start_ffmpeg

COPIED = ("opus", "vorbis")  # the codecs that WebM may have
LOWEST_BITRATE = 16_000  # bit/s


@dataclass(frozen=True)
class Audio:
    """A clip's sound in a file of its own.

    Attributes:
        path: A Matroska file; its times are the source's, from the source's beginning.
        source_codec: ffmpeg's name for the codec of the source's stream.
        codec: The codec of this file, ``opus`` or ``vorbis``.
        copied: Whether the packets are the source's own.
        num_bytes: The file's size, which is close to the bytes that the sound takes in a WebM.
        duration: Length in seconds, from the source's beginning.
        damage: ffmpeg's complaint, or an empty string.
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
        """Return the codecs and the bitrate in words."""
        if self.copied:
            return f"{self.source_codec} copied, {self.bitrate:.0f} kbit/s"
        return f"{self.source_codec} made Opus, {self.bitrate:.0f} kbit/s"


def extract_audio(
    source: str | Path, target: Path, codec: str, most_bytes: float | None = None
) -> Audio:
    """Write a video's first audio stream in a codec that WebM may have.

    Opus and Vorbis are copied. All else is made Opus at its encoder's usual rate: 64 kbit/s mono,
    96 kbit/s stereo, more for more channels.

    Args:
        source: The video file.
        target: The file to write.
        codec: ffmpeg's name for the stream's codec, as in
            :attr:`vpxrc.media.probing.Source.audio_codecs`.
        most_bytes: Size that audio which is made Opus should not exceed; its rate is lowered, to
            16 kbit/s at the least. Audio that is copied stays as it is.

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
    import ffmpeg  # loaded where it is needed: `import vpxrc` stays quick

    if options["c:a"] != "copy":
        # libopus does not know every layout of surround sound.
        options = {"af": "aformat=channel_layouts=7.1|5.1|stereo|mono", **options}
    # ffmpeg counts from the beginning of the file, here and where the pictures are decoded.
    stream = ffmpeg.input(f"file:{source}", **READING)["a:0"].output(
        f"file:{target}", format="matroska", fflags="+bitexact", **options
    )
    with start_ffmpeg(stream, stdin=subprocess.DEVNULL) as (process, messages):
        failed, words = process.wait(), first_error(messages)
        damage = any("[error]" in line for line in message_lines(messages))
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
    import av  # loaded where it is needed: `import vpxrc` stays quick

    with av.open(f"file:{path}") as container:
        ends = [
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in container.demux(audio=0)
            if packet.pts is not None and packet.time_base is not None
        ]
    return ends[-1] if ends else 0.0
