"""The observation of the direct environments, table by table.

A table's columns have names, bounds and meanings, and say how their values come from the facts
of an encode. The scales let one network serve all sizes of picture: errors per macroblock, bits per
pixel, logarithms.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import UPDATE_TYPES, UpdateType
from vpxrc.envs.columns import Column, Table
from vpxrc.envs.view import MAX_GROUP, MAX_IMPORTANCE, EncodeView


def _log_bits(bits: float, pixels: int) -> float:
    return math.log(max(bits, 1.0) / pixels) / 10


_CODED_TYPES = (
    UpdateType.KEY,
    UpdateType.LEAF,
    UpdateType.GOLDEN,
    UpdateType.ARF,
    UpdateType.OVERLAY,
)
# By update type, the values of ``_types(*_CODED_TYPES)``.
_IS_TYPE = {int(kind): tuple(kind == coded for coded in _CODED_TYPES) for kind in UpdateType}
_REFERENCES = ("last", "golden", "altref")


def _types(*kinds: UpdateType) -> list[Column]:
    """Return columns that are 1 for one update type each."""
    names = ["is_" + UPDATE_TYPES[kind].replace("-", "_") for kind in kinds]
    return [Column(name, 0, 1, "1 or 0") for name in names]


def _logs(*fields: str) -> list[Column]:
    return [Column(field, 0, 1.2, "ln(1 + x) / 10, x per macroblock") for field in fields]


def _shares(*fields: str) -> list[Column]:
    return [Column(field, 0, 1, "share of the macroblocks") for field in fields]


def _motions(*fields: str) -> list[Column]:
    meaning = "sign(x) ln(1 + abs(x)) / 10, x in 1/8 pixel"
    return [Column(field, -1, 1, meaning) for field in fields]


def _variances(*fields: str) -> list[Column]:
    return [Column(field, 0, 1, "ln(1 + x) / 20, x in (1/8 pixel)^2") for field in fields]


_ERRORS = ("intra_error", "coded_error", "sr_coded_error", "frame_noise_energy")
_SHARES = (
    "pcnt_inter",
    "pcnt_motion",
    "pcnt_second_ref",
    "pcnt_neutral",
    "pcnt_intra_low",
    "pcnt_intra_high",
    "intra_skip_pct",
    "intra_smooth_pct",
)
_MOTIONS = ("mv_row", "mv_row_abs", "mv_col", "mv_col_abs")
_VARIANCES = ("mv_row_variance", "mv_col_variance")


def _first_pass_values(o: EncodeView) -> list[NDArray[np.float64]]:
    found = o.first_pass
    return [
        found["frame"] / o.num_frames,
        found["weight"],
        *(np.log1p(found[field]) / 10 for field in _ERRORS),
        *(found[field] for field in _SHARES),
        found["inactive_zone_rows"] * 16 / o.video.height,
        found["inactive_zone_cols"] * 16 / o.video.width,
        *(np.sign(found[field]) * np.log1p(np.abs(found[field])) / 10 for field in _MOTIONS),
        *(np.log1p(found[field]) / 20 for field in _VARIANCES),
        found["mv_in_out_count"],
        found["duration"] * o.fps / 1e7,
        found["count"],
        found["new_mv_count"],
    ]


# libvpx's 26 statistics of the first pass, which it gives per macroblock already. A row per source
# frame.
FIRST_PASS: Table[EncodeView] = Table(
    (
        Column("frame", 0, 1, "show index / frames of the clip"),
        Column("weight", 0, 4, "libvpx's weight of the frame"),
        *_logs(*_ERRORS),
        *_shares(*_SHARES),
        Column("inactive_zone_rows", 0, 1, "rows / macroblock rows"),
        Column("inactive_zone_cols", 0, 1, "columns / macroblock columns"),
        *_motions(*_MOTIONS),
        *_variances(*_VARIANCES),
        Column("mv_in_out_count", -1, 1, "vectors inwards less outwards, share"),
        Column("duration", 0, 2, "frames"),
        Column("count", 0, 2, "frames"),
        *_shares("new_mv_count"),
    ),
    _first_pass_values,
)


class CodedFrame(NamedTuple):
    """A coded frame.

    Attributes:
        view: The facts of the encode.
        record: Its row of the log.
        psnr: Its luma PSNR in dB.
    """

    view: EncodeView
    record: Any
    psnr: float


def _history_values(o: CodedFrame) -> tuple[float, ...]:
    record, pixels = o.record, o.view.pixels
    return (
        *_IS_TYPE[record.update_type],
        record.is_shown,
        record.layer_depth / 8,
        record.show_index / o.view.num_frames,
        record.q_index / 255,
        record.libvpx_q_index / 255,
        math.log2(record.lambda_scale) / 6,
        _log_bits(record.bits, pixels),
        _log_bits(record.target_bits, pixels),
        o.psnr / 50,
    )


# A row per coded frame, in coding order.
HISTORY: Table[CodedFrame] = Table(
    (
        *_types(*_CODED_TYPES),
        Column("is_shown", 0, 1, "1 or 0"),
        Column("layer_depth", 0, 1, "depth / 8; 0 = key, golden; 1/8 = base ARF"),
        Column("show_position", 0, 1, "show index / frames of the clip"),
        Column("q_index", 0, 1, "q index / 255"),
        Column("libvpx_q_index", 0, 1, "libvpx's own choice / 255"),
        Column("lambda_scale", -1, 1, "log2(factor on lambda) / 6"),
        Column("bits", -2, 1, "ln(bits / pixel) / 10"),
        Column("target_bits", -2, 1, "libvpx's target, ln(bits / pixel) / 10"),
        Column("psnr", 0, 2, "luma PSNR / 50 dB"),
    ),
    _history_values,
)


def _reference_values(o: EncodeView, index: int, reference: int) -> tuple[float, float]:
    """Return age and q index of the pending frame's reference.

    Args:
        o: The encode.
        index: The frame's coding index.
        reference: Coding index of the reference; -1 = none.
    """
    if reference < 0:
        return 0.0, 0.0
    return (index - reference) / MAX_GROUP, o.records[reference].q_index / 255


def _frame_values(o: EncodeView) -> tuple[float, ...]:
    frame, num_frames = o.frame, o.num_frames
    index, r0 = frame.coding_index, frame.r0
    last, golden, altref = frame.reference_coding_index
    return (
        *_IS_TYPE[frame.update_type],
        frame.is_shown,
        frame.layer_depth / 8,
        frame.show_index / num_frames,
        index / num_frames,
        frame.group_position / MAX_GROUP,
        frame.frames_to_key / num_frames,
        frame.libvpx_q_index / 255,
        frame.libvpx_q_low / 255,
        frame.libvpx_q_high / 255,
        _log_bits(frame.target_bits, o.pixels),
        math.log1p(max(frame.gfu_boost, 0)) / 10,
        frame.has_tpl,
        r0 if math.isfinite(r0) else 0.0,
        frame.takes_superblock_scale,
        *_reference_values(o, index, last),
        *_reference_values(o, index, golden),
        *_reference_values(o, index, altref),
    )


def _reference(name: str) -> tuple[Column, Column]:
    return (
        Column(f"{name}_age", 0, 8, "coded frames since it / 32; 0 = none"),
        Column(f"{name}_q_index", 0, 1, "its q index / 255; 0 = none"),
    )


# The frame that waits for its decision.
FRAME: Table[EncodeView] = Table(
    (
        *_types(*_CODED_TYPES),
        Column("is_shown", 0, 1, "1 or 0"),
        Column("layer_depth", 0, 1, "depth / 8"),
        Column("show_position", 0, 1, "show index / frames of the clip"),
        Column("coding_position", 0, 2, "coding index / frames of the clip"),
        Column("group_position", 0, 8, "position in its group / 32"),
        Column("frames_to_key", 0, 1, "frames to the next key frame / frames of clip"),
        Column("libvpx_q_index", 0, 1, "libvpx's own choice / 255"),
        Column("libvpx_q_low", 0, 1, "its lower bound / 255"),
        Column("libvpx_q_high", 0, 1, "its upper bound / 255"),
        Column("target_bits", -2, 1, "libvpx's target, ln(bits / pixel) / 10"),
        Column("gfu_boost", 0, 1.2, "libvpx's boost, ln(1 + x) / 10"),
        Column("has_tpl", 0, 1, "1 or 0"),
        Column("r0", 0, 1, "intra over mc_dep cost; 0 without TPL"),
        Column("takes_superblock_scale", 0, 1, "TPL lambda per superblock: 1 or 0"),
        *(column for name in _REFERENCES for column in _reference(name)),
    ),
    _frame_values,
)


def _group_values(o: EncodeView) -> list[NDArray[Any]]:
    group, costs, modelled = o.group, o.tpl_costs, o.modelled
    types = group.update_type
    positions = np.arange(group.size)[:, None]
    references = group.references
    distances = np.where(references >= 0, positions - references, 0) / MAX_GROUP
    return [
        *(types == kind for kind in (*_CODED_TYPES, UpdateType.SHOWN_AGAIN)),
        group.layer_depth / 8,
        group.show_index / o.num_frames,
        np.log(np.maximum(group.bit_allocation, 1) / o.pixels) / 10,
        np.log1p(np.maximum(group.gfu_boost, 0)) / 10,
        *distances.T,
        costs[:, 2],
        np.log(costs[:, 0] / costs[:, 1]) / 10,
        modelled[:, 2],
        np.log(modelled[:, 0]) / 10,
        np.log(np.maximum(modelled[:, 1], 1) / o.pixels) / 10,
        o.ahead,
    ]


# Its golden-frame group: a row per frame in coding order, frames shown again included.
GROUP: Table[EncodeView] = Table(
    (
        *_types(*_CODED_TYPES, UpdateType.SHOWN_AGAIN),
        Column("layer_depth", 0, 1, "depth / 8"),
        Column("show_position", 0, 1, "show index / frames of the clip"),
        Column("bit_allocation", -2, 1, "libvpx's own, ln(bits / pixel) / 10"),
        Column("gfu_boost", 0, 1.2, "libvpx's boost, ln(1 + x) / 10"),
        *(
            Column(f"{name}_distance", 0, 1, "positions back / 32; 0 = before the group")
            for name in _REFERENCES
        ),
        Column("has_tpl", 0, 1, "1 or 0; never at position 0"),
        Column("tpl_ratio", -1, 0, "ln(intra / mc_dep cost) / 10; 0 without TPL"),
        Column("has_dependency", 0, 1, "in our dependency model: 1 or 0"),
        Column("importance", 0, MAX_IMPORTANCE, "ln(importance) / 10; 0 without a model"),
        Column("model_bits", -2, 1, "the model's, ln(bits / pixel) / 10; 0 without"),
        Column("ahead", -8, 1, "positions after the pending frame / 32"),
    ),
    _group_values,
)


def _budget_values(o: EncodeView) -> tuple[float, ...]:
    bits, target, frames, shown = o.bits, o.target_bits, o.num_frames, o.num_shown
    return (
        math.log(o.pixels) / 20,
        o.fps / 60,
        frames / o.max_frames,
        _log_bits(target / frames, o.pixels),
        bits / target,
        shown / frames,
        bits * frames / (target * shown) - 1 if shown else 0.0,
        o.psnr_sum / shown / 50 if shown else 0.0,
    )


# The clip, the target and what is left of it.
BUDGET: Table[EncodeView] = Table(
    (
        Column("log_pixels", 0, 1, "ln(pixels of a frame) / 20"),
        Column("fps", 0, 5, "frames per second / 60"),
        Column("num_frames", 0, 1, "frames of the clip / max_frames"),
        Column("target", -2, 1, "target, ln(bits / pixel) / 10"),
        Column("spent", 0, 16, "bits spent / target bits of the clip"),
        Column("shown", 0, 1, "frames shown / frames of the clip"),
        Column("overshoot", -1, 15, "bits spent / target bits of frames shown - 1; at first 0"),
        Column("psnr", 0, 2, "mean luma PSNR of frames shown / 50 dB; at first 0"),
    ),
    _budget_values,
)

#: The tables by the observation's keys.
TABLES: dict[str, Table[Any]] = {
    "first_pass": FIRST_PASS,
    "history": HISTORY,
    "frame": FRAME,
    "group": GROUP,
    "budget": BUDGET,
}
