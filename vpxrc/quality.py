"""The quality of decoded frames against their source: PSNR, SSIM and VMAF."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import ffmpeg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc import _native
from vpxrc.cache import check_not_cut
from vpxrc.encoder.log import psnr
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.decoding import Y4M, y4m_frames
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.frames import Samples, Video, frame_samples, split_planes
from vpxrc.storage import atomic_write, temporary_folder

#: Weights of a frame's pixels, or a mask.
Weights: TypeAlias = NDArray[np.floating[Any] | np.bool_]


@dataclass(frozen=True)
class Quality:
    """A figure for the quality of an encode; higher is better.

    Attributes:
        name: Key in :func:`summarize` and column of ``encodes.parquet``.
        label: Name in tables and plots.
        metric: The metric of :func:`measure` that it is computed from. One metric can give several
            qualities.
        unit: Unit, empty where there is none.
        ffmpeg_filter: The filter of ffmpeg that measures the metric; empty where :func:`measure`
            computes it from the frames itself.
    """

    name: str
    label: str
    metric: str
    unit: str = ""
    ffmpeg_filter: str = ""

    @property
    def axis_label(self) -> str:
        """Label with the unit, as in ``PSNR (dB)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


QUALITIES = {
    quality.name: quality
    for quality in (
        Quality("psnr", "PSNR", "psnr", unit="dB"),
        Quality("psnr_overall", "overall PSNR", "psnr", unit="dB"),
        Quality("ssim", "SSIM", "ssim", ffmpeg_filter="ssim"),
        Quality("vmaf", "VMAF", "vmaf", ffmpeg_filter="libvmaf"),
    )
}
REGION_METRIC = "roi_psnr"  # of a region of interest; it is part of no mean over qualities
REGION_QUALITIES = {
    quality.name: quality
    for quality in (
        Quality("roi_psnr", "PSNR inside", REGION_METRIC, unit="dB"),
        Quality("background_psnr", "PSNR outside", REGION_METRIC, unit="dB"),
    )
}
ALL_QUALITIES = {**QUALITIES, **REGION_QUALITIES}
METRICS = tuple(dict.fromkeys(quality.metric for quality in QUALITIES.values()))
BALANCED = "balanced"  # the mean of the bits saved at equal quality, over all of QUALITIES
LABELS = {**{one.name: one.label for one in ALL_QUALITIES.values()}, BALANCED: "mean of the four"}
_FILTERS = {one.metric: one.ffmpeg_filter for one in QUALITIES.values() if one.ffmpeg_filter}
_VMAF_SIDE = 17  # pixels, below which libvmaf's process dies


def check_metrics(metrics: Sequence[str]) -> None:
    """Check the names of metrics.

    Raises:
        InputError: A name is unknown.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise InputError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")


def qualities_of(metrics: Sequence[str]) -> list[str]:
    """Return the names of the qualities that metrics give, in the order of the metrics."""
    return [one.name for m in metrics for one in ALL_QUALITIES.values() if one.metric == m]


def measured_qualities(encodes: pd.DataFrame) -> list[str]:
    """Return the names of the qualities that a table of encodes has columns for."""
    return [name for name in ALL_QUALITIES if name in encodes]


def measure(
    decoded: Samples,
    video: Video,
    metrics: Sequence[str] = METRICS,
    threads: int = 1,
) -> pd.DataFrame:
    """Compare decoded frames with their source, one by one.

    The codec does not matter: only decoded frames are compared. They are compared in the source's
    own bit depth.

    Args:
        decoded: Decoded frames in I420, ``[num_frames, frame_samples]``, as
            :meth:`vpxrc.EncoderOptions.decode` returns them.
        video: The source.
        metrics: Any of ``psnr``, ``ssim`` and ``vmaf``; VMAF takes most of the time.
        threads: Threads that compute VMAF. The figures do not depend on it.

    Returns:
        One row per frame in the order of display:

        - ``show_index``: int, from 0.
        - ``mse_y``, ``mse_u``, ``mse_v``: mean squared error of each plane, exact (psnr).
        - ``psnr_y``: luma PSNR in dB, at most 100 as in libvpx (psnr).
        - ``ssim``: luma SSIM by ffmpeg's filter, at most 1, six decimals (ssim).
        - ``vmaf``: VMAF v0.6.1 by libvmaf, 0..100 (vmaf).

    Raises:
        InputError: A metric's name is unknown, or the frames are too small for VMAF.
        EncoderError: The number of frames or their size is not the source's.
        MissingDependencyError: There is no ffmpeg, or it has no libvmaf.
    """
    check_metrics(metrics)
    _check_frames(decoded, video)
    table = pd.DataFrame({"show_index": np.arange(len(decoded))})
    if "psnr" in metrics:
        errors = _mean_squared_errors(decoded, video)
        for plane, error in zip("yuv", errors.T, strict=True):
            table[f"mse_{plane}"] = error
        table["psnr_y"] = psnr(errors[:, 0], video.bit_depth)
    filters = [metric for metric in _FILTERS if metric in metrics]
    if filters:
        for metric, values in _filter_metrics(decoded, video, filters, threads).items():
            _check_number(len(values), video)
            table[metric] = values
    check_not_cut(video.frames, video.name)
    return table


def weighted_psnr(
    decoded: Samples, video: Video, weights: Weights | Callable[[int], Weights]
) -> NDArray[np.float64]:
    """Return the luma PSNR of every frame, with a weight for each pixel.

    It is the PSNR of :func:`weighted_error`. With a mask as weights it is that of the region.

    Args:
        decoded: Decoded frames, as for :func:`measure`.
        video: The source.
        weights: As for :func:`weighted_error`.

    Returns:
        float64 ``[num_frames]`` in dB, each at most 100; NaN for a frame whose weights are all 0.

    Raises:
        InputError: The weights have another size than the video, or are out of range.
        EncoderError: The number of frames or their size is not the source's.
    """
    return psnr(weighted_error(decoded, video, weights), video.bit_depth)


def weighted_error(
    decoded: Samples, video: Video, weights: Weights | Callable[[int], Weights]
) -> NDArray[np.float64]:
    """Return ``sum(weights * error ** 2) / sum(weights)`` over the luma of every frame.

    Args:
        decoded: Decoded frames, as for :func:`measure`.
        video: The source.
        weights: ``[height, width]``, none below 0, not all 0; or a function that returns those of a
            frame by its number, which may be all 0.

    Returns:
        float64 ``[num_frames]``; NaN for a frame whose weights are all 0.

    Raises:
        InputError: The weights have another size than the video, or are out of range.
        EncoderError: The number of frames or their size is not the source's.
    """
    _check_frames(decoded, video)
    pixels = video.width * video.height
    errors = np.full(video.num_frames, np.nan)
    same = None if callable(weights) else _checked_weights(weights, video)
    if same is not None and not same.any():
        raise InputError("weights are at least 0, and not all 0")
    for index, (mine, source) in enumerate(zip(decoded, video.frames, strict=True)):
        weight = same
        if callable(weights):
            weight = _checked_weights(weights(index), video)
        if weight is not None and weight.any():
            squares = (mine[:pixels].astype(np.float64) - source[:pixels]) ** 2
            errors[index] = np.dot(weight, squares) / weight.sum()
    check_not_cut(video.frames, video.name)
    return errors


def _checked_weights(weights: Weights, video: Video) -> NDArray[np.float64]:
    """Return weights of a frame's pixels, float64 ``[height * width]``.

    Raises:
        InputError: They have another size than the video, or are out of range.
    """
    if np.shape(weights) != (video.height, video.width):
        raise InputError(
            f"weights are [{video.height}, {video.width}], not {list(np.shape(weights))}"
        )
    weight = np.asarray(weights, dtype=np.float64).ravel()
    if not np.isfinite(weight).all() or weight.min() < 0:
        raise InputError("weights are at least 0, and not all 0")
    return weight


def region_quality(
    decoded: Samples, video: Video, mask_of: Callable[[int], NDArray[np.bool_]]
) -> dict[str, float]:
    """Return the qualities of an encode inside and outside of a region.

    Args:
        decoded: Decoded frames, as for :func:`measure`.
        video: The source.
        mask_of: Returns the mask of a frame by its number, bool ``[height, width]``.

    Returns:
        ``roi_psnr`` and ``background_psnr``: means of the luma PSNR in dB inside and outside, each
        over the frames that have such pixels.

    Raises:
        InputError: A mask has another size than the video, or no frame has pixels inside, or none
            outside.
        EncoderError: The number of frames or their size is not the source's.
    """
    found = {}
    for name, weights in (
        ("roi_psnr", mask_of),
        ("background_psnr", lambda index: ~mask_of(index)),
    ):
        levels = weighted_psnr(decoded, video, weights)
        levels = levels[~np.isnan(levels)]
        if not len(levels):
            raise InputError(f"{video.name}: no frame has a region of interest and a rest")
        found[name] = float(levels.mean())
    return found


def measure_stream(
    stream: bytes, video: Video, metrics: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return SSIM and VMAF of a VP9 stream's frames, fast enough for a search over encodes.

    One process of ffmpeg decodes the stream and measures VMAF. SSIM is measured here, on the
    decoded frames; it differs from :func:`measure` in what ffmpeg rounds off, at most half of the
    sixth decimal.

    Args:
        stream: The stream as an IVF file.
        video: The source.
        metrics: ``ssim``, ``vmaf`` or both.

    Returns:
        float64 ``[num_frames]`` for each of the metrics, in the order of display.

    Raises:
        InputError: The frames are too small for VMAF.
        EncoderError: The stream cannot be decoded, or is of another number or size of frames.
        MissingDependencyError: There is no ffmpeg, or it has no libvmaf.
    """
    # The decoder by name, as in decode_vp9.
    shown = ffmpeg.input("pipe:", **{"c:v": "vp9", "err_detect": "explode"})
    doing = f"{video.name}: cannot measure {' and '.join(metrics)}"
    values = {}
    with temporary_folder() as folder:
        if "vmaf" in metrics:
            _check_vmaf(video)
            shown = shown.filter_multi_output("split", 2)
            source = _source(video, folder)
            judged = _filtered("vmaf", [_numbered(one, video) for one in (shown[1], source)], 1)
            output = ffmpeg.merge_outputs(shown[0].output("pipe:", **Y4M), judged)
        else:
            output = shown.output("pipe:", **Y4M)
        written = run_ffmpeg(output.global_args("-xerror"), EncoderError, doing, stream, cwd=folder)
        decoded = y4m_frames(written, video.width, video.height, video.bit_depth)
        _check_frames(decoded, video)
        if "vmaf" in metrics:
            values["vmaf"] = np.array(_read("vmaf", folder))
            _check_number(len(values["vmaf"]), video)
    if "ssim" in metrics:
        values["ssim"] = _native.ssim(decoded, video.frames, video.width, video.height)
    check_not_cut(video.frames, video.name)
    return values


def summarize(
    frames: pd.DataFrame, width: int, height: int, bit_depth: int = 8
) -> dict[str, float]:
    """Return the qualities of an encode from those of its frames.

    Args:
        frames: The table that :func:`measure` returned.
        width: Luma width in pixels. Width and height decide how much each plane weighs.
        height: Luma height in pixels.
        bit_depth: Bits per sample of the source.

    Returns:
        A value for each of :data:`QUALITIES` whose metric is in ``frames``: ``psnr``, the mean over
        frames of the luma PSNR in dB; ``psnr_overall``, the PSNR in dB of the mean squared error
        over all planes and frames (both at most 100); ``ssim`` and ``vmaf``, means over frames.
    """
    summary = {}
    if "psnr_y" in frames:
        summary["psnr"] = float(frames["psnr_y"].mean())
        luma = width * height
        chroma = (frame_samples(width, height) - luma) // 2
        error = luma * frames["mse_y"] + chroma * (frames["mse_u"] + frames["mse_v"])
        summary["psnr_overall"] = float(psnr(error.mean() / (luma + 2 * chroma), bit_depth))
    for metric in _FILTERS:
        if metric in frames:
            summary[metric] = float(frames[metric].mean())
    return summary


EVENNESS = ("ssim_std", "ssim_worst")  # the names that evenness() gives


def evenness(frames: pd.DataFrame) -> dict[str, float]:
    """Return how even the quality of an encode is over its frames.

    Args:
        frames: The table that :func:`measure` returned.

    Returns:
        ``ssim_std``, the standard deviation of the frames' SSIM (that of all frames: the divisor is
        their number), and ``ssim_worst``, the mean SSIM of the worst twentieth of the frames,
        rounded up to whole frames. Empty if SSIM was not measured.
    """
    if "ssim" not in frames:
        return {}
    values = np.sort(frames["ssim"].to_numpy(np.float64))
    worst = values[: -(-len(values) // 20)]
    return {"ssim_std": float(values.std()), "ssim_worst": float(worst.mean())}


def _mean_squared_errors(decoded: Samples, video: Video) -> NDArray[np.float64]:
    """Return the mean squared error of each frame's Y, U and V, ``[num_frames, 3]``."""
    errors = np.empty((video.num_frames, 3))
    # Exact in integers: the square of a difference of samples fits twice their bits.
    square = np.uint16 if video.bit_depth == 8 else np.uint32
    # One frame at a time, since a frame fits the processor's cache.
    for index, frame in enumerate(decoded):
        planes = zip(
            split_planes(frame, video.width, video.height), video.planes(index), strict=True
        )
        for plane, (ours, source) in enumerate(planes):
            difference = (np.maximum(ours, source) - np.minimum(ours, source)).astype(square)
            difference *= difference
            errors[index, plane] = int(difference.sum(dtype=np.uint64)) / difference.size
    return errors


def _check_frames(decoded: Samples, video: Video) -> None:
    if len(decoded) != video.num_frames:
        raise EncoderError(
            f"{video.name}: the stream shows {len(decoded)} frames, its source {video.num_frames}"
        )
    if decoded.shape != video.frames.shape:
        raise EncoderError(f"{video.name}: the stream's frames are not of its source's size")
    if decoded.dtype != video.frames.dtype:
        raise EncoderError(f"{video.name}: the stream has not its source's bit depth")


def _check_number(measured: int, video: Video) -> None:
    """Refuse a list of values that is not one per frame; ffmpeg stops where its input does."""
    if measured != video.num_frames:
        raise EncoderError(f"{video.name}: ffmpeg measured {measured} of {video.num_frames} frames")


def _check_vmaf(video: Video) -> None:
    if min(video.width, video.height) < _VMAF_SIDE:
        raise InputError(
            f"{video.name}: {video.width}x{video.height} pixels; VMAF needs at least {_VMAF_SIDE} "
            "each side"
        )


def _filter_metrics(
    decoded: Samples, video: Video, metrics: list[str], threads: int
) -> dict[str, list[float]]:
    """Return the values of metrics that ffmpeg's filters measure, by metric, one per frame.

    One process runs all filters, so that the frames are piped to ffmpeg once.
    """
    if "vmaf" in metrics:
        _check_vmaf(video)
    with temporary_folder() as folder:
        inputs = [
            _numbered(source, video).filter_multi_output("split", len(metrics))
            for source in (
                ffmpeg.input("pipe:", **_raw(video)),
                _source(video, folder),
            )
        ]
        outputs = [
            _filtered(metric, [split[index] for split in inputs], threads)
            for index, metric in enumerate(metrics)
        ]
        doing = f"{video.name}: cannot measure {' and '.join(metrics)}"
        run_ffmpeg(
            ffmpeg.merge_outputs(*outputs), EncoderError, doing, decoded.tobytes(), cwd=folder
        )
        return {metric: _read(metric, folder) for metric in metrics}


def _raw(video: Video) -> dict[str, object]:
    """Return ffmpeg's options for a raw input with the frames of a clip."""
    return {
        "format": "rawvideo",
        "pix_fmt": "yuv420p" if video.bit_depth == 8 else "yuv420p10le",
        "video_size": (video.width, video.height),
        "framerate": str(video.fps),
    }


def _source(video: Video, folder: Path) -> Any:
    """Return an input of ffmpeg-python with the source's frames."""
    return ffmpeg.input(f"file:{_source_file(video, folder)}", **_raw(video))


def _numbered(stream: Any, video: Video) -> Any:
    """Return a stream of ffmpeg-python whose frames are numbered.

    Filters pair frames by time stamp: with both inputs numbered alike they compare the right ones.
    """
    return stream.filter("settb", expr=str(1 / video.fps)).filter("setpts", expr="N")


def _filtered(metric: str, pair: list[Any], threads: int) -> Any:
    """Return an output of ffmpeg-python that measures a metric of a pair of streams."""
    options: dict[str, object]
    if metric == "ssim":
        options = {"stats_file": "ssim.log"}
    else:
        options = {"log_fmt": "json", "log_path": "vmaf.json", "n_threads": threads}
    measured = ffmpeg.filter(pair, _FILTERS[metric], **options)
    return measured.output("-", format="null", fps_mode="passthrough")


def _read(metric: str, folder: Path) -> list[float]:
    """Return what a filter of :func:`_filtered` wrote, one value per frame."""
    if metric == "ssim":
        log = (folder / "ssim.log").read_text()
        return [float(value) for value in re.findall(r" Y:(\S+)", log)]
    report = json.loads((folder / "vmaf.json").read_text())
    return [frame["metrics"]["vmaf"] for frame in report["frames"]]


def _source_file(video: Video, folder: Path) -> Path:
    """Return a raw file of the source's frames.

    That is the file in the cache of decoded videos, if it holds this video and nothing else.
    Otherwise the frames are written to ``folder``.
    """
    name = getattr(video.frames, "filename", None)
    try:
        if name is not None and Path(name).stat().st_size == video.frames.nbytes:
            return Path(name).absolute()
    except OSError:
        pass  # the cache was emptied; the map still has the frames
    path = folder / "source.i420"
    check_not_cut(video.frames, video.name)
    with atomic_write(path) as temporary:
        video.frames.tofile(temporary)
    return path
