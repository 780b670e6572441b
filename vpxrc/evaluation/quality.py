"""The quality of decoded frames against their source: PSNR, SSIM and VMAF."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ffmpeg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.encoder.log import psnr
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.frames import Video, frame_bytes, split_planes
from vpxrc.storage import temporary_folder


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
METRICS = tuple(dict.fromkeys(quality.metric for quality in QUALITIES.values()))
_FILTERS = {one.metric: one.ffmpeg_filter for one in QUALITIES.values() if one.ffmpeg_filter}


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
    return [one.name for metric in metrics for one in QUALITIES.values() if one.metric == metric]


def measured_qualities(encodes: pd.DataFrame) -> list[str]:
    """Return the names of the qualities that a table of encodes has columns for."""
    return [name for name in QUALITIES if name in encodes]


def measure(
    decoded: NDArray[np.uint8], video: Video, metrics: Sequence[str] = METRICS
) -> pd.DataFrame:
    """Compare decoded frames with their source, one by one.

    The codec does not matter: only decoded frames are compared.

    Args:
        decoded: Decoded frames in I420, uint8 ``[num_frames, frame_bytes]``, as
            :meth:`vpxrc.EncoderOptions.decode` returns them.
        video: The source.
        metrics: Any of ``psnr``, ``ssim`` and ``vmaf``; VMAF takes most of the time.

    Returns:
        One row per frame in the order of display:

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
    check_metrics(metrics)
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
    filters = [metric for metric in _FILTERS if metric in metrics]
    if filters:
        for metric, values in _filter_metrics(decoded, video, filters).items():
            if len(values) != len(table):
                raise EncoderError(
                    f"{video.name}: ffmpeg measured {len(values)} of {len(table)} frames"
                )
            table[metric] = values
    return table


def summarize(frames: pd.DataFrame, width: int, height: int) -> dict[str, float]:
    """Return the qualities of an encode from those of its frames.

    Args:
        frames: The table that :func:`measure` returned.
        width: Luma width in pixels. Width and height decide how much each plane weighs.
        height: Luma height in pixels.

    Returns:
        A value for each of :data:`QUALITIES` whose metric is in ``frames``: ``psnr``, the mean over
        frames of the luma PSNR in dB; ``psnr_overall``, the PSNR in dB of the mean squared error
        over all planes and frames (both at most 100); ``ssim`` and ``vmaf``, means over frames.
    """
    summary = {}
    if "psnr_y" in frames:
        summary["psnr"] = float(frames["psnr_y"].mean())
        luma = width * height
        chroma = (frame_bytes(width, height) - luma) // 2
        error = luma * frames["mse_y"] + chroma * (frames["mse_u"] + frames["mse_v"])
        summary["psnr_overall"] = float(psnr(error.mean() / (luma + 2 * chroma)))
    for metric in _FILTERS:
        if metric in frames:
            summary[metric] = float(frames[metric].mean())
    return summary


def _mean_squared_errors(decoded: NDArray[np.uint8], video: Video) -> NDArray[np.float64]:
    """Return the mean squared error of each frame's Y, U and V, ``[num_frames, 3]``."""
    errors = np.empty((video.num_frames, 3))
    # One frame at a time, since a frame fits the processor's cache.
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
    """Return the values of metrics that ffmpeg's filters measure, by metric, one per frame.

    One process runs all filters, so that the frames are piped to ffmpeg once.
    """
    raw = {
        "format": "rawvideo",
        "pix_fmt": "yuv420p",
        "video_size": (video.width, video.height),
        "framerate": str(video.fps),
    }
    with temporary_folder() as folder:
        inputs = [
            # Frames are paired by time stamp: number both inputs alike, or the filters compare
            # the wrong ones.
            ffmpeg.input(source, **raw)
            .filter("settb", expr=str(1 / video.fps))
            .filter("setpts", expr="N")
            .filter_multi_output("split", len(metrics))
            for source in ("pipe:", f"file:{_source_file(video, folder)}")
        ]
        outputs = []
        for index, metric in enumerate(metrics):
            pair = [split[index] for split in inputs]
            if metric == "ssim":
                options: dict[str, object] = {"stats_file": "ssim.log"}
            else:
                options = {"log_fmt": "json", "log_path": "vmaf.json", "n_threads": 1}
            result = ffmpeg.filter(pair, _FILTERS[metric], **options)
            outputs.append(result.output("-", format="null", fps_mode="passthrough"))
        doing = f"{video.name}: cannot measure {' and '.join(metrics)}"
        run_ffmpeg(
            ffmpeg.merge_outputs(*outputs), EncoderError, doing, decoded.tobytes(), cwd=folder
        )

        values: dict[str, list[float]] = {}
        if "ssim" in metrics:
            log = (folder / "ssim.log").read_text()
            values["ssim"] = [float(value) for value in re.findall(r" Y:(\S+)", log)]
        if "vmaf" in metrics:
            report = json.loads((folder / "vmaf.json").read_text())
            values["vmaf"] = [frame["metrics"]["vmaf"] for frame in report["frames"]]
    return values


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
    video.frames.tofile(path)
    return path
