"""Records of AV1's intra residuals: what a decoder of AV1 did with each transform block.

``native/av1_residuals`` writes them, a file for each picture and q index. All numbers are
little-endian.

| bytes | content |
| --- | --- |
| 8 | ``VPXRAV1`` and the version, 1 |
| 4, 4 | width and height of the picture in luma samples |
| 4 | q index of the frame |
| 4 | 1 if another program reconstructed the blocks, else 0 |
| 4 | number of bytes of the AV1 stream |
| 4 | number of blocks |
| 4 | CRC-32 of all that follows the header |
| 4 | CRC-32 of all of the above |
| | the AV1 stream, one temporal unit |
| 32 for each block | a row of :data:`ROW` |
| 1 for each sample | the source, block by block, each by rows |
| 1 for each sample | the prediction |
| 1 for each sample | the reconstruction, before the in-loop filters, which are off |
| 2 for each sample | the decoded residual, signed |
"""

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError

MAGIC = b"VPXRAV1\x01"
SIDES = (4, 8, 16, 32, 64)  # of transform blocks
MAX_PICTURE_SIDE = 16384
MAX_BYTES = 1 << 31  # a longer file is no record of ours
# The q indices that libaom's levels of quality lead to, of which the program takes one.
Q_INDICES = (*range(0, 245, 4), 249, 255)

ROW = np.dtype(
    [
        ("bits", "<f8"),  # exact cost of the coefficients, with that of the transform's type
        ("type_bits", "<f4"),  # the cost of the transform's type alone
        ("x", "<u2"),  # of the top left sample in its plane
        ("y", "<u2"),
        ("eob", "<u2"),  # coefficients up to the last one that is not zero
        ("dc_step", "<u2"),  # eight times the quantiser step of an orthonormal transform
        ("ac_step", "<u2"),
        ("plane", "u1"),  # 0 for luma, 1 and 2 for chroma
        ("width", "u1"),
        ("height", "u1"),
        ("type", "u1"),  # libaom's TX_TYPE
        ("mode", "u1"),  # libaom's PREDICTION_MODE, or UV_PREDICTION_MODE
        ("angle", "i1"),  # steps of three degrees
        ("filter", "u1"),  # 1 + the mode of filter-intra, or 0
        ("zero", "u1", 3),
    ]
)
_HEADER = struct.Struct("<8s8I")

Samples = NDArray[np.uint8]


@dataclass(frozen=True)
class Records:
    """The transform blocks of a picture, in the order of decoding.

    Blocks at the right and bottom edge may reach over the picture. There the source repeats the
    picture's edge.

    Attributes:
        width: Width of the picture in luma samples.
        height: Height of the picture.
        q_index: Of the frame.
        closed_loop: Whether another program reconstructed the blocks.
        stream: The AV1 stream, one temporal unit.
        blocks: ``[n]`` of :data:`ROW`.
        sources: uint8 ``[samples]``, block by block.
        predictions: uint8 ``[samples]``.
        reconstructions: uint8 ``[samples]``.
        residuals: int16 ``[samples]``; the prediction and this one, clipped to 0..255, are the
            reconstruction.
    """

    width: int
    height: int
    q_index: int
    closed_loop: bool
    stream: bytes
    blocks: NDArray[Any]
    sources: Samples
    predictions: Samples
    reconstructions: Samples
    residuals: NDArray[np.int16]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where the samples of each block begin, ``[n]``."""
        ends = _areas(self.blocks).cumsum()
        return np.asarray(ends - _areas(self.blocks))

    @cached_property
    def luma_residuals(self) -> NDArray[np.int16]:
        """The decoded luma residual, ``[height, width]``.

        Raises:
            InputError: Two blocks have the same sample, or none has it.
        """
        return self.put_together(self.residuals, 0)

    @cached_property
    def luma_residual_sums(self) -> NDArray[np.int64]:
        """Sums of the absolute decoded luma residual over all rows above and columns to the left.

        ``[height + 1, width + 1]``, so the sum over a rectangle takes four of them.

        Raises:
            InputError: Two blocks have the same sample, or none has it.
        """
        whole = np.abs(self.luma_residuals.astype(np.int64))
        return np.pad(whole.cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def plane_shape(self, plane: int) -> tuple[int, int]:
        """Return height and width of a plane; chroma has half of both."""
        if plane == 0:
            return self.height, self.width
        return (self.height + 1) // 2, (self.width + 1) // 2

    def squares(self, plane: int, side: int) -> NDArray[np.int64]:
        """Return the places ``[k]`` of the square blocks of a plane and a side among the blocks."""
        rows = self.blocks
        return np.flatnonzero(
            (rows["plane"] == plane) & (rows["width"] == side) & (rows["height"] == side)
        )

    def take(self, samples: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
        """Return samples of blocks of one shape, ``[k, height, width]``.

        Args:
            samples: One of the four arrays.
            places: ``[k]``, among the blocks.
        """
        if not len(places):
            return np.empty((0, 0, 0), samples.dtype)
        height, width = (int(self.blocks[name][places[0]]) for name in ("height", "width"))
        at = self.starts[places][:, None] + np.arange(height * width)
        return np.asarray(samples[at].reshape(-1, height, width))

    def put_together(self, samples: NDArray[Any], plane: int) -> NDArray[Any]:
        """Return a plane ``[height, width]`` of samples of its blocks.

        Raises:
            InputError: Two blocks have the same sample, or none has it.
        """
        height, width = self.plane_shape(plane)
        whole, covered = np.zeros((height, width), samples.dtype), np.zeros((height, width), bool)
        for place in np.flatnonzero(self.blocks["plane"] == plane):
            row, start = self.blocks[place], self.starts[place]
            shape = int(row["height"]), int(row["width"])
            block = samples[start : start + shape[0] * shape[1]].reshape(shape)
            area = np.s_[row["y"] : row["y"] + shape[0], row["x"] : row["x"] + shape[1]]
            part = whole[area].shape
            if covered[area].any():
                raise InputError(f"two blocks have the same sample of plane {plane}")
            whole[area], covered[area] = block[: part[0], : part[1]], True
        if not covered.all():
            raise InputError(f"a sample of plane {plane} is in no block")
        return whole


def _areas(blocks: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(blocks["width"].astype(np.int64) * blocks["height"])


def read_records(path: Path) -> Records:
    """Return the records of a file.

    Raises:
        InputError: It cannot be read, is damaged, cut off, of another version, or no such file.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: too long for records of residuals")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return unpack_records(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def unpack_records(data: bytes) -> Records:
    """Return the records in the bytes of a file.

    Raises:
        InputError: They are damaged, cut off, of another version, or no such file.
    """
    if data[: len(MAGIC) - 1] != MAGIC[:-1]:
        raise InputError("these are no records of residuals")
    if data[len(MAGIC) - 1 : len(MAGIC)] != MAGIC[-1:]:
        raise InputError("the records are of another version of the file format")
    if len(data) < _HEADER.size:
        raise InputError("the records are cut off in their header")
    _, width, height, q_index, loop, stream_size, count, crc, own = _HEADER.unpack_from(data)
    if zlib.crc32(data[: _HEADER.size - 4]) != own:
        raise InputError("the records are damaged in their header")
    table = _HEADER.size + stream_size
    first = table + count * ROW.itemsize
    if len(data) < first:
        raise InputError("the records are cut off")
    blocks = np.frombuffer(data, ROW, count, table)
    if not (np.isin(blocks["width"], SIDES).all() and np.isin(blocks["height"], SIDES).all()):
        raise InputError("the records have a block of an impossible size")
    samples = int(_areas(blocks).sum())
    if len(data) != first + 5 * samples:
        raise InputError("the records are cut off, or go on after their end")
    if zlib.crc32(data[_HEADER.size :]) != crc:
        raise InputError("the records are damaged")
    sources, predictions, reconstructions = np.frombuffer(
        data, np.uint8, 3 * samples, first
    ).reshape(3, samples)
    residuals = np.frombuffer(data, "<i2", samples, first + 3 * samples).astype(np.int16)
    stream = data[_HEADER.size : table]
    records = Records(
        width,
        height,
        q_index,
        bool(loop),
        stream,
        blocks,
        sources,
        predictions,
        reconstructions,
        residuals,
    )
    _check(records)
    return records


def _check(records: Records) -> None:
    """Refuse records that no run of the program gives.

    Raises:
        InputError: A figure is impossible, or a residual does not lead to the reconstruction.
    """
    blocks = records.blocks
    if not (0 < records.width <= MAX_PICTURE_SIDE and 0 < records.height <= MAX_PICTURE_SIDE):
        raise InputError(f"the records have an impossible size, {records.width}x{records.height}")
    if (blocks["plane"] > 2).any() or not np.isfinite(blocks["bits"]).all():
        raise InputError("the records have an impossible block")
    for plane in range(3):
        height, width = records.plane_shape(plane)
        rows = blocks[blocks["plane"] == plane]
        # AV1 codes whole units of 8x8, so the last blocks may lie beyond the edge as a whole.
        if (rows["x"] >= width + 8).any() or (rows["y"] >= height + 8).any():
            raise InputError("the records have a block outside of the picture")
    sums = records.predictions.astype(np.int32) + records.residuals
    if not np.array_equal(sums.clip(0, 255), records.reconstructions):
        raise InputError("the records have a residual that does not give the reconstruction")
