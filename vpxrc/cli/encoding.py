"""The commands ``encode`` and ``verify``."""

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import ProgressColumn, Task
from rich.text import Text

import vpxrc.verify
from vpxrc.agents.evolution import check_start, improve
from vpxrc.agents.evolution.teach import replay, results
from vpxrc.audio import Audio, extract_audio, find_streams
from vpxrc.chunks import ChunkedEncode, cut, encode_by, first_pass_table, use_first_pass_file
from vpxrc.cli.common import DEFAULT_POLICY, CpuUsed, Json, numbers, progress_bar
from vpxrc.container import write_webm
from vpxrc.datasets import load_clips
from vpxrc.encoder import EncodeLog, EncoderOptions, first_pass_stats
from vpxrc.errors import InputError
from vpxrc.evaluation import check_writable
from vpxrc.files import atomic_write
from vpxrc.policy import make_policy
from vpxrc.verify import Check
from vpxrc.video import (
    HDR,
    TO_SDR,
    Colours,
    Video,
    open_video,
    parse_fps,
    read_colours,
    resampling_rate,
)

CONTAINERS = (".webm", ".ivf")
LESSONS = (".json", ".parquet")
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
                "num_frames": chunk.log.video.num_frames,
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


class _Speed(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        """Return the speed, once there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} frames/s" if speed else "")


def verify(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP",
            help="A video file, a folder, a catalogue or a set; or what `vpxrc teach` wrote: a "
            "lesson's .json, a .parquet file of lessons or, with --clips, the whole folder.",
        ),
    ],
    clips: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH_OR_SET",
            help="CLIP is a lesson, or a folder of them, and its video is one of these; "
            "repeatable. By default the video is where it was.",
        ),
    ] = None,
    cpu_used: Annotated[str, typer.Option(help="Speeds, e.g. 1,2,4.")] = "1,2,4",
    auto_alt_ref: Annotated[str, typer.Option(help="Layers of ARFs, e.g. 1,6.")] = "1,6",
    bitrate: Annotated[
        int | None, typer.Option(help="Target in kbit/s; by default it follows the clip's size.")
    ] = None,
    oracle: Annotated[
        Path | None, typer.Option(help="Another vpxenc 1.17.0 than the one built for tests.")
    ] = None,
) -> None:
    """Check on a clip that the hook changes nothing and replays exactly; exit code 1 if not.

    A lesson is checked by coding its trajectory again, to the same bits and errors in every frame.

    \b
    Examples:
      vpxrc verify samples
      vpxrc verify holiday.mp4 --cpu-used 2 --auto-alt-ref 1
      vpxrc verify lessons --clips train/
    """  # noqa: D301 - typer wants the \b as it is
    if clips or clip.endswith(LESSONS):
        checks = _replays(Path(clip), clips)
    else:
        speeds, layers = numbers("cpu-used", cpu_used), numbers("auto-alt-ref", auto_alt_ref)
        checks = (
            check
            for one in load_clips(clip)
            for check in vpxrc.verify.verify(one.open(), speeds, layers, bitrate, oracle)
        )
    failed = 0
    for check in checks:
        failed += not check.passed
        print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.figure}", flush=True)
    if failed:
        print(f"{failed} check(s) failed")
        raise typer.Exit(1)
    print("all checks passed")


def _replays(lessons: Path, clips: list[str] | None) -> Iterator[Check]:
    found = load_clips(clips) if clips else None
    for result in results(lessons):
        yield replay(result, found)
