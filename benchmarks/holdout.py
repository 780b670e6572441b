"""How the imitation agent does on training clips left out of its training, by controller.

python -m benchmarks.holdout docs/results/teacher/{prior,student}.parquet \
    --clips ../shared/clips/train --work build/holdout --out docs/results/holdout.md

A third of the clips is left out at a time (clips of one scene together), the agent is trained on
the rest as ``vpxrc train`` does, and encodes those left out, at the lessons' sizes and targets.
What is chosen for the agent is chosen here: no evaluation clip has a part in it. Figures are in
percent more bits than libvpx-vbr takes for the same quality, by the curves of the lessons.
"""

import argparse
import dataclasses
import re
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc import encode
from vpxrc.agents.imitation.policy import PARAMETERS, imitation
from vpxrc.agents.teacher.lessons import find_clip, open_clip, pack, result_options, results
from vpxrc.cli.common import progress_bar
from vpxrc.datasets import Clip, load_clips
from vpxrc.evaluation.bd_rate import more_bits
from vpxrc.parallel import open_workers
from vpxrc.storage import atomic_write

FOLDS = 3
# How far the base may move at a group's start, and per frame: see DependencyParameters.
CONTROLLERS: dict[str, dict[str, float]] = {
    "as shipped": {},
    "moves 0.4 as much": {"group_move": 0.2, "max_move": 0.02},
    "moves at groups only": {"max_move": 0.0},
    "none": {"group_move": 0.0, "max_move": 0.0},
}


def scene(name: str) -> str:
    """Return what clips cut from one video have in common."""
    return re.sub(r"_\d+(p\d+)?s$", "", name)


def fold_of(names: list[str]) -> dict[str, int]:
    scenes = sorted({scene(name) for name in names})
    np.random.default_rng(1).shuffle(scenes)
    return {name: scenes.index(scene(name)) % FOLDS for name in names}


def checkpoint(fold: int, found: list[dict[str, Any]], clips: list[str], work: Path) -> Path:
    """Train on the lessons of the other folds, where that is not done."""
    path = work / f"fold-{fold}.safetensors"
    if path.is_file():
        return path
    folds = fold_of([result["clip"] for result in found])
    lessons = work / f"fold-{fold}.parquet"
    pack(lessons, [result for result in found if folds[result["clip"]] != fold])
    words = ["vpxrc", "train", "--agent", "imitation", str(lessons), "--out", str(path)]
    subprocess.run([*words, *(word for clip in clips for word in ("--clips", clip))], check=True)
    return path


def run(
    job: tuple[str, dict[str, Any], Path], known: list[Clip]
) -> tuple[float | None, float | None, float]:
    """Encode a lesson's clip; return percent by PSNR and by overall PSNR, and the overshoot."""
    controller, result, path = job
    parameters = dataclasses.replace(PARAMETERS, **CONTROLLERS[controller])
    policy = imitation(path, parameters=parameters)
    video = open_clip(result, [find_clip(result, known)])
    log = encode(video, result_options(result), policy)
    anchors = result["points"]["libvpx-vbr"]
    rates = [anchor["bitrate"] for anchor in anchors]
    gains = [
        more_bits(rates, [a[quality] for a in anchors], [log.bitrate], [getattr(log, quality)])
        for quality in ("psnr", "psnr_overall")
    ]
    return gains[0], gains[1], log.overshoot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--clips", action="append", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = [result for folder in arguments.folders for result in results(folder)]
    folds = fold_of([result["clip"] for result in found])
    paths = [checkpoint(k, found, arguments.clips, arguments.work) for k in range(FOLDS)]
    known = load_clips(arguments.clips)
    jobs = [
        (name, result, paths[folds[result["clip"]]]) for name in CONTROLLERS for result in found
    ]
    rows: dict[tuple[str, Path, int | None], tuple[float | None, float | None, float]] = {}
    with progress_bar(hidden=False) as bar, open_workers(arguments.jobs) as workers:
        task = bar.add_task("encodes", total=len(jobs))
        for (name, result, _), row in workers.unordered(partial(run, known=known), jobs):
            rows[name, result["path"], result["row"]] = row
            bar.update(task, advance=1)
    lines = [
        "| controller | PSNR | overall PSNR | within 5 % | over by > 5 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in CONTROLLERS:
        mine = [rows[name, result["path"], result["row"]] for result in found]
        cells = []
        for place in range(2):
            more = [row[place] for row in mine if row[place] is not None]
            cells.append(f"{np.mean(more):+.2f} ({np.median(more):+.2f})")
        over = np.array([row[2] for row in mine])
        cells += [
            f"{100 * np.mean(abs(over) <= 0.05):.0f} %",
            f"{100 * np.mean(over > 0.05):.0f} %",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    text = (
        f"Percent more bits than libvpx-vbr at equal quality, mean (median), {len(found)} lessons "
        f"whose clip the agent was not trained on ({FOLDS} folds).\n\n" + "\n".join(lines) + "\n"
    )
    with atomic_write(arguments.out) as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
