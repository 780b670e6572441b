"""Three PPOs learn the standard task Small, three seeds each, beside the best constant q.

    python -m benchmarks.learning [--steps 100000] [--seeds 1,2,3] [--out docs/results/learning]

Each training is an example of ``examples/`` in a process of its own, on one core. It is stopped by
its number of steps, and ``cpu_minutes`` says what it took. ``best-constant-q`` knows the best of 31
constants for every clip and target; the goal is to beat its mean return on the test split.
Libraries that are not installed are left out, with a line that says so.
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

import matplotlib.pyplot as plt

from vpxrc.envs.standard import SMALL
from vpxrc.evaluation.leaderboard import check_submission, leaderboard_table, score_policy

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = {  # example: (module that it needs, further arguments)
    "ppo": ("torch", []),
    "sb3_ppo": ("stable_baselines3", []),
    "rllib_ppo": ("ray", ["--runners", "0"]),
}


def main() -> None:
    """Train, and write a table, the curves and a figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--out", type=Path, default=Path("docs/results/learning"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    scores, facts = [], {}
    for number, (name, (module, more)) in enumerate(RECIPES.items()):
        if importlib.util.find_spec(module) is None:
            print(f"{name}: {module} is not installed", file=sys.stderr)
            continue
        for seed in args.seeds.split(","):
            place = args.out / f"{name}-{seed}"
            command = [sys.executable, EXAMPLES / f"{name}.py", "--seed", seed]
            command += ["--total-steps", str(args.steps), "--curve", f"{place}.csv"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [*command, "--out", f"{place}.json", *more],
                check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            _, score = check_submission(Path(f"{place}.json"))
            scores.append(score)
            facts[place.name] = {"return": score.value.mean, "cpu_minutes": seconds / 60}
            with open(f"{place}.csv", newline="") as file:
                rows = list(csv.DictReader(file))
            panel.plot(
                [float(row["cpu_seconds"]) / 60 for row in rows],
                [float(row["return"]) for row in rows],
                color=f"C{number}",
                label=name if seed == args.seeds.split(",")[0] else None,
            )
    train = score_policy(SMALL, "best-constant-q", split="train").value.mean
    assert train is not None
    panel.axhline(train, color="black", ls=":", label="best constant q")
    panel.set(xlabel="CPU minutes", ylabel="return on the training split")
    panel.legend()
    figure.savefig(args.out / "curves.png", dpi=120)
    scores += [score_policy(SMALL, spec) for spec in ("random", "best-constant-q", "libvpx-vbr")]
    (args.out / "table.md").write_text(leaderboard_table(SMALL, scores) + "\n")
    (args.out / "summary.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(leaderboard_table(SMALL, scores))


if __name__ == "__main__":
    main()
