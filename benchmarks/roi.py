"""What a region of interest gains inside, and what it costs outside, at the same bitrate.

python -m benchmarks.roi ../shared/clips/eval --out docs/results/roi

The regions are boxes that a person drew on a frame. Every row is compared with the same policy
without a region. Encodes that the folder has are not made again.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import bjontegaard
import numpy as np

from vpxrc import EncoderOptions, Policy, RegionOfInterest, Video, encode, make_policy
from vpxrc.datasets import load_clips
from vpxrc.evaluation.markdown import markdown_table
from vpxrc.media.masks import Box
from vpxrc.provenance import causes
from vpxrc.quality import weighted_psnr
from vpxrc.storage import atomic_write, digest


class Scene(NamedTuple):
    """A clip's size, in its own shape, and the box."""

    width: int
    height: int
    box: Box


SCENES = {
    "fastvqa_10053703034": Scene(256, 144, Box(84, 56, 168, 70)),  # children on risers, handheld
    "flutter_bee": Scene(256, 144, Box(56, 28, 164, 96)),  # a bee on a flower
    "openh264_test_cif_I_CABAC_slice": Scene(176, 144, Box(50, 40, 74, 92)),  # Foreman's face
}
NUM_FRAMES = 90
BITRATES = (40, 60, 85, 120)  # kbit/s
WEIGHT = 4.0
KINDS: dict[str, dict[str, bool] | None] = {
    "none": None,
    "lambda": {"scales_lambda": True, "moves_q": False},
    "segments": {"scales_lambda": False, "moves_q": True},
    "both": {"scales_lambda": True, "moves_q": True},
}
MEASURES = ("inside", "outside", "psnr")


def points(video: Video, box: Box, policy: str, bitrate: int) -> dict[str, dict[str, float]]:
    """Return what the encode of each kind gave at a bitrate, one after the other."""
    mask = box.mask(video.width, video.height)
    found = {}
    for kind, settings in KINDS.items():
        chosen: Policy = make_policy(policy)
        if settings is not None:
            chosen = RegionOfInterest(chosen, mask, WEIGHT, **settings)
        log = encode(video, EncoderOptions(target_bitrate=bitrate), chosen)
        decoded = log.options.decode(log.stream, log.clip)
        found[kind] = {
            "bitrate": log.bitrate,
            "inside": float(weighted_psnr(decoded, video, mask).mean()),
            "outside": float(weighted_psnr(decoded, video, ~mask).mean()),
            "psnr": log.psnr,
            "cpu_seconds": log.cpu_seconds,
        }
    return found


def compared(points_of: dict[str, dict[str, Any]], kind: str) -> dict[str, float]:
    """Return the differences in dB at equal bitrate, percent over the targets, the time's ratio."""
    anchor, mine = ([one[name] for one in points_of.values()] for name in ("none", kind))
    rates = [[one["bitrate"] for one in curve] for curve in (anchor, mine)]
    found = {}
    for name in MEASURES:
        values = [[one[name] for one in curve] for curve in (anchor, mine)]
        found[name] = bjontegaard.bd_psnr(
            rates[0], values[0], rates[1], values[1], method="pchip", min_overlap=0
        )
    found["over"] = 100 * (np.sum(rates[1]) / np.sum(BITRATES) - 1)
    found["time"] = np.mean(
        [a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(mine, anchor, strict=True)]
    )
    return found


def mean_and_worst(found: list[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means over clips, and of each figure the worst clip's."""
    mean = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    worst = {name: min(one[name] for one in found) for name in MEASURES}
    worst["over"] = max((one["over"] for one in found), key=abs)
    worst["time"] = max(one["time"] for one in found)
    return mean, worst


def cells(clip: str, kind: str, found: dict[str, float]) -> list[str]:
    """Return a row of the table."""
    differences = [f"{found[name]:+.2f}" for name in MEASURES]
    return [clip, kind, *differences, f"{found['over']:+.1f} %", f"{found['time']:.2f}"]


def study(kept: dict[str, Any], clips: str, policy: str, out: Path) -> dict[str, Any]:
    """Make the encodes that are not kept, and return all, by clip, bitrate and kind."""
    for clip in load_clips(clips):
        if clip.name not in SCENES:
            continue
        scene = SCENES[clip.name]
        key = digest([causes(policy), *scene[:2], str(scene.box), NUM_FRAMES, WEIGHT])
        mine = kept.get(clip.name, {})
        if mine.get("key") != key:
            mine = {"key": key, "box": str(scene.box), "rows": {}}
        kept[clip.name] = mine
        sized = dataclasses.replace(
            clip, width=scene.width, height=scene.height, num_frames=NUM_FRAMES
        )
        for bitrate in BITRATES:
            if str(bitrate) not in mine["rows"]:
                mine["rows"][str(bitrate)] = points(sized.open(), scene.box, policy, bitrate)
                with atomic_write(out / "encodes.json") as temporary:
                    temporary.write_text(json.dumps(kept, indent=1) + "\n")
    return {name: kept[name]["rows"] for name in SCENES}


def report(found: dict[str, Any], policy: str) -> str:
    """Return the table of clips, with the mean and the worst of each kind."""
    table = [["clip", "region", "inside", "outside", "whole", "bitrate", "time"]]
    regions = [kind for kind in KINDS if kind != "none"]
    all_of = {kind: [compared(rows, kind) for rows in found.values()] for kind in regions}
    for index, clip in enumerate(found):
        table += [cells(clip, kind, all_of[kind][index]) for kind in regions]
    for index, words in enumerate(("mean", "worst")):
        table += [cells(words, kind, mean_and_worst(all_of[kind])[index]) for kind in regions]
    return (
        f"Against the policy {policy} without a region, at equal bitrate ({len(BITRATES)} targets "
        f"of {BITRATES[0]} to {BITRATES[-1]} kbit/s, 256x144 or 176x144, {NUM_FRAMES} frames, "
        f"cpu-used 2), weight {WEIGHT:g}: luma PSNR in dB (mean over frames) inside the region, "
        "outside of it and of the whole picture (Bjontegaard); the sum of the bitrates against "
        "that of the targets; processor time of the encoder as a ratio. The worst of each figure "
        "may be another clip's.\n\n" + markdown_table(table)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips")
    parser.add_argument("--policy", default="constant-quality")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    path = arguments.out / "encodes.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    text = report(study(kept, arguments.clips, arguments.policy, arguments.out), arguments.policy)
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
