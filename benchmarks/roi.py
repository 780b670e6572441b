"""What a region of interest gains inside, and what it costs outside, at the same bitrate.

python -m benchmarks.roi ../shared/clips/eval --out docs/results/roi

The regions are boxes that a person drew on a frame. Every row is compared with the same policy
without a region.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import bjontegaard
import numpy as np

from vpxrc import EncoderOptions, Policy, RegionOfInterest, Video, encode, make_policy
from vpxrc.datasets import load_clips
from vpxrc.evaluation.markdown import markdown_table
from vpxrc.media.masks import Box
from vpxrc.quality import weighted_psnr
from vpxrc.storage import atomic_write

WIDTH, HEIGHT, NUM_FRAMES = 256, 144, 90
BOXES = {
    "fastvqa_10053703034": Box(84, 56, 168, 70),  # children on risers, handheld
    "flutter_bee": Box(56, 28, 164, 96),  # a bee on a flower
}
BITRATES = (40, 60, 85, 120)  # kbit/s
WEIGHTS = (4.0,)
KINDS = {
    "lambda": {"scales_lambda": True, "moves_q": False},
    "segments": {"scales_lambda": False, "moves_q": True},
    "both": {"scales_lambda": True, "moves_q": True},
}
NONE = ("none", 1.0)


def points(video: Video, box: Box, policy: str, row: tuple[str, float]) -> list[dict[str, Any]]:
    """Return what an encode at each of the bitrates gave."""
    mask = box.mask(video.width, video.height)
    found = []
    for bitrate in BITRATES:
        kind, weight = row
        chosen: Policy = make_policy(policy)
        if row != NONE:
            chosen = RegionOfInterest(chosen, mask, weight, **KINDS[kind])
        log = encode(video, EncoderOptions(target_bitrate=bitrate), chosen)
        decoded = log.options.decode(log.stream, log.clip)
        found.append(
            {
                "target": bitrate,
                "bitrate": log.bitrate,
                "inside": float(weighted_psnr(decoded, video, mask).mean()),
                "outside": float(weighted_psnr(decoded, video, ~mask).mean()),
                "psnr": log.psnr,
                "cpu_seconds": log.cpu_seconds,
            }
        )
    return found


def compared(anchor: list[dict[str, Any]], mine: list[dict[str, Any]]) -> list[str]:
    """Return the cells of a row: differences in dB at equal bitrate, bits, time."""
    rates = [[one["bitrate"] for one in curve] for curve in (anchor, mine)]
    cells = []
    for name in ("inside", "outside", "psnr"):
        values = [[one[name] for one in curve] for curve in (anchor, mine)]
        gain = bjontegaard.bd_psnr(
            rates[0], values[0], rates[1], values[1], method="pchip", min_overlap=0
        )
        cells.append(f"{gain:+.2f}")
    cells.append(f"{100 * (np.sum(rates[1]) / np.sum(BITRATES) - 1):+.1f} %")
    ratio = [a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(mine, anchor, strict=True)]
    return [*cells, f"{np.mean(ratio):.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips")
    parser.add_argument("--policy", default="constant-quality")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [NONE, *((kind, weight) for kind in KINDS for weight in WEIGHTS)]
    kept: dict[str, Any] = {}
    header = ["clip", "region", "weight", "inside", "outside", "whole", "bitrate", "time"]
    table = [header]
    for clip in load_clips(arguments.clips):
        if clip.name not in BOXES:
            continue
        sized = dataclasses.replace(clip, width=WIDTH, height=HEIGHT, num_frames=NUM_FRAMES)
        video, box = sized.open(), BOXES[clip.name]
        found = {row: points(video, box, arguments.policy, row) for row in rows}
        kept[clip.name] = {"box": str(box), "rows": [[*row, found[row]] for row in rows]}
        for row in rows[1:]:
            cells = compared(found[NONE], found[row])
            table.append([clip.name, row[0], f"{row[1]:g}", *cells])
    text = (
        f"Against the policy {arguments.policy} without a region, at equal bitrate ({len(BITRATES)}"
        f" targets of {BITRATES[0]} to {BITRATES[-1]} kbit/s, {WIDTH}x{HEIGHT}, {NUM_FRAMES} frames"
        ", cpu-used 2): luma PSNR in dB (mean over frames) inside the region, outside of it and of "
        "the whole picture (Bjontegaard); the sum of the bitrates against that of the targets; "
        "processor time of the encoder as a ratio.\n\n" + markdown_table(table)
    )
    for name, content in (("table.md", text), ("encodes.json", json.dumps(kept, indent=1) + "\n")):
        with atomic_write(arguments.out / name) as temporary:
            temporary.write_text(content)
    print(text)


if __name__ == "__main__":
    main()
