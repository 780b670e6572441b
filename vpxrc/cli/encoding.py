"""The commands ``encode`` and ``verify``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import vpxrc.verify
from vpxrc.agents.evolution import check_start, improve
from vpxrc.agents.evolution.teach import replay, results
from vpxrc.cli.common import DEFAULT_POLICY, CpuUsed, Json, numbers, progress_bar
from vpxrc.container import write_webm
from vpxrc.datasets import load_clips
from vpxrc.encoder import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.evaluation import check_writable
from vpxrc.files import atomic_write
from vpxrc.policy import encode as run_policy
from vpxrc.policy import make_policy
from vpxrc.verify import Check
from vpxrc.video import open_video

CONTAINERS = (".webm", ".ivf")
LESSONS = (".json", ".trajectory.parquet")


def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Anything that ffmpeg reads.")],
    bitrate: Annotated[int, typer.Option("-b", "--bitrate", help="Target in kbit/s.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .webm or .ivf file.")],
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
    as_json: Json = False,
) -> None:
    """Encode a video to VP9 under a policy.

    \b
    Examples:
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --policy libvpx-vbr-mlarf --cpu-used 1
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --effort 40   # slower, for fewer bits
    """  # noqa: D301 - typer wants the \b as it is
    suffix = output.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{output}: the output is one of {', '.join(CONTAINERS)}")
    options = EncoderOptions(target_bitrate=bitrate, cpu_used=cpu_used)
    chosen = make_policy(policy)
    if effort > 1:
        check_start(chosen)
    video = open_video(source)
    check_writable(output.parent)
    with progress_bar(hidden=as_json) as bar:
        # libvpx's own modes run through without a stop, so there is nothing to count.
        total = None if chosen.observes else video.num_frames
        task = bar.add_task(f"{video.name}, {policy}", total=effort if effort > 1 else total)

        def progress(done: int) -> None:
            bar.update(task, completed=min(done, effort if effort > 1 else video.num_frames))

        if effort > 1:
            log = improve(video, options, chosen, effort, progress)
        else:
            log = run_policy(video, options, chosen, progress=progress)
    if suffix == ".ivf":
        with atomic_write(output) as temporary:
            temporary.write_bytes(log.stream)
    else:
        write_webm(output, log.stream)
    overshoot = log.bitrate / bitrate - 1
    result = {
        "output": str(output),
        "policy": policy,
        "target_bitrate": bitrate,
        "bitrate": log.bitrate,
        "overshoot": overshoot,
        "psnr": log.psnr,
        "psnr_overall": log.psnr_overall,
        "num_frames": video.num_frames,
        "encodes": log.encodes,
        "encode_seconds": log.encode_seconds,
    }
    if as_json:
        print(json.dumps(result))
    else:
        print(
            f"{output}: {log.bitrate:.1f} kbit/s ({100 * overshoot:+.1f} % of the "
            f"target), PSNR {log.psnr:.2f} dB, {video.num_frames} frames, {log.encodes} encode(s)"
        )


def verify(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="CLIP",
            help="A video file, a folder, a catalogue or a set; or what `vpxrc teach` wrote: a "
            "lesson's .json or, with --clips, its whole folder.",
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
