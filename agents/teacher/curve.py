"""Rate and quality of encodes: single points, libvpx-vbr's curve around a target, and frames."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.log import EncodeLog, frame_psnr
from vpxrc.encoder.options import EncoderOptions
from vpxrc.evaluation.bd_rate import more_bits
from vpxrc.media.frames import Video
from vpxrc.policies.base import encode
from vpxrc.policies.libvpx import libvpx_vbr
from vpxrc.quality import BALANCED, QUALITIES, measure_stream

Quality = Literal["balanced", "psnr", "psnr_overall", "ssim", "vmaf"]
SEARCH_QUALITIES: tuple[Quality, ...] = get_args(Quality)
ANCHOR_TARGETS = (0.7, 1.0, 1.4)  # targets of libvpx-vbr's curve, as multiples of the target

_STREAM_METRICS = ("ssim", "vmaf")  # measured on the stream; libvpx counts the squared errors


def parts(quality: str) -> tuple[str, ...]:
    """Return the qualities that one consists of: four for ``balanced``, else itself."""
    return tuple(QUALITIES) if quality == BALANCED else (quality,)


@dataclass(frozen=True)
class Point:
    """A point of a rate-distortion plane.

    Attributes:
        bitrate: Achieved bitrate, kbit/s.
        psnr: Mean of the frames' luma PSNR, dB.
        psnr_overall: PSNR of the mean error over all planes, dB.
        ssim: Mean of the frames' SSIM; NaN where it was not measured.
        vmaf: Mean of the frames' VMAF; NaN where it was not measured.
    """

    bitrate: float
    psnr: float
    psnr_overall: float
    ssim: float = float("nan")
    vmaf: float = float("nan")


@dataclass(frozen=True, eq=False)
class Measured:
    """An encode and the qualities of its frames.

    SSIM and VMAF are measured when they are first asked for, since only the bits of some encodes
    count.

    Attributes:
        video: The clip.
        log: The log of its encode.
        quality: The quality that decides what is measured.
    """

    video: Video
    log: EncodeLog
    quality: Quality

    @cached_property
    def by_stream(self) -> dict[str, NDArray[np.float64]]:
        """SSIM and VMAF of every frame by show index, as far as the quality needs them."""
        wanted = [metric for metric in _STREAM_METRICS if metric in parts(self.quality)]
        return measure_stream(self.log.stream, self.video, wanted) if wanted else {}

    @property
    def point(self) -> Point:
        """Rate and quality of the encode."""
        means = {metric: float(values.mean()) for metric, values in self.by_stream.items()}
        return Point(self.log.bitrate, self.log.psnr, self.log.psnr_overall, **means)

    def contributions(self, part: str, near: EncodeLog | None = None) -> NDArray[np.float64]:
        """Return what each row of the log contributes to a quality, float64 ``[rows]``.

        The contributions add up to the quality, except for the PSNR of the mean error with
        ``near``.

        Args:
            part: One of the ``parts`` of the quality.
            near: An encode at which the PSNR of the mean error is made linear: the sums of two logs
                then differ by about as much as their qualities. Other qualities do not read it.
        """
        rows = self.log.records
        shown = rows["is_shown"] != 0
        result = np.zeros(len(rows))
        frames = shown.sum()
        if part == "psnr":
            clip = self.log.clip
            result[shown] = frame_psnr(clip, rows[shown]) / frames
        elif part in _STREAM_METRICS:
            order = np.argsort(rows["show_index"][shown])
            values = np.empty(frames)
            values[order] = self.by_stream[part]
            result[shown] = values / frames
        elif near is None:
            result[shown] = self.log.psnr_overall / frames
        else:
            errors = sum(rows[name][shown] for name in ("sse_y", "sse_u", "sse_v"))
            base = near.shown
            mean = sum(base[name].sum() for name in ("sse_y", "sse_u", "sse_v")) / len(base)
            result[shown] = -10 / np.log(10) * errors / max(mean, 1.0) / frames
        return result


def anchor_curve(
    video: Video, options: EncoderOptions, quality: Quality = "balanced"
) -> tuple[Point, ...]:
    """Return libvpx-vbr's points around a target, for :func:`saved`."""
    targets = [max(1, round(options.target_bitrate * part)) for part in ANCHOR_TARGETS]
    logs = (
        encode(video, dataclasses.replace(options, target_bitrate=target), libvpx_vbr())
        for target in targets
    )
    return tuple(Measured(video, log, quality).point for log in logs)


def saved(anchors: tuple[Point, ...], point: Point, quality: str) -> float | None:
    """Return the percent of bits that a point saves at equal quality.

    Args:
        anchors: The curve, as :func:`anchor_curve` returns it.
        point: The point.
        quality: A quality that was measured at all of them; ``balanced`` is the mean over the four.

    Returns:
        The percentage; None if the curve's quality does not rise with its rate.
    """
    rates = [anchor.bitrate for anchor in anchors]
    found = []
    for part in parts(quality):
        curve = [getattr(anchor, part) for anchor in anchors]
        more = more_bits(rates, curve, [point.bitrate], [getattr(point, part)])
        if more is None:
            return None
        found.append(-more)
    return float(np.mean(found))
