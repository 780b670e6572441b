"""The types that encoders and policies exchange: frames, groups and decisions."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vpxrc import _native

State = _native.State
FIRST_PASS_FIELDS: tuple[str, ...] = _native.FIRST_PASS_FIELDS
TPL_FIELDS: tuple[str, ...] = _native.TPL_FIELDS
RECORD_DTYPE: np.dtype[np.void] = _native.FRAME_RECORD


class UpdateType(IntEnum):
    """What a frame is for, and so which references it updates: libvpx's ``FRAME_UPDATE_TYPE``.

    Attributes:
        KEY: A key frame.
        LEAF: An ordinary frame, which few or no other frames are predicted from.
        GOLDEN: A shown frame that starts a group without an alternate reference frame.
        ARF: An alternate reference frame: coded early, predicted from, not shown.
        OVERLAY: The frame that shows the base ARF's picture: coded once more or, with several
            layers, the ARF as it is (``is_shown_again`` in the log).
        MID_OVERLAY: The same for an ARF of a deeper layer. libvpx 1.17 never plans one.
        SHOWN_AGAIN: An ARF of a deeper layer that is shown as it is: nothing is coded, and there is
            no decision.
    """

    KEY = 0
    LEAF = 1
    GOLDEN = 2
    ARF = 3
    OVERLAY = 4
    MID_OVERLAY = 5
    SHOWN_AGAIN = 6


#: Names of the update types in tables.
UPDATE_TYPES: dict[int, str] = {
    UpdateType.KEY: "key",
    UpdateType.LEAF: "leaf",
    UpdateType.GOLDEN: "golden",
    UpdateType.ARF: "arf",
    UpdateType.OVERLAY: "overlay",
    UpdateType.SHOWN_AGAIN: "show-existing",
}
# Slower than any frame of any size should be coded; a stuck encoder is an error, never a hang.
DEFAULT_TIMEOUT = 600.0


class Frame(Protocol):
    """A frame about to be coded."""

    @property
    def coding_index(self) -> int:
        """Position in coding order; frames shown again count."""

    @property
    def show_index(self) -> int:
        """Display index of its source frame."""

    @property
    def group_index(self) -> int:
        """Number of its group within the encode."""

    @property
    def group_position(self) -> int:
        """Its position in the group, in coding order."""

    @property
    def update_type(self) -> int:
        """What it is for, an :class:`UpdateType`."""

    @property
    def layer_depth(self) -> int:
        """0 key and golden, 1 base ARF, deeper layers above."""

    @property
    def is_key(self) -> bool:
        """Whether it is a key frame."""

    @property
    def is_shown(self) -> bool:
        """False for an ARF."""

    @property
    def tpl_q_index(self) -> int:
        """Provisional q index of the last TPL pass for this frame; -1 = none."""

    @property
    def reference_coding_index(self) -> tuple[int, int, int]:
        """Coding indices of the last, golden and altref reference; -1 = none."""

    @property
    def libvpx_q_index(self) -> int:
        """What libvpx's own rate control would take, 0..255."""

    @property
    def libvpx_q_low(self) -> int:
        """The lowest q index that libvpx would take."""

    @property
    def libvpx_q_high(self) -> int:
        """The highest q index that libvpx would take."""

    @property
    def libvpx_rdmult(self) -> int:
        """The frame's lambda at ``libvpx_q_index``."""

    @property
    def target_bits(self) -> int:
        """Libvpx's target for the frame."""

    @property
    def gfu_boost(self) -> int:
        """Libvpx's boost for golden and alternate reference frames."""

    @property
    def frames_to_key(self) -> int:
        """Frames to the next key frame."""

    @property
    def has_tpl(self) -> bool:
        """Whether the group's TPL statistics are there for it."""

    @property
    def takes_superblock_scale(self) -> bool:
        """Whether a superblock map has an effect on this frame.

        It does with TPL on, not at position 0 of a group, and on no ARF deeper than layer 3.
        """

    @property
    def r0(self) -> float:
        """intra_cost / mc_dep_cost over the frame, in (0, 1]; NaN without TPL."""


class Group(Protocol):
    """A golden-frame group, as the encoder planned it.

    Position 0 is its key, golden or overlay frame. Arrays are int32 ``[size]``.
    """

    @property
    def index(self) -> int:
        """Number of the group within the encode."""

    @property
    def size(self) -> int:
        """Frames, those shown again included."""

    @property
    def first_show_index(self) -> int:
        """Display index of position 0."""

    @property
    def max_layer_depth(self) -> int:
        """The deepest layer of the group."""

    @property
    def key_boost(self) -> int:
        """Libvpx's boost for the last key frame."""

    @property
    def is_key_forced(self) -> bool:
        """Whether the last key frame is there because of the greatest distance, without a cut."""

    @property
    def zero_motion_share(self) -> int:
        """Percentage of samples without motion from the last key frame to the next one."""

    @property
    def update_type(self) -> NDArray[np.int32]:
        """What each frame is for, an :class:`UpdateType`."""

    @property
    def layer_depth(self) -> NDArray[np.int32]:
        """0 key and golden, 1 base ARF, deeper layers above."""

    @property
    def show_index(self) -> NDArray[np.int32]:
        """Display index of each frame."""

    @property
    def bit_allocation(self) -> NDArray[np.int32]:
        """Libvpx's own allocation, bits."""

    @property
    def gfu_boost(self) -> NDArray[np.int32]:
        """Libvpx's boosts for golden and alternate reference frames."""

    @property
    def references(self) -> NDArray[np.int32]:
        """Positions of the last, golden and altref reference, ``[size, 3]``.

        -1 is a frame before the group.
        """


@dataclass(frozen=True, slots=True)
class Region:
    """Which blocks of one frame matter more than others: a region of interest.

    A decision with a region may still leave q to libvpx, which then codes the frame as often as
    without one.

    Attributes:
        block_scale: Factors on lambda per 16x16 block, ``[ceil(height / 16), ceil(width / 16)]``,
            in (0, 64]; None: 1 everywhere. They multiply the other factors of the decision, and
            libvpx's own TPL scale. A larger block takes the geometric mean of its factors.
        segment_map: The segment of each 8x8 block, uint8 ``[ceil(height / 8), ceil(width / 8)]``;
            None: no segments. A larger block takes the lowest segment in it. Without effect at q
            index 0, where all of a VP9 frame is lossless.
        segment_q_offset: What is added to the q index in each segment, at most 8 times -255..255;
            the sums are clipped to 0..255. Lambda stays that of the frame's q index.
    """

    block_scale: NDArray[np.float32] | None = None
    segment_map: NDArray[np.uint8] | None = None
    segment_q_offset: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """How one frame is to be coded.

    Attributes:
        q_index: Quantizer index 0..255, or -1 to leave it to libvpx's own rate control. libvpx then
            may code the frame several times, as it does without a policy. It codes the frame once,
            at its first estimate, where the decision sets anything else but a region.
        lambda_scale: Factor on the frame's lambda (rdmult), in (0, 64]; 1 = libvpx's own.
        superblock_scale: Factors on lambda per 64x64 superblock, ``[rows, cols]``, in (0, 64], in
            steps of 1/256; None = libvpx's own TPL scale. Read by libvpx only where
            ``Frame.takes_superblock_scale``.
        delta_q_uv: Chroma q delta, -15..15.
        recode_trace: The field of that name of a logged frame, for an exact replay; else empty.
        region: Which of its blocks matter more; None: all the same.
    """

    q_index: int
    lambda_scale: float = 1.0
    superblock_scale: NDArray[np.float32] | None = None
    delta_q_uv: int = 0
    recode_trace: tuple[int, ...] = ()
    region: Region | None = None
