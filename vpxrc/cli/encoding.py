"""The commands ``encode`` and ``verify``."""

import json
from pathlib import Path
from typing import Annotated

import typer

import vpxrc.verify
from vpxrc.cli.common import DEFAULT_POLICY, CpuUsed, Json, numbers, progress_bar
from vpxrc.container import write_webm
from vpxrc.datasets import load_clips
from vpxrc.encoder import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.evaluation import check_writable
from vpxrc.files import atomic_write
from vpxrc.policy import encode as run_policy
from vpxrc.policy import make_policy
from vpxrc.video import open_video

CONTAINERS = (".webm", ".ivf")


def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Anything that ffmpeg reads.")],
    bitrate: Annotated[int, typer.Option("-b", "--bitrate", help="Target in kbit/s.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A .webm or .ivf file.")],
    policy: Annotated[
        str, typer.Option(help="NAME or NAME:ARGUMENT; `vpxrc doctor` lists them.")
    ] = DEFAULT_POLICY,
    cpu_used: CpuUsed = 2,
    as_json: Json = False,
) -> None:
    """Encode a video to VP9 under a policy.

    \b
    Examples:
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm --policy libvpx-vbr-mlarf --cpu-used 1
    """  # noqa: D301
    suffix = output.suffix.lower()
    if suffix not in CONTAINERS:
        raise InputError(f"{output}: the output is one of {', '.join(CONTAINERS)}")
    options = EncoderOptions(target_bitrate=bitrate, cpu_used=cpu_used)
    chosen = make_policy(policy)
    video = open_video(source)
    check_writable(output.parent)
    with progress_bar(hidden=as_json) as bar:
        # libvpx's own modes run through without a stop, so there is nothing to count.
        total = None if chosen.observes else video.num_frames
        task = bar.add_task(f"{video.name}, {policy}", total=total)
        log = run_policy(
            video,
            options,
            chosen,
            progress=lambda coded: bar.update(task, completed=min(coded, video.num_frames)),
        )
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
    clip: Annotated[str, typer.Argument(help="A video file, a folder, a catalogue or a set.")],
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

    \b
    Examples:
      vpxrc verify samples
      vpxrc verify holiday.mp4 --cpu-used 2 --auto-alt-ref 1
    """  # noqa: D301
    speeds, layers = numbers("cpu-used", cpu_used), numbers("auto-alt-ref", auto_alt_ref)
    failed = 0
    for one in load_clips(clip):
        for check in vpxrc.verify.verify(one.open(), speeds, layers, bitrate, oracle):
            failed += not check.passed
            print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.figure}", flush=True)
    if failed:
        print(f"{failed} check(s) failed")
        raise typer.Exit(1)
    print("all checks passed")
