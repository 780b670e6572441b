"""Our search against CMA-ES: bits saved after the same number of encodes, from the same start.

python -m benchmarks.search_methods ../shared/clips/train/askany_yoga.mp4 \
  ../shared/clips/train/intel_walk.mp4 --bitrate 64 --encodes 80 --out docs/results/search-methods

CMA-ES moves the start's trajectory by an offset of its base, its key frames, its base layer of
alternate references, the layers above and the lambda of its leaves, and by one level per block of
groups. Both are judged by the same score and brought to the target at the end, and every encode
counts. Our search takes its usual directions, and takes them again while there are encodes left.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cma
import numpy as np
from numpy.typing import NDArray

from vpxrc import EncoderOptions, Video, make_policy
from vpxrc.agents.teacher.curve import Point, anchor_curve, saved
from vpxrc.agents.teacher.directions import Direction, blocks, units
from vpxrc.agents.teacher.lessons import scaled
from vpxrc.agents.teacher.objective import LANDINGS, Candidate, Objective
from vpxrc.agents.teacher.search import SearchOptions, search
from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.cli.common import progress_bar
from vpxrc.datasets import Clip, load_clips
from vpxrc.storage import atomic_write

START = "imitation-prior"
BUDGETS = (10, 20, 38, 80, 160, 320)  # encodes; 38 is about what our search takes by default
SIGMA = 0.25  # log2 step, and log2 of lambda
SEED = 1
KINDS: tuple[Direction, ...] = ("key", "arf", "inner")
METHODS = ("ours", "CMA-ES")


def directions(start: Trajectory) -> NDArray[np.float64]:
    """Return what CMA-ES moves, a column each of what it adds to log2 of the steps; ``[T, D]``."""
    groups = blocks(start)
    columns = [
        np.ones(len(start), dtype=bool),
        *(units(start, kind) >= 0 for kind in KINDS),
        *(groups == block for block in range(int(groups.max()) + 1)),
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def evolution(
    video: Video, options: EncoderOptions, usual: SearchOptions, budgets: Sequence[int]
) -> Iterator[tuple[int, Point, int]]:
    """Yield what each budget of encodes gives CMA-ES, and how many it took.

    Where the best so far is brought to the target, the search goes on as if it were not.
    """
    objective = Objective(video, options, usual.quality)
    best = objective.begin(make_policy(START))
    start, least = best.trajectory, 0.0
    objective.measure_slopes(best, usual.step)
    target = 1000.0 * options.target_bitrate * video.duration

    def cost(candidate: Candidate) -> float:
        """Return the score, and 1 % more at 10 % off the target.

        Along the curve the score is level only as far as its slope holds. Our search keeps to the
        target by itself.
        """
        missed = float(np.log(candidate.log.bits / target))
        return objective.score(candidate) + 100 * missed**2

    moves, is_leaf = directions(start), units(start, "leaf_lambda") >= 0
    strategy = cma.CMAEvolutionStrategy(
        np.zeros(moves.shape[1] + 1), SIGMA, {"seed": SEED, "verbose": -9}
    )
    left = sorted(budgets)
    while left:
        offsets, costs = strategy.ask(), []
        for offset in offsets:
            while left and objective.encodes + LANDINGS >= left[0]:
                before = objective.encodes
                landed = objective.land(best, usual.tolerance)
                total, objective.encodes = objective.encodes, before
                yield left.pop(0), landed.encode.point, total
            if not left:
                return
            found = objective.evaluate(start.moved(moves @ offset[:-1], offset[-1] * is_leaf))
            costs.append(cost(found))
            if costs[-1] < least:
                best, least = found, costs[-1]
        strategy.tell(offsets, costs)


def run(clip: Clip, bitrate: int, budgets: Sequence[int]) -> list[dict[str, Any]]:
    video, options = clip.open(), EncoderOptions(target_bitrate=bitrate)
    usual = SearchOptions("psnr")
    anchors = anchor_curve(video, options, usual.quality)
    rows = []

    def add(method: str, budget: int, point: Point, encodes: int) -> None:
        rows.append(
            {
                "clip": clip.name,
                "size": f"{video.width}x{video.height}",
                "target_bitrate": bitrate,
                "method": method,
                "budget": budget,
                "encodes": encodes,
                "bitrate": point.bitrate,
                "psnr": point.psnr,
                "saved": saved(anchors, point, usual.quality),
            }
        )

    for budget in budgets:  # from the beginning each time: what fits depends on what is left
        again = SearchOptions("psnr", usual.directions * budget, max_encodes=budget)
        found = search(video, options, make_policy(START), again)
        add("ours", budget, found.found, found.encodes)
    add("start", 1, found.start, 1)
    for budget, point, encodes in evolution(video, options, usual, budgets):
        add("CMA-ES", budget, point, encodes)
    return rows


def table(rows: list[dict[str, Any]], budgets: Sequence[int]) -> str:
    values = {(r["clip"], r["method"], r["budget"]): r["saved"] for r in rows}
    clips = list(dict.fromkeys(row["clip"] for row in rows))

    def line(name: str, of: list[str]) -> str:
        cells = [[values[clip, "start", 1] for clip in of]]
        cells += [[values[clip, m, b] for clip in of] for b in budgets for m in METHODS]
        known = [[value for value in cell if value is not None] for cell in cells]
        texts = [f"{np.mean(cell):+.2f}" if cell else "no curve" for cell in known]
        return f"| {name} | " + " | ".join(texts) + " |"

    heads = [f"{method}, {budget}" for budget in budgets for method in METHODS]
    return "\n".join(
        [
            "Percent of bits saved against libvpx-vbr at equal PSNR, after so many encodes, at "
            f"{rows[0]['target_bitrate']} kbit/s; both searches start from `{START}`.",
            "",
            "| clip | start | " + " | ".join(heads) + " |",
            "|---" * (len(heads) + 2) + "|",
            *(line(clip, [clip]) for clip in clips),
            line("mean", clips),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", help="training clips: files, folders, catalogues")
    parser.add_argument("--pixels", type=int, default=36864, help="luma pixels to scale them to")
    parser.add_argument("--bitrate", type=int, default=64, help="target in kbit/s")
    parser.add_argument("--encodes", type=int, default=80, help="the most encodes of each search")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder; what is there is kept")
    arguments = parser.parse_args()
    most = max(arguments.encodes, 6)  # with fewer there is only the start's way to the target
    budgets = [*(budget for budget in BUDGETS if budget < most), most]
    clips = [scaled(clip, arguments.pixels) for clip in load_clips(arguments.clips)]
    state = arguments.out / "encodes.json"
    done: dict[str, list[dict[str, Any]]] = json.loads(state.read_text()) if state.is_file() else {}
    keys = [f"{clip.name} {clip.width}x{clip.height} {arguments.bitrate} {most}" for clip in clips]
    with (
        ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool,
        progress_bar(hidden=False) as bar,
    ):
        futures = {
            pool.submit(run, clip, arguments.bitrate, budgets): key
            for key, clip in zip(keys, clips, strict=True)
            if key not in done
        }
        task = bar.add_task("searching", total=len(keys), completed=len(keys) - len(futures))
        for future in as_completed(futures):
            done[futures[future]] = future.result()
            with atomic_write(state) as temporary:
                temporary.write_text(json.dumps(done, indent=1))
            bar.advance(task)
    text = table([row for key in keys for row in done[key]], budgets) + "\n"
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
