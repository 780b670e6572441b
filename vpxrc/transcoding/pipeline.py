"""The steps from a video file to a WebM or IVF file."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.key_frames import cut
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.media.audio import Audio, extract_audio
from vpxrc.media.frames import Video
from vpxrc.media.muxing import write_webm
from vpxrc.media.probing import HDR, TO_SDR, Colours, find_streams, read_colours, resampling_rate
from vpxrc.storage import atomic_write
from vpxrc.transcoding.chunks import ChunkedEncode

CONTAINERS = (".webm", ".ivf")
MEGABYTE = 1_000_000
CHUNK_SECONDS = 10.0
SHORT_SECONDS = 30.0  # not cut unless asked
TOLERANCE = 0.02  # of the target: what chunks are brought to
FILLED = 0.95  # of the size that was asked for, at the least where that can be had
MUCH = 0.1  # of the target, not spent though the picture could do with it
ENOUGH = 50.0  # dB of PSNR
AUDIO_SHARE = 0.25  # of that size, that audio made for it takes at most
FITS = 3  # attempts at the size, each of several encodes
HEADER_BYTES, BLOCK_BYTES = 1000, 9  # that WebM adds to a file and to a frame, about


def _sdr_colours(source: Path) -> Colours:
    """Return how the video is to be shown.

    Raises:
        InputError: As HDR.
    """
    # What is no file, open_video says.
    colours = read_colours(source) if source.is_file() else Colours()
    if colours.transfer in HDR:
        raise InputError(
            f"{source}: HDR ({HDR[colours.transfer]}); only SDR video is supported, "
            f"convert it first: {TO_SDR}"
        )
    return colours


def _constant_rate(source: Path, notes: list[str]) -> Fraction | None:
    """Return the rate to resample to, or None where that is the video's own."""
    rate = resampling_rate(source) if source.is_file() else None
    if rate is not None:
        notes.append(f"variable frame rate, made {float(rate):g} frames per second")
    return rate


def _sound(
    source: Path,
    folder: Path,
    suffix: str,
    wanted: bool,
    most_bytes: float | None,
    notes: list[str],
) -> Audio | None:
    """Return the audio that goes into the file, and note what does not."""
    codecs, subtitles = find_streams(source)
    if subtitles:
        notes.append("subtitles are left out")
    if not codecs or not wanted:
        notes += ["audio is left out: --no-audio"] * bool(codecs)
        return None
    if suffix != ".webm":
        notes.append(f"audio is left out: {suffix} has none")
        return None
    share = None if most_bytes is None else AUDIO_SHARE * most_bytes
    sound = extract_audio(source, folder / "audio.mka", codecs[0], share)
    of = f", the first of {len(codecs)} streams" if len(codecs) > 1 else ""
    notes.append(f"audio: {sound}{of}")
    if sound.damage:
        notes.append(f"audio: ffmpeg complained: {sound.damage}")
    return sound


def _described(sound: Audio) -> dict[str, Any]:
    return {
        "codec": sound.codec,
        "source_codec": sound.source_codec,
        "copied": sound.copied,
        "bitrate": sound.bitrate,
        "duration": sound.duration,
    }


def _starts(video: Video, options: EncoderOptions, seconds: float | None) -> list[int]:
    """Return the first frames of the chunks."""
    if seconds is None:
        seconds = CHUNK_SECONDS if video.duration > SHORT_SECONDS else 0.0
    if not seconds:
        return [0]
    stats = first_pass_table(first_pass_stats(video, options))
    return cut(stats, seconds * float(video.fps), options.key_frame_max_distance)


@dataclass(frozen=True)
class _File:
    """The file that is written."""

    path: Path
    video: Video
    sound: Audio | None
    colours: Colours

    @property
    def rest(self) -> float:
        """Bytes of audio and container, about."""
        audio = 0 if self.sound is None else self.sound.num_bytes
        return audio + HEADER_BYTES + BLOCK_BYTES * self.video.num_frames

    def write(self, log: EncodeLog, path: Path | None = None) -> int:
        """Write it, or what it would be to another path, and return its size in bytes."""
        path = path or self.path
        if self.path.suffix.lower() == ".ivf":
            with atomic_write(path) as temporary:
                temporary.write_bytes(log.stream)
        else:
            sound = None if self.sound is None else self.sound.path
            write_webm(path, log.stream, sound, self.colours)
        return path.stat().st_size


def _first_target(file: _File, most_bytes: float) -> int:
    """Return the kbit/s at which the file should have a size.

    Raises:
        InputError: The audio and the container alone are larger.
    """
    video = file.video
    rest = file.rest
    target = 8 * (most_bytes - rest) / video.duration / 1000
    if target < 1:
        hint = "; try --no-audio" if file.sound else ""
        raise InputError(
            f"{most_bytes / MEGABYTE:g} MB cannot hold {video.duration:.1f} s: without pictures "
            f"the file has about {rest / MEGABYTE:.3f} MB already{hint}"
        )
    return min(int(target), 2_000_000)


def _fit(job: ChunkedEncode, file: _File, most_bytes: float, scratch: Path) -> int:
    """Encode again until the file fits, write it and return its size in bytes.

    Args:
        job: Has run once.
        file: The file.
        most_bytes: It may have.
        scratch: A file for trials.

    Raises:
        InputError: It does not.
    """
    rest = file.rest
    for _ in range(FITS):
        bits = 8 * (most_bytes - rest)
        job.fit(bits - (1 - FILLED) * 8 * most_bytes, bits)
        log = job.log
        num_bytes = file.write(log, scratch)
        if num_bytes <= most_bytes:
            return file.write(log)
        rest = num_bytes - log.bits / 8
        if log.bits > bits:
            break  # the encodes above could not reach it
    raise InputError(
        f"{file.path}: cannot be made to fit: at {log.bitrate:.1f} kbit/s it still has "
        f"{num_bytes / MEGABYTE:.3f} MB; fewer pixels or frames would"
    )
