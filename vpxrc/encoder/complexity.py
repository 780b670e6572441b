"""How hard each frame of a clip is to code, by the error that the first pass left in it."""

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import FIRST_PASS_FIELDS

#: Stretches of frames around a golden-frame group, as first and end offset. Offsets below 0 count
#: from the group's first frame, others from the frame after its last one.
WINDOWS: tuple[tuple[int, int], ...] = ((-32, -16), (-16, 0), (0, 16), (16, 32), (32, 64))


def coded_error(
    first_pass: NDArray[np.float64], floor: float = 1e-2, *, weighted: bool = False
) -> NDArray[np.float64]:
    """Return the first pass's error per frame, with the first frame's mended.

    The first pass has no reference for the first frame, so that its error there is one of intra
    prediction. The frame counts as an average one instead.

    Args:
        first_pass: First-pass statistics, float64 ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``).
        floor: The least error of a frame, over the mean error of the clip.
        weighted: Whether to multiply by libvpx's weights, which are low in dark pictures.

    Returns:
        float64 ``[num_frames]``.
    """
    error: NDArray[np.float64] = first_pass[:, FIRST_PASS_FIELDS.index("coded_error")].copy()
    if len(error) > 1:
        error[0] = error[1:].mean()
    if weighted:
        error *= first_pass[:, FIRST_PASS_FIELDS.index("weight")]
    return np.asarray(np.maximum(error, floor * max(error.mean(), 1e-3)))


def log_complexity(first_pass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log2 of each frame's error over the clip's geometric mean, float64 ``[num_frames]``.

    Args:
        first_pass: As :func:`coded_error` takes it.
    """
    complexity = np.log2(coded_error(first_pass))
    return np.asarray(complexity - complexity.mean())


def frames_inside(first: int, last: int) -> slice:
    """Return which frames a golden-frame group codes, by display index.

    The group before has coded the first frame as its alternate reference, or the frame is a key
    frame. A group of one frame has no other.

    Args:
        first: The lowest display index.
        last: The highest display index.
    """
    return slice(first + 1, last + 1) if last > first else slice(first, first + 1)


def window_means(complexity: NDArray[np.float64], first: int, last: int) -> list[float]:
    """Return the mean complexity of each of ``WINDOWS`` around a group, 0 outside the clip.

    Args:
        complexity: What :func:`log_complexity` returned for the clip.
        first: The group's lowest display index.
        last: Its highest display index.
    """
    means = []
    for low, high in WINDOWS:
        start = (first if low < 0 else last + 1) + low
        part = complexity[max(start, 0) : max(start + high - low, 0)]
        means.append(mean(part))
    return means


def mean(values: NDArray[np.float64]) -> float:
    """Return the mean, 0 of nothing; for a few numbers twice as fast as their method.

    Args:
        values: float64 ``[n]``.
    """
    return float(np.add.reduce(values)) / len(values) if len(values) else 0.0
