"""The tables of a study: BD-rates over clips, and how well targets were met."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vpxrc.evaluation.axes import results_by_axis, shown_quality, title
from vpxrc.evaluation.bd_rate import bd_rate, mean_bd_rate, mean_ci95
from vpxrc.evaluation.markdown import markdown_table
from vpxrc.evaluation.result import Evaluation
from vpxrc.quality import BALANCED, EVENNESS, LABELS, QUALITIES

CLOSE_TO_TARGET = 0.05  # share of the target that an encode may miss it by
CELL_WORDS = (
    "mean (worst clip) [95 % interval of the mean]; negative means fewer bits at equal quality"
)


def table(evaluation: Evaluation) -> str:
    """Return a study's result in Markdown, aligned so that it reads well as plain text."""
    summary, comparisons = evaluation.summary, evaluation.comparisons
    count = len(summary["clips"])
    left_out = summary.get("left_out", [])
    clips = f"{count} of {count + len(left_out)}" if left_out else f"{count}"
    encoders = encoders_of(evaluation.encodes)
    encoder = f"cpu-used {summary['cpu_used']}, libvpx {summary['libvpx']}"
    if encoders != ["vp9"]:
        encoder = f"encoder {', '.join(encoders)}"
    parts = [
        f"BD-rate in percent over {clips} clips at "
        f"{', '.join(map(str, summary['bitrates']))} kbit/s, {encoder}: {CELL_WORDS}.",
        *tables(evaluation.encodes, comparisons, of_agent(evaluation)),
    ]
    if roi := summary.get("roi"):
        weight = roi["weight"]
        knows = "no policy" if weight is None else f"every policy, with the weight {weight:g}"
        parts.insert(1, f"The region of interest was known to {knows}.")
    if left_out:
        parts.insert(1, f"Clips that could not be had: {', '.join(left_out)}.")
    return "\n\n".join(parts) + "\n"


def encoders_of(encodes: pd.DataFrame) -> list[str]:
    """Return the encoders of a study's encodes; studies of libvpx have no column for them.

    Args:
        encodes: As :attr:`Evaluation.encodes`.
    """
    if "encoder" not in encodes:
        return ["vp9"]
    return sorted(set(encodes["encoder"].fillna("vp9")))


def of_agent(evaluation: Evaluation) -> pd.DataFrame:
    """Return the comparisons in which a study's agent is tested."""
    agent: str = evaluation.summary["agent"]
    return evaluation.comparisons[evaluation.comparisons["test"] == agent]


def tables(encodes: pd.DataFrame, comparisons: pd.DataFrame, by_axis: pd.DataFrame) -> list[str]:
    """Return the tables of a study, or of several side by side, in Markdown with their headings.

    Args:
        encodes: As :attr:`Evaluation.encodes`.
        comparisons: As :attr:`Evaluation.comparisons`.
        by_axis: Those of the comparisons that are shown by the kinds of clips.
    """
    parts = [bd_rate_table(comparisons)]
    if lines := excluded(comparisons):
        parts.append("\n".join(["Not in these means:", "", *lines]))
    parts += [
        "How well the targets were met:",
        constraint_table(encodes),
    ]
    if len(even := evenness_means(encodes)):
        parts += [
            "SSIM of an encode's frames: mean, standard deviation, and mean of the worst "
            "twentieth. The figures are means over the encodes at the targets that all policies "
            "have.",
            _evenness_table(even),
        ]
    parts += [
        f"{title(by_axis)} by the kind of clip: mean (worst clip).",
        results_by_axis(encodes, by_axis),
    ]
    return parts


def bd_rate_table(comparisons: pd.DataFrame) -> str:
    """Return the mean BD-rate over clips of each pair of policies, in Markdown.

    The quality that sums up the others comes first, and the last column names its worst clip.

    Args:
        comparisons: As :attr:`Evaluation.comparisons`.
    """
    first = shown_quality(comparisons)
    metrics = list(dict.fromkeys([first, *comparisons["metric"]]))
    named = f"worst clip, {LABELS[first]}"
    rows = [["policy", "against", *(LABELS[metric] for metric in metrics), named]]
    for (test, anchor), pair in comparisons.groupby(["test", "anchor"], sort=False):
        figures = [bd_rate_figures(pair[pair["metric"] == metric]) for metric in metrics]
        cells = [_interval(one, pair["clip"].nunique()) for one in figures]
        rows.append([f"{test}", f"{anchor}", *cells, figures[0]["worst_clip"] or "none"])
    return markdown_table(rows)


def constraint_table(encodes: pd.DataFrame) -> str:
    """Return how well each policy met its targets, in Markdown.

    Args:
        encodes: As :attr:`Evaluation.encodes`.
    """
    rows = [["policy", "over target", "over by > 5 %", "within 5 %", "encodes per result"]]
    for policy, mine in encodes.groupby("policy", sort=False):
        shares = [f"{100 * share:.1f} %" for share in constraint(mine["overshoot"]).values()]
        rows.append([f"{policy}", *shares, f"{mine['encodes'].mean():.1f}"])
    return markdown_table(rows)


def evenness_means(encodes: pd.DataFrame) -> pd.DataFrame:
    """Return the evenness of each policy's encodes, mean over the clips and targets of all.

    Args:
        encodes: As :attr:`Evaluation.encodes`. Older studies lack the columns.

    Returns:
        A row per policy whose encodes have the figures, with ``ssim``, ``ssim_std`` and
        ``ssim_worst``. No row if the policies share no clip and target.
    """
    columns = ["ssim", *EVENNESS]
    if not set(columns) <= set(encodes.columns):
        return pd.DataFrame(columns=columns)
    known = encodes.groupby("policy")[columns].transform(lambda values: values.notna().all())
    measured = encodes[known.all(axis="columns")]
    policies = measured.groupby(["clip", "target_bitrate"])["policy"].transform("nunique")
    shared = measured[policies == measured["policy"].nunique()]
    return shared.groupby("policy", sort=False)[columns].mean()


def excluded(comparisons: pd.DataFrame) -> list[str]:
    """Return a Markdown line with the reason for each clip and pair that has no BD-rate."""
    left_out = comparisons[comparisons["status"] != "ok"]
    lines = []
    for (clip, test, anchor, status), rows in left_out.groupby(
        ["clip", "test", "anchor", "status"], sort=False
    ):
        which = ", ".join(LABELS[metric] for metric in rows["metric"])
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
        A table as :attr:`Evaluation.comparisons`. If ``qualities`` has all of :data:`QUALITIES`,
        each clip has their mean too, as the quality ``balanced``.
    """
    curves = {key: curve for key, curve in encodes.groupby(["policy", "clip"])}
    rows = []
    for test, anchor in pairs:
        for clip in dict.fromkeys(encodes["clip"]):
            ours, theirs = curves[test, clip], curves[anchor, clip]
            found = {
                quality: bd_rate(theirs["bitrate"], theirs[quality], ours["bitrate"], ours[quality])
                for quality in qualities
            }
            if set(QUALITIES) <= set(found):
                found[BALANCED] = mean_bd_rate([found[quality] for quality in QUALITIES])
            rows += [
                {
                    "test": test,
                    "anchor": anchor,
                    "clip": clip,
                    "metric": quality,
                    **dataclasses.asdict(rate),
                }
                for quality, rate in found.items()
            ]
    return pd.DataFrame(rows)


def bd_rate_figures(comparisons: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of one pair of policies and one quality.

    Args:
        comparisons: Rows of :attr:`Evaluation.comparisons`, one per clip.

    Returns:
        ``mean``, ``median``, ``ci95`` and ``n`` (:class:`Mean`) over the rows that have a BD-rate;
        ``worst``, the highest of them, and ``worst_clip``, its clip. Both are None without any.
    """
    usable = comparisons[comparisons["status"] == "ok"]
    worst = max(usable.to_dict("records"), key=lambda row: float(row["percent"]), default={})
    return {
        **dataclasses.asdict(mean_ci95(usable["percent"].astype(float))),
        "worst": worst.get("percent"),
        "worst_clip": worst.get("clip"),
    }


def _interval(figures: dict[str, Any], clips: int) -> str:
    if figures["n"] == 0:
        return "none"
    low, high = figures["ci95"]
    some = f" n={figures['n']}" if figures["n"] < clips else ""
    return f"{figures['mean']:+.2f} ({figures['worst']:+.2f}) [{low:+.2f}, {high:+.2f}]{some}"


def _evenness_table(means: pd.DataFrame) -> str:
    rows = [["policy", "SSIM", "standard deviation", "worst twentieth"]]
    for policy, row in means.iterrows():
        rows.append([str(policy), *(f"{row[name]:.4f}" for name in ("ssim", *EVENNESS))])
    return markdown_table(rows)
