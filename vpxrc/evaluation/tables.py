"""The tables of a study: BD-rates over clips, and how well targets were met."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vpxrc.evaluation.bd_rate import bd_rate, mean_ci95
from vpxrc.evaluation.result import Evaluation
from vpxrc.quality import QUALITIES

CLOSE_TO_TARGET = 0.05  # share of the target that an encode may miss it by


def table(evaluation: Evaluation) -> str:
    """Return a study's result in Markdown, aligned so that it reads well as plain text."""
    summary, comparisons = evaluation.summary, evaluation.comparisons
    count = len(summary["clips"])
    left_out = summary.get("left_out", [])
    clips = f"{count} of {count + len(left_out)}" if left_out else f"{count}"
    parts = [
        f"BD-rate in percent over {clips} clips at "
        f"{', '.join(map(str, summary['bitrates']))} kbit/s, cpu-used {summary['cpu_used']}, "
        f"libvpx {summary['libvpx']}: mean (median) [95 % interval of the mean]; negative means "
        "fewer bits at equal quality.",
        bd_rate_table(comparisons),
        constraint_table(evaluation.encodes),
    ]
    if lines := excluded(comparisons):
        parts.insert(2, "\n".join(["Not in these means:", "", *lines]))
    if left_out:
        parts.insert(1, f"Clips that could not be had: {', '.join(left_out)}.")
    return "\n\n".join(parts) + "\n"


def bd_rate_table(comparisons: pd.DataFrame) -> str:
    """Return the mean BD-rate over clips of each pair of policies, in Markdown.

    Args:
        comparisons: As :attr:`Evaluation.comparisons`.
    """
    metrics = list(dict.fromkeys(comparisons["metric"]))
    rows = [["policy", "against", *(QUALITIES[metric].label for metric in metrics)]]
    for (test, anchor), pair in comparisons.groupby(["test", "anchor"], sort=False):
        cells = [f"{test}", f"{anchor}"]
        for metric in metrics:
            figures = bd_rate_figures(pair[pair["metric"] == metric])
            cells.append(_interval(figures, pair["clip"].nunique()))
        rows.append(cells)
    return _markdown(rows)


def constraint_table(encodes: pd.DataFrame) -> str:
    """Return how well each policy met its targets, in Markdown.

    Args:
        encodes: As :attr:`Evaluation.encodes`.
    """
    rows = [["policy", "over target", "over by > 5 %", "within 5 %", "encodes per result"]]
    for policy, mine in encodes.groupby("policy", sort=False):
        shares = [f"{100 * share:.1f} %" for share in constraint(mine["overshoot"]).values()]
        rows.append([f"{policy}", *shares, f"{mine['encodes'].mean():.1f}"])
    return _markdown(rows)


def excluded(comparisons: pd.DataFrame) -> list[str]:
    """Return a Markdown line with the reason for each clip and pair that has no BD-rate."""
    left_out = comparisons[comparisons["status"] != "ok"]
    lines = []
    for (clip, test, anchor, status), rows in left_out.groupby(
        ["clip", "test", "anchor", "status"], sort=False
    ):
        which = ", ".join(QUALITIES[metric].label for metric in rows["metric"])
        lines.append(f"- {clip}: {test} against {anchor}, {which}: {status}")
    return lines


def constraint(overshoot: "pd.Series[float]") -> dict[str, float]:
    """Return how well encodes met their targets.

    Args:
        overshoot: Achieved bitrate over target, less 1, of each encode.

    Returns:
        Shares of the encodes, 0..1: above the target (``overshoot_any``), more than 5 % above it
        (``overshoot_5pct``), and within 5 % of it (``within_5pct``).
    """
    return {
        "overshoot_any": float((overshoot > 0).mean()),
        "overshoot_5pct": float((overshoot > CLOSE_TO_TARGET).mean()),
        "within_5pct": float((overshoot.abs() <= CLOSE_TO_TARGET).mean()),
    }


def compare_curves(
    encodes: pd.DataFrame, pairs: Sequence[tuple[str, str]], qualities: Sequence[str]
) -> pd.DataFrame:
    """Return the BD-rates of pairs of policies on every clip.

    Args:
        encodes: As :attr:`Evaluation.encodes`, with every clip under every policy.
        pairs: Names of the tested policy and of the anchor.
        qualities: Columns of ``encodes``.

    Returns:
        A table as :attr:`Evaluation.comparisons`.
    """
    curves = {key: curve for key, curve in encodes.groupby(["policy", "clip"])}
    rows = []
    for test, anchor in pairs:
        for clip in dict.fromkeys(encodes["clip"]):
            ours, theirs = curves[test, clip], curves[anchor, clip]
            for quality in qualities:
                result = bd_rate(theirs["bitrate"], theirs[quality], ours["bitrate"], ours[quality])
                rows.append(
                    {
                        "test": test,
                        "anchor": anchor,
                        "clip": clip,
                        "metric": quality,
                        **dataclasses.asdict(result),
                    }
                )
    return pd.DataFrame(rows)


def bd_rate_figures(comparisons: pd.DataFrame) -> dict[str, Any]:
    """Return ``mean``, ``median``, ``ci95`` and ``n`` over the rows that have a BD-rate."""
    usable = comparisons[comparisons["status"] == "ok"]
    return dataclasses.asdict(mean_ci95(usable["percent"].astype(float)))


def _interval(figures: dict[str, Any], clips: int) -> str:
    if figures["n"] == 0:
        return "none"
    low, high = figures["ci95"]
    some = f" n={figures['n']}" if figures["n"] < clips else ""
    return f"{figures['mean']:+.2f} ({figures['median']:+.2f}) [{low:+.2f}, {high:+.2f}]{some}"


def _markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(f"| {line} |" for line in lines)
