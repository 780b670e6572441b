"""Pictures of the dependencies between the frames of one encode."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import NDArray

from vpxrc.dependency import BLOCK
from vpxrc.evaluation.inspection import GroupModel, Inspection, group_table
from vpxrc.media.frames import Video, to_8_bits
from vpxrc.reports.style import LAYERS, LEAF, layers_of
from vpxrc.storage import atomic_write, write_frame

MAX_PANELS = 12  # frames in the picture of the maps
LABELLED_SHARE = 0.01  # of a group's propagated cost; arrows with less are pale and have no label
_DPI = 110


def write_inspection(inspection: Inspection, group: int, folder: Path) -> list[Path]:
    """Write ``importance.png``, ``frames.png``, ``propagation.png`` and ``dependency.parquet``.

    Args:
        inspection: The encode and its model.
        group: Index of the group whose maps and graph are drawn.
        folder: Folder for the files.

    Returns:
        The paths of the files.

    Raises:
        InputError: There is no such group.
        OutputError: A file cannot be written.
    """
    chosen, video = inspection.group(group), inspection.video
    paths = []
    for name, figure in (
        ("importance.png", _importance_picture(chosen, video)),
        ("frames.png", _frames_picture(inspection)),
        ("propagation.png", _propagation_picture(chosen, video)),
    ):
        paths.append(folder / name)
        with atomic_write(paths[-1]) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI)
    paths.append(folder / "dependency.parquet")
    with atomic_write(paths[-1]) as temporary:
        write_frame(inspection.table, temporary)
    return paths


def _importance_picture(group: GroupModel, video: Video) -> Figure:
    """Draw the importance of every block of a group's first frames over the frames themselves."""
    d = group.dependency
    shown = range(min(MAX_PANELS, len(group.rows)))
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    scale = 3.4 / max(video.width, video.height)  # inches per sample
    width, height = max(2.4, scale * video.width), scale * video.height + 0.4
    figure = Figure(figsize=(width * columns + 1.2, height * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    # Not the maximum: a few blocks that cost almost nothing themselves have extreme values.
    top = max(2.0, float(np.percentile(d.importance[: len(shown)], 99.5)))
    heat = None
    for position, panel in zip(shown, panels, strict=False):
        row = group.rows[position]
        _draw_luma(panel, video, int(row["show_index"]), black=-200)
        heat = panel.imshow(
            np.maximum(d.importance[position], 1),
            extent=(0, BLOCK * d.importance.shape[2], BLOCK * d.importance.shape[1], 0),
            norm=LogNorm(1, top),
            cmap=_heat(),
        )
        panel.set(xlim=(0, video.width), ylim=(video.height, 0))
        panel.set_title(
            f"{group.label(position)}: frame {row['show_index']}\n"
            f"q {group.q_index[position]}, importance {d.frame_importance[position]:.2f}",
            fontsize=9,
        )
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    assert heat is not None
    bar = figure.colorbar(
        heat,
        ax=panels.tolist(),
        ticks=LogLocator(2),
        format=FuncFormatter(_plain),
        extend="max",
        fraction=0.02,
    )
    bar.minorticks_off()
    bar.set_label("importance of a block")
    some = "" if len(shown) == len(group.rows) else f", the first {len(shown)} of {len(group.rows)}"
    figure.suptitle(f"{video.name}, group {group.index}, in coding order{some}")
    return figure


def _frames_picture(inspection: Inspection) -> Figure:
    """Draw q index, bits and importance of all frames, coloured by layer."""
    log = inspection.log
    coded = log.to_pandas()
    coded = coded[~coded["is_shown_again"]]
    tables = {"q_index": coded, "bits": coded, "importance": inspection.table}
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(len(tables), 1, sharex=True)
    found: dict[str, Artist] = {}
    for panel, (name, table) in zip(panels, tables.items(), strict=True):
        for label, colour, layer in layers_of(table):
            size = 12 if label == LEAF else 28
            found[label] = panel.scatter(
                layer["show_index"], layer[name], s=size, color=colour, label=label
            )
        for group in inspection.groups:
            panel.axvline(group.rows["show_index"][0], color="#bbbbbb", lw=0.8, zorder=0)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("q index")
    panels[1].set(ylabel="bits", yscale="log")
    panels[2].set(ylabel="importance", xlabel="frame (lines: where a group starts)")
    panels[2].set_yscale("log", base=2)
    panels[2].yaxis.set_major_formatter(FuncFormatter(_plain))
    names = [name for name in LAYERS if name in found]
    figure.legend([found[name] for name in names], names, loc="outside right upper")
    figure.suptitle(f"{log.clip.name} at {log.bitrate:.0f} kbit/s")
    return figure


def _propagation_picture(group: GroupModel, video: Video) -> Figure:
    """Draw a group's references as a graph, and the motion along the strongest of them."""
    flow = group.dependency.flow()
    figure = Figure(figsize=(12, 13), layout="constrained")
    graph, picture = figure.subplots(2, 1)
    _draw_graph(graph, group, flow / max(float(flow.sum()), 1e-9))
    _draw_motion(picture, group, flow, video)
    figure.suptitle(f"{video.name}, group {group.index}")
    return figure


def _draw_graph(panel: Axes, group: GroupModel, share: NDArray[np.float64]) -> None:
    """Draw frames by show index and layer, and arrows to the frames that they are predicted from.

    Args:
        panel: The panel to draw on.
        group: The group.
        share: Share of the group's propagated cost that frame n passes to its reference m,
            ``[n, m]``.
    """
    x = group.rows["show_index"].astype(np.float64)
    levels = group.level
    # Both axes have equal units, so that points on an arc can be computed in them.
    unit = 0.5 * np.ptp(x) / max(1, levels.max())
    y = -unit * levels
    places = np.stack([x, y], axis=1)
    for n, reference in np.argwhere(share > 0):
        part = float(share[n, reference])
        strong = part >= LABELLED_SHARE
        bend = 0.5 if levels[n] == levels[reference] else 0.12  # above the row of nodes
        panel.annotate(
            "",
            places[reference],
            places[n],
            arrowprops={
                "arrowstyle": "-|>",
                "lw": 0.6 + 10 * part,
                "color": "#0072B2" if strong else "#bbbbbb",
                "alpha": 0.8,
                "shrinkA": 11,
                "shrinkB": 12,
                "connectionstyle": f"arc3,rad={bend}",
                "zorder": 2 if strong else 1,
            },
        )
        if strong:
            at = _on_arc(places[n], places[reference], bend)
            panel.text(
                at[0],
                at[1],
                f"{100 * part:.0f} %",
                fontsize=8,
                ha="center",
                va="center",
                bbox={"boxstyle": "square,pad=0.1", "color": "white"},
                zorder=3,
            )
    for _, colour, layer in layers_of(group_table(group)):
        nodes = layer.index
        panel.scatter(x[nodes], y[nodes], s=320, color="white", edgecolor=colour, lw=3, zorder=4)
    importances = group.dependency.frame_importance
    for place, level, importance in zip(places, levels, importances, strict=True):
        name = f"{place[0]:.0f}"
        panel.text(place[0], place[1], name, ha="center", va="center", fontsize=9, zorder=5)
        panel.annotate(
            f"{importance:.1f}",
            place,
            (0, -19 if level == levels.max() else 19),  # arrows end on the other side
            textcoords="offset points",
            fontsize=8,
            ha="center",
            va="center",
            bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.7},
            zorder=4,
        )
    ticks, first = np.unique(y, return_index=True)
    panel.set_aspect("equal")
    panel.margins(0.05, 0.12)
    panel.set_yticks(ticks, [group.label(n) for n in first])
    panel.set_xlabel("frame; the small numbers are importances")
    panel.set_title("Share of the group's propagated cost that a frame passes to its references")


def _on_arc(
    start: NDArray[np.float64], end: NDArray[np.float64], bend: float
) -> NDArray[np.float64]:
    """Return a point in the first half of matplotlib's ``arc3``, where fewer arrows meet."""
    dx, dy = end - start
    control = (start + end) / 2 + bend * np.array([dy, -dx])
    t = 0.4
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _draw_motion(panel: Axes, group: GroupModel, flow: NDArray[np.float64], video: Video) -> None:
    """Draw the motion vectors between the two frames with the largest flow, over the reference."""
    d = group.dependency
    n, reference = np.unravel_index(flow.argmax(), flow.shape)
    shown = group.rows["show_index"]
    _draw_luma(panel, video, int(shown[reference]))
    if flow[n, reference] <= 0:
        panel.set_title("No frame depends on another")
        return
    rows, cols = np.nonzero(d.reference[n] == reference)
    row_mv, col_mv = d.mv[n, rows, cols].T / 4
    usual = float(np.percentile(np.hypot(row_mv, col_mv), 90))
    factor = int(np.clip(1.5 * BLOCK / max(usual, 1e-9), 1, 16))
    panel.quiver(
        BLOCK * (cols + 0.5) + col_mv,
        BLOCK * (rows + 0.5) + row_mv,
        -factor * col_mv,
        -factor * row_mv,
        angles="xy",
        scale_units="xy",
        scale=1,
        color="#E69F00",
        units="inches",
        width=0.018,
    )
    panel.set(xlim=(0, video.width), ylim=(video.height, 0))
    longer = f", drawn {factor} times as long" if factor > 1 else ""
    panel.set_title(f"How blocks move from frame {shown[reference]} to frame {shown[n]}{longer}")


def _draw_luma(panel: Axes, video: Video, show_index: int, black: int = 0) -> None:
    """Draw a frame's luma. A negative ``black`` makes it pale, so that colours show on it."""
    luma = to_8_bits(video.planes(show_index)[0])
    panel.imshow(luma, cmap="gray", vmin=black, vmax=255)
    panel.set(xticks=[], yticks=[])


def _heat() -> Colormap:
    """Return a colour map from transparent yellow to opaque red."""
    colours = colormaps["YlOrRd"](np.linspace(0, 1, 256))
    colours[:, 3] = 0.75 * np.linspace(0, 1, 256) ** 0.7
    return ListedColormap(colours)


def _plain(value: float, position: int | None = None) -> str:
    return f"{value:g}"
