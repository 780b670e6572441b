"""Rate and quality of encodes: single points, libvpx-vbr's curve around a target, and frames."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.log import EncodeLog, psnr
from vpxrc.encoder.options import EncoderOptions
from vpxrc.evaluation.bd_rate import more_bits
from vpxrc.media.frames import Video
from vpxrc.policies.base import encode
from vpxrc.policies.libvpx import libvpx_vbr
from vpxrc.quality import measure

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
    def of(cls, video: Video, log: EncodeLog, quality: Quality) -> Self:
        """Return the point of a clip's encode; SSIM is measured only where it is the quality."""
        ssim = float("nan")
        if quality == "ssim":
            ssim = float(_ssim(video, log).mean())
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
    return tuple(Point.of(video, log, quality) for log in logs)


def saved(anchors: tuple[Point, ...], point: Point, quality: str) -> float | None:
    """Return the percent of bits that a point saves at equal quality; None without a curve."""
    rates = [anchor.bitrate for anchor in anchors]
    more = more_bits(
        rates, [getattr(a, quality) for a in anchors], [point.bitrate], [getattr(point, quality)]
    )
    return None if more is None else -more


def contributions(
    video: Video, log: EncodeLog, quality: Quality, near: EncodeLog | None = None
) -> NDArray[np.float64]:
    """Return what each row of a log contributes to its quality, float64 ``[rows]``.

    The contributions add up to the quality, except for the PSNR of the mean error with ``near``.

    Args:
        video: The clip.
        log: Its encode.
        quality: The quality that is shared out over the rows.
        near: An encode at which the PSNR of the mean error is made linear: the sums of two logs
            then differ by about as much as their qualities. Other qualities do not read it.
    """
    rows = log.records
    shown = rows["is_shown"] != 0
    result = np.zeros(len(rows))
    frames = shown.sum()
    if quality == "psnr":
        result[shown] = psnr(rows["sse_y"][shown] / log.clip.pixels) / frames
    elif quality == "ssim":
        # Measured where it is needed, which is not often, and not kept.
        order = np.argsort(rows["show_index"][shown])
        values = np.empty(frames)
        values[order] = _ssim(video, log)
        result[shown] = values / frames
    elif near is None:
        result[shown] = log.psnr_overall / frames
    else:
        errors = sum(rows[name][shown] for name in ("sse_y", "sse_u", "sse_v"))
        base = near.shown
        mean = sum(base[name].sum() for name in ("sse_y", "sse_u", "sse_v")) / len(base)
        result[shown] = -10 / np.log(10) * errors / max(mean, 1.0) / frames
    return result


def _ssim(video: Video, log: EncodeLog) -> NDArray[np.float64]:
    """Return the SSIM of every shown frame, by show index."""
    decoded = log.options.decode(log.stream, log.clip)
    return measure(decoded, video, ["ssim"])["ssim"].to_numpy()
