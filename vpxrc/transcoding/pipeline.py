"""A video file to a WebM or IVF file: probe, decode, encode in chunks, mux."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table, use_first_pass_file
from vpxrc.encoder.key_frames import cut
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.media.audio import Audio
from vpxrc.media.frames import Video
from vpxrc.policies.registry import make_policy
from vpxrc.storage import temporary_folder
from vpxrc.transcoding.assembly import Output, ReadOptions, assemble
from vpxrc.transcoding.chunks import MAX_BITRATE, Chunk, ChunkedEncode, Encode, encode_by
from vpxrc.transcoding.keeping import Keeper
from vpxrc.transcoding.places import check_output
from vpxrc.transcoding.preview import Preview, preview
from vpxrc.transcoding.target import QualityTarget, Try, first_bitrate, reach

CONTAINERS = (".webm", ".ivf")
MEGABYTE = 1_000_000  # bytes
_CORES = os.cpu_count() or 1
CHUNK_SECONDS = 10.0  # the usual length of a chunk
UNCUT_SECONDS = 30.0  # A video of this length or less is not cut unless the caller asks for it.
BITRATE_TOLERANCE = 0.02  # All chunks together come this close to the target, as a share of it.
FILLED_SHARE = 0.95  # A file takes at least this share of its size where the encoder can reach it.
MAX_ENCODES = 8  # A quality is looked for at so many bitrates.
SIZE_ATTEMPTS = 3  # A file is written so often to find its size. Each attempt is several encodes.

#: Called with the number of frames done, and the number to do, None where they cannot be counted.
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, eq=False)
class Transcoded:
    """A finished file and how it came about.

    Attributes:
        path: The file.
        num_bytes: Its size.
        log: The encode of the whole video.
        chunks: The encodes of the chunks; one where the video was not cut.
        audio: The sound in the file; None without.
        tries: The bitrates that were tried for a quality, in their order; empty without one.
        notes: What a user should know about the result, a line each.
        seconds: Time from the beginning to the end, decoding and muxing included.
    """

    path: Path
    num_bytes: int
    log: EncodeLog
    chunks: tuple[Chunk, ...]
    audio: Audio | None
    tries: tuple[Try, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def score(self) -> float | None:
        """The quality that was asked for, as the file has it; None without one."""
        kept = self.log.options.target_bitrate
        return next((one.score for one in self.tries if one.target_bitrate == kept), None)

    @property
    def encodes(self) -> int:
        """Number of encodes that the result took; in chunks that of the chunk with the most."""
        return sum(one.encodes for one in self.tries) or self.log.encodes

    def figures(self) -> dict[str, Any]:
        """Return the result as JSON can hold it, without the tables of frames."""
        log, audio = self.log, self.audio
        described = ("codec", "source_codec", "copied", "bitrate", "duration")
        return {
            "output": str(self.path),
            "size": self.num_bytes,
            "bitrate": log.bitrate,
            "psnr": log.psnr,
            "psnr_overall": log.psnr_overall,
            "width": log.clip.width,
            "height": log.clip.height,
            "fps": str(log.clip.fps),
            "num_frames": log.clip.num_frames,
            "duration": log.clip.duration,
            "audio": audio and {name: getattr(audio, name) for name in described},
            "chunks": [
                {
                    "first_frame": chunk.start,
                    "num_frames": chunk.log.clip.num_frames,
                    "target_bitrate": chunk.options.target_bitrate,
                    "bitrate": chunk.log.bitrate,
                    "psnr": chunk.log.psnr,
                    "encodes": chunk.log.encodes,
                }
                for chunk in self.chunks
            ],
            "score": self.score,
            "tries": [asdict(one) for one in self.tries],
            "encodes": self.encodes,
            "encode_seconds": log.encode_seconds,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def transcode(
    source: str | Path,
    output: str | Path,
    *,
    target_bitrate: int | None = None,
    size: float | None = None,
    target: QualityTarget | None = None,
    max_encodes: int = MAX_ENCODES,
    policy: str = "constant-quality",
    cpu_used: int = 2,
    encode: Encode | None = None,
    audio: bool = True,
    deinterlace: bool = True,
    strict: bool = False,
    fps: Fraction | int | str | None = None,
    bit_depth: int | None = None,
    chunk: float | None = None,
    jobs: int | None = None,
    two_pass_log: str | Path | None = None,
    recipe: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Transcoded:
    """Encode a video file to VP9, as the command ``vpxrc encode`` does.

    Long videos are cut into chunks for processes of their own, which are started afresh: a script
    calls this under ``if __name__ == "__main__":``.

    Args:
        source: Any file that ffmpeg reads, or a pipe; ``-`` is standard input.
        output: The file to write, ``.webm`` or ``.ivf``. IVF takes no audio.
        target_bitrate: Target of the video in kbit/s; this, ``size`` or ``target``.
        size: Size of the whole file in megabytes of 1,000,000 bytes, which it is made to fit.
        target: The quality that the video is to have, and hardly more, with few bits.
        max_encodes: The most bitrates that are tried for a ``target``.
        policy: The policy by name, as :func:`vpxrc.make_policy` takes it.
        cpu_used: libvpx's speed, 0 (slowest) to 8.
        encode: Encodes a chunk in place of ``policy``, as ``vpxrc.agents.teacher`` does.
        audio: Whether the first audio stream goes along: Opus and Vorbis as they are, else as Opus.
        deinterlace: Whether frames that are marked as interlaced are deinterlaced.
        strict: Whether a damaged file is refused. Else what can be decoded of it is encoded.
        fps: Constant rate to resample to; by default the video's own, or a usual one if it varies.
        bit_depth: Bits per sample, 8 or 10; by default 10 for a source that has more than 8.
        chunk: Seconds of a chunk, about; 0: no cut. By default 10 for more than 30 s, else 0.
        jobs: Chunks at the same time; by default one per core.
        two_pass_log: A file of libvpx's first-pass statistics, written, or read where it exists.
        recipe: Name of policy, search and code; with it, finished chunks are kept until the end.
        resume: Whether chunks that an earlier encode of the same recipe has left are used.
        progress: Called with the number of frames done and the number to do; see :data:`Progress`.

    Raises:
        InputError: The source cannot be read, or an argument, size or quality is out of reach.
        OutputError: The file cannot be written.
        PolicyError: The policy raised or answered out of range.
        EncoderError: An encode failed.
        MissingDependencyError: There is no ffmpeg.
    """
    begin = time.perf_counter()
    source, output = Path(source), Path(output)
    _check_arguments(output, target_bitrate, size, target, chunk, max_encodes, source)
    options = EncoderOptions(1 if target_bitrate is None else target_bitrate, cpu_used)
    encode = encode or functools.partial(encode_by, policy)
    observes = make_policy(policy).observes
    with temporary_folder() as folder:
        how = ReadOptions(fps, audio, deinterlace, strict, bit_depth)
        file, notes = assemble(source, output, folder, how, _bytes(size))
        if two_pass_log is not None:
            use_first_pass_file(Path(two_pass_log), file.video, options)
        options = _with_first_target(options, file, target)
        starts = _starts(file.video, options, chunk)
        keeper = Keeper(file.video, recipe, resume) if recipe and len(starts) > 1 else None
        counted = _counted(progress, not observes or len(starts) > 1)
        job = ChunkedEncode(file.video, options, encode, starts, jobs or _CORES, counted, keeper)
        with job:
            job.run()
            tries = _meet(job, file, folder / "trial", target, max_encodes, progress)
            num_bytes = file.write(job.log)
    notes += () if keeper is None else keeper.finish()
    seconds, chunks = time.perf_counter() - begin, tuple(job.chunks)
    return Transcoded(output, num_bytes, job.log, chunks, file.audio, tries, notes, seconds)


def preview_transcode(
    source: str | Path,
    *,
    target_bitrate: int | None = None,
    size: float | None = None,
    target: QualityTarget | None = None,
    max_encodes: int = MAX_ENCODES,
    policy: str = "constant-quality",
    cpu_used: int = 2,
    encode: Encode | None = None,
    audio: bool = True,
    deinterlace: bool = True,
    strict: bool = False,
    fps: Fraction | int | str | None = None,
    bit_depth: int | None = None,
    jobs: int | None = None,
) -> Preview:
    """Encode a few parts of a video, and return what :func:`transcode` would give.

    Args:
        source: As in :func:`transcode`, and so are the other arguments.
        target_bitrate: See there.
        size: See there.
        target: See there.
        max_encodes: See there.
        policy: See there.
        cpu_used: See there.
        encode: See there.
        audio: See there.
        deinterlace: See there.
        strict: See there.
        fps: See there.
        bit_depth: See there.
        jobs: See there.

    Raises:
        VpxrcError: As :func:`transcode` does.
    """
    begin = time.perf_counter()
    output = Path("preview.webm")  # which is not written
    _check_arguments(output, target_bitrate, size, target, None, max_encodes)
    options = EncoderOptions(1 if target_bitrate is None else target_bitrate, cpu_used)
    make_policy(policy)
    with temporary_folder() as folder:
        how = ReadOptions(fps, audio, deinterlace, strict, bit_depth)
        file, notes = assemble(Path(source), output, folder, how, _bytes(size))
        options = _with_first_target(options, file, target)
        return preview(
            file.video,
            options,
            encode or functools.partial(encode_by, policy),
            jobs or _CORES,
            target,
            max_encodes,
            file.other_bytes,
            begin,
            notes,
        )


def _check_arguments(
    output: Path,
    target_bitrate: int | None,
    size: float | None,
    target: QualityTarget | None,
    chunk: float | None,
    max_encodes: int,
    source: Path | None = None,
) -> None:
    """Refuse what is wrong before anything is read; without a source nothing will be written."""
    if output.suffix.lower() not in CONTAINERS:
        raise InputError(f"{output}: the output is one of {', '.join(CONTAINERS)}")
    if sum(one is not None for one in (target_bitrate, size, target)) != 1:
        raise InputError("give one of target_bitrate, size and target")
    if size is not None and not 0 < size < float("inf"):
        raise InputError(f"size must be above 0, not {size:g}")
    if chunk is not None and not 0 <= chunk < float("inf"):
        raise InputError(f"chunk must be at least 0, not {chunk:g}")
    if max_encodes < 1:
        raise InputError(f"max_encodes must be at least 1, not {max_encodes}")
    if source is not None:
        check_output(output, source)


def _starts(video: Video, options: EncoderOptions, seconds: float | None) -> list[int]:
    """Return the first frames of the chunks."""
    if seconds is None:
        seconds = CHUNK_SECONDS if video.duration > UNCUT_SECONDS else 0.0
    if not seconds:
        return [0]
    stats = first_pass_table(first_pass_stats(video, options))
    return cut(stats, seconds * float(video.fps), options.key_frame_max_distance)


def _bytes(size: float | None) -> float | None:
    """Return a size in megabytes as bytes."""
    return None if size is None else size * MEGABYTE


def _counted(progress: Progress | None, is_counted: bool) -> Callable[[int, int], None] | None:
    """Return a callback that hides the number of frames where they are not counted.

    libvpx's own modes run through without a stop: there is nothing to count but chunks.
    """
    if progress is None or is_counted:
        return progress
    return lambda done, total: progress(done, None)


def _with_first_target(
    options: EncoderOptions, file: Output, target: QualityTarget | None
) -> EncoderOptions:
    """Return options with the target of the first encode.

    Raises:
        InputError: The audio and the container alone are larger than the file may be.
    """
    bitrate = options.target_bitrate
    if file.most_bytes is not None:
        bitrate = _bitrate_of_size(file, file.most_bytes)
    elif target is not None:
        stats = first_pass_table(first_pass_stats(file.video, options))
        bitrate = first_bitrate(target, file.video.format, stats)
    return replace(options, target_bitrate=bitrate)


def _bitrate_of_size(file: Output, most_bytes: float) -> int:
    """Return the target in kbit/s at which the file should have its size.

    Raises:
        InputError: The audio and the container alone are larger.
    """
    video = file.video
    rest = file.other_bytes
    target = 8 * (most_bytes - rest) / video.duration / 1000
    if target < 1:
        hint = "; try --no-audio" if file.audio else ""
        raise InputError(
            f"{most_bytes / MEGABYTE:g} MB cannot hold {video.duration:.1f} s: without pictures "
            f"the file has about {rest / MEGABYTE:.3f} MB already{hint}"
        )
    return min(int(target), MAX_BITRATE)


def _meet(
    job: ChunkedEncode,
    file: Output,
    scratch: Path,
    target: QualityTarget | None,
    max_encodes: int,
    progress: Progress | None,
) -> tuple[Try, ...]:
    """Bring an encode to its bitrate, to its size or to its quality, and return what was tried.

    Args:
        job: The encode, which has run once.
        file: The file that will be written.
        scratch: A path for trials.
        target: The quality that it is to have; None for a bitrate or a size.
        max_encodes: The most bitrates that are tried for a quality.
        progress: Told when measuring begins.
    """
    if target is not None:
        return reach(job, file.video, target, max_encodes, job.jobs, progress)
    if file.most_bytes is not None:
        _fit(job, file, file.most_bytes, scratch)
    elif len(job.chunks) > 1:
        aim = 1000 * job.log.options.target_bitrate * file.video.duration
        job.fit((1 - BITRATE_TOLERANCE) * aim, (1 + BITRATE_TOLERANCE) * aim)
    return ()


def _fit(job: ChunkedEncode, file: Output, most_bytes: float, scratch: Path) -> None:
    """Encode again until the file fits.

    Raises:
        InputError: It does not fit.
    """
    rest = file.other_bytes
    for _ in range(SIZE_ATTEMPTS):
        bits = 8 * (most_bytes - rest)
        job.fit(bits - (1 - FILLED_SHARE) * 8 * most_bytes, bits)
        log = job.log
        num_bytes = file.write(log, scratch)
        if num_bytes <= most_bytes:
            return
        rest = num_bytes - log.bits / 8
        if log.bits > bits:
            break  # The encodes above could not reach it.
    raise InputError(
        f"{file.path}: cannot be made to fit: at {log.bitrate:.1f} kbit/s it still has "
        f"{num_bytes / MEGABYTE:.3f} MB; fewer pixels or frames would"
    )
