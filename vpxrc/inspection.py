"""What the temporal dependency model says of an encode: pictures, and a table of all frames."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder import (
    UPDATE_TYPES,
    EncodeLog,
    EncoderOptions,
    Group,
    UpdateType,
)
from vpxrc.errors import InputError
from vpxrc.files import atomic_write
from vpxrc.policies import Replay
from vpxrc.policy import Episode, Policy, PolicyWrapper, encode
from vpxrc.report import COLOURS
from vpxrc.temporal_dependency import BLOCK, Dependency, Version, analyse
from vpxrc.video import Video

MAX_PANELS = 12  # frames in the picture of the maps
LABELLED_SHARE = 0.01  # of all that flows in a group; weaker arrows are pale
_MAX_DEPTH = 99  # below any layer
_DPI = 110
_LAYERS = ("key", "golden", "overlay", *(f"ARF, layer {depth}" for depth in range(1, 7)), "leaf")


@dataclass(frozen=True, eq=False)
class GroupModel:
    """The model of one golden-frame group as it was encoded.

    Attributes:
        index: Number of the group within the encode.
        rows: The log's row of each frame, ``[N]``. Frames shown again are left out, but for an ARF
            shown again at position 0, which the group's frames are predicted from.
        q_index: What each picture was coded at, int32 ``[N]``.
        dependency: The model; its positions are those in ``rows``.
    """

    index: int
    rows: NDArray[np.void]
    q_index: NDArray[np.int32]
    dependency: Dependency

    def label(self, position: int) -> str:
        """Return a frame's type and layer in words."""
        return _label(self.rows[position])

    @property
    def level(self) -> NDArray[np.int64]:
        """Row of each frame in the graph, int64 ``[N]``: 0 what starts the group, last leaves."""
        depth = np.where(
            self.rows["update_type"] == UpdateType.LEAF, _MAX_DEPTH, self.rows["layer_depth"]
        )
        depth[self.rows["group_position"] == 0] = 0
        return np.unique(depth, return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class Inspection:
    """An encode and the model of each of its groups.

    Attributes:
        video: The clip.
        log: The encode.
        groups: Those with at least two frames to model, in order.
    """

    video: Video
    log: EncodeLog
    groups: list[GroupModel]

    @property
    def num_groups(self) -> int:
        """Number of golden-frame groups, those without a model too."""
        return int(self.log.records["group_index"].max()) + 1

    def group(self, index: int) -> GroupModel:
        """Return the model of a group.

        Raises:
            InputError: There is no such group, or it has no model.
        """
        if not 0 <= index < self.num_groups:
            raise InputError(
                f"{self.video.name}: there is no group {index}: the encode has "
                f"{self.num_groups}, counted from 0"
            )
        for group in self.groups:
            if group.index == index:
                return group
        raise InputError(f"{self.video.name}: group {index} has fewer than two frames, so no model")

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per modelled frame of every group.

        An ARF that is shown again at the start of the group after it has a row in both: the frames
        of either group depend on it. ``bits`` are then those of showing it. ``dep_distortion`` and
        ``dep_bits`` are what later frames pay for it, before lambda makes one cost of them.
        """
        return pd.concat([_table(group) for group in self.groups], ignore_index=True)


def inspect(
    video: Video,
    options: EncoderOptions,
    policy: Policy,
    *,
    version: Version = "reconstructed",
    progress: Callable[[int], None] | None = None,
) -> Inspection:
    """Encode a clip under a policy and run the model on every group, at the q that it was coded at.

    Args:
        video: The clip.
        options: What is asked for.
        policy: What decides. One that observes meets no groups, so its log is replayed.
        version: Of the model.
        progress: Called with the number of frames coded so far; see :func:`vpxrc.policy.encode`.

    Raises:
        InputError: ``version`` is unknown, or no group has two frames.
        PolicyError: The policy raised or answered out of range.
        EncoderError: libvpx failed.
    """
    recorder = _Recorder(policy)
    log = encode(video, options, recorder, progress=progress)
    if policy.observes:
        recorder = _Recorder(Replay(log))
        groups = recorder.groups_of(encode(video, log.options, recorder, progress=progress))
    else:
        groups = recorder.groups_of(log)
    models = [
        model for group in groups if (model := _model(video, log, group, version)) is not None
    ]
    if not models:
        raise InputError(f"{video.name}: no group has two frames, so there is nothing to model")
    return Inspection(video, log, models)


def write(inspection: Inspection, group: int, folder: Path) -> list[Path]:
    """Write ``importance.png``, ``frames.png``, ``propagation.png`` and ``dependency.parquet``.

    Args:
        inspection: What to draw.
        group: Index of the group whose maps and graph are drawn.
        folder: Where to.

    Returns:
        The files' paths.

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
        inspection.table.to_parquet(temporary)
    return paths


# The model


class _Recorder(PolicyWrapper):
    """Keeps the groups that a policy meets."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._groups: list[Group] = []
        self._encodes: list[tuple[NDArray[np.void], list[Group]]] = []

    def begin(self, episode: Episode) -> None:
        self._groups = []
        super().begin(episode)

    def plan_group(self, group: Group) -> ArrayLike | None:
        self._groups.append(group)
        return super().plan_group(group)

    def review(self, log: EncodeLog) -> EncodeLog | None:
        self._encodes.append((log.records, self._groups))
        return super().review(log)

    def groups_of(self, log: EncodeLog) -> list[Group]:
        """Return the groups of the encode that was kept, of all that the policy tried."""
        return next(groups for records, groups in self._encodes if records is log.records)


def _model(video: Video, log: EncodeLog, group: Group, version: Version) -> GroupModel | None:
    rows = log.records[
        (log.records["group_index"] == group.index)
        & (log.records["update_type"] != UpdateType.SHOWN_AGAIN)
    ]
    if len(rows) < 2:
        return None
    q_index = rows["q_index"].copy()
    for n in np.flatnonzero(rows["is_shown_again"]):  # coded in the group before
        same = log.coded[log.coded["show_index"] == rows[n]["show_index"]]
        q_index[n] = same["q_index"][-1]
    place = {int(position): n for n, position in enumerate(rows["group_position"])}
    references = [
        [place.get(int(reference), -1) for reference in group.references[position]]
        for position in place
    ]
    dependency = analyse(
        video,
        rows["show_index"],
        references,
        np.maximum(q_index, 1),  # 0 is lossless, which the model does not know
        version=version,
    )
    return GroupModel(group.index, rows, q_index, dependency)


def _table(group: GroupModel) -> pd.DataFrame:
    rows, d = group.rows, group.dependency
    return pd.DataFrame(
        {
            "group_index": rows["group_index"],
            "group_position": rows["group_position"],
            "show_index": rows["show_index"],
            "update_type": [UPDATE_TYPES[int(kind)] for kind in rows["update_type"]],
            "layer_depth": rows["layer_depth"],
            "q_index": group.q_index,
            "bits": rows["bits"],
            "importance": d.frame_importance,
            "q_offset": d.q_offset(),
            "model_bits": d.rate.sum(axis=(1, 2)),
            "model_distortion": d.distortion.sum(axis=(1, 2)),
            "dep_distortion": d.dep_distortion.sum(axis=(1, 2)),
            "dep_bits": d.dep_rate.sum(axis=(1, 2)),
        }
    )


def _label(row: np.void) -> str:
    kind = UPDATE_TYPES[int(row["update_type"])]
    return f"ARF, layer {row['layer_depth']}" if kind == "arf" else kind


# The pictures


def _importance_picture(group: GroupModel, video: Video) -> Figure:
    d = group.dependency
    shown = range(min(MAX_PANELS, len(group.rows)))
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    scale = 3.4 / max(video.width, video.height)  # inches per sample
    width, height = max(2.4, scale * video.width), scale * video.height + 0.4
    figure = Figure(figsize=(width * columns + 1.2, height * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    # Single blocks that cost next to nothing themselves would take the whole scale.
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
    log = inspection.log
    coded = log.to_pandas()
    coded = coded[~coded["is_shown_again"]]
    tables = {"q_index": coded, "bits": coded, "importance": inspection.table}
    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(len(tables), 1, sharex=True)
    found: dict[str, Artist] = {}
    for panel, (name, table) in zip(panels, tables.items(), strict=True):
        for label, colour, layer in _layers(table):
            size = 12 if label == "leaf" else 28
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
    names = [name for name in _LAYERS if name in found]
    figure.legend([found[name] for name in names], names, loc="outside right upper")
    figure.suptitle(f"{log.clip.name} at {log.bitrate:.0f} kbit/s")
    return figure


def _propagation_picture(group: GroupModel, video: Video) -> Figure:
    flow = group.dependency.flow()
    figure = Figure(figsize=(12, 13), layout="constrained")
    graph, picture = figure.subplots(2, 1)
    _draw_graph(graph, group, flow / max(float(flow.sum()), 1e-9))
    _draw_motion(picture, group, flow, video)
    figure.suptitle(f"{video.name}, group {group.index}")
    return figure


def _draw_graph(panel: Axes, group: GroupModel, share: NDArray[np.float64]) -> None:
    """Draw frames by show index and layer, and arrows to what they are predicted from.

    Args:
        panel: Where to.
        group: The group.
        share: ``flow`` over its sum.
    """
    x = group.rows["show_index"].astype(np.float64)
    levels = group.level
    # Equal units on both axes, so that an arc's points can be told in them.
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
    for _, colour, layer in _layers(_table(group)):
        nodes = layer.index
        panel.scatter(x[nodes], y[nodes], s=320, color="white", edgecolor=colour, lw=3, zorder=4)
    importances = group.dependency.frame_importance
    for place, level, importance in zip(places, levels, importances, strict=True):
        name = f"{place[0]:.0f}"
        panel.text(place[0], place[1], name, ha="center", va="center", fontsize=9, zorder=5)
        panel.annotate(
            f"{importance:.1f}",
            place,
            (0, -19 if level == levels.max() else 19),  # arrows end at the other side
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
    """Return a point of matplotlib's ``arc3`` in the first half, where fewer arrows meet."""
    dx, dy = end - start
    control = (start + end) / 2 + bend * np.array([dy, -dx])
    t = 0.4
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _draw_motion(panel: Axes, group: GroupModel, flow: NDArray[np.float64], video: Video) -> None:
    """Draw the motion of the blocks over which most flows, on the frame that they come from."""
    d = group.dependency
    n, reference = np.unravel_index(flow.argmax(), flow.shape)
    shown = group.rows["show_index"]
    _draw_luma(panel, video, int(shown[reference]))
    if flow[n, reference] <= 0:
        panel.set_title("Nothing flows")
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
    """Draw a frame, pale where ``black`` is below 0, so that colours show on dark parts too."""
    panel.imshow(video.planes(show_index)[0], cmap="gray", vmin=black, vmax=255)
    panel.set(xticks=[], yticks=[])


def _heat() -> Colormap:
    """Return colours that are the clearer the more they say."""
    colours = colormaps["YlOrRd"](np.linspace(0, 1, 256))
    colours[:, 3] = 0.75 * np.linspace(0, 1, 256) ** 0.7
    return ListedColormap(colours)


def _layers(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, colour (as in the evaluation's report) and frames of each layer."""
    labels = table["update_type"].where(
        table["update_type"] != "arf", "ARF, layer " + table["layer_depth"].astype(str)
    )
    for position, label in enumerate(_LAYERS):
        layer = table[labels == label]
        if len(layer):
            yield label, "#999999" if label == "leaf" else COLOURS[position % len(COLOURS)], layer


def _plain(value: float, position: int | None = None) -> str:
    return f"{value:g}"
