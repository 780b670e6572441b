"""Learned transforms in AV1's prediction loop: their bits against AV1's, closed loop and offline.

python -m benchmarks.av1_closed_loop kodak/ --checkpoints work/checkpoints --out loop.json

The middle of each picture is an AV1 key frame of its own. In the closed loop our reconstruction
replaces AV1's, so later predictions see it; modes, partitions and transform sizes stay AV1's, which
favours AV1. Square luma blocks are coded by the trained codecs of `benchmarks.av1_residuals`, all
others by a plain DCT at AV1's steps. Offline, the residuals are those of AV1's own reconstructions.
Bits are compared at AV1's distortion, over the same blocks.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.av1_residuals import BEST, Curve, by_picture, percent, spread, sum_of
from vpxrc.codecs.block_coder import BlockCoder, steps_around
from vpxrc.codecs.block_training import read_block_model
from vpxrc.codecs.closed_loop import ClosedLoop
from vpxrc.codecs.papers.adaptive_transform import level_of
from vpxrc.codecs.pictures import Pixels, find_pictures, read_picture
from vpxrc.codecs.residual_blocks import Blocks, read_blocks
from vpxrc.codecs.residual_tool import record
from vpxrc.codecs.training import prepare_processor
from vpxrc.storage import atomic_write

FACTORS = (0.55, 0.75, 1.0)  # of AV1's steps


def middle(picture: Pixels, width: int, height: int) -> Pixels:
    """Return the middle of a picture."""
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[max(top, 0) :, max(left, 0) :][:height, :width]


def costs(coder: BlockCoder, blocks: Blocks, factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bits and squared errors of blocks, ``[n]`` each."""
    coded = coder.quantize(blocks, level_of(steps_around(blocks, factor)))
    return coded.bits, (coded.decoded.double() - blocks.residuals).square().sum(1)


def curves(
    coders: Mapping[int, BlockCoder],
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of the codecs")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--work", type=Path, help="folder of the records")
    parser.add_argument("--count", type=int, default=4, help="pictures")
    parser.add_argument("--sides", default="4,8,16,32")
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--qindex", default="32,80,128,172,220,255")
    given = parser.parse_args(arguments)
    prepare_processor()
    width, height = map(int, given.size.split("x"))
    work = given.work or given.out.with_suffix("")
    coders = {
        side: BlockCoder(
            read_block_model(given.checkpoints / f"{side}-{BEST.replace(' ', '-')}.safetensors")[0]
        )
        for side in map(int, given.sides.split(","))
    }
    paths = spread(find_pictures(given.pictures), given.count)
    rows: dict[str, dict[str, dict[str, float | None]]] = {}
    for q_index in map(int, given.qindex.split(",")):
        files: list[list[Path]] = [[] for _ in (None, *FACTORS)]
        for path in paths:
            picture = middle(read_picture(path), width, height)
            for number, factor in enumerate((None, *FACTORS)):
                folder = work / ("av1" if factor is None else f"{factor:g}")
                target = folder / f"{path.stem}.q{q_index:03d}.residuals"
                files[number].append(target)
                if not target.exists():
                    across, down = picture.shape[1], picture.shape[0]
                    loop = factor and ClosedLoop(coders, across, down, factor)
                    record(picture, q_index, target, loop or None)
        blocks = [read_blocks(part, list(coders)) for part in files]
        found = curves(coders, blocks[0], blocks[1:], len(paths))
        every = np.arange(len(paths))
        for name in ("closed loop", "offline"):
            of_side = {str(side): curve[name] for side, curve in found.items()}
            of_side["all"] = sum_of(list(of_side.values()))
            for side, curve in of_side.items():
                row = rows.setdefault(name, {}).setdefault(side, {})
                row[str(q_index)] = percent(curve.log_ratio(every))
        print(q_index, json.dumps(rows), flush=True)
    result = {"pictures": [path.name for path in paths], "size": given.size, "percent": rows}
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
