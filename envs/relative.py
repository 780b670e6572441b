"""The reward ``relative``: quality against libvpx's own rate-distortion curve, at the target."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.checks import check_positive
from vpxrc.envs.reference import (
    curve_slope,
    reference_options,
    reference_pair,
    weighted_hash,
)
from vpxrc.envs.rewards import EncodeSoFar
from vpxrc.errors import InputError
from vpxrc.media.frames import ClipFormat, Video
from vpxrc.policies.region import WeightedRegion

MAX_GAIN = 1.0  # doublings of the bitrate; no rate control saves half of the bits
PENALTY = 4.0  # per doubling of the bitrate above the limit


@dataclass(frozen=True, eq=False)
class _Curve:
    """libvpx's own curve at one target.

    Attributes:
        slope: dB per doubling of the bitrate.
        psnr: Mean luma PSNR in dB at exactly the target.
        psnr_sum: Sum of the PSNRs of the first n frames, by n, ``[num_frames + 1]``.
        share: Share of the bits that is spent when n frames have been shown, by n,
            ``[num_frames + 1]``.
    """

    slope: float
    psnr: float
    psnr_sum: list[float]
    share: list[float]


class RelativeReward:
    """Quality over libvpx's at the target, in doublings of the bitrate, less overshoot's price.

    For an encode with mean luma PSNR P and bitrate B at the target T,

    ``min((P - P0) / slope, 1) - 4 max(0, log2(B / (cost_limit T)))``

    P0 is libvpx's PSNR at exactly T and ``slope`` its gain in dB per doubling of the bitrate. Both
    come from libvpx's two-pass VBR at the neighbouring powers of 2, in kbit/s; the line through
    them is taken, as in Bjontegaard's delta rate (VCEG-M33). The environment makes these encodes,
    and the cache keeps them. So 0 is libvpx at a bitrate that is met exactly, 0.1 is worth 7 % of
    the bits at any size of picture and any target, and overshoot costs four times what its bits
    could gain.

    It is paid step by step: a step is worth what it adds to ``so_far``. There the bitrate is the
    one that the encode would have if the rest of the target were spent as libvpx spends it, so the
    steps add up to the value without a correction at the end.

    Args:
        cost_limit: Achieved over target bitrate at which the price begins, above 0.
    """

    range: ClassVar[tuple[float, float]] = (-math.inf, MAX_GAIN)
    deterministic: ClassVar[bool] = True

    def __init__(self, cost_limit: float = 1.0) -> None:
        self.cost_limit = check_positive("cost_limit", cost_limit)
        self._curves: dict[tuple[str, EncoderOptions], _Curve] = {}

    def prepare(
        self, video: Video, options: EncoderOptions, region: WeightedRegion | None = None
    ) -> None:
        """Encode the clip by libvpx, unless that has been done.

        Args:
            video: The clip.
            options: The encode's options.
            region: A region that the encodes prefer; the logs to come are weighted by it.

        Raises:
            EncoderError: An encode failed.
            OutputError: The cache cannot be written.
        """
        key = weighted_hash(video.content_hash, region), reference_options(options)
        if key not in self._curves:
            self._curves[key] = _curve(video, options, region)

    def __call__(self, log: EncodeLog) -> float:
        """Return the value of the finished encode.

        Raises:
            InputError: ``prepare`` was not called for its clip and options.
        """
        curve = self._find(log.clip, log.options)
        quality = (log.psnr - curve.psnr) / curve.slope
        return self._value(quality, log.overshoot + 1)

    def so_far(self, encode: EncodeSoFar) -> float:
        """Return the value that the encode would have if the rest went as libvpx's does.

        Raises:
            InputError: ``prepare`` was not called for the clip and the options.
        """
        clip, options, shown = encode.clip, encode.options, encode.num_shown
        curve = self._find(clip, options)
        target_bits = 1000.0 * options.target_bitrate * clip.duration
        bitrate = encode.bits / target_bits + (1 - curve.share[shown]) * self.cost_limit
        above = (encode.psnr_sum - curve.psnr_sum[shown]) / clip.num_frames
        return self._value(above / curve.slope, bitrate)

    def _value(self, quality: float, bitrate: float) -> float:
        """Return the value of a quality in doublings and a bitrate over the target."""
        over = math.log2(max(bitrate / self.cost_limit, 1.0))
        return min(quality, MAX_GAIN) - PENALTY * over

    def _find(self, clip: ClipFormat, options: EncoderOptions) -> _Curve:
        curve = self._curves.get((clip.content_hash, reference_options(options)))
        if curve is None:
            raise InputError(f"{clip.name}: call prepare() before its encodes are judged")
        return curve


def _curve(video: Video, options: EncoderOptions, region: WeightedRegion | None) -> _Curve:
    """Return libvpx's curve at a target, from its encodes at the :func:`anchors` of the target."""
    low, high = reference_pair(video, options, region)
    target_bits = 1000.0 * options.target_bitrate * video.duration
    slope = curve_slope(low, high)
    nearest = min(low, high, key=lambda encode: abs(math.log2(encode.bits / target_bits)))
    quality = nearest.psnr + slope * math.log2(target_bits / nearest.bits)
    share = np.cumsum(nearest.spread) / nearest.spread.sum()
    return _Curve(
        slope, float(quality.mean()), [0.0, *quality.cumsum().tolist()], [0.0, *share.tolist()]
    )
