"""A few parts of a video encoded, and from them the size, quality and time of the whole."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpxrc.encoder.complexity import coded_error
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.key_frames import cut
from vpxrc.encoder.options import EncoderOptions
from vpxrc.media.frames import Video, video_from_frames
from vpxrc.transcoding.chunks import MAX_BITRATE, POWER, ChunkedEncode, Encode, of_frames
from vpxrc.transcoding.target import QualityTarget, Try, reach

PART_SECONDS = 2.0  # about
NUM_PARTS = 4


@dataclass(frozen=True)
class Preview:
    """What an encode of a whole video is expected to be.

    Attributes:
        num_frames: Number of frames that were encoded for it.
        bitrate: Bitrate of the whole in kbit/s.
        num_bytes: Size of the whole file, audio and container included.
        psnr: Mean PSNR of luma in dB.
        score: The quality that was asked for; None without one.
        tries: The bitrates of the parts that were tried for a quality.
        seconds: Time of the whole, decoding and the first pass included.
        notes: What a user should know about the source, a line each.
    """

    num_frames: int
    bitrate: float
    num_bytes: int
    psnr: float
    score: float | None
    tries: tuple[Try, ...]
    seconds: float
    notes: tuple[str, ...]

    def figures(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class Parts:
    """Some parts of a video.

    Attributes:
        video: Their frames, one part after the other.
        starts: Their first frames in ``video``.
        difficulty: How many bits a frame of theirs gets for every bit that a frame of the whole
            gets, as chunks share a budget.
        frames: The numbers of their frames in the whole video.
    """

    video: Video
    starts: tuple[int, ...]
    difficulty: float
    frames: tuple[int, ...]


def choose_parts(video: Video, options: EncoderOptions) -> Parts:
    """Return parts that lie evenly in a video, each from a key frame to another one.

    Args:
        video: The whole video; a short one is its only part.
        options: The encoder's options.
    """
    stats = first_pass_table(first_pass_stats(video, options))
    starts = cut(stats, PART_SECONDS * float(video.fps), options.key_frame_max_distance)
    bounds = [*starts, video.num_frames]
    if len(starts) <= NUM_PARTS:
        return Parts(video, (0,), 1.0, tuple(range(video.num_frames)))
    middles = (np.arange(NUM_PARTS) + 0.5) * len(starts) / NUM_PARTS
    spans = [(bounds[i], bounds[i + 1]) for i in middles.astype(int).tolist()]
    rows = np.concatenate([np.arange(begin, end) for begin, end in spans])
    effort = coded_error(stats, weighted=True) ** POWER
    frames = video.frames[rows]
    frames.flags.writeable = False
    sample = video_from_frames(frames, video.width, video.height, video.fps, video.name)
    lengths = [end - begin for begin, end in spans]
    first = np.cumsum([0, *lengths[:-1]]).tolist()
    return Parts(
        dataclasses.replace(sample, colours=video.colours),
        tuple(first),
        float(effort[rows].mean() / effort.mean()),
        tuple(rows.tolist()),
    )


def preview(
    video: Video,
    options: EncoderOptions,
    encode: Encode,
    jobs: int,
    target: QualityTarget | None,
    max_encodes: int,
    other_bytes: float,
    begin: float,
    notes: Sequence[str],
) -> Preview:
    """Encode parts of a video, and return what is to be expected of the whole.

    Args:
        video: The whole video.
        options: The encoder's options with the bitrate of the whole; the first one to try where a
            quality is asked for.
        encode: The function that encodes a chunk.
        jobs: Number of parts at the same time.
        target: The quality asked for; None for the bitrate.
        max_encodes: The most bitrates that are tried for a ``target``.
        other_bytes: What audio and container of the whole take.
        begin: The clock (``time.perf_counter``) when the work on the video began.
        notes: Notes on the source.

    Raises:
        InputError: The quality cannot be reached.
        PolicyError: The policy raised or answered out of range.
        EncoderError: An encode failed.
    """
    parts = choose_parts(video, options)
    wanted = round(options.target_bitrate * parts.difficulty)
    options = dataclasses.replace(options, target_bitrate=min(max(wanted, 1), MAX_BITRATE))
    tries: tuple[Try, ...] = ()
    encode = of_frames(encode, parts.frames, video)
    ready = time.perf_counter()
    with ChunkedEncode(parts.video, options, encode, parts.starts, jobs) as job:
        job.run()
        if target is not None:
            tries = reach(job, parts.video, target, max_encodes, jobs)
        log = job.log
    work = time.perf_counter() - ready
    bitrate = log.bitrate / parts.difficulty
    kept = log.options.target_bitrate
    return Preview(
        num_frames=parts.video.num_frames,
        bitrate=bitrate,
        num_bytes=round(1000 * bitrate * video.duration / 8 + other_bytes),
        psnr=log.psnr,
        score=next((one.score for one in tries if one.target_bitrate == kept), None),
        tries=tries,
        seconds=ready - begin + work * video.num_frames / parts.video.num_frames,
        notes=tuple(notes),
    )
