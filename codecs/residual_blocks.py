"""Square luma blocks of AV1's intra residuals, as transforms are trained and measured on them."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vpxrc.codecs.blocks import dct
from vpxrc.codecs.exact import STEP
from vpxrc.codecs.residuals import Records, read_records
from vpxrc.errors import InputError

STRIP = 4  # samples beside a block whose decoded residual a decoder looks at
MODES = 13  # of luma prediction, without palette
FEATURES = 7 + MODES + 1  # of the context of a block
FILTERS = 5  # modes of filter-intra
DIRECTIONS = FILTERS + 2  # columns of a block's surroundings that are no samples
PREDICTED = 8  # the lowest frequencies of a prediction that are looked at, in each direction


def modes_of(context: Tensor) -> Tensor:
    """Return the modes ``[n]`` of prediction of contexts, 0..MODES; the last is filter-intra."""
    return torch.where(context[:, -1] > 0, MODES, context[:, -MODES - 1 : -1].argmax(1))


@dataclass(frozen=True)
class Known:
    """What a decoder knows of n blocks of one size before it decodes them.

    Attributes:
        context: ``[n, FEATURES]``, float32; see :func:`features`.
        surroundings: ``[n, surroundings_of(side)]``, float32; see :func:`surroundings`.
    """

    context: Tensor
    surroundings: Tensor


@dataclass(frozen=True)
class Blocks:
    """n blocks of one size, all of whose samples lie inside of their pictures.

    Attributes:
        side: Samples of a side.
        residuals: ``[n, side^2]``, float32, source minus prediction.
        context: ``[n, FEATURES]``, float32, what a decoder knows before a block, in steps of
            :data:`vpxrc.codecs.exact.STEP`.
        surroundings: ``[n, surroundings_of(side)]``, float32, more of it, in samples.
        pictures: ``[n]``, int64, the number of the picture.
        q_indices: ``[n]``, int64, AV1's.
        steps: ``[n]``, float32, AV1's quantiser step in an orthonormal transform.
        bits: ``[n]``, float64, of AV1's coefficients, with their transform's type.
        errors: ``[n]``, float64, the sum of AV1's squared errors.
    """

    side: int
    residuals: Tensor
    context: Tensor
    surroundings: Tensor
    pictures: Tensor
    q_indices: Tensor
    steps: Tensor
    bits: Tensor
    errors: Tensor

    def __len__(self) -> int:
        """Return n."""
        return len(self.residuals)

    @property
    def known(self) -> Known:
        """What a decoder knows of them."""
        return Known(self.context, self.surroundings)

    def take(self, places: Tensor) -> "Blocks":
        """Return some of the blocks; ``places`` are numbers or a mask."""
        values = {
            field.name: getattr(self, field.name)[places]
            for field in dataclasses.fields(self)
            if field.name != "side"
        }
        return Blocks(self.side, **values)


def blocks_of(records: Records, side: int, picture: int = 0) -> Blocks:
    """Return the square luma blocks of a picture, without those that reach over its edge.

    Args:
        records: Of the picture.
        side: Samples of a side, 4..64.
        picture: Its number.
    """
    places = records.squares(0, side)
    rows = records.blocks[places]
    inside = (rows["x"] + side <= records.width) & (rows["y"] + side <= records.height)
    places, rows = places[inside], rows[inside]
    sources, predictions, reconstructions = (
        records.take(samples, places).astype(np.float64).reshape(-1, side * side)
        for samples in (records.sources, records.predictions, records.reconstructions)
    )
    count = len(places)
    return Blocks(
        side,
        torch.from_numpy(sources - predictions).float(),
        torch.from_numpy(_context(records, rows, predictions, side)).float(),
        torch.from_numpy(_surroundings(records, rows, predictions, side)).float(),
        torch.full((count,), picture),
        torch.full((count,), records.q_index),
        torch.from_numpy(rows["ac_step"] / 8.0).float(),
        torch.from_numpy(rows["bits"].copy()),
        torch.from_numpy(np.square(sources - reconstructions).sum(1)),
    )


def read_blocks(paths: Sequence[Path], sides: Sequence[int]) -> dict[int, Blocks]:
    """Return the blocks of many records by side; those of one file name are one picture's.

    Args:
        paths: The files, as ``vpxrc codec residuals`` names them: ``PICTURE.qINDEX.residuals``.
        sides: The sides that are wanted.

    Raises:
        InputError: There is no file, or one is damaged.
    """
    if not paths:
        raise InputError("there are no records")
    names = sorted({path.name.partition(".")[0] for path in paths})
    found: dict[int, list[Blocks]] = {side: [] for side in sides}
    for path in paths:
        records = read_records(path)
        for side in sides:
            number = names.index(path.name.partition(".")[0])
            found[side].append(blocks_of(records, side, number))
    return {side: _joined(side, parts) for side, parts in found.items()}


def _joined(side: int, parts: Sequence[Blocks]) -> Blocks:
    names = [field.name for field in dataclasses.fields(Blocks) if field.name != "side"]
    return Blocks(
        side, **{name: torch.cat([getattr(one, name) for one in parts]) for name in names}
    )


def _context(
    records: Records, rows: NDArray[Any], predictions: NDArray[np.float64], side: int
) -> NDArray[np.float64]:
    """Return what a decoder knows of blocks, ``[n, FEATURES]``; see :func:`features`.

    In records of AV1 the decoded residual is AV1's own, in those of a closed loop it is ours.
    """
    x, y = rows["x"].astype(np.int64), rows["y"].astype(np.int64)
    sums = records.luma_residual_sums

    def mean(top: NDArray[np.int64], bottom: NDArray[np.int64], left: Any, right: Any) -> Any:
        area = np.maximum((bottom - top) * (right - left), 1)
        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return inside / area

    left = mean(y, y + side, np.maximum(x - STRIP, 0), x)
    above = mean(np.maximum(y - STRIP, 0), y, x, x + side)
    return features(rows, predictions.reshape(-1, side, side), left, above)


def features(
    rows: NDArray[Any],
    predictions: NDArray[np.float64],
    left: NDArray[np.float64],
    above: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the context of blocks, ``[n, FEATURES]``.

    In this order: for the samples left of and above a block the logarithm of their mean absolute
    decoded residual, and whether there are any; the logarithms of the prediction's deviation, and
    of its mean absolute slopes to the right and down; the mode of prediction, one of 13; whether
    it is filter-intra.

    Args:
        rows: ``[n]`` of :data:`vpxrc.codecs.residuals.ROW`.
        predictions: ``[n, side, side]``.
        left: ``[n]``, mean absolute decoded residuals of :data:`STRIP` columns.
        above: ``[n]``, of as many rows.
    """
    columns = [
        np.log1p(left),
        np.log1p(above),
        rows["x"] > 0,
        rows["y"] > 0,
        np.log1p(predictions.std(axis=(1, 2))),
        np.log1p(np.abs(np.diff(predictions, axis=2)).mean(axis=(1, 2))),
        np.log1p(np.abs(np.diff(predictions, axis=1)).mean(axis=(1, 2))),
        *(rows["mode"] == mode for mode in range(MODES)),
        rows["filter"] > 0,
    ]
    table = np.stack([np.asarray(column, np.float64) for column in columns], 1)
    return np.asarray(np.rint(table / STEP) * STEP)


def _surroundings(
    records: Records, rows: NDArray[Any], predictions: NDArray[np.float64], side: int
) -> NDArray[np.float64]:
    """Return what lies around blocks, ``[n, surroundings_of(side)]``; see :func:`surroundings`."""
    strip, along = np.arange(STRIP), np.arange(side)
    # With a margin, so that a sample of the picture is STRIP places further.
    residuals, samples = (
        np.pad(one, ((STRIP, 0), (STRIP, 0)))
        for one in (records.luma_residuals, records.put_together(records.reconstructions, 0))
    )
    x, y = (rows[name].astype(np.int64)[:, None, None] for name in ("x", "y"))
    left = np.s_[y + STRIP + along[:, None], x + strip]
    above = np.s_[y + strip[:, None], x + STRIP + along]
    return surroundings(
        rows,
        predictions.reshape(-1, side, side),
        residuals[left],
        residuals[above],
        samples[left][:, :, -1],
        samples[above][:, -1],
    )


def surroundings_of(side: int) -> int:
    """Return the number of columns of :func:`surroundings`."""
    return DIRECTIONS + 6 * side + min(side, PREDICTED) ** 2 - 1


def surroundings(
    rows: NDArray[Any],
    predictions: NDArray[np.float64],
    left: NDArray[Any],
    above: NDArray[Any],
    left_samples: NDArray[Any],
    above_samples: NDArray[Any],
) -> NDArray[np.float64]:
    """Return what lies around blocks, ``[n, surroundings_of(side)]``.

    In this order: the mode of filter-intra, one of 5; the angle's steps from its mode, as a share
    of the most, and its magnitude; for each row of the samples to the left, then for each column of
    those above, the mean absolute decoded residual; the decoded residual of the nearest column, and
    of the nearest row; how far the column to the left, and the row above, are from the prediction's
    first, 0 outside of the picture; the lowest frequencies of the prediction without its mean.

    Args:
        rows: ``[n]`` of :data:`vpxrc.codecs.residuals.ROW`.
        predictions: ``[n, side, side]``.
        left: ``[n, side, STRIP]``, decoded residuals.
        above: ``[n, STRIP, side]``.
        left_samples: ``[n, side]``, the reconstruction of the nearest column.
        above_samples: ``[n, side]``, of the nearest row.
    """
    side = predictions.shape[-1]
    matrix = dct(side).numpy()[:PREDICTED]
    frequencies = (matrix @ predictions @ matrix.T).reshape(len(rows), len(matrix) ** 2)[:, 1:]
    angle = rows["angle"][:, None] / 3.0
    columns = [
        rows["filter"][:, None] == np.arange(1, FILTERS + 1),
        angle,
        np.abs(angle),
        np.abs(left).mean(2),
        np.abs(above).mean(1),
        left[:, :, -1],
        above[:, -1],
        (left_samples - predictions[:, :, 0]) * (rows["x"] > 0)[:, None],
        (above_samples - predictions[:, 0]) * (rows["y"] > 0)[:, None],
        frequencies,
    ]
    return np.concatenate([np.asarray(column, np.float64) for column in columns], 1)
