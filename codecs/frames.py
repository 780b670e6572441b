"""Frames of a video as pictures for a codec, and back.

A codec takes RGB. The conversion is the one of ITU-R BT.601 in full range, whatever the colours of
the video are: what matters is that both ends use the same, and that no sample is clipped away.
"""

import numpy as np
from numpy.typing import NDArray

from vpxrc.media.frames import LUMA_WEIGHTS, Colours, rgb, split_planes

_COLOURS = Colours(matrix="bt470bg", full_range=True)
_RED, _BLUE = LUMA_WEIGHTS["bt470bg"]


def picture_of(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return a frame as RGB, uint8 ``[height, width, 3]``.

    Args:
        frame: A row of :attr:`vpxrc.Video.frames`.
        width: Luma width in pixels.
        height: Luma height in pixels.
    """
    return rgb(*split_planes(frame, width, height), _COLOURS)


def frame_of(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture as a frame: the inverse of :func:`picture_of`, up to rounding.

    A chroma sample is the mean of its four pixels, or of those that the picture has.

    Args:
        picture: uint8 ``[height, width, 3]``.

    Returns:
        uint8 ``[frame_bytes]``.
    """
    red, green, blue = np.moveaxis(picture.astype(np.float64), -1, 0)
    luma = _RED * red + (1 - _RED - _BLUE) * green + _BLUE * blue
    to_blue = 128 + _halved((blue - luma) / (2 * (1 - _BLUE)))
    to_red = 128 + _halved((red - luma) / (2 * (1 - _RED)))
    samples = np.concatenate([plane.ravel() for plane in (luma, to_blue, to_red)])
    return np.asarray(np.clip(np.rint(samples), 0, 255), np.uint8)


def _halved(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = plane.shape
    even = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    cells = even.reshape((height + 1) // 2, 2, (width + 1) // 2, 2)
    return np.asarray(cells.mean(axis=(1, 3)))
