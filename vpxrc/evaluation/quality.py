"""The quality of a stream against its source: PSNR, SSIM and VMAF."""

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ffmpeg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.encoder.log import psnr
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.frames import Video, frame_bytes, split_planes

METRICS = ("psnr", "ssim", "vmaf")


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
