"""Bits saved against encodes spent: ``vpxrc encode --effort``, and libvpx's searched Q mode.

python -m benchmarks.effort samples --bitrates 96 --efforts 1,6,20,40 --out docs/results/effort
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc import EncodeLog, EncoderOptions, encode, make_policy
from vpxrc.agents.teacher.search import improve
from vpxrc.datasets import Clip, load_clips
from vpxrc.evaluation.bd_rate import more_bits
from vpxrc.parallel import open_workers
from vpxrc.storage import atomic_write

QUALITIES = ("psnr", "psnr_overall")
ANCHOR = (0.7, 0.85, 1.0, 1.2, 1.4)  # of the target, for libvpx-vbr's curve


def run(job: tuple[Clip, int, str, int]) -> list[dict[str, Any]]:
    clip, bitrate, policy, effort = job
    video, options = clip.open(), EncoderOptions(target_bitrate=bitrate)

    def point(log: EncodeLog) -> dict[str, Any]:
        return {"bitrate": log.bitrate, "encodes": log.encodes} | {
            quality: getattr(log, quality) for quality in QUALITIES
        }

    if policy == "libvpx-vbr":
        targets = [round(bitrate * part) for part in ANCHOR]
        options_of = [EncoderOptions(target_bitrate=target) for target in targets]
        return [point(encode(video, of, make_policy(policy))) for of in options_of]
    if effort > 1:
        return [point(improve(video, options, make_policy(policy), effort))]
    return [point(encode(video, options, make_policy(policy)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips")
    parser.add_argument("--bitrates", default="96")
    parser.add_argument("--efforts", default="1,6,20,40")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    clips = load_clips(arguments.clips)
    rates = [int(rate) for rate in arguments.bitrates.split(",")]
    efforts = [int(effort) for effort in arguments.efforts.split(",")]
    rows = [("libvpx-vbr", 1), ("libvpx-vbr-mlarf", 1), ("libvpx-q-mlarf", 1)]
    rows += [("imitation", effort) for effort in efforts]
    jobs = [(clip, rate, *row) for row in rows for clip in clips for rate in rates]
    with open_workers(arguments.jobs) as workers:
        found = {
            (clip.name, *rest): points for (clip, *rest), points in workers.unordered(run, jobs)
        }
    lines = ["| policy | encodes | PSNR | overall PSNR |", "| --- | --- | --- | --- |"]
    for policy, effort in rows[1:]:
        cells = []
        for quality in QUALITIES:
            saved = []
            for clip in clips:
                for rate in rates:
                    curve = found[clip.name, rate, "libvpx-vbr", 1]
                    (mine,) = found[clip.name, rate, policy, effort]
                    rates_of, qualities_of = (
                        [point[name] for point in curve] for name in ("bitrate", quality)
                    )
                    more = more_bits(rates_of, qualities_of, [mine["bitrate"]], [mine[quality]])
                    saved.append(more)
            usable = [-value for value in saved if value is not None]
            cells.append(f"{np.mean(usable):+.1f} ({', '.join(f'{v:+.1f}' for v in usable)})")
        spent = [found[c.name, rate, policy, effort][0]["encodes"] for c in clips for rate in rates]
        lines.append(f"| {policy} | {np.mean(spent):.1f} | {' | '.join(cells)} |")
    names = ", ".join(clip.name for clip in clips)
    text = (
        f"Percent of bits saved at equal quality against libvpx-vbr, mean ({names}), at "
        f"{arguments.bitrates} kbit/s, cpu-used 2.\n\n" + "\n".join(lines) + "\n"
    )
    kept = [{"job": list(key), "points": points} for key, points in found.items()]
    for name, content in (("table.md", text), ("encodes.json", json.dumps(kept, indent=1) + "\n")):
        with atomic_write(arguments.out / name) as temporary:
            temporary.write_text(content)
    print(text)


if __name__ == "__main__":
    main()
