"""The bits that a codec takes for the pictures of a clip, by quality."""

import numpy as np
from numpy.typing import NDArray

from vpxrc.codecs.codec import Codec
from vpxrc.codecs.frames import picture_of
from vpxrc.codecs.model import one_thread
from vpxrc.media.frames import Video

NUM_Q = 256
PROBED = (0.0, 0.25, 0.5, 0.75, 1.0)  # qualities
PICTURES = 3  # that are probed, evenly spaced in the clip
TRUST = 2.0  # pictures' worth of bits that the probe counts against those that were coded

# By weights and by content of the clip, 2 kB each.
_known: dict[tuple[bytes, str], NDArray[np.float64]] = {}


def quality_of(q_index: int) -> float:
    """Return the quality 0..1 of a q index: 0 is the finest, 255 the coarsest."""
    return 1 - q_index / (NUM_Q - 1)


def expected_bits(codec: Codec, video: Video) -> NDArray[np.float64]:
    """Return the mean bits of a picture by q index, float64 ``[256]``, not increasing.

    A few pictures are really coded, at a few qualities. It is done once in a process for
    a codec and the content of a clip.

    Args:
        codec: A codec of variable quality.
        video: The clip.
    """
    key = codec.identity, video.content_hash
    if key not in _known:
        places = np.unique(np.linspace(0, video.num_frames - 1, PICTURES).round().astype(int))
        sizes = np.zeros((len(places), len(PROBED)))
        with one_thread():
            for row, place in zip(sizes, places, strict=True):
                picture = picture_of(video.frames[place], video.width, video.height)
                row[:] = [8 * len(codec.compress(picture, quality).data) for quality in PROBED]
        logs = np.log2(sizes.mean(0))
        qualities = [quality_of(q) for q in range(NUM_Q)]
        bits = np.exp2(np.interp(qualities, PROBED, logs))
        _known[key] = np.minimum.accumulate(bits)
    return _known[key]


class RateModel:
    """Follows the bits of one encode.

    Args:
        bits: What :func:`expected_bits` returned.
        target: Bits that the clip may take.
        num_frames: Pictures of the clip.
    """

    def __init__(self, bits: NDArray[np.float64], target: float, num_frames: int) -> None:
        self._bits, self._target, self._left = bits, target, num_frames
        self._spent = 0.0
        # The prior of the ratio of real bits to expected ones is 1.
        self._paid = self._expected = TRUST

    @property
    def share(self) -> float:
        """Bits that are left for each picture that is left, at least 0."""
        return max(self._target - self._spent, 0.0) / max(self._left, 1)

    def q_index(self) -> int:
        """Return the finest q index at which all pictures that are left fit what is left."""
        fits = np.flatnonzero(self._bits * (self._paid / self._expected) <= self.share)
        return int(fits[0]) if len(fits) else NUM_Q - 1

    def account(self, q_index: int, bits: int) -> None:
        """Book a picture that was coded."""
        self._spent += bits
        self._left -= 1
        # In pictures of average size, so that fine ones do not count more.
        self._paid += bits / self._bits[q_index]
        self._expected += 1.0
