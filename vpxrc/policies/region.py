"""A policy of whose frames a region gets more of the bits."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import Decision, Frame, Region
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.media.masks import RegionSpec
from vpxrc.policies.base import Episode, Policy
from vpxrc.policies.wrapper import PolicyWrapper

MAX_WEIGHT = 64.0
DEFAULT_WEIGHT = 4.0
_CELL = 8  # samples; segments and regions are made of cells
_USUAL_Q = (60, 200)  # Between these q indices log2 of the step is nearly linear in the index.
#: A mask of a frame by its number in the clip.
MaskOf: TypeAlias = Callable[[int], NDArray[np.bool_]]


@dataclass(frozen=True)
class WeightedRegion:
    """A region of a video, and how much more an error inside counts.

    Attributes:
        spec: The region.
        weight: How much more an error inside counts, above 1 and at most 64.
        moves_q: Whether the q index is moved too, beside lambda; see :class:`RegionOfInterest`.

    Raises:
        InputError: The weight is out of range.
    """

    spec: RegionSpec
    weight: float = DEFAULT_WEIGHT
    moves_q: bool = False

    def __post_init__(self) -> None:
        """Check the weight."""
        check_weight(self.weight)

    @property
    def key(self) -> tuple[str, float, bool]:
        """What tells it from others, as JSON can hold it."""
        return self.spec.content_hash, float(self.weight), self.moves_q

    def masks(self, width: int, height: int, frames: Sequence[int] | None = None) -> MaskOf:
        """Return the masks of a clip's frames.

        Args:
            width: Width of the clip in pixels.
            height: Height of the clip in pixels.
            frames: The region's number for each frame of the clip; None where they are the same.
        """
        return lambda index: self.spec.mask(
            width, height, index if frames is None else frames[index]
        )

    def around(
        self, policy: Policy, video: Video, frames: Sequence[int] | None = None
    ) -> "RegionOfInterest":
        """Return a policy that has this region in its encodes of a clip.

        Args:
            policy: The policy.
            video: The clip.
            frames: As for :meth:`masks`.

        Raises:
            InputError: The region does not fit the clip.
        """
        mask = self._mask(video, frames)
        return RegionOfInterest(policy, mask, self.weight, moves_q=self.moves_q)

    def regions(self, episode: Episode) -> "FrameRegions":
        """Return the regions of an encode's frames.

        Raises:
            InputError: The region does not fit the clip.
        """
        mask = self._mask(episode.video, None)
        return FrameRegions(episode, mask, self.weight, moves_q=self.moves_q)

    def check(self, video: Video) -> None:
        """Check that a clip can have this region.

        Raises:
            InputError: It cannot.
        """
        self.spec.check(video.width, video.height, video.num_frames)
        self.around(Policy(), video)

    def _mask(self, video: Video, frames: Sequence[int] | None) -> NDArray[np.bool_] | MaskOf:
        masks = self.masks(video.width, video.height, frames)
        return masks(0) if self.spec.num_masks == 1 else masks

    def weights(self, video: Video) -> Callable[[int], NDArray[np.float64]]:
        """Return the weight of every pixel's error by the number of the frame: R inside, else 1."""
        masks = self.masks(video.width, video.height)
        return lambda index: np.where(masks(index), float(self.weight), 1.0)


class RegionOfInterest(PolicyWrapper):
    """Another policy, of whose frames a region gets more of the bits.

    An error inside the region counts ``weight`` times one outside. So lambda inside is that outside
    over ``weight``, and the quantiser step that over its square root. Both keep their geometric
    mean over the picture, and with it about the frame's bits; the policy keeps the bitrate, as it
    does without a region.

    Args:
        policy: The policy. One that only observes has libvpx's own rate control decide q as before.
        mask: True inside the region, bool ``[height, width]``; its 8x8 blocks, as a whole, are it.
            Or a function that returns the mask of a frame by its number in the clip. A frame whose
            mask is empty or the whole picture has no region.
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
        mask: NDArray[np.bool_] | MaskOf,
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
        if not callable(mask):
            mask = np.asarray(mask, dtype=np.bool_)
            _check_cells(_cells(mask))
        self._mask = mask
        self._settings = weight, scales_lambda, moves_q

    def begin(self, episode: Episode) -> None:
        """Start the policy's encode.

        Raises:
            InputError: The mask has another size than the clip.
        """
        self._regions = FrameRegions(episode, self._mask, *self._settings)
        super().begin(episode)

    def decide(self, frame: Frame) -> Decision:
        """Return the policy's decision, with the region.

        Raises:
            InputError: The frame's mask has another size than the clip.
        """
        decision = Decision(-1) if self.policy.observes else super().decide(frame)
        return dataclasses.replace(decision, region=self._regions.of(frame))


class FrameRegions:
    """The regions of one clip's frames, as decisions take them.

    Args:
        episode: The encode.
        mask: As for :class:`RegionOfInterest`, and so are the others.
        weight: How much more an error inside counts.
        scales_lambda: Whether lambda is scaled.
        moves_q: Whether the q index is moved.

    Raises:
        InputError: The mask has another size than the clip.
    """

    def __init__(
        self,
        episode: Episode,
        mask: NDArray[np.bool_] | MaskOf,
        weight: float,
        scales_lambda: bool = True,
        moves_q: bool = False,
    ) -> None:
        self._size = episode.video.height, episode.video.width
        self._slope = _slope(episode.log2_step)
        self._log2_weight = float(np.log2(weight))
        self._scales_lambda, self._moves_q = scales_lambda, moves_q
        self._mask_of = mask if callable(mask) else None
        self._region = None if callable(mask) else self._made(mask)

    def of(self, frame: Frame) -> Region | None:
        """Return the region of a frame; None where its mask is empty or the whole picture.

        Raises:
            InputError: The frame's mask has another size than the clip.
        """
        if self._mask_of is None:
            return self._region
        return self._made(np.asarray(self._mask_of(frame.show_index), dtype=np.bool_))

    def _made(self, mask: NDArray[np.bool_]) -> Region | None:
        if mask.shape != self._size:
            sizes = ["x".join(map(str, shape[::-1])) for shape in (mask.shape, self._size)]
            raise InputError(f"a mask of {sizes[0]} for a video of {sizes[1]}")
        cells, log2_weight = _cells(mask), self._log2_weight
        if not cells.any() or cells.all():
            return None
        return Region(
            block_scale=_block_scale(cells, log2_weight) if self._scales_lambda else None,
            # A block takes the lowest segment in it: at the edge that is the region's.
            segment_map=np.where(cells, 0, 1).astype(np.uint8) if self._moves_q else None,
            segment_q_offset=(
                tuple(_q_offset(cells, inside, log2_weight, self._slope) for inside in (1, 0))
                if self._moves_q
                else ()
            ),
        )


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
        InputError: The mask is no picture.
    """
    if mask.ndim != 2:
        raise InputError(f"a mask has two dimensions, not {mask.ndim}")
    rows, columns = (np.arange(0, size, _CELL) for size in mask.shape)
    cells = np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)
    return np.asarray(cells, dtype=np.bool_)


def _check_cells(cells: NDArray[np.bool_]) -> None:
    """Refuse a region that says nothing."""
    if not cells.any():
        raise InputError("the region of interest is empty")
    if cells.all():
        raise InputError("the region of interest is the whole picture")


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
