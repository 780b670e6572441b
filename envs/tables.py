"""The observation of the direct environments, table by table.

A table's columns have names, bounds and meanings, and say how their values come from the facts
of an encode. The scales let one network serve all sizes of picture: errors per macroblock, bits per
pixel, logarithms.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import UPDATE_TYPES, UpdateType
from vpxrc.envs.columns import Column, Table
from vpxrc.envs.view import MAX_GROUP, MAX_IMPORTANCE, CodedFrame, EncodeView, record_psnr


def _log_bits(bits: float, pixels: int) -> float:
    return math.log(max(bits, 1.0) / pixels) / 10


_CODED_TYPES = (
    UpdateType.KEY,
    UpdateType.LEAF,
    UpdateType.GOLDEN,
    UpdateType.ARF,
    UpdateType.OVERLAY,
)


def _types(source: str, *kinds: UpdateType) -> list[Column[Any]]:
    """Return columns that are 1 for one update type each, of the source's attribute ``source``."""

    def column(kind: UpdateType) -> Column[Any]:
        name = "is_" + UPDATE_TYPES[kind].replace("-", "_")
        return Column(name, 0, 1, "1 or 0", lambda o: getattr(o, source).update_type == kind)

    return [column(kind) for kind in kinds]


def _log(field: str) -> Column[EncodeView]:
    return Column(
        field,
        0,
        1.2,
        "ln(1 + x) / 10, x per macroblock",
        lambda o: np.log1p(o.first_pass[field]) / 10,
    )


def _share(field: str) -> Column[EncodeView]:
    return Column(field, 0, 1, "share of the macroblocks", lambda o: o.first_pass[field])


def _motion(field: str) -> Column[EncodeView]:
    return Column(
        field,
        -1,
        1,
        "sign(x) ln(1 + abs(x)) / 10, x in 1/8 pixel",
        lambda o: np.sign(o.first_pass[field]) * np.log1p(np.abs(o.first_pass[field])) / 10,
    )


def _variance(field: str) -> Column[EncodeView]:
    return Column(
        field,
        0,
        1,
        "ln(1 + x) / 20, x in (1/8 pixel)^2",
        lambda o: np.log1p(o.first_pass[field]) / 20,
    )


def _reference(index: int, name: str) -> list[Column[EncodeView]]:
    def record(o: EncodeView) -> Any:
        reference = o.frame.reference_coding_index[index]
        return o.records[reference] if reference >= 0 else None

    def age(o: EncodeView) -> float:
        reference = o.frame.reference_coding_index[index]
        return (o.frame.coding_index - reference) / MAX_GROUP if reference >= 0 else 0.0

    return [
        Column(f"{name}_age", 0, 8, "coded frames since it / 32; 0 = none", age),
        Column(
            f"{name}_q_index",
            0,
            1,
            "its q index / 255; 0 = none",
            lambda o: r.q_index / 255 if (r := record(o)) else 0.0,
        ),
    ]


def _group_reference(index: int, name: str) -> Column[EncodeView]:
    def distance(o: EncodeView) -> NDArray[Any]:
        reference = o.group.references[:, index]
        return np.where(reference >= 0, np.arange(o.group.size) - reference, 0) / MAX_GROUP

    return Column(f"{name}_distance", 0, 1, "positions back / 32; 0 = before the group", distance)


# libvpx's 26 statistics of the first pass, which it gives per macroblock already. A row per source
# frame.
FIRST_PASS: Table[EncodeView] = Table(
    (
        Column(
            "frame",
            0,
            1,
            "show index / frames of the clip",
            lambda o: o.first_pass["frame"] / o.num_frames,
        ),
        Column("weight", 0, 4, "libvpx's weight of the frame", lambda o: o.first_pass["weight"]),
        _log("intra_error"),
        _log("coded_error"),
        _log("sr_coded_error"),
        _log("frame_noise_energy"),
        _share("pcnt_inter"),
        _share("pcnt_motion"),
        _share("pcnt_second_ref"),
        _share("pcnt_neutral"),
        _share("pcnt_intra_low"),
        _share("pcnt_intra_high"),
        _share("intra_skip_pct"),
        _share("intra_smooth_pct"),
        Column(
            "inactive_zone_rows",
            0,
            1,
            "rows / macroblock rows",
            lambda o: o.first_pass["inactive_zone_rows"] * 16 / o.video.height,
        ),
        Column(
            "inactive_zone_cols",
            0,
            1,
            "columns / macroblock columns",
            lambda o: o.first_pass["inactive_zone_cols"] * 16 / o.video.width,
        ),
        _motion("mv_row"),
        _motion("mv_row_abs"),
        _motion("mv_col"),
        _motion("mv_col_abs"),
        _variance("mv_row_variance"),
        _variance("mv_col_variance"),
        Column(
            "mv_in_out_count",
            -1,
            1,
            "vectors inwards less outwards, share",
            lambda o: o.first_pass["mv_in_out_count"],
        ),
        Column(
            "duration",
            0,
            2,
            "frames",
            lambda o: o.first_pass["duration"] * float(o.video.fps) / 1e7,
        ),
        Column("count", 0, 2, "frames", lambda o: o.first_pass["count"]),
        _share("new_mv_count"),
    )
)

# A row per coded frame, in coding order.
HISTORY: Table[CodedFrame] = Table(
    (
        *_types("record", *_CODED_TYPES),
        Column("is_shown", 0, 1, "1 or 0", lambda o: o.record.is_shown),
        Column(
            "layer_depth",
            0,
            1,
            "depth / 8; 0 = key, golden; 1/8 = base ARF",
            lambda o: o.record.layer_depth / 8,
        ),
        Column(
            "show_position",
            0,
            1,
            "show index / frames of the clip",
            lambda o: o.record.show_index / o.num_frames,
        ),
        Column("q_index", 0, 1, "q index / 255", lambda o: o.record.q_index / 255),
        Column(
            "libvpx_q_index",
            0,
            1,
            "libvpx's own choice / 255",
            lambda o: o.record.libvpx_q_index / 255,
        ),
        Column(
            "lambda_scale",
            -1,
            1,
            "log2(factor on lambda) / 6",
            lambda o: math.log2(o.record.lambda_scale) / 6,
        ),
        Column(
            "bits", -2, 1, "ln(bits / pixel) / 10", lambda o: _log_bits(o.record.bits, o.pixels)
        ),
        Column(
            "target_bits",
            -2,
            1,
            "libvpx's target, ln(bits / pixel) / 10",
            lambda o: _log_bits(o.record.target_bits, o.pixels),
        ),
        Column(
            "psnr",
            0,
            2,
            "luma PSNR / 50 dB",
            lambda o: record_psnr(o.record, o.pixels, o.bit_depth) / 50,
        ),
    )
)

# The frame that waits for its decision.
FRAME: Table[EncodeView] = Table(
    (
        *_types("frame", *_CODED_TYPES),
        Column("is_shown", 0, 1, "1 or 0", lambda o: o.frame.is_shown),
        Column("layer_depth", 0, 1, "depth / 8", lambda o: o.frame.layer_depth / 8),
        Column(
            "show_position",
            0,
            1,
            "show index / frames of the clip",
            lambda o: o.frame.show_index / o.num_frames,
        ),
        Column(
            "coding_position",
            0,
            2,
            "coding index / frames of the clip",
            lambda o: o.frame.coding_index / o.num_frames,
        ),
        Column(
            "group_position",
            0,
            8,
            "position in its group / 32",
            lambda o: o.frame.group_position / MAX_GROUP,
        ),
        Column(
            "frames_to_key",
            0,
            1,
            "frames to the next key frame / frames of clip",
            lambda o: o.frame.frames_to_key / o.num_frames,
        ),
        Column(
            "libvpx_q_index",
            0,
            1,
            "libvpx's own choice / 255",
            lambda o: o.frame.libvpx_q_index / 255,
        ),
        Column("libvpx_q_low", 0, 1, "its lower bound / 255", lambda o: o.frame.libvpx_q_low / 255),
        Column(
            "libvpx_q_high", 0, 1, "its upper bound / 255", lambda o: o.frame.libvpx_q_high / 255
        ),
        Column(
            "target_bits",
            -2,
            1,
            "libvpx's target, ln(bits / pixel) / 10",
            lambda o: _log_bits(o.frame.target_bits, o.pixels),
        ),
        Column(
            "gfu_boost",
            0,
            1.2,
            "libvpx's boost, ln(1 + x) / 10",
            lambda o: math.log1p(max(o.frame.gfu_boost, 0)) / 10,
        ),
        Column("has_tpl", 0, 1, "1 or 0", lambda o: o.frame.has_tpl),
        Column(
            "r0",
            0,
            1,
            "intra over mc_dep cost; 0 without TPL",
            lambda o: r0 if math.isfinite(r0 := o.frame.r0) else 0.0,
        ),
        Column(
            "takes_superblock_scale",
            0,
            1,
            "TPL lambda per superblock: 1 or 0",
            lambda o: o.frame.takes_superblock_scale,
        ),
        *_reference(0, "last"),
        *_reference(1, "golden"),
        *_reference(2, "altref"),
    )
)

# Its golden-frame group: a row per frame in coding order, frames shown again included.
GROUP: Table[EncodeView] = Table(
    (
        *_types("group", *_CODED_TYPES, UpdateType.SHOWN_AGAIN),
        Column("layer_depth", 0, 1, "depth / 8", lambda o: o.group.layer_depth / 8),
        Column(
            "show_position",
            0,
            1,
            "show index / frames of the clip",
            lambda o: o.group.show_index / o.num_frames,
        ),
        Column(
            "bit_allocation",
            -2,
            1,
            "libvpx's own, ln(bits / pixel) / 10",
            lambda o: np.log(np.maximum(o.group.bit_allocation, 1) / o.pixels) / 10,
        ),
        Column(
            "gfu_boost",
            0,
            1.2,
            "libvpx's boost, ln(1 + x) / 10",
            lambda o: np.log1p(np.maximum(o.group.gfu_boost, 0)) / 10,
        ),
        _group_reference(0, "last"),
        _group_reference(1, "golden"),
        _group_reference(2, "altref"),
        Column(
            "has_tpl",
            0,
            1,
            "1 or 0; never at position 0",
            lambda o: o.tpl_costs[:, 2],
        ),
        Column(
            "tpl_ratio",
            -1,
            0,
            "ln(intra / mc_dep cost) / 10; 0 without TPL",
            lambda o: np.log(o.tpl_costs[:, 0] / o.tpl_costs[:, 1]) / 10,
        ),
        Column(
            "has_dependency",
            0,
            1,
            "in our dependency model: 1 or 0",
            lambda o: o.modelled[:, 2],
        ),
        Column(
            "importance",
            0,
            MAX_IMPORTANCE,
            "ln(importance) / 10; 0 without a model",
            lambda o: np.log(o.modelled[:, 0]) / 10,
        ),
        Column(
            "model_bits",
            -2,
            1,
            "the model's, ln(bits / pixel) / 10; 0 without",
            lambda o: np.log(np.maximum(o.modelled[:, 1], 1) / o.pixels) / 10,
        ),
        Column("ahead", -8, 1, "positions after the pending frame / 32", lambda o: o.ahead),
    )
)

# The clip, the target and what is left of it.
BUDGET: Table[EncodeView] = Table(
    (
        Column(
            "log_pixels",
            0,
            1,
            "ln(pixels of a frame) / 20",
            lambda o: math.log(o.pixels) / 20,
            is_lasting=True,
        ),
        Column(
            "fps",
            0,
            5,
            "frames per second / 60",
            lambda o: float(o.video.fps) / 60,
            is_lasting=True,
        ),
        Column(
            "num_frames",
            0,
            1,
            "frames of the clip / max_frames",
            lambda o: o.num_frames / o.max_frames,
            is_lasting=True,
        ),
        Column(
            "target",
            -2,
            1,
            "target, ln(bits / pixel) / 10",
            lambda o: _log_bits(o.target_bits / o.num_frames, o.pixels),
            is_lasting=True,
        ),
        Column(
            "spent", 0, 16, "bits spent / target bits of the clip", lambda o: o.bits / o.target_bits
        ),
        Column(
            "shown", 0, 1, "frames shown / frames of the clip", lambda o: o.num_shown / o.num_frames
        ),
        Column(
            "overshoot",
            -1,
            15,
            "bits spent / target bits of frames shown - 1; at first 0",
            lambda o: (
                o.bits * o.num_frames / (o.target_bits * o.num_shown) - 1 if o.num_shown else 0.0
            ),
        ),
        Column(
            "psnr",
            0,
            2,
            "mean luma PSNR of frames shown / 50 dB; at first 0",
            lambda o: o.psnr_sum / o.num_shown / 50 if o.num_shown else 0.0,
        ),
    )
)

#: The tables by the observation's keys.
TABLES: dict[str, Table[Any]] = {
    "first_pass": FIRST_PASS,
    "history": HISTORY,
    "frame": FRAME,
    "group": GROUP,
    "budget": BUDGET,
}
