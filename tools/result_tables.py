"""Print the tables of results that stand in README.md, in docs/ and in the model cards.

``python tools/result_tables.py [PAGE]`` prints the tables of one page, or of all. A test compares
the pages with them, so that no figure there is a copy that can age.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from vpxrc.evaluation.axes import clip_axes, counts_by_axis
from vpxrc.evaluation.tables import bd_rate_figures, compare_curves
from vpxrc.quality import BALANCED, LABELS, QUALITIES

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
# These studies have the same clips, targets and speed. Only `layered-eval` has libvpx's Q mode.
STUDIES = (
    "constant-quality-eval",
    "constant-quality-psnr",
    "imitation-eval",
    "layered-eval",
    "tpl-eval",
    "muzero/eval",
    "muzero/eval-augmented",
    "muzero/eval-mixed",
)
# The same at cpu-used 1, where libvpx-q was not run; and the sample clips at cpu-used 2.
STUDIES_CPU1 = ("constant-quality-eval-cpu1", "imitation-eval-cpu1")
STUDIES_SAMPLES = ("constant-quality-samples",)
MEASURES = (*QUALITIES, BALANCED)
HEADINGS = [LABELS[measure] for measure in MEASURES]
BASELINES = ("libvpx-vbr", "libvpx-vbr-mlarf", "libvpx-q", "libvpx-q-mlarf")
# The names of the policies in the studies, and in the tables.
MUZERO = {
    "imitation": "`imitation`",
    "muzero:build/rl/muzero.safetensors": "MuZero, attempt 2",
    "muzero:build/rl/muzero-augmented.safetensors": "MuZero, attempt 3",
    "muzero:build/rl/a4.safetensors": "MuZero, attempt 4",
}
ALL = {
    **MUZERO,
    "muzero:build/rl/muzero.safetensors@16": "MuZero, attempt 2, 16 simulations",
    "rllib:build/rl/ppo-imitation.safetensors": "PPO",
    "tpl": "`dependency`",
    "layered": "`layered`",
}
RLLIB = {
    "imitation": "`imitation`",
    "rllib:build/rl/ppo-imitation.safetensors": "PPO over `imitation`",
}


def encodes(studies: Sequence[str] = STUDIES) -> pd.DataFrame:
    """Return the encodes of some studies, each once."""
    stored = pd.concat(pd.read_parquet(RESULTS / study / "encodes.parquet") for study in studies)
    return stored.drop_duplicates(["policy", "clip", "target_bitrate"])


def against_baselines(
    stored: pd.DataFrame, policy: str, baselines: Sequence[str] = BASELINES
) -> str:
    """Return the BD-rates of a policy against others: mean over clips, and the worst clip."""
    rates = _rates(stored, [(policy, baseline) for baseline in baselines])
    lines = _head(f"`{policy}` against", "encodes", *HEADINGS)
    for baseline in baselines:
        spent = stored.loc[stored["policy"] == baseline, "encodes"].mean()
        of_one = rates[rates["anchor"] == baseline]
        lines.append(_row(f"`{baseline}`", f"1 against {spent:.0f}", *_cells(of_one)))
    return "\n".join(lines)


def of_policies(stored: pd.DataFrame, names: dict[str, str], baseline: str) -> str:
    """Return the BD-rates of several policies against one: mean over clips, and the worst clip."""
    rates = _rates(stored, [(policy, baseline) for policy in names if policy != baseline])
    lines = _head(f"against `{baseline}`", *HEADINGS)
    for policy, name in names.items():
        if policy != baseline:
            lines.append(_row(name, *_cells(rates[rates["test"] == policy])))
    return "\n".join(lines)


def by_clip(stored: pd.DataFrame, policy: str, baseline: str) -> str:
    """Return the BD-rate of a policy against another on every clip."""
    rates = _rates(stored, [(policy, baseline)])
    lines = _head("clip", *HEADINGS)
    for clip in sorted(rates["clip"].unique()):
        of_clip = rates[rates["clip"] == clip].set_index("metric")["percent"]
        lines.append(_row(clip, *(f"{of_clip[measure]:+.1f}" for measure in MEASURES)))
    return "\n".join(lines)


def constraint(stored: pd.DataFrame, policies: Sequence[str]) -> str:
    """Return how well policies meet their targets, in percent of their encodes."""
    lines = _head("policy", "over target", "over by > 5 %", "within 5 %")
    for policy in policies:
        over = stored.loc[stored["policy"] == policy, "overshoot"]
        shares = (over > 0, over > 0.05, over.abs() <= 0.05)
        lines.append(_row(f"`{policy}`", *(f"{100 * share.mean():.0f} %" for share in shares)))
    return "\n".join(lines)


def kinds_of_clips(names: Sequence[str] = ("train", "train2")) -> str:
    """Return how many clips of some sets are of each kind, as `vpxrc datasets --axes` counts."""
    counts = [
        counts_by_axis(clip_axes(pd.read_json(RESULTS / "datasets" / f"{name}.json")))
        for name in names
    ]
    lines = _head("axis", "range", *(f"`{name}`" for name in names))
    for row, *others in zip(*(one.to_dict("records") for one in counts), strict=True):
        each = (str(one["clips"]) for one in (row, *others))
        lines.append(_row(row["axis"], row["range"], *each))
    return "\n".join(lines)


def ablation() -> str:
    """Return the stored table of the imitation agent's ablation, by the present names."""
    stored = (RESULTS / "imitation-ablation" / "table.md").read_text()
    rows = [line for line in stored.splitlines() if line.startswith("|")]
    table = "\n".join(rows).replace("without TPL inputs", "without dependency inputs")
    return table.replace("| tpl |", "| dependency |")


def tables() -> dict[str, list[str]]:
    """Return the tables of every page, by the page's path in the repository."""
    stored = encodes()
    at_cpu1 = [name for name in (*BASELINES, "imitation") if name != "libvpx-q"]
    return {
        "README.md": [against_baselines(stored, "constant-quality")],
        "docs/constant-quality.md": [
            against_baselines(stored, "constant-quality", (*BASELINES, "imitation")),
            by_clip(stored, "constant-quality", "libvpx-vbr-mlarf"),
            constraint(stored, ("constant-quality", *BASELINES, "imitation")),
            against_baselines(encodes(STUDIES_CPU1), "constant-quality", at_cpu1),
            against_baselines(encodes(STUDIES_SAMPLES), "constant-quality"),
            against_baselines(stored, "constant-quality:psnr", ("libvpx-vbr", "imitation")),
        ],
        "docs/reproducing.md": [kinds_of_clips()],
        "agents/imitation/README.md": [against_baselines(stored, "imitation")],
        "agents/imitation/notes.md": [by_clip(stored, "imitation", "libvpx-vbr"), ablation()],
        "agents/muzero/README.md": [
            of_policies(stored, MUZERO, "libvpx-q-mlarf"),
            of_policies(stored, MUZERO, "imitation"),
        ],
        "agents/muzero/notes.md": [of_policies(stored, ALL, "libvpx-vbr")],
        "agents/rllib/README.md": [
            of_policies(stored, RLLIB, "libvpx-q-mlarf"),
            of_policies(stored, RLLIB, "imitation"),
        ],
    }


def _rates(stored: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    return compare_curves(stored, pairs, list(QUALITIES))


def _cells(rates: pd.DataFrame) -> list[str]:
    cells = []
    for measure in MEASURES:
        figures = bd_rate_figures(rates[rates["metric"] == measure])
        cells.append(f"{figures['mean']:+.1f} ({figures['worst']:+.1f})")
    return cells


def _head(*names: str) -> list[str]:
    return [_row(*names), f"|{' --- |' * len(names)}"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    for page, of_page in tables().items():
        if page in (sys.argv[1:] or [page]):
            print(f"{page}\n", *of_page, sep="\n", end="\n\n")
