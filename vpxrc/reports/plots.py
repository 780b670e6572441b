"""The interactive plots of a page."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from vpxrc.evaluation.bd_rate import mean_ci95
from vpxrc.evaluation.result import Evaluation
from vpxrc.quality import ALL_QUALITIES, LABELS, measured_qualities
from vpxrc.reports.html import Plot
from vpxrc.reports.style import LAYERS, LEAF, coded_frames, layers_of, policy_colours

MAX_CHOICES = 200  # clips in a menu
MAX_LARGE_DOTS = 20  # clips; the dots of more clips are small
SYMBOLS = ("square", "diamond", "x", "triangle-up", "triangle-down", "star", "cross")


def rd_plots(encodes: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, list[Plot]]:
    """Return for each clip a plot per quality, with a curve per policy.

    Args:
        encodes: As :attr:`Evaluation.encodes`.
        comparisons: As :attr:`Evaluation.comparisons`; the captions quote it.
    """
    colours, metrics = policy_colours(encodes), measured_qualities(encodes)
    curves = dict(list(encodes.sort_values("bitrate").groupby(["clip", "policy"])))
    percents = {key: rows for key, rows in comparisons.groupby(["clip", "metric"])}
    plots: dict[str, list[Plot]] = {}
    for clip in list(dict.fromkeys(encodes["clip"]))[:MAX_CHOICES]:
        plots[clip] = []
        for metric in metrics:
            traces = [
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": policy,
                    "x": curves[clip, policy]["bitrate"].tolist(),
                    "y": curves[clip, policy][metric].tolist(),
                    "line": {"color": colour},
                }
                for policy, colour in colours.items()
            ]
            layout = {"xaxis": {"title": {"text": "achieved bitrate (kbit/s)"}}, "yaxis": {}}
            caption = _percents(percents.get((clip, metric)))
            plots[clip].append(Plot(ALL_QUALITIES[metric].axis_label, traces, layout, caption))
    return plots


def _percents(rows: pd.DataFrame | None) -> str:
    """Return the BD-rates of one clip and quality in words."""
    if rows is None:
        return ""
    words = []
    for anchor, against in rows.groupby("anchor", sort=False):
        values = [
            f"{row['test']} {row['percent']:+.1f} %"
            if row["status"] == "ok"
            else f"{row['test']} {row['status']}"
            for row in against.to_dict("records")
        ]
        words.append(f"against {anchor}: {', '.join(values)}")
    return "; ".join(words)


def bd_rate_plot(
    comparisons: pd.DataFrame, by: Literal["test", "anchor"], colours: Mapping[str, str]
) -> Plot:
    """Return a bar chart of mean BD-rates with intervals and a dot per clip, grouped by quality.

    Args:
        comparisons: Rows of :attr:`Evaluation.comparisons` with one test or one anchor.
        by: The column that differs: each of its values has bars of its own.
        colours: Colour of each value of that column.
    """
    traces: list[dict[str, Any]] = []
    for policy, pair in comparisons.groupby(by, sort=False):
        usable = pair[pair["status"] == "ok"]
        figures = {
            LABELS[str(metric)]: mean_ci95(rows["percent"].astype(float))
            for metric, rows in usable.groupby("metric", sort=False)
        }
        name = f"against {policy}" if by == "anchor" else policy
        common = {"name": name, "offsetgroup": name, "legendgroup": name}
        colour = colours[str(policy)]
        # Groups are not empty, so that no mean or interval is None.
        means = [found.mean or 0.0 for found in figures.values()]
        ends = [found.ci95 or (0.0, 0.0) for found in figures.values()]
        error = {
            "type": "data",
            "symmetric": False,
            "array": [high - mean for (_, high), mean in zip(ends, means, strict=True)],
            "arrayminus": [mean - low for (low, _), mean in zip(ends, means, strict=True)],
            "color": "#000000",
            "thickness": 2,
        }
        few = usable["clip"].nunique() <= MAX_LARGE_DOTS
        traces.append(
            {
                "type": "bar",
                **common,
                "x": list(figures),
                "y": means,
                "marker": {"color": colour, "opacity": 0.75},
            }
        )
        traces.append(
            {
                "type": "scatter",
                **common,
                "mode": "markers",
                "x": [LABELS[metric] for metric in usable["metric"]],
                "y": usable["percent"].astype(float).tolist(),
                "text": usable["clip"].tolist(),
                "marker": {
                    "color": colour,
                    "size": 9 if few else 5,
                    "opacity": 0.7 if few else 0.35,
                    "line": {"color": "#808080", "width": 1 if few else 0},
                },
            }
        )
        traces.append(  # in front of the dots
            {
                "type": "scatter",
                **common,
                "mode": "markers",
                "x": list(figures),
                "y": means,
                "error_y": error,
                "marker": {"color": "#000000", "symbol": "diamond", "size": 6},
            }
        )
    layout = {
        "height": 420,
        "barmode": "group",
        "scattermode": "group",
        "xaxis": {"type": "category"},
        "yaxis": {"title": {"text": "BD-rate (%)"}, "zeroline": True},
    }
    return Plot("Mean BD-rate; negative is better", traces, layout)


def constraint_plot(encodes: pd.DataFrame) -> Plot:
    """Return a box plot of achieved over target bitrate, a dot per encode, grouped by target."""
    rates = sorted(encodes["target_bitrate"].unique().tolist())
    traces = []
    for policy, colour in policy_colours(encodes).items():
        mine = encodes[encodes["policy"] == policy].sort_values("target_bitrate", kind="stable")
        traces.append(
            {
                "type": "box",
                "name": policy,
                "x": mine["target_bitrate"].astype(str).tolist(),
                "y": (1 + mine["overshoot"]).tolist(),
                "text": mine["clip"].tolist(),
                "marker": {"color": colour, "size": 5},
                "line": {"width": 1},
                "boxpoints": "all",
                "jitter": 0.4,
                "pointpos": 0,
            }
        )
    lowest = min(0.92, 0.98 * (1 + encodes["overshoot"].min()))
    highest = max(1.08, 1.02 * (1 + encodes["overshoot"].max()))
    band = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": 0.95, "y1": 1.05}
    layout = {
        "height": 420,
        "boxmode": "group",
        "shapes": [
            {**band, "layer": "below", "line": {"width": 0}, "fillcolor": "rgba(128,128,128,0.22)"}
        ],
        "xaxis": {
            "title": {"text": "target bitrate (kbit/s)"},
            "type": "category",
            "categoryorder": "array",
            "categoryarray": list(map(str, rates)),
        },
        "yaxis": {"title": {"text": "achieved / target"}, "range": [lowest, highest]},
    }
    return Plot("Every encode's bitrate", traces, layout)


def frames_plots(
    evaluation: Evaluation, target: int, policies: Sequence[str]
) -> dict[str, list[Plot]]:
    """Return for each clip a plot per policy of the q index, bits and PSNR of every coded frame."""
    clips = list(dict.fromkeys(evaluation.encodes["clip"]))[:MAX_CHOICES]
    encodes = {
        policy: frames
        for policy, frames in coded_frames(evaluation, target, policies).groupby(["clip", "policy"])
    }
    rows = {"q_index": "q index", "bits": "bits", "psnr": "PSNR (dB)"}
    plots = {}
    for clip in clips:
        both = [encodes[clip, policy] for policy in policies]
        ranges = {name: _range([frames[name] for frames in both], name) for name in rows}
        plots[clip] = [
            Plot(
                f"{policy}, {target} kbit/s",
                _frames_traces(frames, list(rows)),
                {
                    "height": 560,
                    "xaxis": {"title": {"text": "frame"}, "anchor": "y3"},
                    "yaxis": {"domain": [0.7, 1], "title": {"text": "q index"}}
                    | {"range": ranges["q_index"]},
                    "yaxis2": {"domain": [0.35, 0.65], "title": {"text": "bits"}, "type": "log"}
                    | {"range": ranges["bits"], "dtick": 1},
                    "yaxis3": {"domain": [0, 0.3], "title": {"text": "PSNR (dB)"}}
                    | {"range": ranges["psnr"]},
                },
            )
            for policy, frames in zip(policies, both, strict=True)
        ]
    return plots


def _frames_traces(frames: pd.DataFrame, rows: Sequence[str]) -> list[dict[str, Any]]:
    """Return a trace per layer and row of the plot; ``rows`` are columns of ``frames``."""
    traces: list[dict[str, Any]] = []
    for label, colour, layer in layers_of(frames):
        symbol = "circle" if label == LEAF else SYMBOLS[LAYERS.index(label) % len(SYMBOLS)]
        for number, name in enumerate(rows, start=1):
            values = layer[name].round(3) if name == "psnr" else layer[name]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": label,
                    "legendrank": LAYERS.index(label),
                    "x": layer["show_index"].tolist(),
                    "y": values.tolist(),
                    "yaxis": "y" if number == 1 else f"y{number}",
                    "marker": {
                        "color": colour,
                        "symbol": symbol,
                        "size": 4 if label == LEAF else 8,
                    },
                }
            )
    return traces


def _range(columns: "list[pd.Series[float]]", name: str) -> list[float]:
    """Return the range of an axis that several plots share, for bits in powers of ten."""
    values = np.concatenate([column.to_numpy(np.float64) for column in columns])
    if name == "bits":
        values = np.log10(np.maximum(values, 1))
    margin = 0.06 * (values.max() - values.min()) or 1.0
    return [round(float(values.min() - margin), 3), round(float(values.max() + margin), 3)]
