"""The key frames that libvpx places, predicted from the first pass."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import FIRST_PASS_FIELDS

MIN_CHUNK = 8  # frames


def key_frames(stats: NDArray[np.float64], max_distance: int) -> list[int]:
    """Return the frames that libvpx codes as key frames: the first, scene cuts, and at a distance.

    libvpx's rule but for one rare case, motion that comes to a standstill.

    Args:
        stats: First-pass statistics, ``[num_frames, 26]``.
        max_distance: The most frames between key frames.
    """
    cuts = _scene_cuts(stats)
    keys = [0]
    for frame in range(1, len(stats)):
        if cuts[frame] or frame - keys[-1] == max(max_distance, 1):
            keys.append(frame)
    return keys


def cut(stats: NDArray[np.float64], length: float, max_distance: int) -> list[int]:
    """Return the first frames of chunks that begin at key frames.

    Args:
        stats: First-pass statistics, ``[num_frames, 26]``.
        length: Frames per chunk, about: from half of it to one and a half.
        max_distance: The most frames between key frames.
    """
    length = max(length, 2 * MIN_CHUNK)
    keys = np.array(key_frames(stats, max_distance))
    starts = [0]
    while len(stats) - starts[-1] > 1.5 * length:
        wanted = starts[-1] + length
        last = min(starts[-1] + 1.5 * length, len(stats) - length / 2)
        near = keys[(keys >= starts[-1] + length / 2) & (keys <= last)]
        if len(near):
            starts.append(int(near[np.argmin(abs(near - wanted))]))
        else:
            starts.append(round(min(wanted, last)))
    return starts


def _scene_cuts(stats: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which frames libvpx takes for the first of a scene (its test_candidate_kf)."""
    names = ("intra_error", "coded_error", "sr_coded_error", "pcnt_inter", "pcnt_second_ref")
    columns = [stats[:, FIRST_PASS_FIELDS.index(name)] for name in (*names, "pcnt_neutral")]
    intra, error, second_error, inter, second, neutral = columns
    ratio = intra / (error + 1e-6)
    flash = (second_error < error) | ((second > inter) & (second >= 0.5))
    cuts = np.zeros(len(stats), dtype=bool)
    if len(stats) < 3:
        return cuts
    last, this, after = slice(0, -2), slice(1, -1), slice(2, None)
    by_intra = 1 - inter
    mostly = by_intra[this] + neutral[this]
    slide = (intra[this] < 1.5 * error[this]) & (
        error[this] > 5 * np.maximum(error[last], error[after])
    )
    step = (
        (ratio[this] < 2)
        & (np.minimum(ratio[last], ratio[after]) > 2.25)
        & (by_intra[this] > 3 * np.maximum(by_intra[last], by_intra[after]))
        & ((by_intra[this] > 0.075) | (mostly > 0.85))
    ) | (
        (ratio[this] < 1.25)
        & (mostly > 0.85)
        & (ratio[this] < 0.9 * np.minimum(ratio[last], ratio[after]))
    )
    peak = (
        (error[this] > 1.2 * np.maximum(error[last], error[after]))
        & (by_intra[this] > 0.25)
        & (mostly > 0.5)
        & (ratio[this] < 2.5)
    )
    cuts[this] = ~flash[this] & ~flash[after] & (second[this] < 0.2)
    cuts[this] &= (inter[this] < 0.05) | slide | step | peak
    for frame in np.flatnonzero(cuts).tolist():
        cuts[frame] = _predicts(frame, intra, error, inter, neutral)
    return cuts


def _predicts(frame: int, intra: Any, error: Any, inter: Any, neutral: Any) -> bool:
    """Return whether a frame predicts enough of those after it to be a key frame."""
    score = before = 0.0
    decay = 1.0
    last = len(intra) - 1
    for count in range(16):
        at = min(frame + 1 + count, last)
        ratio = min(12.5 * intra[at] / (error[at] + 1e-6), 128.0)
        decay *= inter[at] if inter[at] > 0.85 else (0.85 + inter[at]) / 2
        score += decay * ratio
        if (
            inter[at] < 0.05
            or ratio < 1.5
            or (inter[at] - neutral[at] < 0.2 and ratio < 3)
            or score - before < 3
            or intra[at] < 0.5
        ):
            return bool(score > 30 and count > 3)
        before = score
        if at == last:
            return bool(score > 30 and count > 3)
    return bool(score > 30)
