"""Three PPOs learn the standard task Small, three seeds each, beside the best constant q.

    python -m benchmarks.learning [--steps 80000] [--seeds 1,2,3] [--out docs/results/learning]

Each training is an example of ``examples/`` in a process of its own, on one core. It is stopped by
its number of steps, and ``cpu_minutes`` says what it took, with its start and its test. What is in
``runs.json`` already is not trained again, so the command goes on where it was stopped.
``best-constant-q`` knows the best of 31 constants for every clip and target; the goal is to beat
its mean return. Libraries that are not installed are left out, with a line that says so.
"""

import argparse
import csv
import importlib.util
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from vpxrc.envs.standard import SMALL
from vpxrc.evaluation.leaderboard import Score, check_submission, leaderboard_table, score_policy
from vpxrc.evaluation.markdown import markdown_table

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = {  # example: (module that it needs, further arguments)
    "ppo": ("torch", []),
    "sb3_ppo": ("stable_baselines3", []),
    "rllib_ppo": ("ray", ["--runners", "0"]),
}
OTHERS = ("random", "best-constant-q", "libvpx-vbr")


def train(name: str, seed: str, steps: int, out: Path) -> dict[str, Any]:
    """Run an example, and return the facts of its run: steps, processor time and returns."""
    place = out / f"{name}-{seed}"
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--seed", seed, *RECIPES[name][1]]
    command += ["--total-steps", str(steps), "--curve", f"{place}.csv", "--out", f"{place}.json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {
        "steps": steps,
        "cpu_minutes": round(seconds / 60, 2),
        "training_return": curve(place)[-1][1],
        "test_return": check_submission(Path(f"{place}.json"))[1].value.mean,
    }


def curve(place: Path) -> list[tuple[float, float]]:
    """Return the (CPU minutes, mean return of the last 100 episodes) of a training."""
    with open(f"{place}.csv", newline="") as file:
        rows = csv.DictReader(file)
        return [(float(row["cpu_seconds"]) / 60, float(row["return"])) for row in rows]


def draw(facts: dict[str, Any], best: float, out: Path) -> None:
    """Write the figure with all curves and the best constant q's return on the training split."""
    figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, name in enumerate(RECIPES):
        runs = [run for run in facts if run.rpartition("-")[0] == name]
        for run in runs:
            label = name if run == runs[0] else None
            panel.plot(*zip(*curve(out / run), strict=True), color=f"C{number}", label=label)
    panel.axhline(best, color="black", ls=":", label="best-constant-q")
    panel.set(xlabel="CPU minutes", ylabel="return on the training split", ylim=(-2.5, 0.2))
    panel.legend()
    figure.savefig(out / "curves.png", dpi=120)


def training_table(facts: dict[str, Any], best: float) -> str:
    """Return the table of all trainings in Markdown."""
    rows = [["example", "seed", "steps", "CPU minutes", "last training return", "test return"]]
    for run, fact in facts.items():
        name, _, seed = run.rpartition("-")
        returns = (f"{fact['training_return']:.3f}", f"{fact['test_return']:.3f}")
        rows.append([name, seed, str(fact["steps"]), f"{fact['cpu_minutes']:.1f}", *returns])
    rows.append(["best-constant-q", "", "", "", f"{best:.3f}", ""])
    return markdown_table(rows)


def write(facts: dict[str, Any], best: float, others: list[Score], out: Path) -> None:
    """Write summary, tables and figure of the trainings so far.

    Args:
        facts: Per training what :func:`train` returned.
        best: The best constant q's return on the training split.
        others: Scores on the test split to compare with.
        out: The folder.
    """
    (out / "runs.json").write_text(json.dumps(facts, indent=1) + "\n")
    scores = list(others)
    for name in RECIPES:
        runs = [run for run in facts if run.rpartition("-")[0] == name]
        played = [check_submission(out / f"{run}.json")[1].episodes for run in runs]
        if played:
            scores.append(Score(f"{name}.py", len(played), sum(played, ())))
    draw(facts, best, out)
    (out / "trainings.md").write_text(training_table(facts, best) + "\n")
    (out / "table.md").write_text(leaderboard_table(SMALL, scores) + "\n")


def main() -> None:
    """Train, and write tables, the curves and a figure after every training."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=80_000)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--out", type=Path, default=Path("docs/results/learning"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    summary = args.out / "runs.json"
    facts: dict[str, Any] = json.loads(summary.read_text()) if summary.exists() else {}
    best = score_policy(SMALL, "best-constant-q", split="train").value.mean
    assert best is not None
    others = [score_policy(SMALL, spec) for spec in OTHERS]
    for seed in args.seeds.split(","):
        for name, (module, _) in RECIPES.items():
            if importlib.util.find_spec(module) is None:
                print(f"{name}: {module} is not installed", file=sys.stderr)
            elif facts.get(f"{name}-{seed}", {}).get("steps") != args.steps:
                facts[f"{name}-{seed}"] = train(name, seed, args.steps, args.out)
                facts = dict(sorted(facts.items()))
                write(facts, best, others, args.out)
    write(facts, best, others, args.out)
    print((args.out / "trainings.md").read_text(), (args.out / "table.md").read_text(), sep="\n")


if __name__ == "__main__":
    main()
