"""The command ``encode``."""

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import ProgressColumn, Task
from rich.text import Text

from vpxrc.agents.teacher.search import check_start, improve
from vpxrc.cli.common import DEFAULT_POLICY, CpuUsed, Json, progress_bar
from vpxrc.encoder.first_pass import use_first_pass_file
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.media.decoding import open_video
from vpxrc.media.frames import Video, parse_fps
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write, check_writable
from vpxrc.transcoding.chunks import ChunkedEncode, encode_by
from vpxrc.transcoding.pipeline import (
    CONTAINERS,
    ENOUGH,
    MEGABYTE,
    MUCH,
    TOLERANCE,
    _constant_rate,
    _described,
    _File,
    _first_target,
    _fit,
    _sdr_colours,
    _sound,
    _starts,
)


def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Anything that ffmpeg reads.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .webm or .ivf file.")],
    bitrate: Annotated[
        int | None,
        typer.Option("-b", "--bitrate", metavar="KBIT", help="Target of the video in kbit/s."),
    ] = None,
    size: Annotated[
        float | None,
        typer.Option(
            metavar="MB",
            help="Instead of -b: fit the whole file, audio and container included, into so many "
            "megabytes of 1,000,000 bytes; it is encoded again until it fits.",
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="NAME or NAME:ARGUMENT; `vpxrc doctor` lists them.")
    ] = DEFAULT_POLICY,
    cpu_used: CpuUsed = 2,
    effort: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=1000,
            help="Encodes at most. More than one bring the bitrate within 2 % of the target and, "
            "from about 10 on, improve what the policy decided by a search.",
        ),
    ] = 1,
    audio: Annotated[
        bool,
        typer.Option(
            help="Take the first audio stream along into .webm: Opus and Vorbis as they are, all "
            "else made Opus (64 kbit/s mono, 96 stereo).",
        ),
    ] = True,
    fps: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help="Resample to this constant rate, e.g. 30 or 30000/1001. By default the video's "
            "own, or a usual one where it varies.",
        ),
    ] = None,
    chunk: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Cut the video at key frames, about so often, and encode the chunks at the same "
            "time, to within 2 % of the target together; 0: never. By default 10 for what is "
            "longer than 30 s, else 0. Chunks that were done are not kept when it is interrupted.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Chunks at the same time; by default one per core. It changes no byte."
        ),
    ] = None,
    two_pass_log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where libvpx's first-pass statistics of the whole video are written, or read "
            "from if they are there.",
        ),
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet", help="Where a table of all coded frames is written."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing, errors apart.")] = False,
    as_json: Json = False,
) -> None:
    """Encode a video to VP9 under a policy.

    Phone videos are turned upright, a variable frame rate becomes a constant one, audio stays in
    time, and .webm says of its colours what the video did. 10-bit and HDR video is refused.

    \b
    Examples:
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm
      vpxrc encode holiday.mp4 --size 8 -o holiday.webm    # at most 8,000,000 bytes
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --policy libvpx-vbr-mlarf --cpu-used 1
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --effort 40   # slower, for fewer bits
    """  # noqa: D301 - typer wants the \b as it is
    begin = time.perf_counter()
    suffix = output.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{output}: the output is one of {', '.join(CONTAINERS)}")
    if (bitrate is None) == (size is None):
        raise InputError("give one of -b KBIT and --size MB")
    if size is not None and not 0 < size < float("inf"):
        raise InputError(f"--size must be above 0, not {size:g}")
    if chunk is not None and not 0 <= chunk < float("inf"):
        raise InputError(f"--chunk must be at least 0, not {chunk:g}")
    options = EncoderOptions(target_bitrate=1 if bitrate is None else bitrate, cpu_used=cpu_used)
    chosen = make_policy(policy)
    if effort > 1:
        check_start(chosen)
    notes: list[str] = []
    colours = _sdr_colours(source)
    rate = parse_fps(fps) if fps is not None else _constant_rate(source, notes)
    video = open_video(source, fps=rate)
    check_writable(output.parent)
    most_bytes = None if size is None else size * MEGABYTE
    with tempfile.TemporaryDirectory(prefix="vpxrc-") as folder:
        sound = _sound(source, Path(folder), suffix, audio, most_bytes, notes)
        file = _File(output, video, sound, colours)
        if most_bytes is not None:
            options = EncoderOptions(
                target_bitrate=_first_target(file, most_bytes), cpu_used=cpu_used
            )
        if two_pass_log is not None:
            use_first_pass_file(two_pass_log, video, options)
        with progress_bar(hidden=as_json or quiet) as bar:
            bar.columns = (*bar.columns, _Speed())
            starts = _starts(video, options, chunk)
            # libvpx's own modes run through without a stop: there is nothing to count but chunks.
            counted = not chosen.observes or len(starts) > 1
            task = bar.add_task(f"{video.name}, {policy}", total=None)

            def progress(done: int, total: int) -> None:
                if done == 0:
                    bar.reset(task, total=total if counted else None)
                bar.update(task, completed=done)

            job = ChunkedEncode(
                video,
                options,
                functools.partial(_encode_part, policy, effort),
                starts,
                jobs or os.cpu_count() or 1,
                progress=progress,
            )
            job.run()
            if most_bytes is not None:
                num_bytes = _fit(job, file, most_bytes, Path(folder) / "trial")
            else:
                aim = 1000 * options.target_bitrate * video.duration
                if len(job.chunks) > 1:
                    job.fit((1 - TOLERANCE) * aim, (1 + TOLERANCE) * aim)
                num_bytes = file.write(job.log)
    encoded = job.log
    if log is not None:
        with atomic_write(log) as temporary:
            encoded.to_pandas().to_parquet(temporary)
    seconds = time.perf_counter() - begin
    overshoot = None if bitrate is None else encoded.bitrate / bitrate - 1
    left = 0.0 if overshoot is None or chosen.observes else -overshoot
    if left > MUCH and encoded.psnr < ENOUGH and encoded.encodes == 1:
        notes.append(f"{left:.0%} of the bits are left: --effort 3 makes use of them")
    result = {
        "output": str(output),
        "size": num_bytes,
        "policy": policy,
        "target_bitrate": bitrate,
        "target_size": most_bytes,
        "bitrate": encoded.bitrate,
        "overshoot": overshoot,
        "psnr": encoded.psnr,
        "psnr_overall": encoded.psnr_overall,
        "width": video.width,
        "height": video.height,
        "fps": str(video.fps),
        "num_frames": video.num_frames,
        "duration": video.duration,
        "audio": None if sound is None else _described(sound),
        "chunks": [
            {
                "first_frame": chunk.start,
                "num_frames": chunk.log.clip.num_frames,
                "target_bitrate": chunk.options.target_bitrate,
                "bitrate": chunk.log.bitrate,
                "psnr": chunk.log.psnr,
                "encodes": chunk.log.encodes,
            }
            for chunk in job.chunks
        ],
        "encodes": encoded.encodes,
        "encode_seconds": encoded.encode_seconds,
        "seconds": seconds,
        "notes": notes,
    }
    if as_json:
        print(json.dumps(result))
    elif not quiet:
        over = (
            f" ({100 * overshoot:+.1f} % of the target)"
            if overshoot is not None
            else f", {num_bytes / (MEGABYTE * (size or 1)):.1%} of the size asked for"
        )
        parts = f", {len(job.chunks)} chunks" if len(job.chunks) > 1 else ""
        print(
            f"{output}: {encoded.bitrate:.1f} kbit/s{over}, PSNR {encoded.psnr:.2f} dB, "
            f"{video.num_frames} frames{parts}, {encoded.encodes} encode(s), "
            f"{num_bytes / MEGABYTE:.3f} MB in {seconds:.1f} s"
        )
        for note in notes:
            print(f"  {note}")


def _encode_part(
    policy: str, effort: int, video: Video, options: EncoderOptions, progress: Callable[[int], None]
) -> EncodeLog:
    """Encode a clip or a chunk; in a worker process too."""
    if effort == 1:
        return encode_by(policy, video, options, progress)

    def count(encodes: int) -> None:
        progress(video.num_frames * min(encodes, effort) // effort)

    return improve(video, options, make_policy(policy), effort, count)


class _Speed(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        """Return the speed, once there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} frames/s" if speed else "")
