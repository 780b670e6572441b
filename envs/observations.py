"""The observation: one table of what is seen, from which the space and the arrays are made.

``TABLES`` holds, per key of the observation, its columns: name, bounds, meaning, and how the value
comes about. ``first_pass``, ``history`` and ``group`` are matrices with a row per frame and a mask
beside them (``history_mask``: 1 = a row that counts, 0 = padding, whose values are 0); the others
are vectors. Besides these, ``importance`` is a map of the pending frame. Scales are such that one
network serves all sizes of picture: errors per macroblock, bits per pixel, logarithms. All values
are float32, finite and within their bounds; a value beyond is clipped.
"""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vpxrc.dependency import BLOCK, analyse, modelled
from vpxrc.encoder.log import MAX_PSNR
from vpxrc.encoder.session import Session
from vpxrc.encoder.types import (
    FIRST_PASS_FIELDS,
    RECORD_DTYPE,
    TPL_FIELDS,
    UPDATE_TYPES,
    Frame,
    Group,
    UpdateType,
)
from vpxrc.errors import InputError
from vpxrc.media.frames import Video

Arrays = dict[str, NDArray[Any]]

DEFAULT_MAX_FRAMES = 150
# libvpx's groups with an ARF are shorter, at most 24 at any number of layers; only still scenes
# have longer ones, and all their frames are alike.
MAX_GROUP = 32
TPL_COSTS = (TPL_FIELDS.index("intra_cost"), TPL_FIELDS.index("mc_dep_cost"))
# Rows and columns of the map of importance, whatever the size of the picture.
IMPORTANCE_GRID = (9, 16)
MAX_IMPORTANCE = 2.0  # ln(x) / 10, of frames and of the map


class Column(NamedTuple):
    """One number of the observation.

    Attributes:
        name: Unique within its key.
        low: Lower bound.
        high: Upper bound.
        meaning: What it is, with its unit.
        value: How it is made of the :class:`Observer` that writes it.
    """

    name: str
    low: float
    high: float
    meaning: str
    value: Callable[["Observer"], Any]


def _log_bits(bits: float, pixels: int) -> float:
    return math.log(max(bits, 1.0) / pixels) / 10


def _psnr(record: Any, pixels: int) -> float:
    # As vpxrc.evaluation.quality.psnr, which takes ten times as long for a single number.
    mse = record.sse_y / pixels
    return min(10 * math.log10(255**2 / mse), MAX_PSNR) if mse > 0 else MAX_PSNR


_CODED_TYPES = (
    UpdateType.KEY,
    UpdateType.LEAF,
    UpdateType.GOLDEN,
    UpdateType.ARF,
    UpdateType.OVERLAY,
)


def _types(source: str, *kinds: UpdateType) -> list[Column]:
    """Columns that say 1 for the update type of ``source`` (an attribute of the observer)."""

    def column(kind: UpdateType) -> Column:
        name = "is_" + UPDATE_TYPES[kind].replace("-", "_")
        return Column(name, 0, 1, "1 or 0", lambda o: getattr(o, source).update_type == kind)

    return [column(kind) for kind in kinds]


def _log(field: str) -> Column:
    return Column(
        field,
        0,
        1.2,
        "ln(1 + x) / 10, x per macroblock",
        lambda o: np.log1p(o.first_pass[field]) / 10,
    )


def _share(field: str) -> Column:
    return Column(field, 0, 1, "share of the macroblocks", lambda o: o.first_pass[field])


def _motion(field: str) -> Column:
    return Column(
        field,
        -1,
        1,
        "sign(x) ln(1 + abs(x)) / 10, x in 1/8 pixel",
        lambda o: np.sign(o.first_pass[field]) * np.log1p(np.abs(o.first_pass[field])) / 10,
    )


def _variance(field: str) -> Column:
    return Column(
        field,
        0,
        1,
        "ln(1 + x) / 20, x in (1/8 pixel)^2",
        lambda o: np.log1p(o.first_pass[field]) / 20,
    )


def _reference(index: int, name: str) -> list[Column]:
    def record(o: "Observer") -> Any:
        reference = o.frame.reference_coding_index[index]
        return o.records[reference] if reference >= 0 else None

    def age(o: "Observer") -> float:
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


def _group_reference(index: int, name: str) -> Column:
    def distance(o: "Observer") -> NDArray[Any]:
        reference = o.group.references[:, index]
        return np.where(reference >= 0, np.arange(o.group.size) - reference, 0) / MAX_GROUP

    return Column(f"{name}_distance", 0, 1, "positions back / 32; 0 = before the group", distance)


TABLES: dict[str, tuple[Column, ...]] = {
    # libvpx's 26 statistics of the first pass, which it gives per macroblock already. A row per
    # source frame.
    "first_pass": (
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
    ),
    # A row per coded frame, in coding order.
    "history": (
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
        Column("psnr", 0, 2, "luma PSNR / 50 dB", lambda o: _psnr(o.record, o.pixels) / 50),
    ),
    # The frame that waits for its decision.
    "frame": (
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
    ),
    # Its golden-frame group, a row per frame in coding order, frames shown again included.
    "group": (
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
    ),
    # The clip, the target and what is left of it.
    "budget": (
        Column("log_pixels", 0, 1, "ln(pixels of a frame) / 20", lambda o: math.log(o.pixels) / 20),
        Column("fps", 0, 5, "frames per second / 60", lambda o: float(o.video.fps) / 60),
        Column(
            "num_frames",
            0,
            1,
            "frames of the clip / max_frames",
            lambda o: o.num_frames / o.max_frames,
        ),
        Column(
            "target",
            -2,
            1,
            "target, ln(bits / pixel) / 10",
            lambda o: _log_bits(o.target_bits / o.num_frames, o.pixels),
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
    ),
}

_FIELDS = RECORD_DTYPE.names or ()

_VALUES = {key: [column.value for column in columns] for key, columns in TABLES.items()}
_LOW = {key: np.array([c.low for c in columns], np.float32) for key, columns in TABLES.items()}
_HIGH = {key: np.array([c.high for c in columns], np.float32) for key, columns in TABLES.items()}
_GROUP_INDEX = {column.name: index for index, column in enumerate(TABLES["group"])}


def num_rows(max_frames: int) -> dict[str, int]:
    """Return how many rows each matrix has.

    An ARF is coded besides the frames that are shown, at most one in four frames of the clip.
    """
    return {
        "first_pass": max_frames,
        "history": max_frames * 5 // 4 + 1,
        "group": MAX_GROUP,
    }


def observation_space(max_frames: int = DEFAULT_MAX_FRAMES) -> spaces.Dict:
    """Return the space of the observations.

    Args:
        max_frames: The most frames of a clip, at least 2.
    """
    if max_frames < 2:
        raise InputError(f"max_frames must be at least 2, not {max_frames}")
    rows = num_rows(max_frames)
    space: dict[str, spaces.Space[Any]] = {}
    for key, low in _LOW.items():
        shape = (rows[key], len(low)) if key in rows else low.shape
        space[key] = spaces.Box(
            np.broadcast_to(low, shape), np.broadcast_to(_HIGH[key], shape), dtype=np.float32
        )
        if key in rows:
            space[f"{key}_mask"] = spaces.MultiBinary(rows[key])
    space["importance"] = spaces.Box(0.0, MAX_IMPORTANCE, IMPORTANCE_GRID, dtype=np.float32)
    return spaces.Dict(space)


def empty_arrays(space: spaces.Space[Any]) -> Arrays:
    """Return zeros of the shapes of an observation, or of a batch of them."""
    assert isinstance(space, spaces.Dict)
    return {key: np.zeros(part.shape or (), np.dtype(part.dtype)) for key, part in space.items()}


def importance_map(
    own: NDArray[Any], importance: NDArray[np.float64], starts: tuple[NDArray[np.intp], ...]
) -> NDArray[np.float64]:
    """Return ln(importance) / 10 on ``IMPORTANCE_GRID``, each cell's blocks weighed by their cost.

    Args:
        own: What importance is relative to, ``[N, rows, cols]`` per block of 16x16.
        importance: See ``Dependency``, ``[N, rows, cols]``.
        starts: First row of blocks of each row of cells, and first column of each column; see
            ``cell_starts``.

    Returns:
        float64 ``[N, 9, 16]``.
    """
    rows, cols = starts

    def cells(blocks: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.add.reduceat(blocks, rows, axis=1, dtype=np.float64)
        return np.asarray(np.add.reduceat(sums, cols, axis=2))

    return np.asarray(np.log(cells(own * importance) / cells(own)) / 10)


def cell_starts(blocks: int, cells: int) -> NDArray[np.intp]:
    """Return the first block of each cell along an axis, for ``np.add.reduceat``.

    That takes the block at the start alone where the next start is not beyond it: so a cell smaller
    than a block takes the one that its centre lies in.
    """
    cell = np.arange(cells)
    if blocks < cells:
        return (2 * cell + 1) * blocks // (2 * cells)
    return cell * blocks // cells


class Observer:
    """Follows one encode and writes what is seen of it; per step only what is new.

    Args:
        session: The encode. It may still run; it has to be at rest whenever ``update`` is called.
        arrays: Where to write, of the shapes of ``observation_space``; what is there is cleared.
        dependency: Whether to run the temporal dependency model, once per group. Without it what
            comes of it stays 0.

    Attributes:
        session: The encode.
        video: The clip.
        pixels: Luma samples of a frame.
        num_frames: Frames of the clip.
        max_frames: The most frames of a clip.
        target_bits: Bits that the stream may take.
        bits: Bits spent so far.
        num_shown: Frames shown so far.
        psnr_sum: Sum of their luma PSNRs in dB.
        first_pass: The clip's first-pass statistics by name, float64 ``[num_frames]`` each.
        record: The row of the log that is being written.
        records: The coded frames so far, by coding index.
        frame: The frame that waits for its decision.
        group: Its group.
        ahead: Positions of the group's frames after ``frame``, / 32.
        tpl: TPL statistics of the group where there are any yet; see ``EncodeSession.tpl``.
        tpl_costs: Per frame of the group: intra cost, mc_dep cost, 1 or 0 = none (costs are 1).
        modelled: Per frame of the group, of the dependency model: importance, bits, 1 or 0 = none
            (importance is 1, and 1 bit per pixel).
    """

    session: Session
    video: Video
    pixels: int
    num_frames: int
    max_frames: int
    target_bits: float
    bits: int
    num_shown: int
    psnr_sum: float
    first_pass: dict[str, NDArray[np.float64]]
    record: SimpleNamespace
    records: dict[int, SimpleNamespace]
    frame: Frame
    group: Group
    ahead: NDArray[Any]
    tpl: NDArray[np.float64] | None
    tpl_costs: NDArray[np.float64]
    modelled: NDArray[np.float64]

    def __init__(self, session: Session, arrays: Arrays, dependency: bool = True) -> None:
        self.session = session
        self.video = video = session.video
        self.pixels = video.width * video.height
        self.num_frames = video.num_frames
        self.max_frames = len(arrays["first_pass"])
        self.target_bits = 1000.0 * session.options.target_bitrate * video.duration
        self.bits = 0
        self.num_shown = 0
        self.psnr_sum = 0.0
        self.records = {}
        self._num_records = 0
        self._group_index = -1
        size = (video.height, video.width)
        self._dependency = dependency and min(size) >= BLOCK  # the model takes nothing smaller
        self._maps: NDArray[np.float64] | None = None
        self._cell_starts = tuple(
            cell_starts(-(-samples // BLOCK), cells)
            for samples, cells in zip(size, IMPORTANCE_GRID, strict=True)
        )
        self._arrays = arrays
        for array in arrays.values():
            array[...] = 0

    def update(self) -> SimpleNamespace | None:
        """Write what is new since the last call.

        Returns:
            The row of the frame coded last; None before the first one.
        """
        if not self._num_records:
            self._write_first_pass()
        coded = self._write_history()
        self._write_row("budget", self._arrays["budget"])
        frame = self.session.frame
        if frame is None:
            for key in ("frame", "group", "group_mask", "importance"):
                self._arrays[key][...] = 0
        else:
            self.frame = frame
            self._write_row("frame", self._arrays["frame"])
            self._write_group()
        return coded

    def _write_row(self, key: str, out: NDArray[np.float32]) -> None:
        row = np.array([value(self) for value in _VALUES[key]], np.float32)
        np.maximum(row, _LOW[key], out=row)
        np.minimum(row, _HIGH[key], out=out)

    def _write_rows(self, key: str) -> None:
        columns = np.array([value(self) for value in _VALUES[key]], np.float32)
        out = self._arrays[key]
        count = min(columns.shape[1], len(out))
        np.clip(columns.T[:count], _LOW[key], _HIGH[key], out=out[:count])
        out[count:] = 0
        mask = self._arrays[f"{key}_mask"]
        mask[:count] = 1
        mask[count:] = 0

    def _write_first_pass(self) -> None:
        self.first_pass = dict(zip(FIRST_PASS_FIELDS, self.session.first_pass.T, strict=True))
        self._write_rows("first_pass")

    def _write_history(self) -> SimpleNamespace | None:
        """Take in the new rows of the log: a coded frame and what is shown again after it."""
        coded = None
        for values in self.session.records(self._num_records).tolist():
            self._num_records += 1
            # Much faster to read than numpy's records.
            record = SimpleNamespace(**dict(zip(_FIELDS, values, strict=True)))
            self.record = record
            self.bits += record.bits
            if record.is_shown:
                self.num_shown += 1
                self.psnr_sum += _psnr(record, self.pixels)
            if not record.is_shown_again:
                coded = record
                row = len(self.records)
                self.records[record.coding_index] = record
                self._write_row("history", self._arrays["history"][row])
                self._arrays["history_mask"][row] = 1
        return coded

    def _write_group(self) -> None:
        frame = self.frame
        is_new = frame.group_index != self._group_index
        if is_new:
            self._group_index = frame.group_index
            self.group = self.session.group
            self._positions = np.arange(self.group.size, dtype=np.float32)
            self.tpl = None
            self.tpl_costs = np.ones((self.group.size, 3))
            self.tpl_costs[:, 2] = 0
            self.modelled = np.array([[1.0, self.pixels, 0.0]]).repeat(self.group.size, axis=0)
            if self._dependency:
                self._take_dependency()
        self.ahead = (self._positions - frame.group_position) / MAX_GROUP
        if is_new:
            self._write_rows("group")
        if frame.has_tpl and self.tpl is None:
            self._take_tpl()
            self._write_group_columns("has_tpl", "tpl_ratio")
        self._write_group_columns("ahead")
        if self._dependency:
            maps = self._maps
            self._arrays["importance"][...] = 0 if maps is None else maps[frame.group_position]

    def _write_group_columns(self, *names: str) -> None:
        out = self._arrays["group"]
        for name in names:
            index = _GROUP_INDEX[name]
            column = TABLES["group"][index]
            values = column.value(self)[: len(out)]
            np.clip(values, column.low, column.high, out=out[: len(values), index])

    def _take_tpl(self) -> None:
        self.tpl = self.session.tpl
        assert self.tpl is not None  # the frame says that there are some
        intra, mc_dep = (self.tpl[..., field].sum(axis=(1, 2)) for field in TPL_COSTS)
        known = (intra > 0) & (mc_dep > 0)  # not NaN either
        self.tpl_costs[known] = np.column_stack((intra, mc_dep, known))[known]

    def _take_dependency(self) -> None:
        """Run the dependency model over the group, before anything more of it is coded.

        All frames are at one provisional q, ``libvpx_q_high`` of the pending frame: of what is
        known by now it is the nearest to the level of the frames that nothing depends on. It is
        their level in Q mode and where the group starts with an overlay; where a key frame or an
        ARF is pending, libvpx's VBR has lowered it for that frame.
        """
        group = self.group
        self._maps = None
        coded, _, references = modelled(group, self.num_frames)
        if len(coded) < 2:
            return
        model = analyse(
            self.video,
            group.show_index[coded],
            references,
            np.full(len(coded), max(self.frame.libvpx_q_high, 1)),
        )
        self.modelled[coded] = np.column_stack(
            (model.frame_importance, model.rate.sum(axis=(1, 2)), np.ones(len(coded)))
        )
        self._maps = np.zeros((group.size, *IMPORTANCE_GRID))
        maps = importance_map(model.own, model.importance, self._cell_starts)
        self._maps[coded] = np.clip(maps, 0.0, MAX_IMPORTANCE)
