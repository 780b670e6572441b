"""The bits that a codec takes for the pictures of a clip, by quality."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from vpxrc.codecs.codec import Codec
from vpxrc.codecs.frames import picture_of
from vpxrc.codecs.model import one_thread
from vpxrc.media.frames import Video, split_planes

NUM_Q = 256
PROBED = (0.0, 1 / 3, 2 / 3, 1.0)  # qualities
PICTURES = 9  # that are probed, evenly spaced in the clip
TRUST = 2.0  # pictures' worth of bits that the probe counts against those that were coded

# By weights and by content of the clip, 2 kB a picture.
_known: dict[tuple[bytes, str], NDArray[np.float64]] = {}


def quality_of(q_index: int) -> float:
    """Return the quality 0..1 of a q index: 0 is the finest, 255 the coarsest."""
    return 1 - q_index / (NUM_Q - 1)


def expected_bits(codec: Codec, video: Video) -> NDArray[np.float64]:
    """Return the bits of each picture by q index, float64 ``[num_frames, 256]``, read-only.

    They do not increase with the q index. A few pictures are really coded, at a few qualities, and
    the logarithms of their bits are interpolated: between qualities, and between the pictures
    before and after by the differences of neighbouring samples, so that a cut is one. It is done
    once in a process for a codec and the content of a clip.

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
        qualities = [quality_of(q) for q in range(NUM_Q)]
        logs = PchipInterpolator(PROBED, np.log2(sizes), axis=1)(qualities)
        bits = np.minimum.accumulate(np.exp2(_between(video, places) @ logs), axis=1)
        bits.flags.writeable = False
        _known[key] = bits
    return _known[key]


def _between(video: Video, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights of the probed pictures for each picture, ``[num_frames, probed]``."""
    activity = np.log([_activity(frame, video.width, video.height) for frame in video.frames])
    weights = np.zeros((video.num_frames, len(places)))
    weights[places, np.arange(len(places))] = 1
    for number, ends in enumerate(pairwise(places)):
        for place in range(ends[0] + 1, ends[1]):
            # A static clip has no distances but those in time.
            before, after = (
                abs(activity[place] - activity[end]) + 1e-6 * abs(place - end) for end in ends
            )
            weights[place, number : number + 2] = np.array([after, before]) / (before + after)
    return weights


def _activity(frame: NDArray[np.uint8], width: int, height: int) -> float:
    """Return the mean difference of luma samples and their neighbours, in levels, and 1."""
    luma = split_planes(frame, width, height)[0].astype(np.int16)
    steps = [np.abs(np.diff(luma, axis=axis)).sum() / luma.size for axis in (0, 1)]
    return 1 + float(sum(steps))


class RateModel:
    """Follows the bits of one encode.

    Args:
        bits: What :func:`expected_bits` returned.
        target: Bits that the clip may take.
    """

    def __init__(self, bits: NDArray[np.float64], target: float) -> None:
        self._bits, self._target, self._coded = bits, target, 0
        self._spent = 0.0
        # The prior of the ratio of real bits to expected ones is 1.
        self._paid = self._expected = TRUST

    def q_index(self) -> int:
        """Return the finest q index at which all pictures that are left fit what is left."""
        left = self._bits[self._coded :].sum(0) * self._ratio
        fits = np.flatnonzero(left <= self._target - self._spent)
        return int(fits[0]) if len(fits) else NUM_Q - 1

    def allocation(self, count: int) -> NDArray[np.float64]:
        """Return the bits that the next pictures are expected to take at :meth:`q_index`."""
        return self._bits[self._coded : self._coded + count, self.q_index()] * self._ratio

    def account(self, q_index: int, bits: int) -> None:
        """Book a picture that was coded."""
        # In pictures of average size, so that fine ones do not count more.
        self._paid += bits / self._bits[self._coded, q_index]
        self._expected += 1.0
        self._spent += bits
        self._coded += 1

    @property
    def _ratio(self) -> float:
        return self._paid / self._expected
