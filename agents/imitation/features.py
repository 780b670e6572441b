"""What the network sees of a golden-frame group, per pixel and in logarithms: any size will do."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpxrc.dependency import BLOCK
from vpxrc.encoder.complexity import WINDOWS, frames_inside, window_means
from vpxrc.encoder.log import coded_rows, psnr, shown_rows
from vpxrc.encoder.types import FIRST_PASS_FIELDS, UpdateType
from vpxrc.policies.step_models import GroupView, Steps

# Each has a column of FRAME.
_UPDATE_TYPES = (
    UpdateType.KEY,
    UpdateType.LEAF,
    UpdateType.GOLDEN,
    UpdateType.ARF,
    UpdateType.OVERLAY,
)
_SMALL = 1e-4  # bits or squared error per sample, where a logarithm needs one

FRAME = (
    "is_key",
    "is_leaf",
    "is_golden",
    "is_arf",
    "is_overlay",
    "layer_depth",
    "prior_step",
    "importance",
    "rate",
    "rate_share",
    "distortion",
    "blame",
    "inter_over_intra",
    "intra_blocks",
    "place",
    "reference_distance",
    "complexity",
)
GROUP = (
    "length",
    "frames_to_key",
    "frames_left",
    "shown",
    "base",
    "complexity",
    "model_rate",
    "target_rate",
    "pixels",
    "fps",
    "spread",
    "budget",
    "group_before",
    "psnr_before",
    *(f"complexity_{low}_{high}" for low, high in WINDOWS),
)
FIRST_PASS = (
    "coded_error",
    "intra_error",
    "sr_coded_error",
    "noise",
    "relative",
    "pcnt_inter",
    "pcnt_motion",
    "pcnt_neutral",
    "pcnt_intra_low",
    "intra_skip_pct",
    "mv_row_abs",
    "mv_col_abs",
)
DEPENDENCY_INPUTS = (  # of FRAME and GROUP; for the ablation
    "prior_step",
    "importance",
    "rate",
    "rate_share",
    "distortion",
    "blame",
    "inter_over_intra",
    "intra_blocks",
    "model_rate",
)


@dataclass(frozen=True, eq=False)
class Features:
    """The network's input for a group of ``n`` coded frames.

    Attributes:
        frames: float32 ``[n, len(FRAME)]``, in coding order.
        group: float32 ``[len(GROUP)]``.
        inside: Which shown frames the group has, bool ``[num_frames]``.
    """

    frames: NDArray[np.float32]
    group: NDArray[np.float32]
    inside: NDArray[np.bool_]


def first_pass_features(first_pass: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the network's view of the first pass.

    Args:
        first_pass: float64 ``[num_frames, 26]``, columns ``FIRST_PASS_FIELDS``.

    Returns:
        float32 ``[num_frames, len(FIRST_PASS)]``.
    """
    column = {name: first_pass[:, place] for place, name in enumerate(FIRST_PASS_FIELDS)}
    logs = [
        np.log2(1.0 + np.maximum(column[name], 0.0)) / 10
        for name in ("coded_error", "intra_error", "sr_coded_error", "frame_noise_energy")
    ]
    inter = np.log2((column["coded_error"] + 1.0) / (column["intra_error"] + 1.0)) / 4
    shares = [
        column[name] for name in ("pcnt_inter", "pcnt_motion", "pcnt_neutral", "pcnt_intra_low")
    ]
    shares.append(column["intra_skip_pct"])
    motion = [np.log1p(np.abs(column[name])) / 4 for name in ("mv_row_abs", "mv_col_abs")]
    return np.stack([*logs, inter, *shares, *motion], axis=1).astype(np.float32)


def group_features(group: GroupView, prior: Steps) -> Features:
    """Return what the network sees of a group.

    Args:
        group: The group, before its first frame is coded.
        prior: The steps that are to be corrected, with their model of the group.
    """
    inside = np.zeros(len(group.complexity), dtype=bool)
    inside[group.first + 1 : group.last + 1] = True
    return Features(_frames(group, prior), _whole(group, prior), inside)


def _frames(group: GroupView, prior: Steps) -> NDArray[np.float32]:
    """Return what is seen of each frame, float32 ``[n, len(FRAME)]``."""
    kinds, n, d = group.update_type, len(group.coded), prior.dependency
    assert d is not None  # the prior runs the model in every group
    shown = d.show_index[:n]
    samples = d.rate[0].size * BLOCK * BLOCK
    rate = d.rate[:n].sum(axis=(1, 2)) / samples + _SMALL
    distortion = d.distortion[:n].sum(axis=(1, 2)) / samples
    source = np.maximum(d.source_distortion[:n].sum(axis=(1, 2)) / samples, _SMALL)
    inter = d.inter_cost[:n].sum(axis=(1, 2)) / np.maximum(d.intra_cost[:n].sum(axis=(1, 2)), 1)
    references = d.references[:n]
    distances = np.abs(shown[:, None] - d.show_index[np.maximum(references, 0)])
    nearest = np.where(references >= 0, distances, 99).min(axis=1)
    span = max(int(shown.max() - shown.min()), 1)
    columns = [
        *(kinds == kind for kind in _UPDATE_TYPES),
        np.maximum(group.layer_depth, 1) / 4,
        prior.step / 2,
        np.log2(d.frame_importance[:n]) / 4,
        np.log2(rate) / 8,
        np.log2(rate / rate.mean()) / 4,
        np.log2(np.maximum(distortion, _SMALL)) / 8,
        np.log2(np.maximum(distortion, source) / source) / 2,
        np.log2(np.maximum(inter, 1e-3)) / 4,
        (d.reference[:n] < 0).mean(axis=(1, 2)),
        (shown - shown.min()) / span,
        np.minimum(nearest, 32) / 16,
        group.complexity[shown] / 4,
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _whole(group: GroupView, prior: Steps) -> NDArray[np.float32]:
    """Return what is seen of the group as a whole, float32 ``[len(GROUP)]``."""
    video, first, last = group.episode.video, group.first, group.last
    num_frames, pixels = video.num_frames, video.width * video.height
    length = max(last - first, 1)
    per_frame = group.target_bits / num_frames
    model_bits = float(prior.bits.sum() * 2 ** (-group.slope * group.base))
    records = group.records
    shown = shown_rows(records)
    before, quality = 0.0, 0.0
    if len(shown) > 1:
        # Position 0 of this group may be there already: an ARF of the one before, shown again.
        coded = coded_rows(records)
        recent = records[records["group_index"] == coded["group_index"][-1]]
        frames = max(len(shown_rows(recent)), 1)
        before = float(np.log2(max(recent["bits"].sum() / frames / per_frame, 1e-3)))
        all_of_it = psnr(shown["sse_y"] / pixels, video.bit_depth)
        quality = float(all_of_it[-frames:].mean() - all_of_it.mean())
    # Positive: more is left than the clip's average for the frames that are left.
    left = max(num_frames - len(shown), 1)
    budget = np.log2(max((group.target_bits - group.spent) / left / per_frame, 1e-2))
    windows = window_means(group.complexity, first, last)
    return np.array(
        [
            length / 16,
            (group.end - first) / 64,
            (num_frames - first) / 64,
            len(shown) / 64,
            group.base / 4 - 2,
            group.complexity[frames_inside(first, last)].mean() / 2,
            np.log2(max(model_bits / length / per_frame, 1e-3)) / 2,
            np.log2(per_frame / pixels) / 4 + 1,
            np.log2(pixels) / 2 - 8,
            np.log2(float(video.fps)) / 2 - 2,
            group.complexity.std() / 2,
            budget,
            before / 2,
            quality / 8,
            *(value / 2 for value in windows),
        ],
        dtype=np.float32,
    )
