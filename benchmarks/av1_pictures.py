"""Whole AV1 pictures in which learned transforms code some blocks: all bits at equal error.

python -m benchmarks.av1_pictures kodak/ --checkpoints work/checkpoints --out pictures.json

The middle of each picture is an AV1 key frame of its own. Square luma blocks of the sides are coded
by the trained codecs of `benchmarks.av1_residuals`, all others by AV1. AV1's encoder is in the
loop: it chooses partitions, modes and transform sizes by what these codecs reconstruct, though it
weighs them as if its own coefficients followed. A decoder then predicts from the same
reconstructions. Counted are all bits of the frame, AV1's for what AV1 codes and ours for the
others, against AV1's frame at the same squared error of all samples. Records that are there already
are not made again.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.av1_closed_loop import coders_of, costs, middle, recorded
from benchmarks.av1_records import Q_INDICES, spread
from benchmarks.av1_residuals import BEST, Curve, Curves, against, by_picture, percent
from vpxrc.codecs.pictures import find_pictures, read_picture
from vpxrc.codecs.residual_blocks import read_blocks
from vpxrc.codecs.residuals import read_records
from vpxrc.codecs.selected_coder import Coder
from vpxrc.codecs.training import prepare_processor
from vpxrc.storage import atomic_write

FACTORS = (0.5, 0.7, 0.9)  # of AV1's steps; with these AV1's error is in between


def frames(paths: Sequence[Path]) -> tuple[Any, Any]:
    """Return all bits and squared errors of frames, ``[pictures]`` each."""
    found = []
    for path in paths:
        one = read_records(path)
        errors = np.square(one.sources.astype(np.float64) - one.reconstructions)
        found.append((8.0 * len(one.stream), errors.sum()))
    bits, sums = np.array(found).T
    return bits, sums


def curve(
    coders: dict[int, Coder], own: Sequence[Path], loops: Sequence[Sequence[Path]]
) -> tuple[Curve, dict[str, float]]:
    """Return the curve of frames of one q index, and the blocks of each side in percent of AV1's.

    Args:
        coders: By side.
        own: AV1's records, one for each picture.
        loops: Those with our reconstructions, for each of ``FACTORS``.
    """
    columns = []
    for factor, loop in zip(FACTORS, loops, strict=True):
        bits, errors = frames(loop)
        for side, blocks in read_blocks(loop, list(coders)).items():
            ours, _ = costs(coders[side], blocks, factor)
            bits += by_picture(ours - blocks.bits, blocks, len(loop))
        columns.append((bits, errors))
    bits, errors = (np.stack(one, 1) for one in zip(*columns, strict=True))
    found = Curve(bits, errors, *frames(own))
    shares = {
        str(side): round(100 * float(blocks.bits.sum()) / float(found.av1_bits.sum()), 1)
        for side, blocks in read_blocks(own, list(coders)).items()
    }
    return found, shares


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of the codecs")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--work", type=Path, help="folder of the records")
    parser.add_argument("--count", type=int, default=12, help="pictures")
    parser.add_argument("--arm", default=BEST, help=f"default: {BEST}")
    parser.add_argument("--sides", default="4,8,16")
    parser.add_argument("--size", default="256x192")
    parser.add_argument("--qindex", default=",".join(map(str, Q_INDICES)))
    given = parser.parse_args(arguments)
    prepare_processor()
    width, height = map(int, given.size.split("x"))
    work = given.work or given.out.with_suffix("")
    sides = [int(side) for side in given.sides.split(",")]
    paths = spread(find_pictures(given.pictures), given.count)
    pictures = {path.stem: middle(read_picture(path), width, height) for path in paths}
    curves: Curves = {}
    shares: dict[str, dict[str, float]] = {}
    for q_index in map(int, given.qindex.split(",")):
        coders = coders_of(given.arm, sides, q_index, given.checkpoints)
        own = recorded(None, pictures, q_index, 1.0, work / "av1")
        loops = [
            recorded(coders, pictures, q_index, one, work / f"{one:g}", in_encoder=True)
            for one in FACTORS
        ]
        curves[q_index], shares[str(q_index)] = curve(coders, own, loops)
        print(q_index, flush=True)
    every = np.arange(len(pictures))
    one_by_one = {
        name: {str(q): percent(one.log_ratio(np.array([n]))) for q, one in curves.items()}
        for n, name in enumerate(pictures)
    }
    result = {
        "arm": given.arm,
        "sides": given.sides,
        "size": given.size,
        "against_av1": {str(q): percent(one.log_ratio(every)) for q, one in curves.items()},
        "intervals": {str(q): against({q: one}, None) for q, one in curves.items()},
        "mean": against(curves, None),
        "share_of_bits": shares,
        "pictures": one_by_one,
    }
    with atomic_write(given.out) as temporary:
        temporary.write_text(json.dumps(result) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
