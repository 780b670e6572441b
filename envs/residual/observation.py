"""The observation of a residual agent: one vector, column by column."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from vpxrc.encoder.complexity import WINDOWS
from vpxrc.encoder.types import Decision
from vpxrc.envs.columns import Column, Table
from vpxrc.envs.residual.config import Flat, Offset
from vpxrc.envs.residual.facts import (
    STATISTICS,
    ClipFacts,
    GroupFacts,
    History,
    PastFacts,
    Sight,
)
from vpxrc.envs.tables import FIRST_PASS, TABLES
from vpxrc.envs.view import EncodeView

_BOUND = 4.0  # the widest bound of a column


def _copied(key: str, *left_out: str) -> list[Column[Sight]]:
    """Return columns of the observation of ``RateControlEnv``."""

    def of_view(value: Callable[[EncodeView], Any]) -> Callable[[Sight], Any]:
        return lambda s: value(s.view)

    return [
        c._replace(low=max(c.low, -_BOUND), high=min(c.high, _BOUND), value=of_view(c.value))
        for c in TABLES[key]
        if c.name not in left_out
    ]


def _kind(kind: str) -> list[Column[Sight]]:
    return [
        Column(
            f"{kind}_count",
            0,
            4,
            f"{kind} of the group / 16",
            lambda s: s.group.kinds[kind].count / 16,
            is_lasting=True,
        ),
        Column(
            f"{kind}_ahead",
            0,
            4,
            "those from the pending frame on / 16",
            lambda s: s.group.kinds[kind].ahead[s.position] / 16,
        ),
        Column(
            f"{kind}_importance",
            0,
            4,
            "mean of log2(importance) / 4",
            lambda s: s.group.kinds[kind].importance / 4,
            is_lasting=True,
        ),
        Column(
            f"{kind}_model_bits",
            -4,
            4,
            "the model's mean, log2(bits / pixel) / 8",
            lambda s: s.group.kinds[kind].model_bits / 8,
            is_lasting=True,
        ),
        Column(
            f"{kind}_allocation",
            -2,
            1,
            "libvpx's, mean of ln(bits / pixel) / 10",
            lambda s: s.group.kinds[kind].allocation / 10,
            is_lasting=True,
        ),
    ]


def _window(place: int) -> Column[Sight]:
    """Return the column of a window of frames before (below 0) or after the group."""
    low, high = WINDOWS[place]
    side = "before" if low < 0 else "after"
    return Column(
        f"{side}_{min(abs(low), abs(high))}_{max(abs(low), abs(high))}",
        -4,
        4,
        "`group_complexity` of these frames",
        lambda s: s.group.windows[place] / 2,
        is_lasting=True,
    )


def _first_pass(part: str, meaning: str) -> list[Column[Sight]]:
    table = {column.name: column for column in FIRST_PASS}

    def mean(place: int) -> Callable[[Sight], float]:
        return lambda s: s.group.first_pass[part][place]

    return [
        Column(
            f"{part}_{name}",
            table[name].low,
            table[name].high,
            meaning,
            mean(place),
            is_lasting=True,
        )
        for place, name in enumerate(STATISTICS)
    ]


#: The columns by subject.
COLUMNS: dict[str, Table[Sight]] = {
    "frame": Table(
        (
            *_copied("frame"),
            Column(
                "complexity",
                -4,
                4,
                "log2(coded_error / the clip's) / 4",
                lambda s: s.clip.log_error.item(s.shown) / 4,
            ),
            Column(
                "pcnt_inter",
                0,
                1,
                "share of the macroblocks",
                lambda s: s.view.first_pass["pcnt_inter"].item(s.shown),
            ),
            Column(
                "importance",
                0,
                4,
                "log2(importance) / 4; 0 without a model",
                lambda s: s.group.importance[s.position] / 4,
            ),
            Column(
                "model_bits",
                -4,
                4,
                "the model's, log2(bits / pixel) / 8",
                lambda s: s.model_bits / 8,
            ),
            Column(
                "model_share",
                -4,
                4,
                "log2(model's bits / mean of the group) / 4",
                lambda s: s.model_share / 4,
            ),
            Column(
                "map_spread",
                0,
                4,
                "standard deviation of its map * 4",
                lambda s: s.group.map_spread[s.position] * 4,
            ),
            Column(
                "map_max",
                0,
                4,
                "highest value of its map * 2",
                lambda s: s.group.map_max[s.position] * 2,
            ),
        )
    ),
    "budget": Table(
        (
            *_copied("budget", "num_frames"),
            Column(
                "frames_left",
                0,
                4,
                "frames not yet shown / 64",
                lambda s: (s.view.num_frames - s.view.num_shown) / 64,
            ),
            Column(
                "to_key",
                0,
                4,
                "frames to the next key frame / 64",
                lambda s: s.view.frame.frames_to_key / 64,
            ),
            Column(
                "left",
                -4,
                4,
                "log2(bits left per frame left / target per frame)",
                lambda s: s.left,
            ),
            Column(
                "pace",
                -4,
                4,
                "log2(`spent` / share of the effort shown); at first 0",
                lambda s: s.pace,
            ),
        )
    ),
    "group": Table(
        (
            Column(
                "group_length",
                0,
                4,
                "frames from one end to the other / 16",
                lambda s: s.group.length / 16,
                is_lasting=True,
            ),
            Column(
                "group_layers",
                0,
                1,
                "highest layer depth / 8",
                lambda s: s.group.layers / 8,
                is_lasting=True,
            ),
            Column(
                "group_ahead",
                0,
                1,
                "share of it from the pending frame on",
                lambda s: s.group.ahead[s.position],
            ),
            Column(
                "group_importance",
                0,
                4,
                "highest log2(importance) / 4",
                lambda s: s.group.highest / 4,
                is_lasting=True,
            ),
            Column(
                "group_rate",
                -4,
                4,
                "log2(model's bits per frame / target) / 4",
                lambda s: s.group.rate / 4,
                is_lasting=True,
            ),
            *_kind("references"),
            *_kind("leaves"),
            Column(
                "group_complexity",
                -4,
                4,
                "mean of log2(coded_error / clip's) / 2",
                lambda s: s.group.complexity / 2,
                is_lasting=True,
            ),
            Column(
                "group_spread",
                0,
                4,
                "their standard deviation / 2",
                lambda s: s.group.spread / 2,
                is_lasting=True,
            ),
            Column(
                "clip_spread",
                0,
                4,
                "the same over the clip / 2",
                lambda s: s.clip.spread / 2,
                is_lasting=True,
            ),
            *map(_window, range(len(WINDOWS))),
        )
    ),
    "first_pass": Table(
        (
            *_first_pass("group", "mean over the group"),
            *_first_pass("rest", "over what follows it; without, the clip"),
            *_first_pass("clip", "over the clip"),
        )
    ),
    "base": Table(
        (
            Column(
                "base_q_index",
                0,
                1,
                "its q index / 255",
                lambda s: s.base.q_index / 255,
            ),
            Column(
                "base_step",
                -2,
                4,
                "log2(its quantiser step) / 4 - 2",
                lambda s: s.base.step / 4 - 2,
            ),
            Column(
                "base_over_libvpx",
                -4,
                4,
                "log2(its step / libvpx's own) / 2",
                lambda s: s.base.over_libvpx / 2,
            ),
            Column(
                "base_over_before",
                -4,
                4,
                "log2(its step / before) / 2",
                lambda s: s.base.over_before / 2,
            ),
            Column(
                "base_lambda",
                -4,
                4,
                "log2(its factor on lambda)",
                lambda s: s.base.log_lambda,
            ),
        )
    ),
    "past": Table(
        (
            Column(
                "before_bits",
                -4,
                4,
                "log2(bits per frame / target) / 2",
                lambda s: s.past.before_bits / 2,
            ),
            Column(
                "before_psnr",
                -4,
                4,
                "mean PSNR less that of all so far / 8 dB",
                lambda s: s.past.before_psnr / 8,
            ),
            Column(
                "before_reference_q_index",
                0,
                1,
                "mean of the references' / 255",
                lambda s: s.past.before_reference_q / 255,
            ),
            Column(
                "before_leaf_q_index",
                0,
                1,
                "mean of the others' / 255",
                lambda s: s.past.before_leaf_q / 255,
            ),
            Column(
                "current_bits",
                0,
                4,
                "bits / target of all its frames",
                lambda s: s.past.current_bits / (s.per_frame * s.group.length),
            ),
            Column(
                "current_psnr",
                -4,
                4,
                "as `before_psnr`",
                lambda s: s.past.current_psnr / 8,
            ),
            Column(
                "coded_bits",
                -2,
                1,
                "ln(bits / pixel) / 10",
                lambda s: s.past.coded_bits / 10,
            ),
            Column(
                "coded_psnr",
                -4,
                4,
                "as `before_psnr`",
                lambda s: s.past.coded_psnr / 8,
            ),
            Column(
                "action_level",
                -4,
                4,
                "of the last action",
                lambda s: s.last_offset[0],
            ),
            Column(
                "action_reference",
                -4,
                4,
                "of the last action",
                lambda s: s.last_offset[1],
            ),
            Column(
                "mean_level",
                -4,
                4,
                "of all actions",
                lambda s: s.mean_offset[0],
            ),
            Column(
                "mean_reference",
                -4,
                4,
                "of all actions",
                lambda s: s.mean_offset[1],
            ),
            Column(
                "actions",
                0,
                4,
                "log2(1 + actions so far) / 4",
                lambda s: math.log2(1 + len(s.offsets)) / 4,
            ),
        )
    ),
}
VECTOR: Table[Sight] = Table(column for table in COLUMNS.values() for column in table)
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
        self._row: Flat | None = None

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
            self._row = None
        history = self._history
        history.update()
        past = PastFacts.of(view, history)
        sight = Sight(view, self._clip, self._group, decision, history, past, offsets)
        self._row = self._table.row(sight, self._row)
        return self._row.copy()
