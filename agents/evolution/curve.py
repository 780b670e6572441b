"""Rate and quality of encodes: single points, libvpx-vbr's curve around a target, and frames."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder import EncodeLog, EncoderOptions
from vpxrc.metrics import measure, more_bits, psnr
from vpxrc.policies import libvpx_vbr
from vpxrc.policy import encode
from vpxrc.video import Video

Quality = Literal["psnr", "psnr_overall", "ssim"]
SEARCH_QUALITIES: tuple[Quality, ...] = get_args(Quality)
ANCHOR_TARGETS = (0.7, 1.0, 1.4)  # targets of libvpx-vbr's curve, as multiples of the target


@dataclass(frozen=True)
class Point:
    """A point of a rate-distortion plane.

    Attributes:
        bitrate: Achieved bitrate, kbit/s.
        psnr: Mean of the frames' luma PSNR, dB.
        psnr_overall: PSNR of the mean error over all planes, dB.
        ssim: Mean of the frames' SSIM; NaN where it was not measured.
    """

    bitrate: float
    psnr: float
    psnr_overall: float
    ssim: float = float("nan")

    @classmethod
    def of(cls, log: EncodeLog, quality: Quality) -> Self:
        """Return the point of an encode; its SSIM is measured only where that is the quality."""
        ssim = float("nan")
        if quality == "ssim":
            ssim = float(measure(log.stream, log.video, ["ssim"])["ssim"].mean())
        return cls(log.bitrate, log.psnr, log.psnr_overall, ssim)


def anchor_curve(
    video: Video, options: EncoderOptions, quality: Quality = "psnr"
) -> tuple[Point, ...]:
    """Return libvpx-vbr's points around a target, for :func:`saved`."""
    targets = [max(1, round(options.target_bitrate * part)) for part in ANCHOR_TARGETS]
    logs = (
        encode(video, dataclasses.replace(options, target_bitrate=target), libvpx_vbr())
        for target in targets
    )
    return tuple(Point.of(log, quality) for log in logs)


def saved(anchors: tuple[Point, ...], point: Point, quality: str) -> float | None:
    """Return the percent of bits that a point saves at equal quality; None without a curve."""
    rates = [anchor.bitrate for anchor in anchors]
    more = more_bits(
        rates, [getattr(a, quality) for a in anchors], [point.bitrate], [getattr(point, quality)]
    )
    return None if more is None else -more


def contributions(
    log: EncodeLog, quality: Quality, near: EncodeLog | None = None
) -> NDArray[np.float64]:
    """Return what each row of a log contributes to its quality, float64 ``[rows]``.

    The contributions add up to the quality, except for the PSNR of the mean error with ``near``.

    Args:
        log: The encode.
        quality: The quality that is shared out over the rows.
        near: An encode at which the PSNR of the mean error is made linear: the sums of two logs
            then differ by about as much as their qualities. Other qualities do not read it.
    """
    rows, video = log.records, log.video
    shown = rows["is_shown"] != 0
    result = np.zeros(len(rows))
    frames = shown.sum()
    if quality == "psnr":
        result[shown] = psnr(rows["sse_y"][shown] / (video.width * video.height)) / frames
    elif quality == "ssim":
        # Measured where it is needed, which is not often, and not kept.
        order = np.argsort(rows["show_index"][shown])
        values = np.empty(frames)
        values[order] = measure(log.stream, video, ["ssim"])["ssim"].to_numpy()
        result[shown] = values / frames
    elif near is None:
        result[shown] = log.psnr_overall / frames
    else:
        errors = sum(rows[name][shown] for name in ("sse_y", "sse_u", "sse_v"))
        base = near.records[near.records["is_shown"] != 0]
        mean = sum(base[name].sum() for name in ("sse_y", "sse_u", "sse_v")) / len(base)
        result[shown] = -10 / np.log(10) * errors / max(mean, 1.0) / frames
    return result
