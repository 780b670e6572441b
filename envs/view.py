"""The facts of one encode while it runs, computed once for all that observe it."""

import math
from collections import namedtuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.dependency import BLOCK, analyse, modelled
from vpxrc.encoder.log import MAX_PSNR
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import FIRST_PASS_FIELDS, RECORD_DTYPE, TPL_FIELDS, Frame, Group
from vpxrc.media.frames import ClipFormat
from vpxrc.policies.base import Episode

# libvpx's groups with an ARF are shorter, at most 24 at any number of layers; only still scenes
# have longer ones, and all their frames are alike.
MAX_GROUP = 32
TPL_COSTS = (TPL_FIELDS.index("intra_cost"), TPL_FIELDS.index("mc_dep_cost"))
# Rows and columns of the map of importance, whatever the size of the picture.
IMPORTANCE_GRID = (9, 16)
MAX_IMPORTANCE = 2.0  # ln(x) / 10, both for frames and in the map

# A row of the log as numbers of Python, which are much faster to read than numpy's. mypy wants the
# names spelled out, and those are the encoder's.
_Row = namedtuple("_Row", RECORD_DTYPE.names or ())  # type: ignore[misc]


class EncodeView:
    """Follows one encode; each update takes in only the news.

    Args:
        episode: The encode, as policies see it. It has to be at rest at every ``update``.
        max_frames: The most frames of a clip; None for the clip's own number.
        dependency: Whether to run the temporal dependency model, once per group. Without it
            ``modelled`` and ``importance`` are those of a group that has no model.

    Attributes:
        episode: The encode.
        video: The clip.
        pixels: Luma samples of a frame.
        bit_depth: Bits per sample.
        num_frames: Frames of the clip.
        fps: Frames per second.
        max_frames: The most frames of a clip.
        target_bits: The bits that the stream may take.
        bits: Bits spent so far.
        rows: The log so far, dtype ``RECORD_DTYPE``'s fields as attributes.
        psnr: Luma PSNR in dB of each row.
        num_shown: Frames shown so far.
        psnr_sum: Sum of their luma PSNRs in dB.
        sse_sum: Sum of their squared errors over all planes.
        first_pass: First-pass statistics by name, float64 ``[num_frames]`` each.
        records: The log's rows of the coded frames so far, by coding index.
        coded: The row of the frame coded last; None before the first one.
        frame: The frame that waits for its decision, or waited last.
        group: Its group.
        tpl: TPL statistics of the group, after ``take_tpl`` has found them.
        tpl_costs: Intra cost, mc_dep cost and 1 per frame of the group; 1, 1 and 0 for a frame
            without statistics. float64 ``[group.size, 3]``.
        modelled: Importance, bits and 1 per frame of the group, by the dependency model; 1, 1 bit
            per pixel and 0 for a frame that is not in it. float64 ``[group.size, 3]``.
        maps: Maps of the importance of the group's frames, float32
            ``[group.size, *IMPORTANCE_GRID]``; 0 without a model.
    """

    first_pass: dict[str, NDArray[np.float64]]
    frame: Frame
    group: Group
    tpl: NDArray[np.float64] | None
    tpl_costs: NDArray[np.float64]
    modelled: NDArray[np.float64]
    maps: NDArray[np.float32]

    def __init__(
        self, episode: Episode, *, max_frames: int | None = None, dependency: bool = True
    ) -> None:
        self.episode = episode
        self.video = video = episode.video
        self.pixels = video.width * video.height
        self.bit_depth = video.bit_depth
        self.num_frames = video.num_frames
        self.fps = float(video.fps)
        self.max_frames = video.num_frames if max_frames is None else max_frames
        self.target_bits = episode.target_bits
        self.bits = 0
        self.rows: list[Any] = []
        self.psnr: list[float] = []
        self.num_shown = 0
        self.psnr_sum = 0.0
        self.sse_sum = 0.0
        self.records: dict[int, Any] = {}
        self.coded: Any = None
        self.first_pass = dict(zip(FIRST_PASS_FIELDS, episode.first_pass.T, strict=True))
        self._group_index = -1
        size = (video.height, video.width)
        self._dependency = dependency and min(size) >= BLOCK  # the model takes nothing smaller
        self._cell_starts = tuple(
            cell_starts(-(-samples // BLOCK), cells)
            for samples, cells in zip(size, IMPORTANCE_GRID, strict=True)
        )

    def update(self, frame: Frame | None) -> None:
        """Take in everything that has happened since the last call.

        Args:
            frame: The frame that waits for its decision; None at the end.
        """
        self._take_records()
        if frame is not None:
            self.frame = frame
            if frame.group_index != self._group_index:
                self._group_index = frame.group_index
                self._enter_group()

    @property
    def clip(self) -> ClipFormat:
        """The clip without its frames."""
        return self.video.format

    @property
    def options(self) -> EncoderOptions:
        """The encode's options."""
        return self.episode.options

    def logged(self) -> NDArray[np.void]:
        """Return the rows of the log up to the last update, dtype ``RECORD_DTYPE``."""
        return self.episode.records()[: len(self.rows)]

    @property
    def ahead(self) -> NDArray[np.float32]:
        """Positions of the group's frames after ``frame``, / 32, float32 ``[group.size]``."""
        positions = np.arange(self.group.size, dtype=np.float32)
        return np.asarray((positions - self.frame.group_position) / MAX_GROUP)

    @property
    def importance(self) -> NDArray[np.float32]:
        """Map of the importance of ``frame``, float32 ``IMPORTANCE_GRID``."""
        found: NDArray[np.float32] = self.maps[self.frame.group_position]
        return found

    def _take_records(self) -> None:
        """Take in the new rows of the log: coded frames, and frames shown again after them."""
        for values in self.episode.records(len(self.rows)).tolist():
            record: Any = _Row(*values)
            level = mse_psnr(record.sse_y / self.pixels, self.bit_depth)
            self.rows.append(record)
            self.psnr.append(level)
            self.bits += record.bits
            if record.is_shown:
                self.num_shown += 1
                self.psnr_sum += level
                self.sse_sum += record.sse_y + record.sse_u + record.sse_v
            if not record.is_shown_again:
                self.coded = self.records[record.coding_index] = record

    def _enter_group(self) -> None:
        self.group = self.episode.group
        self.tpl = None
        self.tpl_costs = np.ones((self.group.size, 3))
        self.tpl_costs[:, 2] = 0
        self.modelled = np.array([[1.0, self.pixels, 0.0]]).repeat(self.group.size, axis=0)
        self.maps = np.zeros((self.group.size, *IMPORTANCE_GRID), np.float32)
        if self._dependency:
            self._take_dependency()

    def take_tpl(self) -> bool:
        """Take in libvpx's TPL statistics of the group, once there are any.

        Returns:
            Whether ``tpl`` and ``tpl_costs`` are new.
        """
        if not self.frame.has_tpl or self.tpl is not None:
            return False
        self.tpl = self.episode.tpl
        assert self.tpl is not None  # the frame says that there are some
        intra, mc_dep = (self.tpl[..., field].sum(axis=(1, 2)) for field in TPL_COSTS)
        known = (intra > 0) & (mc_dep > 0)  # not NaN either
        self.tpl_costs[known] = np.column_stack((intra, mc_dep, known))[known]
        return True

    def _take_dependency(self) -> None:
        """Run the dependency model over the group, before anything more of it is coded.

        All frames are at one provisional q, the ``libvpx_q_high`` of the pending frame. Of all that
        is known by now, it comes nearest to the level of the frames that nothing depends on. It is
        their level in Q mode and where the group starts with an overlay; where a key frame or an
        ARF is pending, libvpx's VBR has lowered it for that frame.
        """
        group = self.group
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
        maps = importance_map(model.own, model.importance, self._cell_starts)
        self.maps[coded] = np.clip(maps, 0.0, MAX_IMPORTANCE)


def mse_psnr(mse: float, bit_depth: int) -> float:
    """Return the PSNR in dB of a mean squared error, at most 100.

    As :func:`vpxrc.encoder.log.psnr`, which takes ten times as long for a single number.
    """
    peak = (1 << bit_depth) - 1
    return min(10 * math.log10(peak**2 / mse), MAX_PSNR) if mse > 0 else MAX_PSNR


def importance_map(
    own: NDArray[Any], importance: NDArray[np.float64], starts: tuple[NDArray[np.intp], ...]
) -> NDArray[np.float64]:
    """Return ln(importance) / 10 on ``IMPORTANCE_GRID``, each cell's blocks weighed by their cost.

    Args:
        own: The distortion that importance is relative to, ``[N, rows, cols]`` per block of 16x16.
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
