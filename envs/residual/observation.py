"""The observation of a residual agent: one vector, column by column."""

import math
from collections.abc import Sequence
from operator import itemgetter

import numpy as np

from vpxrc.encoder.complexity import WINDOWS
from vpxrc.encoder.types import Decision
from vpxrc.envs.columns import Column, Table
from vpxrc.envs.residual.config import Flat, Offset
from vpxrc.envs.residual.facts import (
    STATISTICS,
    BaseFacts,
    ClipFacts,
    GroupFacts,
    History,
    KindFacts,
    PastFacts,
    Sight,
)
from vpxrc.envs.tables import BUDGET, FIRST_PASS, FRAME
from vpxrc.envs.view import EncodeView

_BOUND = 4.0  # the widest bound of a column


def _copied(table: Table[EncodeView], *left_out: str) -> Table[Sight]:
    """Return a table of ``RateControlEnv`` without some of its columns."""
    kept = [n for n, name in enumerate(table.names) if name not in left_out]
    chosen = itemgetter(*kept)
    return Table(
        (
            column._replace(low=max(column.low, -_BOUND), high=min(column.high, _BOUND))
            for column in chosen(table.columns)
        ),
        lambda s: chosen(table.values(s.view)),
    )


def _own_frame_values(s: Sight) -> tuple[float, ...]:
    group, clip, position, shown = s.group, s.clip, s.position, s.shown
    return (
        clip.log_error.item(shown) / 4,
        s.view.first_pass["pcnt_inter"].item(shown),
        group.importance[position] / 4,
        s.model_bits / 8,
        s.model_share / 4,
        group.map_spread[position] * 4,
        group.map_max[position] * 2,
    )


_OWN_FRAME: Table[Sight] = Table(
    (
        Column("complexity", -4, 4, "log2(coded_error / the clip's) / 4"),
        Column("pcnt_inter", 0, 1, "share of the macroblocks"),
        Column("importance", 0, 4, "log2(importance) / 4; 0 without a model"),
        Column("model_bits", -4, 4, "the model's, log2(bits / pixel) / 8"),
        Column("model_share", -4, 4, "log2(model's bits / mean of the group) / 4"),
        Column("map_spread", 0, 4, "standard deviation of its map * 4"),
        Column("map_max", 0, 4, "highest value of its map * 2"),
    ),
    _own_frame_values,
)


def _own_budget_values(s: Sight) -> tuple[float, ...]:
    view = s.view
    frames_left = (view.num_frames - view.num_shown) / 64
    return frames_left, view.frame.frames_to_key / 64, s.left, s.pace


_OWN_BUDGET: Table[Sight] = Table(
    (
        Column("frames_left", 0, 4, "frames not yet shown / 64"),
        Column("to_key", 0, 4, "frames to the next key frame / 64"),
        Column("left", -4, 4, "log2(bits left per frame left / target per frame)"),
        Column("pace", -4, 4, "log2(`spent` / share of the effort shown); at first 0"),
    ),
    _own_budget_values,
)


def _kind(kind: str) -> list[Column]:
    return [
        Column(f"{kind}_count", 0, 4, f"{kind} of the group / 16"),
        Column(f"{kind}_ahead", 0, 4, "those from the pending frame on / 16"),
        Column(f"{kind}_importance", 0, 4, "mean of log2(importance) / 4"),
        Column(f"{kind}_model_bits", -4, 4, "the model's mean, log2(bits / pixel) / 8"),
        Column(f"{kind}_allocation", -2, 1, "libvpx's, mean of ln(bits / pixel) / 10"),
    ]


def _kind_values(kind: KindFacts, position: int) -> tuple[float, ...]:
    return (
        kind.size / 16,
        kind.ahead[position] / 16,
        kind.importance / 4,
        kind.model_bits / 8,
        kind.allocation / 10,
    )


def _window(low: int, high: int) -> Column:
    """Return the column of a window of frames before (below 0) or after the group."""
    side = "before" if low < 0 else "after"
    name = f"{side}_{min(abs(low), abs(high))}_{max(abs(low), abs(high))}"
    return Column(name, -4, 4, "`group_complexity` of these frames")


def _group_values(s: Sight) -> tuple[float, ...]:
    group, position = s.group, s.position
    return (
        group.length / 16,
        group.layers / 8,
        group.ahead[position],
        group.highest / 4,
        group.rate / 4,
        *_kind_values(group.references, position),
        *_kind_values(group.leaves, position),
        group.complexity / 2,
        group.spread / 2,
        s.clip.spread / 2,
        *[mean / 2 for mean in group.windows],
    )


_GROUP: Table[Sight] = Table(
    (
        Column("group_length", 0, 4, "frames from one end to the other / 16"),
        Column("group_layers", 0, 1, "highest layer depth / 8"),
        Column("group_ahead", 0, 1, "share of it from the pending frame on"),
        Column("group_importance", 0, 4, "highest log2(importance) / 4"),
        Column("group_rate", -4, 4, "log2(model's bits per frame / target) / 4"),
        *_kind("references"),
        *_kind("leaves"),
        Column("group_complexity", -4, 4, "mean of log2(coded_error / clip's) / 2"),
        Column("group_spread", 0, 4, "their standard deviation / 2"),
        Column("clip_spread", 0, 4, "the same over the clip / 2"),
        *(_window(low, high) for low, high in WINDOWS),
    ),
    _group_values,
)


def _first_pass(part: str, meaning: str) -> list[Column]:
    table = {column.name: column for column in FIRST_PASS}
    return [table[name]._replace(name=f"{part}_{name}", meaning=meaning) for name in STATISTICS]


_FIRST_PASS: Table[Sight] = Table(
    (
        *_first_pass("group", "mean over the group"),
        *_first_pass("rest", "over what follows it; without, the clip"),
        *_first_pass("clip", "over the clip"),
    ),
    lambda s: s.group.first_pass,
)


def _base_values(s: Sight) -> tuple[float, ...]:
    base = BaseFacts.of(s.view, s.decision, s.history)
    return (
        base.q_index / 255,
        base.step / 4 - 2,
        base.over_libvpx / 2,
        base.over_before / 2,
        base.log_lambda,
    )


_BASE: Table[Sight] = Table(
    (
        Column("base_q_index", 0, 1, "its q index / 255"),
        Column("base_step", -2, 4, "log2(its quantiser step) / 4 - 2"),
        Column("base_over_libvpx", -4, 4, "log2(its step / libvpx's own) / 2"),
        Column("base_over_before", -4, 4, "log2(its step / before) / 2"),
        Column("base_lambda", -4, 4, "log2(its factor on lambda)"),
    ),
    _base_values,
)


def _past_values(s: Sight) -> tuple[float, ...]:
    past = PastFacts.of(s.view, s.history)
    return (
        past.before_bits / 2,
        past.before_psnr / 8,
        past.before_reference_q / 255,
        past.before_leaf_q / 255,
        past.current_bits / (s.per_frame * s.group.length),
        past.current_psnr / 8,
        past.coded_bits / 10,
        past.coded_psnr / 8,
    )


_PAST: Table[Sight] = Table(
    (
        Column("before_bits", -4, 4, "log2(bits per frame / target) / 2"),
        Column("before_psnr", -4, 4, "mean PSNR less that of all so far / 8 dB"),
        Column("before_reference_q_index", 0, 1, "mean of the references' / 255"),
        Column("before_leaf_q_index", 0, 1, "mean of the others' / 255"),
        Column("current_bits", 0, 4, "bits / target of all its frames"),
        Column("current_psnr", -4, 4, "as `before_psnr`"),
        Column("coded_bits", -2, 1, "ln(bits / pixel) / 10"),
        Column("coded_psnr", -4, 4, "as `before_psnr`"),
    ),
    _past_values,
)


def _offset_values(s: Sight) -> tuple[float, ...]:
    offsets = s.offsets or [(0.0, 0.0)]
    level, reference = np.array(offsets).mean(axis=0).tolist()
    return *offsets[-1], level, reference, math.log2(1 + len(s.offsets)) / 4


_OFFSETS: Table[Sight] = Table(
    (
        Column("action_level", -4, 4, "of the last action"),
        Column("action_reference", -4, 4, "of the last action"),
        Column("mean_level", -4, 4, "of all actions"),
        Column("mean_reference", -4, 4, "of all actions"),
        Column("actions", 0, 4, "log2(1 + actions so far) / 4"),
    ),
    _offset_values,
)

#: The columns that no base policy and no offset is needed for, by subject.
COMMON: dict[str, Table[Sight]] = {
    "frame": Table.joined((_copied(FRAME), _OWN_FRAME)),
    "budget": Table.joined((_copied(BUDGET, "num_frames"), _OWN_BUDGET)),
    "group": _GROUP,
    "first_pass": _FIRST_PASS,
    "past": _PAST,
}
#: All columns by subject.
COLUMNS: dict[str, Table[Sight]] = {
    **{key: COMMON[key] for key in ("frame", "budget", "group", "first_pass")},
    "base": _BASE,
    "past": Table.joined((_PAST, _OFFSETS)),
}
VECTOR: Table[Sight] = Table.joined(COLUMNS.values())
OBSERVATION: tuple[str, ...] = VECTOR.names


class ResidualObserver:
    """Computes the observation of one encode, at its decision points.

    Args:
        view: The facts of the encode.
        table: The columns.
    """

    def __init__(self, view: EncodeView, table: Table[Sight] = VECTOR) -> None:
        self._view = view
        self._table = table
        self._clip = ClipFacts.of(view)
        self._history = History(view)
        self._group_index = -1
        self._group: GroupFacts | None = None

    def observation(self, decision: Decision, offsets: Sequence[Offset]) -> Flat:
        """Return the observation, float32 ``[len(table)]``.

        Args:
            decision: The base policy's, on the frame that the view was updated for.
            offsets: The actions so far.
        """
        view = self._view
        group_index = view.frame.group_index
        if self._group is None or group_index != self._group_index:
            self._group_index = group_index
            self._group = GroupFacts.of(view, self._clip)
        self._history.update()
        sight = Sight(view, self._clip, self._group, decision, self._history, offsets)
        return self._table.row(sight)
