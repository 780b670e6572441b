"""The command ``encode``."""

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import ProgressColumn, Task
from rich.text import Text

from vpxrc.agents.teacher.search import check_start, improve_by
from vpxrc.cli.common import DEFAULT_POLICY, CpuUsed, Json, RoiWeight, progress_bar
from vpxrc.errors import InputError
from vpxrc.media.frames import parse_fps
from vpxrc.media.masks import RegionSpec
from vpxrc.policies.region import DEFAULT_WEIGHT, WeightedRegion, check_weight
from vpxrc.policies.registry import make_policy
from vpxrc.provenance import causes
from vpxrc.storage import atomic_write, digest, write_frame
from vpxrc.transcoding.chunks import Encode
from vpxrc.transcoding.pipeline import (
    MAX_ENCODES,
    MEGABYTE,
    Transcoded,
    preview_transcode,
    transcode,
)
from vpxrc.transcoding.places import check_output
from vpxrc.transcoding.preview import Preview
from vpxrc.transcoding.regions import RegionEncode
from vpxrc.transcoding.target import QualityTarget

UNSPENT_SHARE = 0.1  # A user is told if a policy leaves more than this share of the bits.
TRANSPARENT_PSNR = 50.0  # dB; above it no eye tells the picture from the source.


_Source = Annotated[
    Path,
    typer.Argument(metavar="IN", help="Anything that ffmpeg reads; - reads standard input."),
]
_Output = Annotated[Path | None, typer.Option("-o", "--output", help="A .webm or .ivf file.")]
_Bitrate = Annotated[
    int | None,
    typer.Option("-b", "--bitrate", metavar="KBIT", help="Target of the video in kbit/s."),
]
_Size = Annotated[
    float | None,
    typer.Option(
        metavar="MB",
        help="Instead of -b: fit the whole file, audio and container included, into so many "
        "megabytes of 1,000,000 bytes; it is encoded again until it fits.",
    ),
]
_Target = Annotated[
    str | None,
    typer.Option(
        metavar="QUALITY=SCORE",
        help="Instead of -b: the fewest bits that reach a vmaf, ssim, psnr or psnr_overall; it is "
        "encoded again until the score of the whole video is at most 0.3 (VMAF), 0.0005 (SSIM) or "
        "0.1 dB above the one asked for.",
    ),
]
_MaxEncodes = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="Bitrates at most that --target tries; about 4 are usual."
    ),
]
_Policy = Annotated[str, typer.Option(help="NAME or NAME:ARGUMENT; `vpxrc doctor` lists them.")]
_Tune = Annotated[
    str | None,
    typer.Option(
        metavar="MEASURE",
        help="What the policy constant-quality saves bits for: balanced (the default: the mean of "
        "four measures), psnr, ssim or vmaf.",
    ),
]
_Effort = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=1,
        max=1000,
        help="Encodes at most. More than one meet the target within 2 %, and from about 10 on a "
        "search improves the policy's decisions.",
    ),
]
_Roi = Annotated[
    list[str] | None,
    typer.Option(
        "--roi",
        metavar="MASK|box:X,Y,W,H",
        help="A region that gets more of the bits: a box in pixels, a picture that is white "
        "inside, or for each frame a mask of its own: a folder of pictures, an animated picture or "
        "a video. May be given several times.",
    ),
]
_RoiSegments = Annotated[
    bool,
    typer.Option(
        "--roi-segments",
        help="Give the region a finer quantiser too, by VP9's segments: a stronger effect, for a "
        "few more bits.",
    ),
]
_Audio = Annotated[
    bool,
    typer.Option(
        help="Take the first audio stream along into .webm: Opus and Vorbis as they are, all "
        "else made Opus (64 kbit/s mono, 96 stereo)."
    ),
]
_Deinterlace = Annotated[
    bool, typer.Option(help="Deinterlace the frames that are marked as interlaced (bwdif).")
]
_Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse a damaged video. Else what can be decoded of it is encoded."
    ),
]
_Fps = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Constant rate, e.g. 30 or 30000/1001. By default the video's own or a usual one.",
    ),
]
_BitDepth = Annotated[
    str,
    typer.Option(
        metavar="auto|8|10",
        help="Bits per sample. With auto, a source of more than 8 bits keeps 10 of them.",
    ),
]
_Chunk = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Length of the chunks, about. The video is cut at key frames and the chunks are "
        "encoded at the same time, to within 2 % of the target together; 0: no cut. By default "
        "10 for a video longer than 30 s, else 0.",
    ),
]
_Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, help="Chunks at the same time; by default one per core. The output is the same."
    ),
]
_Sample = Annotated[
    bool,
    typer.Option(
        "--sample",
        help="Write nothing: encode a few short parts, and say which size, quality and time to "
        "expect of the whole.",
    ),
]
_Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the same encode that was interrupted: use the chunks that it finished.",
    ),
]
_TwoPassLog = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File of libvpx's first-pass statistics of the video; written, or read if it exists.",
    ),
]
_Log = Annotated[
    Path | None, typer.Option(metavar="FILE.parquet", help="Write a table of all coded frames.")
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]


def encode(
    source: _Source,
    output: _Output = None,
    bitrate: _Bitrate = None,
    size: _Size = None,
    target: _Target = None,
    max_encodes: _MaxEncodes = MAX_ENCODES,
    policy: _Policy = DEFAULT_POLICY,
    tune: _Tune = None,
    cpu_used: CpuUsed = 2,
    effort: _Effort = 1,
    roi: _Roi = None,
    roi_weight: RoiWeight = None,
    roi_segments: _RoiSegments = False,
    audio: _Audio = True,
    deinterlace: _Deinterlace = True,
    strict: _Strict = False,
    fps: _Fps = None,
    bit_depth: _BitDepth = "auto",
    chunk: _Chunk = None,
    jobs: _Jobs = None,
    sample: _Sample = False,
    resume: _Resume = False,
    two_pass_log: _TwoPassLog = None,
    log: _Log = None,
    quiet: _Quiet = False,
    as_json: Json = False,
) -> None:
    """Encode a video to VP9 under a policy.

    Phone videos are turned upright, a variable frame rate becomes a constant one, interlaced video
    is deinterlaced, audio stays in time, and .webm keeps colours, HDR, the shape of the pixels, the
    title, chapters, languages and text subtitles.

    \b
    Examples:
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm
      vpxrc encode holiday.mp4 --size 8 -o holiday.webm    # at most 8,000,000 bytes
      vpxrc encode holiday.mp4 --target vmaf=93 -o holiday.webm    # as few bits as have VMAF 93
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --policy libvpx-vbr-mlarf --cpu-used 1
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --effort 40   # slower, for fewer bits
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --roi box:64,32,128,128
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --resume    # after an interruption
      vpxrc encode holiday.mp4 --target vmaf=93 --sample    # what would it be?
    """  # noqa: D301 - typer wants the \b as it is
    quality = None if target is None else QualityTarget.parse(target)
    _check_options(bitrate, size, target, chunk, fps, bit_depth)
    policy = _tuned(policy, tune)
    chosen = make_policy(policy)
    region = _region(roi, roi_weight, roi_segments, effort)
    common: dict[str, Any] = {
        "target_bitrate": bitrate,
        "size": size,
        "target": quality,
        "max_encodes": max_encodes,
        "policy": policy,
        "cpu_used": cpu_used,
        "encode": _encode(policy, effort, region),
        "audio": audio,
        "deinterlace": deinterlace,
        "strict": strict,
        "fps": fps,
        "bit_depth": None if bit_depth == "auto" else int(bit_depth),
        "jobs": jobs,
    }
    if sample:
        return _show(preview_transcode(source, **common), quality, as_json)
    output = _checked(output, source, log, two_pass_log)
    more: dict[str, Any] = {
        "chunk": chunk,
        "two_pass_log": two_pass_log,
        "recipe": _recipe(policy, effort, region),
        "resume": resume,
    }
    with _progress(f"{source.stem}, {policy}", hidden=as_json or quiet) as progress:
        result = transcode(source, output, **common, **more, progress=progress)
    _keep_log(log, result)
    asked = _asked(policy, bitrate, size, target, result)
    is_final = chosen.observes or region is not None
    _report(result, asked, is_final, None if quiet and not as_json else as_json)


def _region(
    roi: list[str] | None, weight: float | None, segments: bool, effort: int
) -> WeightedRegion | None:
    """Return the region of the options, None without one.

    Raises:
        InputError: The options do not go together, or one is wrong.
    """
    if not roi:
        if weight is not None or segments:
            raise InputError("--roi-weight and --roi-segments go with --roi")
        return None
    if effort > 1:
        raise InputError("--effort searches for the whole picture: it does not go with --roi")
    weight = DEFAULT_WEIGHT if weight is None else weight
    check_weight(weight)  # before any mask is read
    return WeightedRegion(RegionSpec.parse(roi), weight, segments)


def _encode(policy: str, effort: int, region: WeightedRegion | None) -> Encode | None:
    """Return what encodes in place of the policy alone, or None.

    Raises:
        InputError: A search cannot start from the policy.
    """
    if region is not None:
        return RegionEncode(policy, region)
    if effort == 1:
        return None
    check_start(make_policy(policy))
    return functools.partial(improve_by, policy, effort)


def _recipe(policy: str, effort: int, region: WeightedRegion | None) -> str:
    """Return what tells encodes of a video at the same options apart."""
    key = None if region is None else region.key
    return digest({"code": causes(policy), "effort": effort, "region": key})


@contextmanager
def _progress(title: str, hidden: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a callback that moves a bar of frames."""
    with progress_bar(hidden) as bar:
        bar.columns = (*bar.columns, _Speed())
        task = bar.add_task(title, total=None)

        def progress(done: int, total: int | None) -> None:
            if done == 0:
                bar.reset(task, total=total)
            bar.update(task, completed=done)

        yield progress


def _asked(
    policy: str, bitrate: int | None, size: float | None, target: str | None, result: Transcoded
) -> dict[str, Any]:
    """Return what was asked for, by the names that it has in JSON."""
    return {
        "policy": policy,
        "target_bitrate": bitrate,
        "target_size": None if size is None else size * MEGABYTE,
        "target": target,
        "overshoot": None if bitrate is None else result.log.bitrate / bitrate - 1,
    }


def _report(
    result: Transcoded, asked: dict[str, Any], is_final: bool, as_json: bool | None
) -> None:
    """Print a result.

    Args:
        result: The result.
        asked: What was asked for, by the names that it has in JSON.
        is_final: Whether no search could come nearer to the target.
        as_json: Whether it is printed as JSON; None to print nothing.
    """
    overshoot, target = asked["overshoot"], asked["target"]
    notes = _notes(result, None if is_final else overshoot)
    if as_json:
        print(json.dumps({**result.figures(), **asked, "notes": notes}))
    elif as_json is not None:
        quality = None if target is None else QualityTarget.parse(target)
        met = _met(result, overshoot, asked["target_size"], quality)
        print("\n  ".join([_summary(result, met), *_scores(result), *notes]))


def _show(found: Preview, quality: QualityTarget | None, as_json: bool) -> None:
    """Print what to expect of a video."""
    if as_json:
        print(json.dumps(found.figures()))
        return
    score = ""
    if quality is not None and found.score is not None:
        score = f", {quality.in_words(found.score)} ({quality.score:g} asked for)"
    print(
        f"about {found.num_bytes / MEGABYTE:.3f} MB, {found.bitrate:.1f} kbit/s{score}, "
        f"PSNR {found.psnr:.2f} dB, in {found.seconds:.0f} s, by {found.num_frames} frames",
        *found.notes,
        sep="\n  ",
    )


def _keep_log(log: Path | None, result: Transcoded) -> None:
    if log is not None:
        with atomic_write(log) as temporary:
            write_frame(result.log.to_pandas(), temporary)


def _checked(output: Path | None, source: Path, *others: Path | None) -> Path:
    """Return the output, after a look at the places of all that is written.

    Raises:
        InputError: There is no output, or something that is read would be replaced.
        OutputError: A place cannot be written.
    """
    if output is None:
        raise InputError("give -o OUTPUT, or --sample to write nothing")
    used = [source, output]
    for written in others:
        if written is not None:
            check_output(written, *used)
            used.append(written)
    return output


def _check_options(
    bitrate: int | None,
    size: float | None,
    target: str | None,
    chunk: float | None,
    fps: str | None,
    bit_depth: str,
) -> None:
    """Refuse what :func:`transcode` would, by the names of the options."""
    if sum(one is not None for one in (bitrate, size, target)) != 1:
        raise InputError("give one of -b KBIT, --size MB and --target QUALITY=SCORE")
    if bit_depth not in ("auto", "8", "10"):
        raise InputError(f"--bit-depth is auto, 8 or 10, not {bit_depth!r}")
    if size is not None and not 0 < size < float("inf"):
        raise InputError(f"--size must be above 0, not {size:g}")
    if chunk is not None and not 0 <= chunk < float("inf"):
        raise InputError(f"--chunk must be at least 0, not {chunk:g}")
    if fps is not None:
        try:
            parse_fps(fps)
        except InputError as error:
            raise InputError(f"--{error}") from None


def _notes(result: Transcoded, overshoot: float | None) -> list[str]:
    """Return what a user should know, a line each.

    Args:
        result: The result.
        overshoot: That of the bitrate, where the policy could have met it.
    """
    notes, encoded = list(result.notes), result.log
    unspent = 0.0 if overshoot is None else -overshoot
    if unspent > UNSPENT_SHARE and encoded.psnr < TRANSPARENT_PSNR and encoded.encodes == 1:
        notes.append(f"{unspent:.0%} of the bits are left: --effort 3 makes use of them")
    return notes


def _scores(result: Transcoded) -> list[str]:
    """Return the bitrates that were tried, in one line, or nothing."""
    tries = (f"{one.score:.6g} at {one.bitrate:.1f}" for one in result.tries)
    return [f"scores at bitrates in kbit/s: {', '.join(tries)}"] if result.tries else []


def _met(
    result: Transcoded, overshoot: float | None, size: float | None, quality: QualityTarget | None
) -> str:
    """Return how well a result meets what was asked for."""
    if quality is not None and result.score is not None:
        return f", {quality.in_words(result.score)} ({quality.score:g} asked for)"
    if overshoot is not None:
        return f" ({100 * overshoot:+.1f} % of the target)"
    return f", {result.num_bytes / (size or 1):.1%} of the size asked for"


def _summary(result: Transcoded, met: str) -> str:
    """Return a result in one line."""
    log, megabytes = result.log, result.num_bytes / MEGABYTE
    parts = f", {len(result.chunks)} chunks" if len(result.chunks) > 1 else ""
    return (
        f"{result.path}: {log.bitrate:.1f} kbit/s{met}, PSNR {log.psnr:.2f} dB, "
        f"{log.clip.num_frames} frames{parts}, {result.encodes} encode(s), "
        f"{megabytes:.3f} MB in {result.seconds:.1f} s"
    )


class _Speed(ProgressColumn):
    """The column of the frames per second."""

    def render(self, task: Task) -> Text:
        """Return the speed, once there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} frames/s" if speed else "")


def _tuned(policy: str, tune: str | None) -> str:
    """Return the spec of the policy, tuned for a measure where one is asked for."""
    if tune is None:
        return policy
    if policy != DEFAULT_POLICY:
        raise InputError(f"--tune goes with the policy {DEFAULT_POLICY}, not with {policy}")
    return f"{policy}:{tune}"
