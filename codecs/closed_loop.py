"""The closed loop: trained block codecs reconstruct the blocks of an AV1 picture.

Later predictions see these reconstructions. AV1's encoder sees them too, and chooses partitions,
modes and transform sizes by them, or it chooses for its own reconstructions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vpxrc.codecs.block_coder import steps_around
from vpxrc.codecs.blocks import dct
from vpxrc.codecs.papers.adaptive_transform import level_of
from vpxrc.codecs.residual_blocks import STRIP, Blocks, features, surroundings
from vpxrc.codecs.selected_coder import Coder

PLAIN_ROUNDING = 0.33  # what is added before a magnitude is rounded down
# Times AV1's step, for blocks without a codec. Their luma error is then AV1's within an eighth, on
# four of the training pictures. With worse ones around them, the others' predictions are worse.
PLAIN_STEP = 0.78


class ClosedLoop:
    """Answers the program that records residuals: :func:`vpxrc.codecs.residual_tool.record`.

    Square luma blocks inside of the picture, whose side has a codec, are coded by it. All others
    are AV1's own where its encoder sees the reconstructions. Else AV1's coefficients are those of
    other predictions, and these blocks get a plain DCT, with about the error of AV1's blocks.

    Args:
        coders: By the side of the blocks.
        width: Of the picture, in luma samples.
        height: Of the picture.
        factor: The quantiser's steps are AV1's times this.
        in_encoder: Whether AV1's encoder sees the reconstructions.
    """

    def __init__(
        self,
        coders: Mapping[int, Coder],
        width: int,
        height: int,
        factor: float = 1.0,
        *,
        in_encoder: bool = False,
    ) -> None:
        self._coders, self._factor, self.in_encoder = coders, factor, in_encoder
        # Blocks reach over the edge by less than a superblock.
        self._decoded = np.zeros((height + 128, width + 128), np.int16)
        self._picture = np.zeros_like(self._decoded)
        self._size = height, width
        self._known: dict[bytes, NDArray[np.float64]] = {}  # answers by question

    def reconstruct(
        self, row: Any, source: NDArray[np.uint8], prediction: NDArray[np.uint8]
    ) -> NDArray[np.uint8] | None:
        """Return the reconstruction of a block, ``[height, width]``; None keeps AV1's."""
        side = int(row["width"])
        residual = source.astype(np.float64) - prediction
        square = row["plane"] == 0 and side == row["height"] and side in self._coders
        if square and row["x"] + side <= self._size[1] and row["y"] + side <= self._size[0]:
            decoded = self._coded(row, residual, prediction.astype(np.float64), side)
        elif self.in_encoder:
            return None
        else:
            decoded = plain(residual, PLAIN_STEP * float(row["ac_step"]) / 8)
        result = (prediction + decoded).clip(0, 255).astype(np.uint8)
        self.kept(row, result, prediction)
        return result

    def kept(
        self, row: Any, reconstruction: NDArray[np.uint8], prediction: NDArray[np.uint8]
    ) -> None:
        """Remember what a block came to, for those beside it."""
        if row["plane"] == 0:
            x, y = int(row["x"]), int(row["y"])
            area = np.s_[y : y + reconstruction.shape[0], x : x + reconstruction.shape[1]]
            self._decoded[area] = reconstruction.astype(np.int16) - prediction
            self._picture[area] = reconstruction

    def _coded(
        self, row: Any, residual: NDArray[np.float64], prediction: NDArray[np.float64], side: int
    ) -> NDArray[np.float64]:
        x, y = int(row["x"]), int(row["y"])
        height, width = self._size
        inside = self._decoded[:height, :width]
        left = inside[y : y + side, max(x - STRIP, 0) : x]
        above = inside[max(y - STRIP, 0) : y, x : x + side]
        means = [np.array([np.abs(one).mean() if one.size else 0.0]) for one in (left, above)]
        context = features(np.array([row]), prediction[None], *means)
        # With a margin, so that a sample of the picture is STRIP places further.
        area = np.s_[max(y - STRIP, 0) : y + side, max(x - STRIP, 0) : x + side]
        margin = (max(STRIP - y, 0), 0), (max(STRIP - x, 0), 0)
        decoded, samples = (np.pad(one[area], margin) for one in (self._decoded, self._picture))
        around = surroundings(
            np.array([row]),
            prediction[None],
            decoded[None, STRIP:, :STRIP],
            decoded[None, :STRIP, STRIP:],
            samples[None, STRIP:, STRIP - 1],
            samples[None, STRIP - 1, STRIP:],
        )
        nothing = torch.zeros(1, dtype=torch.float64)
        block = Blocks(
            side,
            torch.from_numpy(residual.reshape(1, -1)).float(),
            torch.from_numpy(context).float(),
            torch.from_numpy(around).float(),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1, dtype=torch.int64),
            torch.tensor([float(row["ac_step"]) / 8]),
            nothing,
            nothing,
        )
        # The encoder asks for most blocks several times.
        parts = block.residuals, block.context, block.surroundings, block.steps
        question = b"".join(part.numpy().tobytes() for part in parts)
        if question not in self._known:
            level = level_of(steps_around(block, self._factor))
            coded = self._coders[side].quantize(block, level)
            self._known[question] = coded.decoded.double().numpy().reshape(side, side)
        return self._known[question]


def plain(residual: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Return a residual after a DCT, a quantiser with a dead zone, and back; whole numbers."""
    rows, columns = (dct(side).numpy() for side in residual.shape)
    y = rows @ residual @ columns.T / step
    quantized = np.sign(y) * np.floor(np.abs(y) + PLAIN_ROUNDING)
    return np.asarray(np.rint(rows.T @ (quantized * step) @ columns))
