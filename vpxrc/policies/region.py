"""A policy of whose frames a region gets more of the bits."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import Decision, Frame, Region
from vpxrc.errors import InputError
from vpxrc.policies.base import Episode, Policy
from vpxrc.policies.wrapper import PolicyWrapper

MAX_WEIGHT = 64.0
DEFAULT_WEIGHT = 4.0
_CELL = 8  # samples; segments and regions are made of cells
_USUAL_Q = (60, 200)  # Between these q indices log2 of the step is nearly linear in the index.


class RegionOfInterest(PolicyWrapper):
    """Another policy, of whose frames a region gets more of the bits.

    An error inside the region counts ``weight`` times one outside. So lambda inside is that outside
    over ``weight``, and the quantiser step that over its square root. Both keep their geometric
    mean over the picture, and with it about the frame's bits; the policy keeps the bitrate, as it
    does without a region.

    Args:
        policy: The policy. One that only observes has libvpx's own rate control decide q as before.
        mask: True inside the region, bool ``[height, width]``; its 8x8 blocks, as a whole, are it.
        weight: How much more an error inside counts, above 1 and at most 64.
        scales_lambda: Whether lambda is scaled, per 16x16 block.
        moves_q: Whether the q index is moved, by two of VP9's segments.

    Raises:
        InputError: The weight is out of range, neither is to be changed, or the region is empty or
            the whole picture.
    """

    def __init__(
        self,
        policy: Policy,
        mask: NDArray[np.bool_],
        weight: float = DEFAULT_WEIGHT,
        *,
        scales_lambda: bool = True,
        moves_q: bool = False,
    ) -> None:
        super().__init__(policy)
        self.observes = False
        check_weight(weight)
        if not scales_lambda and not moves_q:
            raise InputError("a region changes lambda, the q index or both")
        self._mask = np.asarray(mask, dtype=np.bool_)
        self._cells = _cells(self._mask)
        self._weight = weight
        self._scales_lambda, self._moves_q = scales_lambda, moves_q

    def begin(self, episode: Episode) -> None:
        """Start the policy's encode.

        Raises:
            InputError: The mask has another size than the clip.
        """
        height, width = self._mask.shape
        if (width, height) != (episode.video.width, episode.video.height):
            size = f"{episode.video.width}x{episode.video.height}"
            raise InputError(f"a mask of {width}x{height} for a video of {size}")
        slope = _slope(episode.log2_step)
        log2_weight = float(np.log2(self._weight))
        self._region = Region(
            block_scale=_block_scale(self._cells, log2_weight) if self._scales_lambda else None,
            # A block takes the lowest segment in it: at the edge that is the region's.
            segment_map=np.where(self._cells, 0, 1).astype(np.uint8) if self._moves_q else None,
            segment_q_offset=(
                tuple(_q_offset(self._cells, inside, log2_weight, slope) for inside in (1, 0))
                if self._moves_q
                else ()
            ),
        )
        super().begin(episode)

    def decide(self, frame: Frame) -> Decision:
        """Return the policy's decision, with the region."""
        decision = Decision(-1) if self.policy.observes else super().decide(frame)
        return dataclasses.replace(decision, region=self._region)


def check_weight(weight: float) -> None:
    """Refuse a weight that is out of range.

    Raises:
        InputError: It is.
    """
    if not 1 < weight <= MAX_WEIGHT:
        raise InputError(
            f"the weight of a region is above 1 and at most {MAX_WEIGHT:g}, not {weight:g}"
        )


def _cells(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which 8x8 blocks the region reaches, bool ``[ceil(height / 8), ceil(width / 8)]``.

    Raises:
        InputError: None, or all.
    """
    if mask.ndim != 2:
        raise InputError(f"a mask has two dimensions, not {mask.ndim}")
    rows, columns = (np.arange(0, size, _CELL) for size in mask.shape)
    cells = np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)
    if not cells.any():
        raise InputError("the region of interest is empty")
    if cells.all():
        raise InputError("the region of interest is the whole picture")
    return np.asarray(cells, dtype=np.bool_)


def _block_scale(cells: NDArray[np.bool_], log2_weight: float) -> NDArray[np.float32]:
    """Return factors on lambda per 16x16 block, with a geometric mean of 1 over all cells."""
    height, width = cells.shape
    shape = (-(-height // 2), 2, -(-width // 2), 2)
    pad = [(0, height % 2), (0, width % 2)]
    inside = np.pad(cells, pad).reshape(shape).sum(axis=(1, 3))
    count = np.pad(np.ones(cells.shape), pad).reshape(shape).sum(axis=(1, 3))
    scale = np.exp2(log2_weight * (cells.mean() - inside / count))
    return np.asarray(scale, dtype=np.float32)


def _q_offset(cells: NDArray[np.bool_], inside: int, log2_weight: float, slope: float) -> int:
    """Return what is added to the q index inside or outside; the step's geometric mean stays."""
    return round(float(log2_weight / 2 * (cells.mean() - inside) / slope))


def _slope(log2_step: NDArray[np.float64]) -> float:
    """Return by how much log2 of the step grows with the q index."""
    low, high = _USUAL_Q
    return float((log2_step[high] - log2_step[low]) / (high - low))
