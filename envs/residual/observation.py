"""The observation of a residual agent."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.complexity import (
    WINDOWS,
    coded_error,
    frames_inside,
    log_complexity,
    window_means,
)
from vpxrc.encoder.log import coded_rows, psnr, shown_rows
from vpxrc.encoder.types import FIRST_PASS_FIELDS, Decision, UpdateType
from vpxrc.envs.observations import TABLES, Arrays, Observer
from vpxrc.envs.residual.config import REFERENCES, Flat, Move, is_reference_frame, own_q

# The observation

_BOUND = 4.0  # of all columns
_SMALL = 1e-4  # bits per pixel, where a logarithm needs one
_FIRST_PASS = (
    "intra_error",
    "coded_error",
    "sr_coded_error",
    "frame_noise_energy",
    "pcnt_inter",
    "pcnt_motion",
    "pcnt_second_ref",
    "pcnt_neutral",
    "pcnt_intra_low",
    "intra_skip_pct",
    "mv_row_abs",
    "mv_col_abs",
)
_FIRST_PASS_PLACES = [FIRST_PASS_FIELDS.index(name) for name in _FIRST_PASS]


class PlannedColumn(NamedTuple):
    """One number of the observation.

    Attributes:
        name: Unique.
        low: Lower bound.
        high: Upper bound.
        meaning: What it is, with its unit.
    """

    name: str
    low: float
    high: float
    meaning: str


def _copied(key: str, *left_out: str) -> list[PlannedColumn]:
    """Return columns of the observation of ``RateControlEnv``."""
    return [
        PlannedColumn(c.name, max(c.low, -_BOUND), min(c.high, _BOUND), c.meaning)
        for c in TABLES[key]
        if c.name not in left_out
    ]


def _kind(kind: str) -> list[PlannedColumn]:
    return [
        PlannedColumn(f"{kind}_count", 0, 4, f"{kind} of the group / 16"),
        PlannedColumn(f"{kind}_ahead", 0, 4, "those from the pending frame on / 16"),
        PlannedColumn(f"{kind}_importance", 0, 4, "mean of log2(importance) / 4"),
        PlannedColumn(f"{kind}_model_bits", -4, 4, "the model's mean, log2(bits / pixel) / 8"),
        PlannedColumn(f"{kind}_allocation", -2, 1, "libvpx's, mean of ln(bits / pixel) / 10"),
    ]


def _window(low: int, high: int) -> str:
    """Return the column of a window of frames before (below 0) or after the group."""
    side = "before" if low < 0 else "after"
    return f"{side}_{min(abs(low), abs(high))}_{max(abs(low), abs(high))}"


def _first_pass(window: str, meaning: str) -> list[PlannedColumn]:
    table = {column.name: column for column in TABLES["first_pass"]}
    return [
        PlannedColumn(f"{window}_{name}", table[name].low, table[name].high, meaning)
        for name in _FIRST_PASS
    ]


COLUMNS: dict[str, tuple[PlannedColumn, ...]] = {
    "frame": (
        *_copied("frame"),
        PlannedColumn("complexity", -4, 4, "log2(coded_error / the clip's) / 4"),
        PlannedColumn("pcnt_inter", 0, 1, "share of the macroblocks"),
        PlannedColumn("importance", 0, 4, "log2(importance) / 4; 0 without a model"),
        PlannedColumn("model_bits", -4, 4, "the model's, log2(bits / pixel) / 8"),
        PlannedColumn("model_share", -4, 4, "log2(model's bits / mean of the group) / 4"),
        PlannedColumn("map_spread", 0, 4, "standard deviation of its map * 4"),
        PlannedColumn("map_max", 0, 4, "highest value of its map * 2"),
    ),
    "budget": (
        *_copied("budget", "num_frames"),
        PlannedColumn("frames_left", 0, 4, "frames not yet shown / 64"),
        PlannedColumn("to_key", 0, 4, "frames to the next key frame / 64"),
        PlannedColumn("left", -4, 4, "log2(bits left per frame left / target per frame)"),
        PlannedColumn("pace", -4, 4, "log2(`spent` / share of the effort shown); at first 0"),
    ),
    "group": (
        PlannedColumn("group_length", 0, 4, "frames from one end to the other / 16"),
        PlannedColumn("group_layers", 0, 1, "highest layer depth / 8"),
        PlannedColumn("group_ahead", 0, 1, "share of it from the pending frame on"),
        PlannedColumn("group_importance", 0, 4, "highest log2(importance) / 4"),
        PlannedColumn("group_rate", -4, 4, "log2(model's bits per frame / target) / 4"),
        *_kind("references"),
        *_kind("leaves"),
        PlannedColumn("group_complexity", -4, 4, "mean of log2(coded_error / clip's) / 2"),
        PlannedColumn("group_spread", 0, 4, "their standard deviation / 2"),
        PlannedColumn("clip_spread", 0, 4, "the same over the clip / 2"),
        *(
            PlannedColumn(_window(*window), -4, 4, "`group_complexity` of these frames")
            for window in WINDOWS
        ),
    ),
    "first_pass": (
        *_first_pass("group", "mean over the group"),
        *_first_pass("rest", "over what follows it; without, the clip"),
        *_first_pass("clip", "over the clip"),
    ),
    "plan": (
        PlannedColumn("plan_q_index", 0, 1, "its q index / 255"),
        PlannedColumn("plan_step", -2, 4, "log2(its quantiser step) / 4 - 2"),
        PlannedColumn("plan_over_libvpx", -4, 4, "log2(its step / libvpx's own) / 2"),
        PlannedColumn("plan_over_before", -4, 4, "log2(its step / before) / 2"),
        PlannedColumn("plan_lambda", -4, 4, "log2(its factor on lambda)"),
    ),
    "past": (
        PlannedColumn("before_bits", -4, 4, "log2(bits per frame / target) / 2"),
        PlannedColumn("before_psnr", -4, 4, "mean PSNR less that of all so far / 8 dB"),
        PlannedColumn("before_reference_q_index", 0, 1, "mean of the references' / 255"),
        PlannedColumn("before_leaf_q_index", 0, 1, "mean of the others' / 255"),
        PlannedColumn("current_bits", 0, 4, "bits / target of all its frames"),
        PlannedColumn("current_psnr", -4, 4, "as `before_psnr`"),
        PlannedColumn("coded_bits", -2, 1, "ln(bits / pixel) / 10"),
        PlannedColumn("coded_psnr", -4, 4, "as `before_psnr`"),
        PlannedColumn("action_level", -4, 4, "of the last action"),
        PlannedColumn("action_reference", -4, 4, "of the last action"),
        PlannedColumn("mean_level", -4, 4, "of all actions"),
        PlannedColumn("mean_reference", -4, 4, "of all actions"),
        PlannedColumn("actions", 0, 4, "log2(1 + actions so far) / 4"),
    ),
}
_ALL = [column for columns in COLUMNS.values() for column in columns]
OBSERVATION: tuple[str, ...] = tuple(column.name for column in _ALL)
LOW = np.array([column.low for column in _ALL], np.float32)
HIGH = np.array([column.high for column in _ALL], np.float32)


class ResidualObserver:
    """Follows one encode and gives the values of the columns.

    Args:
        observer: Of the encode; what has been seen there is known here.
        arrays: Where it writes.
    """

    def __init__(self, observer: Observer, arrays: Arrays) -> None:
        self._observer = observer
        self._arrays = arrays
        self._group_index = -1
        self._group: dict[str, float] = {}  # what is the same at all decisions of a group

    def observation(self, planned: Decision, rows: NDArray[np.void], moves: Sequence[Move]) -> Flat:
        """Return the observation, float32 ``[len(OBSERVATION)]``.

        Args:
            planned: The plan's decision on the pending frame.
            rows: The log so far, dtype ``RECORD_DTYPE``.
            moves: The actions so far.
        """
        group_index = self._observer.frame.group_index
        if group_index != self._group_index:
            if not self._group:
                self._see_clip()
            self._group_index = group_index
            self._group = self._see_group()
        values = self._group | self._budget() | self._frame() | self._plan(planned, rows)
        values |= self._past(rows) | _actions(moves)
        for key in ("frame", "budget"):
            names = [column.name for column in TABLES[key]]
            values.update(zip(names, self._arrays[key].tolist(), strict=True))
        flat = np.array([values[name] for name in OBSERVATION], np.float32)
        return np.asarray(np.clip(flat, LOW, HIGH), np.float32)

    def _see_clip(self) -> None:
        first_pass = self._observer.session.first_pass
        self._log_error = log_complexity(first_pass)
        effort = np.sqrt(coded_error(first_pass))
        self._effort = np.cumsum(effort) / effort.sum()

    def _see_group(self) -> dict[str, float]:
        o = self._observer
        group, frames, log_error = o.group, o.num_frames, self._log_error
        coded = (group.update_type != UpdateType.SHOWN_AGAIN) & (group.show_index < frames)
        first = group.first_show_index
        last = int(group.show_index[coded].max(initial=first))
        inside = frames_inside(first, last)
        length = max(last - first, 1)
        known = coded & (o.modelled[:, 2] > 0)
        importance = np.log2(o.modelled[:, 0])
        bits = o.modelled[:, 1] / o.pixels + _SMALL  # per pixel
        target = o.target_bits / frames / o.pixels
        self._coded, self._known, self._length = coded, known, length
        self._importance, self._bits = importance, bits
        self._kinds = {
            "references": coded & np.isin(group.update_type, REFERENCES),
            "leaves": coded & (group.update_type == UpdateType.LEAF),
        }
        rate = bits[known].sum() / length / target
        values = {
            "group_length": length / 16,
            "group_layers": float(group.layer_depth.max()) / 8,
            "group_importance": float(importance[known].max(initial=0.0)) / 4,
            "group_rate": math.log2(rate) / 4 if known.any() else 0.0,
            "group_complexity": _mean(log_error[inside]) / 2,
            "group_spread": float(log_error[inside].std()) / 2,
            "clip_spread": float(log_error.std()) / 2,
        }
        for kind, members in self._kinds.items():
            modelled = bits[members & known]
            allocation = np.maximum(group.bit_allocation[members], 1) / o.pixels
            values[f"{kind}_count"] = int(members.sum()) / 16
            values[f"{kind}_importance"] = _mean(importance[members & known]) / 4
            values[f"{kind}_model_bits"] = math.log2(modelled.mean()) / 8 if len(modelled) else 0.0
            values[f"{kind}_allocation"] = _mean(np.log(allocation)) / 10
        for window, mean in zip(WINDOWS, window_means(log_error, first, last), strict=True):
            values[_window(*window)] = mean / 2
        rest = slice(last + 1, frames) if last + 1 < frames else slice(0, frames)
        for where, part in (("group", inside), ("rest", rest), ("clip", slice(0, frames))):
            means = self._arrays["first_pass"][part][:, _FIRST_PASS_PLACES].mean(axis=0)
            names = [f"{where}_{name}" for name in _FIRST_PASS]
            values.update(zip(names, means.tolist(), strict=True))
        return values

    def _frame(self) -> dict[str, float]:
        frame, o = self._observer.frame, self._observer
        position = frame.group_position
        bits, shown = float(self._bits[position]), min(frame.show_index, o.num_frames - 1)
        has_model = bool(self._known[position])
        relative = math.log2(bits / _mean(self._bits[self._known])) if has_model else 0.0
        importance = self._arrays["importance"]
        values = {
            "complexity": float(self._log_error[shown]) / 4,
            "pcnt_inter": float(o.first_pass["pcnt_inter"][shown]),
            "importance": float(self._importance[position]) / 4,
            "model_bits": math.log2(bits) / 8 if has_model else 0.0,
            "model_share": relative / 4,
            "map_spread": float(importance.std()) * 4,
            "map_max": float(importance.max()) * 2,
            "group_ahead": float(self._coded[position:].sum() / max(self._coded.sum(), 1)),
        }
        for kind, members in self._kinds.items():
            values[f"{kind}_ahead"] = int(members[position:].sum()) / 16
        return values

    def _budget(self) -> dict[str, float]:
        o = self._observer
        per_frame = o.target_bits / o.num_frames
        frames_left = o.num_frames - o.num_shown
        left = max(o.target_bits - o.bits, 1e-2 * o.target_bits) / max(frames_left, 1)
        pace = 0.0
        if o.num_shown:
            effort = float(self._effort[o.num_shown - 1])
            pace = math.log2(max(o.bits, 1) / o.target_bits / effort)
        return {
            "frames_left": frames_left / 64,
            "to_key": o.frame.frames_to_key / 64,
            "left": math.log2(left / per_frame),
            "pace": pace,
        }

    def _plan(self, planned: Decision, rows: NDArray[np.void]) -> dict[str, float]:
        frame = self._observer.frame
        q_index = own_q(frame, planned)
        log2_step = self._observer.session.log2_step
        step = float(log2_step[q_index])
        # The last group that has frames of the kind.
        is_reference = np.isin(rows["update_type"], REFERENCES) == is_reference_frame(frame)
        alike = coded_rows(rows[is_reference])
        before = alike[alike["group_index"] == alike["group_index"].max(initial=-1)]
        over = step - float(log2_step[before["q_index"]].mean()) if len(before) else 0.0
        return {
            "plan_q_index": q_index / 255,
            "plan_step": step / 4 - 2,
            "plan_over_libvpx": (step - float(log2_step[frame.libvpx_q_index])) / 2,
            "plan_over_before": over / 2,
            "plan_lambda": math.log2(planned.lambda_scale),
        }

    def _past(self, rows: NDArray[np.void]) -> dict[str, float]:
        o = self._observer
        per_frame = o.target_bits / o.num_frames
        overall = o.psnr_sum / o.num_shown if o.num_shown else 0.0

        def quality(part: NDArray[np.void]) -> float:
            levels = np.atleast_1d(psnr(part["sse_y"] / o.pixels))
            return _mean(levels - overall) / 8 if o.num_shown else 0.0

        coded = coded_rows(rows)
        current = coded[coded["group_index"] == self._group_index]
        earlier = coded["group_index"][: len(coded) - len(current)]
        before = rows[rows["group_index"] == earlier.max(initial=-1)]
        shown = shown_rows(before)
        bits = 0.0
        if len(shown):
            bits = math.log2(max(int(before["bits"].sum()), 1) / len(shown) / per_frame)
        before = coded_rows(before)
        is_reference = np.isin(before["update_type"], REFERENCES)
        return {
            "before_bits": bits / 2,
            "before_psnr": quality(shown),
            "before_reference_q_index": _mean(before["q_index"][is_reference]) / 255,
            "before_leaf_q_index": _mean(before["q_index"][~is_reference]) / 255,
            "current_bits": int(current["bits"].sum()) / (per_frame * self._length),
            "current_psnr": quality(shown_rows(current)),
            "coded_bits": _mean(np.log(np.maximum(coded["bits"][-1:], 1) / o.pixels)) / 10,
            "coded_psnr": quality(coded[-1:]),
        }


def _mean(values: NDArray[Any]) -> float:
    """Return the mean, 0 of nothing."""
    return float(values.mean()) if len(values) else 0.0


def _actions(moves: Sequence[Move]) -> dict[str, float]:
    table = np.array(moves or [(0.0, 0.0)])
    names = ("action_level", "action_reference", "mean_level", "mean_reference")
    values = [*table[-1].tolist(), *table.mean(axis=0).tolist()]
    return {**dict(zip(names, values, strict=True)), "actions": math.log2(1 + len(moves)) / 4}
