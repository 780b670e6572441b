"""The parts of a file that is to be written: pictures, and what goes along with them."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vpxrc.encoder.log import EncodeLog
from vpxrc.media.audio import Audio, extract_audio
from vpxrc.media.decoding import Decoded, decode
from vpxrc.media.frames import Colours, Video
from vpxrc.media.muxing import Companions, write_webm
from vpxrc.media.probing import UNKNOWN_CODEC, Source, probe
from vpxrc.media.subtitles import read_subtitles
from vpxrc.storage import atomic_write
from vpxrc.transcoding.places import spool

AUDIO_SHARE = 0.25  # Audio that is coded for a size takes at most this share of it.
# WebM adds about so many bytes to a file and to each frame.
HEADER_BYTES = 1000
FRAME_HEADER_BYTES = 9


@dataclass(frozen=True)
class Output:
    """The file to be written.

    Attributes:
        path: Where it goes.
        video: The source's frames.
        companions: What goes along.
        most_bytes: The size that it may have; None for any.
    """

    path: Path
    video: Video
    companions: Companions
    most_bytes: float | None

    @property
    def audio(self) -> Audio | None:
        """The sound that goes along; None without."""
        return self.companions.audio

    @property
    def other_bytes(self) -> float:
        """The bytes that audio and container take, about."""
        audio = 0 if self.audio is None else self.audio.num_bytes
        return audio + HEADER_BYTES + FRAME_HEADER_BYTES * self.video.num_frames

    def write(self, log: EncodeLog, path: Path | None = None) -> int:
        """Write the file, or the same bytes to another path, and return its size in bytes."""
        path = path or self.path
        if self.path.suffix.lower() == ".ivf":
            with atomic_write(path) as temporary:
                temporary.write_bytes(log.stream)
        else:
            write_webm(path, log.stream, self.companions)
        return path.stat().st_size


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read.

    Attributes:
        fps: Constant rate to resample to; None for the video's own.
        audio: Whether the first audio stream goes along.
        deinterlace: Whether frames that are marked as interlaced are deinterlaced.
        strict: Whether a damaged file is refused.
        bit_depth: Bits per sample; None for 10 where the source has more than 8.
    """

    fps: Fraction | int | str | None
    audio: bool
    deinterlace: bool
    strict: bool
    bit_depth: int | None = None


def assemble(
    source: Path, output: Path, folder: Path, how: ReadOptions, most_bytes: float | None
) -> tuple[Output, tuple[str, ...]]:
    """Read a source, and return the file to be written and notes on what was found.

    Args:
        source: The source; a pipe is read to its end.
        output: Where the file goes.
        folder: A folder for intermediate files.
        how: How the source is read.
        most_bytes: The size that the file may have; None for any.

    Raises:
        InputError: The file cannot be read.
        OutputError: The cache or ``folder`` cannot be written.
    """
    found = probe(source if source.is_file() else spool(source, folder))
    decoded = decode(
        found,
        fps=how.fps,
        strict=how.strict,
        deinterlace=how.deinterlace,
        bit_depth=how.bit_depth,
    )
    companions, notes = _companions(found, decoded, folder, output, how.audio, most_bytes)
    file = Output(output, decoded.video, companions, most_bytes)
    return file, (*decoded.notes, *found.notes, *notes)


def _companions(
    source: Source,
    decoded: Decoded,
    folder: Path,
    output: Path,
    audio: bool,
    most_bytes: float | None,
) -> tuple[Companions, list[str]]:
    """Return what goes into the file beside the pictures, and notes on what does not."""
    if output.suffix.lower() != ".webm":
        left_out = {
            "audio is": source.audio,
            "subtitles are": source.subtitles,
            "the title is": source.labels.title,
            "chapters are": source.labels.chapters,
            "the shape of the pixels is": source.labels.aspect != 1,
            "the colours' names are": source.colours != Colours(),
            "stereo_mode is": source.labels.stereo_mode,
            "the metadata of HDR are": source.labels.mastering or source.labels.light,
        }
        ends = f"left out: {output.suffix} has none"
        return Companions(), [f"{name} {ends}" for name, found in left_out.items() if found]
    sound, notes = _sound(source, folder, audio, most_bytes)
    subtitles = read_subtitles(source)
    pictured = [one.codec for one in source.subtitles if not one.is_text]
    if subtitles:
        notes.append(f"subtitles: {len(subtitles)} stream(s) made WebVTT")
    if pictured:
        notes.append(f"subtitles are left out: {', '.join(pictured)} are no text")
    return Companions(decoded.start, source.labels, sound, subtitles), notes


def _sound(
    source: Source, folder: Path, wanted: bool, most_bytes: float | None
) -> tuple[Audio | None, list[str]]:
    """Return the audio that goes into the file, and notes on it and on what is left out."""
    if not source.audio or not wanted:
        return None, ["audio is left out: --no-audio"] * bool(source.audio)
    if source.audio[0].codec == UNKNOWN_CODEC:
        return None, ["audio is left out: there is no decoder for it"]
    share = None if most_bytes is None else AUDIO_SHARE * most_bytes
    sound = extract_audio(source.path, folder / "audio.mka", source.audio[0], share)
    if sound is None:
        return None, ["audio is left out: it has no sample"]
    of = f", the first of {len(source.audio)} streams" if len(source.audio) > 1 else ""
    notes = [f"audio: {sound}{of}"]
    if sound.damage:
        notes.append(f"audio is damaged: {sound.damage}")
    return sound, notes
