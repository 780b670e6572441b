"""Quality of a stream as ffmpeg decodes it, and statistics over encodes and clips.

The decoder and the metrics' programs are not ours, so a fault of the encoder cannot hide in them.
"""

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ffmpeg
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from vpxrc.encoder import psnr
from vpxrc.errors import EncoderError, InputError
from vpxrc.video import Video, frame_bytes, run_ffmpeg, split_planes

METRICS = ("psnr", "ssim", "vmaf")
MIN_RATES = 4
NUM_RESAMPLES = 10_000


def measure(
    decoded: NDArray[np.uint8], video: Video, metrics: Sequence[str] = METRICS
) -> pd.DataFrame:
    """Compare decoded frames with their source, one by one.

    Args:
        decoded: uint8 ``[num_frames, frame_bytes]``, as :meth:`vpxrc.EncoderOptions.decode` returns
            them.
        video: The source.
        metrics: Which of ``psnr``, ``ssim`` and ``vmaf``; VMAF takes most of the time.

    Returns:
        One row per shown frame:

        - ``show_index``: int, from 0.
        - ``mse_y``, ``mse_u``, ``mse_v``: mean squared error of each plane, exact (psnr).
        - ``psnr_y``: luma PSNR in dB, at most 100 as in libvpx (psnr).
        - ``ssim``: luma SSIM by ffmpeg's filter, at most 1, six decimals (ssim).
        - ``vmaf``: VMAF v0.6.1 by libvmaf, 0..100 (vmaf).

    Raises:
        InputError: A metric's name is unknown.
        EncoderError: The number of frames or their size is not the source's.
        MissingDependencyError: There is no ffmpeg, or it has no libvmaf.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise InputError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
    if len(decoded) != video.num_frames:
        raise EncoderError(
            f"{video.name}: the stream shows {len(decoded)} frames, its source {video.num_frames}"
        )
    if decoded.shape != video.frames.shape:
        raise EncoderError(f"{video.name}: the stream's frames are not of its source's size")
    table = pd.DataFrame({"show_index": np.arange(len(decoded))})
    if "psnr" in metrics:
        errors = _mean_squared_errors(decoded, video)
        for plane, error in zip("yuv", errors.T, strict=True):
            table[f"mse_{plane}"] = error
        table["psnr_y"] = psnr(errors[:, 0])
    filters = [metric for metric in ("ssim", "vmaf") if metric in metrics]
    if filters:
        for metric, values in _filter_metrics(decoded, video, filters).items():
            if len(values) != len(table):
                raise EncoderError(
                    f"{video.name}: ffmpeg measured {len(values)} of {len(table)} frames"
                )
            table[metric] = values
    return table


def summarize(frames: pd.DataFrame, width: int, height: int) -> dict[str, float]:
    """Return the quality of an encode from its frames'.

    Args:
        frames: What :func:`measure` returned.
        width: Luma width in pixels; it weighs the planes.
        height: Luma height in pixels.

    Returns:
        For the metrics that are in ``frames``: ``psnr``, the mean over frames of the luma PSNR in
        dB; ``psnr_overall``, the PSNR in dB of the mean squared error over all planes and frames
        (both at most 100); ``ssim`` and ``vmaf``, means over frames.
    """
    summary = {}
    if "psnr_y" in frames:
        summary["psnr"] = float(frames["psnr_y"].mean())
        luma = width * height
        chroma = (frame_bytes(width, height) - luma) // 2
        error = luma * frames["mse_y"] + chroma * (frames["mse_u"] + frames["mse_v"])
        summary["psnr_overall"] = float(psnr(error.mean() / (luma + 2 * chroma)))
    for metric in ("ssim", "vmaf"):
        if metric in frames:
            summary[metric] = float(frames[metric].mean())
    return summary


@dataclass(frozen=True)
class BdRate:
    """A Bjøntegaard delta rate, or why there is none.

    Attributes:
        percent: Mean difference in rate at equal quality, in percent, negative where the test needs
            fewer bits; None unless ``status`` is ``ok``.
        status: ``ok``; ``no-overlap``, the curves share no range of quality; ``not-monotonic``, a
            higher rate did not give a higher quality; ``too-few-rates``, fewer than 4 on a curve.
        overlap: The shared range of quality as a fraction 0..1 of the range that both curves span.
    """

    percent: float | None
    status: Literal["ok", "no-overlap", "not-monotonic", "too-few-rates"]
    overlap: float


def bd_rate(
    anchor_rate: ArrayLike,
    anchor_quality: ArrayLike,
    test_rate: ArrayLike,
    test_quality: ArrayLike,
) -> BdRate:
    """Return the BD-rate of a test against an anchor, by piecewise cubic interpolation (pchip).

    Args:
        anchor_rate: ``[n]`` achieved bitrates in any one unit, above 0, in any order.
        anchor_quality: ``[n]`` qualities, higher is better.
        test_rate: ``[m]`` achieved bitrates in the same unit.
        test_quality: ``[m]`` qualities.

    Raises:
        InputError: Rates and qualities differ in number, a rate is not above 0, or a value is not
            finite.
    """
    # Imported here because it loads matplotlib, which every command would wait for.
    import bjontegaard

    anchor = _rate_curve("anchor", anchor_rate, anchor_quality)
    test = _rate_curve("test", test_rate, test_quality)
    if min(len(anchor[0]), len(test[0])) < MIN_RATES:
        return BdRate(None, "too-few-rates", _overlap(anchor[1], test[1]))
    overlap = _overlap(anchor[1], test[1])
    # Repeated rates are no curve either: the spline needs one rate per quality.
    if any(np.diff(values).min() <= 0 for values in (*anchor, *test)):
        return BdRate(None, "not-monotonic", overlap)
    if overlap == 0:
        return BdRate(None, "no-overlap", overlap)
    percent = bjontegaard.bd_rate(
        *anchor, *test, method="pchip", require_matching_points=False, min_overlap=0
    )
    return BdRate(float(percent), "ok", overlap)


def more_bits(
    anchor_rates: ArrayLike, anchor_qualities: ArrayLike, rates: ArrayLike, qualities: ArrayLike
) -> float | None:
    """Return the percent of bits that points take more than a curve, at their qualities.

    What a BD-rate is for a curve, this is for a few points at targets of one's choice. The curve
    (pchip over log rate) goes straight on beyond its ends.

    Args:
        anchor_rates: Bitrates of the curve, at least two.
        anchor_qualities: Its qualities.
        rates: Bitrates of the points, at least one.
        qualities: Their qualities.

    Returns:
        The mean difference in log rate, as percent; None where the curve's quality does not rise
        with its rate.
    """
    order = np.argsort(np.asarray(anchor_qualities, dtype=np.float64))
    quality = np.asarray(anchor_qualities, dtype=np.float64)[order]
    rate = np.log(np.asarray(anchor_rates, dtype=np.float64))[order]
    if not ((np.diff(quality) > 0).all() and (np.diff(rate) > 0).all()):
        return None
    curve = PchipInterpolator(quality, rate)
    at = np.clip(qualities, quality[0], quality[-1])
    expected = curve(at) + (np.asarray(qualities) - at) * curve.derivative()(at)
    return float(100 * np.expm1((np.log(rates) - expected).mean()))


@dataclass(frozen=True)
class Mean:
    """A mean over clips and how sure it is.

    Attributes:
        mean: None where there are no values, as the next two.
        median: Median of the values.
        ci95: 95 % bootstrap interval (low, high) of the mean.
        n: Number of values.
    """

    mean: float | None
    median: float | None
    ci95: tuple[float, float] | None
    n: int


def mean_ci95(values: ArrayLike, seed: int = 0) -> Mean:
    """Return mean, median and the 95 % percentile bootstrap interval of the mean.

    Args:
        values: ``[n]``, one per clip; n may be 0.
        seed: Seed of the 10,000 resamples, so that the same values give the same interval.

    Raises:
        InputError: A value is not finite.
    """
    data = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(data).all():
        raise InputError("a mean over clips needs finite values")
    if len(data) == 0:
        return Mean(None, None, None, 0)
    rng = np.random.default_rng(seed)
    means = data[rng.integers(len(data), size=(NUM_RESAMPLES, len(data)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(float(data.mean()), float(np.median(data)), (float(low), float(high)), len(data))


def _mean_squared_errors(decoded: NDArray[np.uint8], video: Video) -> NDArray[np.float64]:
    """Return ``[num_frames, 3]``; a frame at a time, which stays in the processor's cache."""
    errors = np.empty((video.num_frames, 3))
    for index, frame in enumerate(decoded):
        planes = zip(
            split_planes(frame, video.width, video.height), video.planes(index), strict=True
        )
        for plane, (ours, source) in enumerate(planes):
            # Exact in integers: the square of a difference of bytes fits 16 bits.
            difference = (np.maximum(ours, source) - np.minimum(ours, source)).astype(np.uint16)
            difference *= difference
            errors[index, plane] = int(difference.sum(dtype=np.uint64)) / difference.size
    return errors


def _filter_metrics(
    decoded: NDArray[np.uint8], video: Video, metrics: list[str]
) -> dict[str, list[float]]:
    """Run ffmpeg's filters, all in one process, on the decoded frames and the source."""
    raw = {
        "format": "rawvideo",
        "pix_fmt": "yuv420p",
        "video_size": (video.width, video.height),
        "framerate": str(video.fps),
    }
    with tempfile.TemporaryDirectory(prefix="vpxrc-") as folder:
        inputs = [
            # Frames are paired by time stamp: number both inputs alike, or the filters compare
            # the wrong ones.
            ffmpeg.input(source, **raw)
            .filter("settb", expr=str(1 / video.fps))
            .filter("setpts", expr="N")
            .filter_multi_output("split", len(metrics))
            for source in ("pipe:", f"file:{_source_file(video, Path(folder))}")
        ]
        outputs = []
        for index, metric in enumerate(metrics):
            pair = [split[index] for split in inputs]
            if metric == "ssim":
                result = ffmpeg.filter(pair, "ssim", stats_file="ssim.log")
            else:
                result = ffmpeg.filter(
                    pair, "libvmaf", log_fmt="json", log_path="vmaf.json", n_threads=1
                )
            outputs.append(result.output("-", format="null", fps_mode="passthrough"))
        doing = f"{video.name}: cannot measure {' and '.join(metrics)}"
        run_ffmpeg(
            ffmpeg.merge_outputs(*outputs), EncoderError, doing, decoded.tobytes(), cwd=folder
        )

        values: dict[str, list[float]] = {}
        if "ssim" in metrics:
            log = (Path(folder) / "ssim.log").read_text()
            values["ssim"] = [float(value) for value in re.findall(r" Y:(\S+)", log)]
        if "vmaf" in metrics:
            report = json.loads((Path(folder) / "vmaf.json").read_text())
            values["vmaf"] = [frame["metrics"]["vmaf"] for frame in report["frames"]]
    return values


def _source_file(video: Video, folder: Path) -> Path:
    """Return a file with the source's frames: the cache's own where the video is all of it."""
    name = getattr(video.frames, "filename", None)
    try:
        if name is not None and Path(name).stat().st_size == video.frames.nbytes:
            return Path(name).absolute()
    except OSError:
        pass  # the cache was emptied; the map still has the frames
    path = folder / "source.i420"
    video.frames.tofile(path)
    return path


def _rate_curve(
    label: str, rates: ArrayLike, qualities: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return checked rates and qualities, sorted by rate."""
    rate = np.asarray(rates, dtype=np.float64).ravel()
    quality = np.asarray(qualities, dtype=np.float64).ravel()
    if len(rate) != len(quality):
        raise InputError(f"the {label} has {len(rate)} rates and {len(quality)} qualities")
    if not (np.isfinite(rate).all() and np.isfinite(quality).all() and (rate > 0).all()):
        raise InputError(f"the {label}'s rates must be above 0 and all its values finite")
    order = np.argsort(rate, kind="stable")
    return rate[order], quality[order]


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the overlap of two ranges as a fraction of their union."""
    if len(a) == 0 or len(b) == 0:
        return 0.0
    union = max(a.max(), b.max()) - min(a.min(), b.min())
    shared = min(a.max(), b.max()) - max(a.min(), b.min())
    return float(max(shared, 0.0) / union) if union > 0 else 0.0
