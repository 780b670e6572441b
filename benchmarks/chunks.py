"""What chunks cost: a clip coded as a whole and in chunks, at the same targets.

python -m benchmarks.chunks CLIP CLIP ... --cpu-used 5 --out docs/results/chunks

Several clips are joined to one of 320x180 pixels at 25 frames per second.
"""

import argparse
import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc import EncodeLog, EncoderOptions, Video, open_video, video_from_frames
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.key_frames import cut
from vpxrc.evaluation.bd_rate import bd_rate
from vpxrc.storage import atomic_write
from vpxrc.transcoding.chunks import POWER, ChunkedEncode, encode_by

QUALITIES = ("psnr", "psnr_overall")
TOLERANCE = 0.02  # of the target, as `vpxrc encode` corrects chunks


def joined(paths: list[Path]) -> Video:
    if len(paths) == 1:
        return open_video(paths[0])
    parts = [open_video(path, width=320, height=180, fps=25) for path in paths]
    frames = np.concatenate([part.frames for part in parts])
    return video_from_frames(frames, 320, 180, 25, name=f"{len(parts)} clips")


def point(log: EncodeLog, chunks: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    qualities = {name: getattr(log, name) for name in QUALITIES}
    return {"bitrate": log.bitrate, **qualities, "seconds": seconds, "chunks": chunks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--bitrates", default="60,100,160,250")
    parser.add_argument("--policy", default="imitation")
    parser.add_argument("--cpu-used", type=int, default=2)
    parser.add_argument("--chunk", type=float, default=10.0, help="seconds")
    parser.add_argument("--power", type=float, default=POWER)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    video = joined(arguments.clips)
    rates = [int(rate) for rate in arguments.bitrates.split(",")]
    kept = arguments.out / "encodes.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    encode = functools.partial(encode_by, arguments.policy)
    kinds = ("whole", f"in chunks, power {arguments.power:g}")
    for rate in rates:
        options = EncoderOptions(target_bitrate=rate, cpu_used=arguments.cpu_used)
        stats = first_pass_table(first_pass_stats(video, options))
        length = arguments.chunk * float(video.fps)
        cuts = cut(stats, length, options.key_frame_max_distance)
        for kind in kinds:
            key = f"{arguments.policy}, cpu-used {arguments.cpu_used}, {kind}, {rate} kbit/s"
            if key in found:
                continue
            starts, jobs = ((0,), 1) if kind == "whole" else (cuts, arguments.jobs)
            begin = time.perf_counter()
            with ChunkedEncode(video, options, encode, starts, jobs, power=arguments.power) as job:
                job.run()
                if len(starts) > 1:
                    aim = 1000 * rate * video.duration
                    job.fit((1 - TOLERANCE) * aim, (1 + TOLERANCE) * aim)
            seconds = time.perf_counter() - begin
            parts = [
                {"target": c.options.target_bitrate, "bitrate": c.log.bitrate, "psnr": c.log.psnr}
                for c in job.chunks
            ]
            found[key] = point(job.log, parts, seconds)
            with atomic_write(kept) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        f"{video.name}: {video.width}x{video.height}, {video.num_frames} frames, "
        f"{arguments.policy}, cpu-used {arguments.cpu_used}, {len(cuts)} chunks of about "
        f"{arguments.chunk:g} s, {arguments.jobs} at the same time.",
        "",
        "| target | whole | in chunks | over | PSNR whole | in chunks | seconds | in chunks |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    curves = []
    for kind in kinds:
        name = f"{arguments.policy}, cpu-used {arguments.cpu_used}, {kind}"
        curves.append([found[f"{name}, {rate} kbit/s"] for rate in rates])
    for rate, whole, chunked in zip(rates, *curves, strict=True):
        over = 100 * (chunked["bitrate"] / rate - 1)
        lines.append(
            f"| {rate} | {whole['bitrate']:.1f} | {chunked['bitrate']:.1f} | {over:+.2f} % "
            f"| {whole['psnr']:.3f} | {chunked['psnr']:.3f} "
            f"| {whole['seconds']:.0f} | {chunked['seconds']:.0f} |"
        )
    lines.append("")
    for quality in QUALITIES:
        axes = [[one[name] for one in curve] for curve in curves for name in ("bitrate", quality)]
        answer = bd_rate(*axes)
        percent = answer.status if answer.percent is None else f"{answer.percent:+.2f} %"
        lines.append(f"BD-rate in chunks against whole, {quality}: {percent}")
    text = "\n".join(lines) + "\n"
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
