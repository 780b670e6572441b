"""The temporal dependency model: what a block's quantisation error costs the blocks after it.

arXiv 2108.11586 (Han et al. 2021) codes every block twice in a model, predicted from the original
reference and from its reconstruction. The second costs more distortion and more rate; the
difference is what the reference's quantisation is to blame for. Carried backwards through the group
of pictures it gives every block an importance: the total of what its distortion costs, over its
distortion.

The model: luma in blocks of 16x16; motion search on original samples in 32x32 and then 16x16
blocks, refined to quarter samples; libvpx's 8-tap prediction or DC, vertical or horizontal
prediction; a 16x16 DCT quantised at the frame's q; the cheaper of coding and skipping the block.
Version ``source`` is the model that libvpx's VP9 has, on original samples alone, by SATD
(``vp9/encoder/vp9_tpl_model.c``). ``native/temporal_dependency.cpp`` does the work;
``tests/dependency_reference.py`` says the same in plain numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc import _native
from vpxrc.encoder.quantizer import log2_steps, nearest_q
from vpxrc.encoder.types import Group, UpdateType
from vpxrc.errors import InputError
from vpxrc.media.frames import Video, to_8_bits

Version = Literal["reconstructed", "source"]

BLOCK = 16
MAX_FRAMES = 127  # of a group: positions are int8
_PER_SUPERBLOCK = 64 // BLOCK


@dataclass(frozen=True, eq=False)
class Dependency:
    """The model of one group: ``N`` frames in coding order, ``[rows, cols]`` blocks of 16x16.

    Attributes:
        version: ``reconstructed`` or ``source``.
        show_index: Display index of each frame, int32 ``[N]``.
        references: Positions of the frames it may be predicted from, -1 = none, int32 ``[N, 3]``.
        q_index: int32 ``[N]``.
        weights: How many frames each stands for, float64 ``[N]``.
        lambda_q_index: The q index whose lambda turns bits into distortion, on the scale of 8 bits.
        intra_cost: SATD of the best intra prediction, at least 1, int32 ``[N, rows, cols]``.
        inter_cost: SATD of the best prediction from an original reference, at most ``intra_cost``.
        reference: Position of the frame that the block is predicted from, int8; -1 = intra.
        mv: Its vector, row and column in quarter samples, int32 ``[N, rows, cols, 2]``.
        source_rate: Bits with the original reference, int32; 0 in version ``source``.
        source_distortion: Sum of squared errors with it, at least 1; 0 in version ``source``.
        rate: Bits with the reconstructed reference, not below ``source_rate``.
        distortion: Sum of squared errors with it, not below ``source_distortion``.
        dep_rate: Bits that later blocks pay for this one's distortion, float64.
        dep_distortion: Squared error that they have for it, float64; SATD in version ``source``.
        importance: 1 + what is propagated over the block's own distortion (``intra_cost`` in
            version ``source``), float64 ``[N, rows, cols]``; 1 where nothing depends on it.
        frame_importance: The same over whole frames, float64 ``[N]``: 1 / r0.
    """

    version: Version
    show_index: NDArray[np.int32]
    references: NDArray[np.int32]
    q_index: NDArray[np.int32]
    weights: NDArray[np.float64]
    lambda_q_index: int
    intra_cost: NDArray[np.int32]
    inter_cost: NDArray[np.int32]
    reference: NDArray[np.int8]
    mv: NDArray[np.int32]
    source_rate: NDArray[np.int32]
    source_distortion: NDArray[np.int32]
    rate: NDArray[np.int32]
    distortion: NDArray[np.int32]
    dep_rate: NDArray[np.float64]
    dep_distortion: NDArray[np.float64]
    importance: NDArray[np.float64]
    frame_importance: NDArray[np.float64]

    @property
    def own(self) -> NDArray[np.int32]:
        """What importance is relative to: ``distortion``; ``intra_cost`` in version ``source``."""
        return self.distortion if self.version == "reconstructed" else self.intra_cost

    def flow(self) -> NDArray[np.float64]:
        """Return what each frame's blocks pass to the frames that they are predicted from.

        It is what the model propagates: squared error with bits turned into it, or SATD in version
        ``source``. What falls outside the reference is lost there and counted here.

        Returns:
            float64 ``[N, N]``: row the frame predicted, column its reference.
        """
        weights = self.weights[:, None, None]
        if self.version == "source":
            kept = self.inter_cost / self.intra_cost
            cost = (weights * self.intra_cost + self.dep_distortion) * (1 - kept)
        else:
            samples = BLOCK * BLOCK
            step = _native.ac_quantizer(self.lambda_q_index)
            kept = self.source_distortion / self.distortion
            distortion = weights * (self.distortion - self.source_distortion)
            distortion += (1 - kept) * self.dep_distortion
            rate = weights * (self.rate - self.source_rate)
            rate -= samples / 2 * np.log2(kept + (1 - kept) * np.exp2(-2 / samples * self.dep_rate))
            cost = distortion + 4.3 * step * step / 2048 * rate
        frames = len(self.show_index)
        flow = np.zeros((frames, frames + 1))  # the last column takes what is intra, reference -1
        np.add.at(flow, (np.arange(frames)[:, None, None], self.reference), cost)
        return flow[:, :-1]

    def q_offset(self, strength: float = 1.0) -> NDArray[np.float64]:
        """Return by how much to move each frame's quantiser step, log2, at most 0; float64 ``[N]``.

        Where distortion grows with the square of the step and the importances weigh it, bits are
        spent best at steps that go with their inverse square root.

        Args:
            strength: Factor on the logarithm; 1 is that optimum.
        """
        return -0.5 * strength * np.log2(self.frame_importance)

    def superblock_scale(self, position: int, strength: float = 1.0) -> NDArray[np.float32]:
        """Return factors on a frame's lambda per 64x64 superblock.

        They are ``(rk / r0) ** strength`` in [1/2, 3/2]: libvpx's own rule and bounds
        (``get_rdmult_delta`` in ``vp9/encoder/vp9_encodeframe.c``). ``rk`` is the own cost over all
        that depends on it in the superblock, ``r0`` the same over the frame.

        Args:
            position: Of the frame in the group.
            strength: The exponent; 0 is neutral.

        Returns:
            float32 ``[ceil(height / 64), ceil(width / 64)]``.
        """
        own = self.own[position].astype(np.float64)
        total = own * self.importance[position]
        rows, cols = (-(-size // _PER_SUPERBLOCK) for size in own.shape)
        pad = [
            (0, _PER_SUPERBLOCK * n - size) for n, size in zip((rows, cols), own.shape, strict=True)
        ]
        shape = (rows, _PER_SUPERBLOCK, cols, _PER_SUPERBLOCK)
        sums = [np.pad(part, pad).reshape(shape).sum(axis=(1, 3)) for part in (own, total)]
        ratio = sums[0] / sums[1] * self.frame_importance[position]
        return np.asarray(np.clip(ratio**strength, 0.5, 1.5), dtype=np.float32)


def modelled(
    group: Group, num_frames: int, most: int = MAX_FRAMES
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Return which frames of a golden-frame group are to be modelled.

    Frames shown again are not coded, and libvpx announces frames past the end of the clip in its
    last groups.

    Args:
        group: The group.
        num_frames: Frames of the clip.
        most: The most frames; only a still scene has longer groups, and its frames are alike.

    Returns:
        Their positions in the group, int64 ``[N]``; where in that list each position of the group
        is, int64 ``[size]``, -1 = nowhere; and their references in that list, int32 ``[N, 3]``.
    """
    is_coded = (group.update_type != UpdateType.SHOWN_AGAIN) & (group.show_index < num_frames)
    positions = np.flatnonzero(is_coded)[:most]
    places = np.full(group.size + 1, -1)  # the last one is that of reference -1
    places[positions] = np.arange(len(positions))
    references = places[group.references[positions]].astype(np.int32)
    return positions, places[:-1], references


def analyse(
    video: Video,
    show_index: ArrayLike,
    references: ArrayLike,
    q_index: ArrayLike,
    *,
    version: Version = "reconstructed",
    weights: ArrayLike | None = None,
    lambda_q_index: int | None = None,
    level: str = "best",
) -> Dependency:
    """Run the model over a group of pictures.

    It looks at samples of 8 bits. Deeper ones are rounded, and the q indices become those of 8 bits
    with the nearest quantiser steps.

    Args:
        video: The clip; at least 16x16 samples.
        show_index: The frames in the order of coding, ``[N]``, 2 to 127 of them; a frame may come
            twice.
        references: Positions in that list, ``[N, 3]``, each below the frame's own; -1 = none. Those
            of a golden-frame group are ``Group.references``.
        q_index: 1..255 each, ``[N]``.
        version: ``reconstructed`` (the paper's) or ``source`` (libvpx's).
        weights: How many frames each stands for, ``[N]``, above 0; 1 by default. It weighs what the
            frame itself adds to its references.
        lambda_q_index: The q index whose lambda turns bits into distortion; by default the highest,
            which is that of the frames nothing depends on.
        level: ``best``, or one of :func:`kernel_levels`. The result is the same.

    Raises:
        InputError: An argument is out of range.
    """
    shown = _integers("show_index", show_index).ravel()
    refs = _integers("references", references)
    q = _integers("q_index", q_index).ravel()
    if refs.ndim != 2 or refs.shape[1] != 3:
        raise InputError(f"references must be [N, 3], not {list(refs.shape)}")
    if version not in ("reconstructed", "source"):
        raise InputError(f"version must be 'reconstructed' or 'source', not {version!r}")
    if lambda_q_index is None:
        lambda_q_index = int(q.max(initial=1))
    frames, places = _frames_in_8_bits(video, shown)
    lambda_q = _on_8_bit_scale(_integers("lambda_q_index", lambda_q_index), video.bit_depth)
    try:
        weighed = np.ones(len(shown)) if weights is None else np.asarray(weights, dtype=np.float64)
        fields = _native.temporal_dependency(
            frames,
            video.width,
            video.height,
            show_index=places.tolist(),
            references=refs.tolist(),
            q_index=_on_8_bit_scale(q, video.bit_depth).tolist(),
            weights=weighed.tolist(),
            reconstructed=version == "reconstructed",
            lambda_q_index=int(lambda_q),
            level=level,
        )
    except ValueError as error:
        raise InputError(f"{video.name}: {error}") from error
    return Dependency(version, shown, refs, q, weighed, int(lambda_q), **fields)


def _frames_in_8_bits(
    video: Video, shown: NDArray[np.int32]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return frames in 8 bits, and where those of the group are among them."""
    if video.bit_depth == 8:
        return to_8_bits(video.frames), shown
    kept, places = np.unique(shown, return_inverse=True)
    outside = kept[(kept < 0) | (kept >= video.num_frames)]
    if len(outside):
        raise InputError(f"{video.name}: show_index {outside[0]} is outside the clip")
    return to_8_bits(video.frames[kept]), places.astype(np.int32)


def _on_8_bit_scale(q_index: NDArray[np.int32], bit_depth: int) -> NDArray[np.int32]:
    """Return q indices of 8 bits for those of another bit depth; what is none stays as it is."""
    if bit_depth == 8:
        return q_index
    nearest = np.array([nearest_q(step) for step in log2_steps(bit_depth).tolist()], np.int32)
    return np.where((q_index > 0) & (q_index < 256), nearest[np.clip(q_index, 0, 255)], q_index)


def _integers(name: str, values: ArrayLike) -> NDArray[np.int32]:
    array = np.asarray(values)
    if array.size and not np.can_cast(array.dtype, np.int64):
        raise InputError(f"{name} must be integers, not {array.dtype}")
    bounds = np.iinfo(np.int32)
    if array.size and not (bounds.min <= array.min() and array.max() <= bounds.max):
        raise InputError(f"{name} is out of range")
    return array.astype(np.int32)


def kernel_levels() -> Sequence[str]:
    """Return the levels of vector instructions that this processor has, the fastest first."""
    return _native.kernel_levels()
