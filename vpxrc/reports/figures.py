"""The pictures of a study as PNG files, and as PDF files for papers."""

from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from vpxrc.evaluation.result import Evaluation
from vpxrc.quality import ALL_QUALITIES, LABELS, measured_qualities
from vpxrc.reports.style import LEAF, coded_frames, layers_of, middle_target, policy_colours
from vpxrc.storage import atomic_write

MAX_PANELS = 24  # clips in a picture


def write_pictures(evaluation: Evaluation) -> None:
    """Write ``rd.png`` (quality over bitrate per clip) and ``frames.png`` (q and bits per frame).

    Raises:
        OutputError: A file cannot be written.
    """
    metric = measured_qualities(evaluation.encodes)[0]
    for name, figure in (
        ("rd.png", _rd_picture(evaluation.encodes, metric)),
        ("frames.png", _frames_picture(evaluation)),
    ):
        with atomic_write(evaluation.folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=110)


def write_figures(evaluation: Evaluation) -> list[Path]:
    """Write the pictures for papers into the folder ``figures``, each as PDF and as PNG.

    The files are ``rd-QUALITY``, ``bd-rate`` and ``constraint``. The PDF files embed their fonts.

    Returns:
        The paths of the files.

    Raises:
        OutputError: A file cannot be written.
    """
    encodes, paths = evaluation.encodes, []
    with rc_context({"pdf.fonttype": 42}):  # TrueType: publishers refuse Type 3
        figures = {f"rd-{name}": _rd_picture(encodes, name) for name in measured_qualities(encodes)}
        figures["bd-rate"] = _bd_rate_picture(evaluation)
        figures["constraint"] = _constraint_picture(encodes)
        for name, figure in figures.items():
            for suffix, extra in (("pdf", {"CreationDate": None}), ("png", {})):
                paths.append(evaluation.folder / "figures" / f"{name}.{suffix}")
                with atomic_write(paths[-1]) as temporary:
                    figure.savefig(temporary, format=suffix, dpi=300, metadata=extra)
    return paths


def _rd_picture(encodes: pd.DataFrame, metric: str) -> Figure:
    """Draw a quality over the achieved bitrate, one panel per clip and one curve per policy."""
    colours = policy_colours(encodes)
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
        panel.set_ylabel(ALL_QUALITIES[metric].axis_label)
        panel.grid(alpha=0.3)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=min(4, len(names)))
    if len(shown) < len(clips):
        figure.supxlabel(f"the first {len(shown)} of {len(clips)} clips")
    return figure


def _frames_picture(evaluation: Evaluation) -> Figure:
    """Draw q index and bits of the first clip's frames under the agent and the first baseline."""
    summary = evaluation.summary
    clip, target = summary["clips"][0]["clip"], middle_target(summary)
    policies = [summary["agent"], next(iter(summary["baselines"]))]
    coded = coded_frames(evaluation, target, policies)
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    panels = figure.subplots(2, len(policies), sharex=True, sharey="row", squeeze=False)
    for column, policy in enumerate(policies):
        frames = coded[(coded["clip"] == clip) & (coded["policy"] == policy)]
        for label, colour, layer in layers_of(frames):
            style = {"s": 12 if label == LEAF else 28, "color": colour, "label": label}
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
    """Draw the agent's mean BD-rates with their intervals, a bar per baseline and quality."""
    colours, baselines = policy_colours(evaluation.encodes), evaluation.summary["baselines"]
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    panel = figure.subplots()
    metrics = list(next(iter(baselines.values()))["bd_rate"])
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
    panel.set_xticks(range(len(metrics)), [LABELS[metric] for metric in metrics])
    panel.axhline(0, color="black", lw=0.8)
    panel.set_ylabel(f"BD-rate of {evaluation.summary['agent']} (%)")
    panel.grid(alpha=0.3, axis="y")
    panel.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=min(3, len(baselines)))
    return figure


def _constraint_picture(encodes: pd.DataFrame) -> Figure:
    """Draw achieved over target bitrate of every encode, by target and policy."""
    colours = policy_colours(encodes)
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
