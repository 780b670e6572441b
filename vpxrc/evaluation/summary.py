"""The figures of a study as JSON takes them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vpxrc import _native
from vpxrc.encoder.options import EncoderOptions
from vpxrc.evaluation.axes import clip_axes
from vpxrc.evaluation.tables import bd_rate_figures, constraint, evenness_means
from vpxrc.provenance import versions

CLIP_COLUMNS = ("clip", "width", "height", "fps", "num_frames", "content_hash")


def summarize_study(
    encodes: pd.DataFrame,
    comparisons: pd.DataFrame,
    policies: list[str],
    rates: list[int],
    options: EncoderOptions,
    left_out: Sequence[str],
    command: str,
) -> dict[str, Any]:
    """Return the contents of ``summary.json``.

    Args:
        encodes: As :attr:`Evaluation.encodes`.
        comparisons: As :attr:`Evaluation.comparisons`.
        policies: The agent, then the baselines.
        rates: Targets in kbit/s, ascending.
        options: Options that every policy was asked for.
        left_out: Names of clips that are missing; without any the summary has no ``left_out``.
        command: The command that made the study.
    """
    agent, *baselines = policies
    judged = comparisons[comparisons["test"] == agent]
    metrics = list(dict.fromkeys(judged["metric"]))
    overshoot = {policy: rows["overshoot"] for policy, rows in encodes.groupby("policy")}
    even = evenness_means(encodes).to_dict("index")
    axes = clip_axes(encodes)
    return {
        "agent": agent,
        "libvpx": _native.LIBVPX_VERSION,
        "cpu_used": options.cpu_used,
        "bitrates": rates,
        "baselines": {
            baseline: {
                "bd_rate": {
                    metric: bd_rate_figures(
                        judged[(judged["anchor"] == baseline) & (judged["metric"] == metric)]
                    )
                    for metric in metrics
                }
            }
            for baseline in baselines
        },
        "constraint": {policy: constraint(overshoot[policy]) for policy in policies},
        **({"evenness": even} if even else {}),
        "encode_seconds": {
            policy: float(encodes.loc[encodes["policy"] == policy, "encode_seconds"].sum())
            for policy in policies
        },
        "encodes": {
            policy: int(encodes.loc[encodes["policy"] == policy, "encodes"].sum())
            for policy in policies
        },
        "clips": [
            {
                **{name: row[name] for name in CLIP_COLUMNS},
                "axes": axes.loc[row["clip"]].to_dict(),
                "bd_rate": {
                    baseline: _bd_rates(
                        judged[(judged["anchor"] == baseline) & (judged["clip"] == row["clip"])]
                    )
                    for baseline in baselines
                },
            }
            for row in encodes.drop_duplicates("clip").to_dict("records")
        ],
        **({"left_out": list(left_out)} if left_out else {}),
        "command": command,
        "versions": versions(),
    }


def _bd_rates(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the BD-rates of one clip and one pair of policies by quality."""
    return {
        row["metric"]: {
            # A table has NaN where JSON has null.
            "percent": row["percent"] if row["status"] == "ok" else None,
            "status": row["status"],
            "overlap": row["overlap"],
        }
        for row in rows.to_dict("records")
    }
