"""Learned transforms in AV1's prediction loop: their bits against AV1's, closed loop and offline.

python -m benchmarks.av1_closed_loop kodak/ --checkpoints work/checkpoints --out loop.json

The middle of each picture is an AV1 key frame of its own. In the closed loop our reconstruction
replaces AV1's, so later predictions see it; modes, partitions and transform sizes stay AV1's, which
favours AV1. Square luma blocks are coded by the trained codecs of `benchmarks.av1_residuals`, all
others by a plain DCT, whose error is about AV1's. Offline, the residuals are those of AV1's own
reconstructions. Bits are compared at AV1's distortion, over the same blocks. `--arms` takes other
arms of that benchmark than its best one, and compares them by its claims.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.av1_records import spread
from benchmarks.av1_residuals import (
    BEST,
    CLAIMS,
    SINGLE,
    Curve,
    Curves,
    against,
    by_picture,
    checkpoint_of,
    percent,
    sum_of,
)
from vpxrc.codecs.block_coder import steps_around
from vpxrc.codecs.block_training import read_block_model
from vpxrc.codecs.closed_loop import ClosedLoop
from vpxrc.codecs.papers.adaptive_transform import level_of
from vpxrc.codecs.pictures import Pixels, find_pictures, read_picture
from vpxrc.codecs.residual_blocks import Blocks, read_blocks
from vpxrc.codecs.residual_tool import record
from vpxrc.codecs.residuals import read_records
from vpxrc.codecs.selected_coder import Coder, coder_of
from vpxrc.codecs.training import prepare_processor
from vpxrc.storage import atomic_write

FACTORS = (0.55, 0.75, 1.0)  # of AV1's steps


def middle(picture: Pixels, width: int, height: int) -> Pixels:
    """Return the middle of a picture."""
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[max(top, 0) :, max(left, 0) :][:height, :width]


def costs(coder: Coder, blocks: Blocks, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bits and squared errors of blocks, ``[n]`` each."""
    coded = coder.quantize(blocks, level_of(steps_around(blocks, factor)))
    return coded.bits, (coded.decoded.double() - blocks.residuals).square().sum(1)


def curves(
    coders: Mapping[int, Coder],
    plain: Mapping[int, Blocks],
    loops: Sequence[Mapping[int, Blocks]],
    count: int,
) -> dict[int, dict[str, Curve]]:
    """Return the curves of each side, in the closed loop and offline.

    Args:
        coders: By side.
        plain: AV1's blocks by side.
        loops: The blocks of the closed loop by side, for each factor.
        count: Number of pictures.
    """
    found = {}
    for side, coder in coders.items():
        own = plain[side]
        av1 = by_picture(own.bits, own, count), by_picture(own.errors, own, count)
        columns: dict[str, list[tuple[Any, Any]]] = {"closed loop": [], "offline": []}
        for factor, loop in zip(FACTORS, loops, strict=True):
            bits, _ = costs(coder, loop[side], factor)
            # What was recorded is the reconstruction that the loop really had.
            columns["closed loop"].append((bits, loop[side].errors))
            columns["offline"].append(costs(coder, own, factor))
        found[side] = {
            name: Curve(
                np.stack([by_picture(bits, own, count) for bits, _ in column], 1),
                np.stack([by_picture(errors, own, count) for _, errors in column], 1),
                *av1,
            )
            for name, column in columns.items()
        }
    return found


def coders_of(arm: str, sides: Sequence[int], q_index: int, folder: Path) -> dict[int, Coder]:
    """Return the trained coders of an arm by side."""
    q = q_index if arm.endswith(SINGLE) else None
    return {
        side: coder_of(read_block_model(checkpoint_of(arm, side, q, folder))[0]) for side in sides
    }


def recorded(
    coders: Mapping[int, Coder] | None,
    pictures: Mapping[str, Pixels],
    q_index: int,
    factor: float,
    folder: Path,
    *,
    in_encoder: bool = False,
) -> list[Path]:
    """Return the records of pictures; what is missing is made, in the closed loop with coders."""
    found = []
    for name, picture in pictures.items():
        target = folder / f"{name}.q{q_index:03d}.residuals"
        if not target.exists():
            height, width = picture.shape[:2]
            loop = None
            if coders is not None:
                loop = ClosedLoop(coders, width, height, factor, in_encoder=in_encoder)
            record(picture, q_index, target, loop)
        found.append(target)
    return found


def others(paths: Sequence[Path], sides: Sequence[int]) -> float:
    """Return the sum of squared errors of all luma blocks that are no squares of these sides."""
    total = 0.0
    for path in paths:
        records = read_records(path)
        errors = np.square(records.sources.astype(np.float64) - records.reconstructions).cumsum()
        sums = np.pad(errors, (1, 0))
        rows = records.blocks
        square = (rows["width"] == rows["height"]) & np.isin(rows["width"], sides)
        places = np.flatnonzero((rows["plane"] == 0) & ~square)
        areas = rows["width"].astype(np.int64) * rows["height"]
        starts, ends = records.starts[places], (records.starts + areas)[places]
        total += float((sums[ends] - sums[starts]).sum())
    return total


Key = tuple[str, str, str]  # arm, "closed loop" or "offline", and side or "all"


def compared(found: Mapping[Key, Curves]) -> list[dict[str, Any]]:
    """Return the claims: bits of an arm against another one, with an interval over pictures."""
    rows = []
    for claim, (_, pairs) in CLAIMS.items():
        for ours, other in pairs:
            for (arm, way, side), curve in found.items():
                if arm == ours and (other, way, side) in found:
                    change = against(curve, found[other, way, side])
                    pair = {"claim": claim, "arm": ours, "against": other}
                    rows.append({**pair, "way": way, "side": side, "percent": change})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of the codecs")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--work", type=Path, help="folder of the records")
    parser.add_argument("--count", type=int, default=4, help="pictures")
    parser.add_argument("--arms", default=BEST, help=f"separated by semicolons; default: {BEST}")
    parser.add_argument("--sides", default="4,8,16,32")
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--qindex", default="32,80,128,172,220,255")
    given = parser.parse_args(arguments)
    prepare_processor()
    width, height = map(int, given.size.split("x"))
    work = given.work or given.out.with_suffix("")
    sides = [int(side) for side in given.sides.split(",")]
    paths = spread(find_pictures(given.pictures), given.count)
    pictures = {path.stem: middle(read_picture(path), width, height) for path in paths}
    found: dict[Key, Curves] = {}
    rest: dict[str, dict[str, float | None]] = {}
    for arm in given.arms.split(";"):
        for q_index in map(int, given.qindex.split(",")):
            coders = coders_of(arm, sides, q_index, given.checkpoints)
            folder = work / arm.replace(",", "").replace(" ", "-")
            own = recorded(None, pictures, q_index, 1.0, work / "av1")
            loops = [
                recorded(coders, pictures, q_index, one, folder / f"{one:g}") for one in FACTORS
            ]
            by_side = curves(
                coders,
                read_blocks(own, sides),
                [read_blocks(loop, sides) for loop in loops],
                len(pictures),
            )
            change = math.log(others(loops[-2], sides) / others(own, sides))
            rest.setdefault(arm, {})[str(q_index)] = percent(change)
            for way in ("closed loop", "offline"):
                of_side = {str(side): one[way] for side, one in by_side.items()}
                if len(sides) > 1:
                    of_side["all"] = sum_of(list(of_side.values()))
                for name, curve in of_side.items():
                    found.setdefault((arm, way, name), {})[q_index] = curve
            print(arm, q_index, flush=True)
    every = np.arange(len(pictures))
    rows = [
        {
            **{"arm": arm, "way": way, "side": side, "mean": against(of_q, None)},
            **{str(q): percent(curve.log_ratio(every)) for q, curve in of_q.items()},
            "intervals": {str(q): against({q: curve}, None) for q, curve in of_q.items()},
        }
        for (arm, way, side), of_q in found.items()
    ]
    result = {
        "pictures": [path.name for path in paths],
        "size": given.size,
        "against_av1": rows,
        "error_of_other_blocks": rest,
        "claims": compared(found),
    }
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
