"""The pictures and the page of an evaluation, and the page of a comparison of several."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from vpxrc import page
from vpxrc.encoder import psnr
from vpxrc.evaluation import Clip, Evaluation, table
from vpxrc.files import atomic_write, sha256_file
from vpxrc.metrics import mean_ci95
from vpxrc.page import Page, Plot
from vpxrc.video import decode_vp9, split_planes

if TYPE_CHECKING:
    from vpxrc.comparison import Comparison

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LABELS = {
    "psnr": "PSNR (dB)",
    "psnr_overall": "overall PSNR (dB)",
    "ssim": "SSIM",
    "vmaf": "VMAF",
}
QUALITIES = {name: label.removesuffix(" (dB)") for name, label in LABELS.items()}
MAX_PANELS = 24  # clips in a picture
MAX_LARGE_DOTS = 20  # clips; more have small ones
MAX_CHOICES = 200  # clips in the page's menus
MAX_VIEWED = 3  # clips in the viewer
VIEWER_FRAMES = 8  # of each clip
VIEWER_BYTES = 6_000_000  # of all its pictures; a page has to open quickly
LAYERS = ("key", "golden", "overlay", *(f"ARF, layer {depth}" for depth in range(8)), "leaf")
SYMBOLS = ("square", "diamond", "x", "triangle-up", "triangle-down", "star", "cross")


# What is written


def write_pictures(evaluation: Evaluation) -> None:
    """Write ``rd.png`` (quality over bitrate per clip) and ``frames.png`` (q and bits per frame).

    Raises:
        OutputError: A file cannot be written.
    """
    metric = _metrics(evaluation.encodes)[0]
    for name, figure in (
        ("rd.png", _rd_picture(evaluation.encodes, metric)),
        ("frames.png", _frames_picture(evaluation)),
    ):
        with atomic_write(evaluation.folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=110)


def write_figures(evaluation: Evaluation) -> list[Path]:
    """Write the pictures for papers, each as PDF and as PNG, into ``figures/``.

    They are ``rd-METRIC``, ``bd-rate`` and ``constraint``; a PDF has its fonts in it.

    Returns:
        The files' paths.

    Raises:
        OutputError: A file cannot be written.
    """
    encodes, paths = evaluation.encodes, []
    with rc_context({"pdf.fonttype": 42}):  # TrueType: publishers refuse Type 3
        figures = {f"rd-{name}": _rd_picture(encodes, name) for name in _metrics(encodes)}
        figures["bd-rate"] = _bd_rate_picture(evaluation)
        figures["constraint"] = _constraint_picture(encodes)
        for name, figure in figures.items():
            for suffix, extra in (("pdf", {"CreationDate": None}), ("png", {})):
                paths.append(evaluation.folder / "figures" / f"{name}.{suffix}")
                with atomic_write(paths[-1]) as temporary:
                    figure.savefig(temporary, format=suffix, dpi=300, metadata=extra)
    return paths


def write_html(evaluation: Evaluation, clips: Sequence[Clip] = ()) -> None:
    """Write ``report.html``, a page that needs no other file and no network.

    Args:
        evaluation: What it shows.
        clips: Where the viewer takes source frames from; it shows none of other clips.

    Raises:
        InputError: A clip cannot be read.
        EncoderError: A stream cannot be decoded.
        OutputError: The file cannot be written.
    """
    summary, encodes = evaluation.summary, evaluation.encodes
    agent, baseline = summary["agent"], next(iter(summary["baselines"]))
    made = Page(f"{agent} against {', '.join(summary['baselines'])}")
    made.section("Result", page.markdown(table(evaluation)))
    _add_curves(made, encodes, evaluation.comparisons)
    judged = evaluation.comparisons[evaluation.comparisons["test"] == agent]
    made.plots(
        f"BD-rate of {agent}",
        "",
        {"": [_bd_rate_plot(judged, "anchor", _colours(encodes))]},
        "The bars are means over clips with their 95 % intervals, the dots single clips.",
    )
    _add_constraint(made, encodes)
    target = _middle_target(summary)
    made.plots(
        "Frame by frame",
        "Clip",
        _frames_plots(evaluation, target, (agent, baseline)),
        f"Coded frames at {target} kbit/s, alternate reference frames (ARF) where they are shown; "
        "PSNR is of the frame as coded, against the source frame of that time.",
    )
    viewed, words = _viewed(evaluation, target, (agent, baseline), clips)
    made.viewer("Pictures", viewed, words)
    made.section("How it was made", *_how_it_was_made(evaluation))
    made.write(evaluation.folder / "report.html")


def write_comparison(comparison: "Comparison", path: Path, command: Sequence[str]) -> None:
    """Write a page of several studies side by side, as :func:`write_html` does of one.

    Args:
        comparison: What it shows.
        path: The file.
        command: The program and its arguments that made it, for the page.

    Raises:
        OutputError: The file cannot be written.
    """
    from vpxrc.comparison import table

    made = Page(", ".join(study.name for study in comparison.studies))
    made.section("Result", page.markdown(table(comparison)))
    _add_curves(made, comparison.encodes, comparison.comparisons)
    colours = _colours(comparison.encodes)
    by_anchor = comparison.comparisons.groupby("anchor", sort=False)
    made.plots(
        "BD-rate",
        "Against",
        {str(anchor): [_bd_rate_plot(rows, "test", colours)] for anchor, rows in by_anchor},
        "The bars are means over clips with their 95 % intervals, the dots single clips.",
    )
    _add_constraint(made, comparison.encodes)
    heading = ["study", "agent", "clips", "targets (kbit/s)", "cpu-used", "libvpx", "made by"]
    rows = [
        [
            study.name,
            study.summary["agent"],
            len(study.summary["clips"]),
            ", ".join(map(str, study.summary["bitrates"])),
            study.summary["cpu_used"],
            study.summary["libvpx"],
            study.summary.get("command", "not recorded"),
        ]
        for study in comparison.studies
    ]
    made.section(
        "How it was made",
        page.code(shlex.join(command)),
        page.table([heading, *rows], "the studies"),
        page.details("Clips in all studies, by SHA-256", _clips(comparison.encodes)),
        page.details("Streams, by SHA-256", _streams(comparison.encodes)),
    )
    made.write(path)


# What both pages have


def _add_curves(made: Page, encodes: pd.DataFrame, comparisons: pd.DataFrame) -> None:
    clips = list(dict.fromkeys(encodes["clip"]))
    words = "The figures below a plot are the clip's BD-rates."
    if len(clips) > MAX_CHOICES:
        words += f" The first {MAX_CHOICES} of {len(clips)} clips."
    made.plots("Quality over bitrate", "Clip", _rd_plots(encodes, comparisons), words)


def _add_constraint(made: Page, encodes: pd.DataFrame) -> None:
    made.plots(
        "Achieved over target bitrate",
        "",
        {"": [_constraint_plot(encodes)]},
        "A dot per encode; within 5 % is grey.",
    )


def _rd_plots(encodes: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, list[Plot]]:
    """Return for each clip a plot per metric, with every policy."""
    colours, metrics = _colours(encodes), _metrics(encodes)
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
            plots[clip].append(Plot(LABELS[metric], traces, layout, caption))
    return plots


def _percents(rows: pd.DataFrame | None) -> str:
    """Return the BD-rates of one clip and metric in words."""
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


def _bd_rate_plot(
    comparisons: pd.DataFrame, by: Literal["test", "anchor"], colours: Mapping[str, str]
) -> Plot:
    """Return bars with intervals, and a dot per clip, in groups by metric.

    There are bars for each test or for each anchor; the other is the same everywhere.
    """
    traces: list[dict[str, Any]] = []
    for policy, pair in comparisons.groupby(by, sort=False):
        usable = pair[pair["status"] == "ok"]
        figures = {
            QUALITIES[str(metric)]: mean_ci95(rows["percent"].astype(float))
            for metric, rows in usable.groupby("metric", sort=False)
        }
        name = f"against {policy}" if by == "anchor" else policy
        common = {"name": name, "offsetgroup": name, "legendgroup": name}
        colour = colours[str(policy)]
        # Of one clip at least, so that none of them is None.
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
                "x": [QUALITIES[metric] for metric in usable["metric"]],
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


def _constraint_plot(encodes: pd.DataFrame) -> Plot:
    """Return boxes with a dot per encode, in groups by target."""
    rates = sorted(encodes["target_bitrate"].unique().tolist())
    traces = []
    for policy, colour in _colours(encodes).items():
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


def _clips(encodes: pd.DataFrame) -> str:
    rows = [
        [
            row["clip"],
            f"{row['width']}x{row['height']}",
            f"{row['fps']:.6g}",
            row["num_frames"],
            row["content_hash"],
        ]
        for row in encodes.drop_duplicates("clip").to_dict("records")
    ]
    return page.table([["clip", "size", "fps", "frames", "SHA-256 of the frames"], *rows], "clips")


def _streams(encodes: pd.DataFrame) -> str:
    columns = ["clip", "policy", "target_bitrate", "stream_sha256"]
    heading = ["clip", "policy", "target (kbit/s)", "SHA-256 of the stream"]
    return page.table([heading, *encodes[columns].to_numpy().tolist()], "streams")


# What an evaluation's page has


def _frames_plots(
    evaluation: Evaluation, target: int, policies: Sequence[str]
) -> dict[str, list[Plot]]:
    """Return for each clip a plot per policy: q, bits and PSNR of every coded frame by layer."""
    clips = list(dict.fromkeys(evaluation.encodes["clip"]))[:MAX_CHOICES]
    encodes = {
        policy: frames
        for policy, frames in _coded(evaluation, target, policies).groupby(["clip", "policy"])
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
    traces: list[dict[str, Any]] = []
    for label, colour, layer in _layers(frames):
        symbol = "circle" if label == "leaf" else SYMBOLS[LAYERS.index(label) % len(SYMBOLS)]
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
                        "size": 4 if label == "leaf" else 8,
                    },
                }
            )
    return traces


def _range(columns: "list[pd.Series[float]]", name: str) -> list[float]:
    """Return the range of an axis that several plots share."""
    values = np.concatenate([column.to_numpy(np.float64) for column in columns])
    if name == "bits":
        values = np.log10(np.maximum(values, 1))
    margin = 0.06 * (values.max() - values.min()) or 1.0
    return [round(float(values.min() - margin), 3), round(float(values.max() + margin), 3)]


def _viewed(
    evaluation: Evaluation, target: int, policies: Sequence[str], clips: Sequence[Clip]
) -> tuple[list[page.Viewed], str]:
    """Return what the viewer shows, and what is said of it."""
    sources = {clip.name: clip for clip in clips}
    streams = {
        clip: paths
        for clip in dict.fromkeys(evaluation.encodes["clip"])
        if (paths := _kept(evaluation, clip, target, policies))
    }
    gains = _gains(evaluation)
    ranked = sorted(streams, key=lambda clip: gains.get(clip, np.inf))
    if not ranked:
        return [], (
            f"The viewer has no frames: the streams at {target} kbit/s are not kept with these "
            "results. An older vpxrc kept none; the same command with an empty folder does."
        )
    if len(ranked) > MAX_VIEWED:
        places = np.linspace(0, len(ranked) - 1, MAX_VIEWED).round().astype(int)
        ranked = [ranked[place] for place in places]
    viewed: list[page.Viewed] = []
    left = VIEWER_BYTES
    for clip in ranked:
        found = _view(evaluation, clip, target, streams[clip], sources.get(clip))
        left -= sum(len(one) for stream in found.streams for one in stream.pictures)
        if viewed and left < 0:
            break
        gain = f" ({gains[clip]:+.1f} %)" if clip in gains else ""
        viewed.append(page.Viewed(found.clip + gain, found.frames, found.streams))
    words = (
        f"Decoded frames at the same target, {target} kbit/s: {VIEWER_FRAMES} of a clip at most, "
        f"evenly spaced, as JPEG of quality {page.JPEG_QUALITY}, scaled down to "
        f"{page.MAX_PICTURE_WIDTH} pixels where they are wider. "
    )
    if len(viewed) < len(set(evaluation.encodes["clip"])):
        words += (
            f"{len(viewed)} of {len(set(evaluation.encodes['clip']))} clips, chosen by the agent's "
            "BD-rate, from the most bits saved to the least. "
        )
    words += f"Menu: the BD-rate in PSNR of {policies[0]} against {policies[1]}." if gains else ""
    if not all(clip in sources for clip in ranked):
        words += " The source clips were not at hand, so their frames are missing."
    return viewed, words


def _gains(evaluation: Evaluation) -> dict[str, float]:
    """Return the agent's BD-rate in PSNR against the first baseline by clip, in percent."""
    baseline = next(iter(evaluation.summary["baselines"]))
    rows = [
        (clip["clip"], clip["bd_rate"][baseline].get("psnr", {}).get("percent"))
        for clip in evaluation.summary["clips"]
    ]
    return {clip: percent for clip, percent in rows if percent is not None}


def _row(evaluation: Evaluation, clip: str, policy: str, target: int) -> dict[str, Any]:
    encodes = evaluation.encodes
    rows = encodes[
        (encodes["clip"] == clip)
        & (encodes["policy"] == policy)
        & (encodes["target_bitrate"] == target)
    ]
    return {str(name): value for name, value in rows.iloc[0].items()}


def _kept(
    evaluation: Evaluation, clip: str, target: int, policies: Sequence[str]
) -> dict[str, Path]:
    """Return the kept streams by policy; nothing where one is missing, or is another."""
    paths = {}
    for policy in policies:
        row = _row(evaluation, clip, policy, target)
        path = evaluation.folder / "encodes" / f"{row.get('key')}.ivf"
        if not path.is_file() or sha256_file(path) != row["stream_sha256"]:
            return {}
        paths[policy] = path
    return paths


def _view(
    evaluation: Evaluation,
    clip: str,
    target: int,
    paths: Mapping[str, Path],
    source: Clip | None,
) -> page.Viewed:
    """Return some frames of the source, where there is one, and of each policy's stream."""
    row = _row(evaluation, clip, next(iter(paths)), target)
    width, height = int(row["width"]), int(row["height"])
    last = int(row["num_frames"]) - 1
    numbers = np.unique(np.linspace(0, last, VIEWER_FRAMES).round().astype(int)).tolist()
    original = None
    streams = []
    if source is not None:
        video = source.open()
        if video.content_hash == row["content_hash"]:
            original = video.frames[numbers]
            streams.append(page.Shown("source", "", _pictures(original, width, height), []))
    for policy, path in paths.items():
        frames = decode_vp9(path, width, height)[numbers]
        row = _row(evaluation, clip, policy, target)
        notes = []
        if original is not None:
            luma = slice(width * height)
            errors = frames[:, luma].astype(np.float64) - original[:, luma]
            notes = [f"{value:.2f} dB here" for value in psnr((errors**2).mean(axis=1))]
        caption = f"{row['bitrate']:.1f} kbit/s ({100 * row['overshoot']:+.1f} %)"
        streams.append(page.Shown(policy, caption, _pictures(frames, width, height), notes))
    return page.Viewed(clip, numbers, streams)


def _pictures(frames: Any, width: int, height: int) -> list[str]:
    return [page.picture(split_planes(frame, width, height)) for frame in frames]


def _how_it_was_made(evaluation: Evaluation) -> list[str]:
    summary = evaluation.summary
    versions = summary.get("versions", {"libvpx": summary["libvpx"]})
    command = summary.get("command")
    return [
        page.code(command) if command else page.paragraph("The command was not recorded."),
        page.table([["program", "version"], *versions.items()], "versions"),
        page.details("Clips, by SHA-256", _clips(evaluation.encodes)),
        page.details("Streams, by SHA-256", _streams(evaluation.encodes)),
    ]


# Of encodes and frames


def _colours(encodes: pd.DataFrame) -> dict[str, str]:
    policies = dict.fromkeys(encodes["policy"])
    return {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(policies)}


def _metrics(encodes: pd.DataFrame) -> list[str]:
    return [metric for metric in LABELS if metric in encodes]


def _middle_target(summary: dict[str, Any]) -> int:
    """Return the target whose frames are shown."""
    rates: list[int] = summary["bitrates"]
    return rates[len(rates) // 2]


def _coded(evaluation: Evaluation, target: int, policies: Sequence[str]) -> pd.DataFrame:
    """Return the frames of some policies at one target as they were coded, with their PSNR."""
    frames = evaluation.frames
    frames = frames[
        (frames["target_bitrate"] == target)
        & frames["policy"].isin(policies)
        & ~frames["is_shown_again"]
    ]
    sizes = evaluation.encodes.drop_duplicates("clip").set_index("clip")
    pixels = frames["clip"].map(sizes["width"] * sizes["height"])
    return frames.assign(psnr=psnr((frames["sse_y"] / pixels).to_numpy()))


def _layers(frames: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, colour and frames of each layer of one encode, in order of show index."""
    labels = frames["update_type"].where(
        frames["update_type"] != "arf", "ARF, layer " + frames["layer_depth"].astype(str)
    )
    for number, label in enumerate(LAYERS):
        layer = frames[labels == label]
        if len(layer):
            colour = "#999999" if label == "leaf" else COLOURS[number % len(COLOURS)]
            yield label, colour, layer.sort_values("show_index")


# Pictures


def _rd_picture(encodes: pd.DataFrame, metric: str) -> Figure:
    colours = _colours(encodes)
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
    summary = evaluation.summary
    clip, target = summary["clips"][0]["clip"], _middle_target(summary)
    policies = [summary["agent"], next(iter(summary["baselines"]))]
    coded = _coded(evaluation, target, policies)
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    panels = figure.subplots(2, len(policies), sharex=True, sharey="row", squeeze=False)
    for column, policy in enumerate(policies):
        frames = coded[(coded["clip"] == clip) & (coded["policy"] == policy)]
        for label, colour, layer in _layers(frames):
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


def _bd_rate_picture(evaluation: Evaluation) -> Figure:
    colours, baselines = _colours(evaluation.encodes), evaluation.summary["baselines"]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    panel = figure.subplots()
    metrics = _metrics(evaluation.encodes)
    width = 0.8 / len(baselines)
    for number, (baseline, figures) in enumerate(baselines.items()):
        for place, metric in enumerate(metrics):
            values = figures["bd_rate"][metric]
            if values["n"]:
                low, high = (abs(end - values["mean"]) for end in values["ci95"])
                panel.bar(
                    place + (number - (len(baselines) - 1) / 2) * width,
                    values["mean"],
                    width,
                    yerr=[[low], [high]],
                    color=colours[baseline],
                    ecolor="#555555",
                    capsize=3,
                )
        panel.bar(0, 0, color=colours[baseline], label=f"against {baseline}")
    panel.set_xticks(range(len(metrics)), [QUALITIES[metric] for metric in metrics])
    panel.axhline(0, color="black", lw=0.8)
    panel.set_ylabel(f"BD-rate of {evaluation.summary['agent']} (%)")
    panel.grid(alpha=0.3, axis="y")
    panel.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=min(3, len(baselines)))
    return figure


def _constraint_picture(encodes: pd.DataFrame) -> Figure:
    colours = _colours(encodes)
    rates = sorted(encodes["target_bitrate"].unique().tolist())
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.axhspan(0.95, 1.05, color="grey", alpha=0.15, lw=0)
    panel.axhline(1, color="black", lw=0.8)
    width = 0.7 / len(colours)
    for number, (policy, colour) in enumerate(colours.items()):
        mine = encodes[encodes["policy"] == policy]
        places = mine["target_bitrate"].map(rates.index)
        places += (number - (len(colours) - 1) / 2) * width
        panel.scatter(places, 1 + mine["overshoot"], s=14, color=colour, alpha=0.8, label=policy)
    panel.set_xticks(range(len(rates)), [str(rate) for rate in rates])
    panel.set_xlabel("target bitrate (kbit/s)")
    panel.set_ylabel("achieved / target")
    panel.grid(alpha=0.3, axis="y")
    figure.legend(loc="outside upper center", ncols=min(3, len(colours)))
    return figure
