"""Print the README's table of results: ``python tools/readme_table.py``.

A test compares the README with it, so that no figure in the README is a copy that can age.
"""

from pathlib import Path

import pandas as pd

from vpxrc.evaluation.quality import QUALITIES
from vpxrc.evaluation.tables import compare_curves

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
# Both studies have the same clips, targets and speed; the second has libvpx's Q mode.
STUDIES = ("imitation-eval", "layered-eval")
BASELINES = ("libvpx-vbr", "libvpx-vbr-mlarf", "libvpx-q", "libvpx-q-mlarf")


def table() -> str:
    """Return in Markdown the BD-rates of ``imitation``: mean over clips, and the worst clip."""
    encodes = pd.concat(pd.read_parquet(RESULTS / study / "encodes.parquet") for study in STUDIES)
    encodes = encodes.drop_duplicates(["policy", "clip", "target_bitrate"])
    pairs = [("imitation", baseline) for baseline in BASELINES]
    rates = compare_curves(encodes, pairs, list(QUALITIES))
    labels = " | ".join(quality.label for quality in QUALITIES.values())
    lines = [
        f"| `imitation` against | encodes | {labels} |",
        f"| --- | --- |{' --- |' * len(QUALITIES)}",
    ]
    for baseline in BASELINES:
        spent = encodes.loc[encodes["policy"] == baseline, "encodes"].mean()
        cells = [f"`{baseline}`", f"1 against {spent:.0f}"]
        for quality in QUALITIES:
            percent = rates[(rates["anchor"] == baseline) & (rates["metric"] == quality)]["percent"]
            cells.append(f"{percent.mean():+.1f} ({percent.max():+.1f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
