"""The pictures and the page of an evaluation."""

import html
from collections.abc import Iterator

import pandas as pd
import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from vpxrc.evaluation import Evaluation, table
from vpxrc.files import atomic_write

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LABELS = {
    "psnr": "PSNR (dB)",
    "psnr_overall": "overall PSNR (dB)",
    "ssim": "SSIM",
    "vmaf": "VMAF",
}
MAX_PANELS = 24  # clips in a picture
MAX_CHOICES = 200  # clips in the page's menu


def write_pictures(evaluation: Evaluation) -> None:
    """Write ``rd.png`` (quality over bitrate per clip) and ``frames.png`` (q and bits per frame).

    Raises:
        OutputError: A file cannot be written.
    """
    for name, figure in (
        ("rd.png", _rd_picture(evaluation)),
        ("frames.png", _frames_picture(evaluation)),
    ):
        with atomic_write(evaluation.folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=110)


def write_html(evaluation: Evaluation) -> None:
    """Write ``report.html``, a page that needs no other file and no network.

    Raises:
        OutputError: The file cannot be written.
    """
    summary = evaluation.summary
    title = f"{summary['agent']} against {', '.join(summary['baselines'])}"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title>",
        "<style>body{font-family:sans-serif;max-width:1200px;margin:2em auto;padding:0 1em}"
        "pre{overflow-x:auto}</style></head><body>",
        f"<h1>{html.escape(title)}</h1><pre>{html.escape(table(evaluation))}</pre>",
    ]
    figures = (
        ("Quality over bitrate", _rd_figure(evaluation)),
        (f"BD-rate of {summary['agent']}", _bd_rate_figure(evaluation)),
        ("Achieved over target bitrate", _constraint_figure(evaluation)),
        ("Frame by frame", _frames_figure(evaluation)),
    )
    for position, (heading, figure) in enumerate(figures):
        figure.update_layout(template="plotly_white", margin={"t": 60})
        parts += [
            f"<h2>{html.escape(heading)}</h2>",
            figure.to_html(
                full_html=False,
                include_plotlyjs="inline" if position == 0 else False,
                div_id=f"figure-{position}",  # else random: the same results, the same page
            ),
        ]
    parts.append("</body></html>\n")
    with atomic_write(evaluation.folder / "report.html") as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def _colours(evaluation: Evaluation) -> dict[str, str]:
    policies = evaluation.summary["encodes"]
    return {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(policies)}


def _metrics(evaluation: Evaluation) -> list[str]:
    return [metric for metric in LABELS if metric in evaluation.encodes]


def _some_encode(evaluation: Evaluation) -> tuple[str, int, list[str]]:
    """Return the clip, the target and the policies whose frames are shown: a middling rate."""
    summary = evaluation.summary
    rates = summary["bitrates"]
    policies = [summary["agent"], next(iter(summary["baselines"]))]
    return summary["clips"][0]["clip"], rates[len(rates) // 2], policies


def _layers(
    evaluation: Evaluation, clip: str, target: int, policy: str
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, colour and frames of each layer of one encode, in order of show index."""
    frames = evaluation.frames
    frames = frames[
        (frames["clip"] == clip)
        & (frames["target_bitrate"] == target)
        & (frames["policy"] == policy)
        & ~frames["is_shown_again"]
    ]
    labels = frames["update_type"].where(
        frames["update_type"] != "arf", "ARF, layer " + frames["layer_depth"].astype(str)
    )
    order = ["key", "golden", "overlay", *(f"ARF, layer {depth}" for depth in range(8)), "leaf"]
    for label in [*order, *sorted(set(labels.dropna()) - set(order))]:
        layer = frames[labels == label]
        if len(layer):
            colour = COLOURS[order.index(label) % len(COLOURS)] if label in order else "#999999"
            yield label, "#999999" if label == "leaf" else colour, layer.sort_values("show_index")


def _rd_picture(evaluation: Evaluation) -> Figure:
    metric = _metrics(evaluation)[0]
    encodes, colours = evaluation.encodes, _colours(evaluation)
    clips = list(dict.fromkeys(encodes["clip"]))
    shown = clips[:MAX_PANELS]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, clip in zip(panels, shown, strict=False):
        for policy, colour in colours.items():
            curve = encodes[(encodes["clip"] == clip) & (encodes["policy"] == policy)]
            curve = curve.sort_values("bitrate")
            panel.plot(
                curve["bitrate"], curve[metric], "o-", ms=3.5, lw=1.3, color=colour, label=policy
            )
        panel.set_title(clip, fontsize=10)
        panel.set_xlabel("achieved bitrate (kbit/s)")
        panel.set_ylabel(LABELS[metric])
        panel.grid(alpha=0.3)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)))
    if len(shown) < len(clips):
        figure.supxlabel(f"the first {len(shown)} of {len(clips)} clips")
    return figure


def _frames_picture(evaluation: Evaluation) -> Figure:
    clip, target, policies = _some_encode(evaluation)
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    panels = figure.subplots(2, len(policies), sharex=True, sharey="row", squeeze=False)
    for column, policy in enumerate(policies):
        for label, colour, layer in _layers(evaluation, clip, target, policy):
            style = {"s": 12 if label == "leaf" else 28, "color": colour, "label": label}
            panels[0, column].scatter(layer["show_index"], layer["q_index"], **style)
            panels[1, column].scatter(layer["show_index"], layer["bits"], **style)
        panels[0, column].set_title(policy)
        panels[1, column].set_yscale("log")
        panels[1, column].set_xlabel("frame")
    panels[0, 0].set_ylabel("q index")
    panels[1, 0].set_ylabel("bits")
    found: dict[str, Artist] = {}
    for panel in panels.ravel():
        panel.grid(alpha=0.3)
        handles, names = panel.get_legend_handles_labels()
        found.update(zip(names, handles, strict=True))
    figure.legend(list(found.values()), list(found), loc="outside right upper")
    figure.suptitle(f"{clip} at {target} kbit/s")
    return figure


def _rd_figure(evaluation: Evaluation) -> go.Figure:
    """A panel per metric; a menu chooses the clip."""
    encodes, metrics, colours = (
        evaluation.encodes,
        _metrics(evaluation),
        _colours(evaluation),
    )
    clips = list(dict.fromkeys(encodes["clip"]))[:MAX_CHOICES]
    figure = make_subplots(1, len(metrics), subplot_titles=[LABELS[name] for name in metrics])
    owner = []
    for clip in clips:
        for policy, colour in colours.items():
            curve = encodes[(encodes["clip"] == clip) & (encodes["policy"] == policy)]
            curve = curve.sort_values("bitrate")
            for column, metric in enumerate(metrics, start=1):
                figure.add_trace(
                    go.Scatter(
                        x=curve["bitrate"].tolist(),
                        y=curve[metric].tolist(),
                        name=policy,
                        legendgroup=policy,
                        showlegend=column == 1,
                        visible=clip == clips[0],
                        line={"color": colour},
                        mode="lines+markers",
                    ),
                    row=1,
                    col=column,
                )
                owner.append(clip)
    buttons = [
        {
            "label": clip,
            "method": "update",
            "args": [{"visible": [clip == other for other in owner]}],
        }
        for clip in clips
    ]
    figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.25}],
        legend={"orientation": "h", "y": -0.2},
    )
    figure.update_xaxes(title="achieved bitrate (kbit/s)")
    return figure


def _bd_rate_figure(evaluation: Evaluation) -> go.Figure:
    figure = go.Figure()
    colours = _colours(evaluation)
    for baseline, figures in evaluation.summary["baselines"].items():
        some = {name: values for name, values in figures["bd_rate"].items() if values["n"]}
        figure.add_trace(
            go.Bar(
                x=list(some),
                y=[values["mean"] for values in some.values()],
                name=f"against {baseline}",
                marker_color=colours[baseline],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [values["ci95"][1] - values["mean"] for values in some.values()],
                    "arrayminus": [values["mean"] - values["ci95"][0] for values in some.values()],
                },
            )
        )
    figure.update_yaxes(title="mean BD-rate (%) and its 95 % interval; negative is better")
    return figure


def _constraint_figure(evaluation: Evaluation) -> go.Figure:
    figure = go.Figure()
    for policy, colour in _colours(evaluation).items():
        mine = evaluation.encodes[evaluation.encodes["policy"] == policy]
        figure.add_trace(
            go.Scatter(
                x=mine["target_bitrate"].tolist(),
                y=(1 + mine["overshoot"]).tolist(),
                text=mine["clip"].tolist(),
                name=policy,
                mode="markers",
                marker={"color": colour},
            )
        )
    figure.add_hrect(y0=0.95, y1=1.05, fillcolor="grey", opacity=0.12, line_width=0)
    figure.add_hline(y=1.0, line_width=1)
    figure.update_xaxes(title="target bitrate (kbit/s)")
    figure.update_yaxes(title="achieved / target")
    return figure


def _frames_figure(evaluation: Evaluation) -> go.Figure:
    clip, target, policies = _some_encode(evaluation)
    figure = make_subplots(
        2, len(policies), shared_xaxes=True, shared_yaxes=True, column_titles=policies
    )
    named = set()
    for column, policy in enumerate(policies, start=1):
        for label, colour, layer in _layers(evaluation, clip, target, policy):
            for row, name in enumerate(("q_index", "bits"), start=1):
                figure.add_trace(
                    go.Scatter(
                        x=layer["show_index"].tolist(),
                        y=layer[name].tolist(),
                        name=label,
                        legendgroup=label,
                        showlegend=label not in named,
                        mode="markers",
                        marker={"color": colour, "size": 5 if label == "leaf" else 8},
                    ),
                    row=row,
                    col=column,
                )
                named.add(label)
    figure.update_yaxes(title="q index", row=1, col=1)
    figure.update_yaxes(title="bits", type="log", row=2)
    figure.update_xaxes(title="frame", row=2)
    figure.update_layout(title=f"{clip} at {target} kbit/s", height=640)
    return figure
