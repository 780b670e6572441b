"""The kinds of clips: size, frame rate, length, targets, and what the first pass saw in them."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.key_frames import key_frames
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import FIRST_PASS_FIELDS
from vpxrc.evaluation.markdown import markdown_table
from vpxrc.media.frames import Video
from vpxrc.quality import BALANCED, LABELS

MACROBLOCK = 16  # luma samples each side


@dataclass(frozen=True)
class Axis:
    """A figure of a clip, and the ranges of it that results are told apart by.

    Attributes:
        name: Column of :func:`clip_axes`.
        label: Name in tables.
        edges: Bounds of the ranges, ascending. A value at a bound belongs to the range above it.
    """

    name: str
    label: str
    edges: tuple[float, ...]

    @property
    def ranges(self) -> list[str]:
        """The ranges in words, from the lowest."""
        words = [f"{edge:g}" for edge in self.edges]
        between = [f"{a} to {b}" for a, b in itertools.pairwise(words)]
        return [f"below {words[0]}", *between, f"{words[-1]} or more"]

    def range_of(self, values: "pd.Series[float]") -> "pd.Series[str]":
        """Return the range that each value is in."""
        places = np.searchsorted(self.edges, values.to_numpy(np.float64), side="right")
        return pd.Series([self.ranges[place] for place in places], index=values.index)


AXES = (
    Axis("pixels", "luma samples per frame", (50e3, 120e3, 240e3)),
    Axis("fps", "frames per second", (20, 40)),
    Axis("num_frames", "frames", (60, 120, 240)),
    Axis("bits_per_pixel", "target in bits per pixel", (0.02, 0.05, 0.1, 0.2)),
    Axis("still_share", "share without motion", (0.3, 0.6, 0.9)),
    Axis("cuts_per_minute", "cuts per minute", (1, 20)),
    Axis("complexity", "error of the first pass", (2, 4, 8)),
)


def first_pass_axes(first_pass: NDArray[np.float64], width: int, height: int) -> dict[str, float]:
    """Return what libvpx's first pass says of a clip.

    Args:
        first_pass: First-pass statistics, float64 ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``), of
            at least two frames.
        width: Luma width in pixels.
        height: Luma height in pixels.

    Returns:
        ``still_share``: share 0..1 of the macroblocks that the first pass predicts from the frame
        before without motion, mean over the frames after the first. ``cuts``: number of frames at
        which libvpx sees a new scene. ``complexity``: root of the mean squared error per luma
        sample of the first pass's predictions of the same frames. libvpx's error per macroblock
        (``vp9_firstpass.c``) is that mean square, with ``200 / sqrt(macroblocks)`` added to it,
        which is subtracted here.
    """
    names = ("pcnt_inter", "pcnt_motion", "coded_error")
    inter, motion, error = (first_pass[1:, FIRST_PASS_FIELDS.index(name)] for name in names)
    macroblocks = math.ceil(width / MACROBLOCK) * math.ceil(height / MACROBLOCK)
    squared = float(error.mean()) - 200 / math.sqrt(macroblocks)
    return {
        "still_share": float((inter - motion).mean()),
        "cuts": len(key_frames(first_pass, max_distance=len(first_pass))) - 1,
        "complexity": math.sqrt(max(squared, 0.0)),
    }


def describe(videos: Iterable[Video]) -> pd.DataFrame:
    """Return a row for each video, as :func:`clip_axes` takes it.

    Args:
        videos: The videos, which are read one after the other.

    Raises:
        EncoderError: libvpx's first pass failed.
    """
    return pd.DataFrame(
        [
            {
                "clip": video.name,
                "width": video.width,
                "height": video.height,
                "fps": float(video.fps),
                "num_frames": video.num_frames,
                **first_pass_axes(
                    first_pass_table(first_pass_stats(video, EncoderOptions())),
                    video.width,
                    video.height,
                ),
            }
            for video in videos
        ]
    )


def clip_axes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the figures of every clip, by its name.

    Args:
        rows: A table with a clip in each row, or an encode as in :attr:`Evaluation.encodes`:
            ``clip``, ``width``, ``height``, ``fps``, ``num_frames``; where they are known,
            ``target_bitrate`` and the figures of :func:`first_pass_axes`.

    Returns:
        A row per clip; a column for each of :data:`AXES` that is known for all clips.
        ``bits_per_pixel`` is the geometric mean of the clip's targets.
    """
    clips = rows.groupby("clip", sort=False).first()  # a missing value is filled from other rows
    found = pd.DataFrame(
        {
            "pixels": clips["width"] * clips["height"],
            "fps": clips["fps"],
            "num_frames": clips["num_frames"],
        }
    )
    if "target_bitrate" in rows:
        each = rows.drop_duplicates(["clip", "target_bitrate"]).set_index("clip")["target_bitrate"]
        targets = np.exp(np.log(each).groupby("clip").mean())
        found["bits_per_pixel"] = 1000 * targets / (found["pixels"] * found["fps"])
    if "cuts" in clips:
        found["still_share"] = clips["still_share"]
        found["cuts_per_minute"] = 60 * clips["cuts"] * clips["fps"] / clips["num_frames"]
        found["complexity"] = clips["complexity"]
    return found.dropna(axis="columns")


def counts_by_axis(axes: pd.DataFrame) -> pd.DataFrame:
    """Return how many clips are in every range of every axis.

    Args:
        axes: The table that :func:`clip_axes` returned.

    Returns:
        Columns ``axis`` (the label), ``range`` and ``clips``; ranges without a clip have 0.
    """
    return pd.DataFrame(
        [
            {"axis": axis.label, "range": words, "clips": int((ranges == words).sum())}
            for axis in AXES
            if axis.name in axes
            for ranges in [axis.range_of(axes[axis.name])]
            for words in axis.ranges
        ]
    )


def counts_table(axes: pd.DataFrame) -> str:
    """Return the counts of :func:`counts_by_axis` in Markdown."""
    rows = counts_by_axis(axes).astype(str).to_numpy().tolist()
    return markdown_table([["axis", "range", "clips"], *rows])


def shown_quality(comparisons: pd.DataFrame) -> str:
    """Return the quality by which clips are compared: ``balanced``, or the first one measured."""
    metrics = list(dict.fromkeys(comparisons["metric"]))
    return BALANCED if BALANCED in metrics else metrics[0]


def results_by_axis(encodes: pd.DataFrame, comparisons: pd.DataFrame) -> str:
    """Return the BD-rates of pairs of policies in every range of every axis, in Markdown.

    Args:
        encodes: As :attr:`Evaluation.encodes`.
        comparisons: Rows of :attr:`Evaluation.comparisons`, at least one.
    """
    axes = clip_axes(encodes)
    pairs = _percents(comparisons)
    rows = [["axis", "range", "clips", *pairs.columns]]
    for axis in AXES:
        if axis.name not in axes:
            continue
        ranges = axis.range_of(axes[axis.name])
        for words in axis.ranges:
            clips = ranges.index[ranges == words]
            if len(clips):
                cells = [_mean_and_worst(pairs.loc[clips, pair]) for pair in pairs.columns]
                rows.append([axis.label, words, str(len(clips)), *cells])
    return markdown_table(rows)


def results_by_clip(encodes: pd.DataFrame, comparisons: pd.DataFrame) -> str:
    """Return every clip's figures and BD-rates in Markdown, the arguments as before."""
    axes = clip_axes(encodes)
    pairs = _percents(comparisons)
    known = [axis for axis in AXES if axis.name in axes]
    rows = [["clip", *(axis.label for axis in known), *pairs.columns]]
    for clip, row in axes.to_dict("index").items():
        figures = [_number(row[axis.name]) for axis in known]
        percents = pairs.loc[str(clip)].to_numpy(np.float64)
        cells = ["none" if math.isnan(value) else f"{value:+.1f}" for value in percents]
        rows.append([str(clip), *figures, *cells])
    return markdown_table(rows)


def title(comparisons: pd.DataFrame) -> str:
    """Return what the figures of :func:`results_by_axis` are, as the beginning of a sentence."""
    return f"BD-rate in percent ({LABELS[shown_quality(comparisons)]})"


def _percents(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return a row per clip and a column per pair, by its name; NaN where there is no BD-rate."""
    quality = shown_quality(comparisons)
    shown = comparisons[comparisons["metric"] == quality]
    percents = shown["percent"].where(shown["status"] == "ok").astype(float)
    pairs = shown["test"] + " against " + shown["anchor"]
    table = shown.assign(percent=percents, pair=pairs).pivot(
        index="clip", columns="pair", values="percent"
    )
    return table[list(dict.fromkeys(pairs))]


def _number(value: float) -> str:
    """Return a number with three digits, or as many as its whole part has."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _mean_and_worst(percents: "pd.Series[float]") -> str:
    found = percents.dropna()
    if found.empty:
        return "none"
    some = f" n={len(found)}" if len(found) < len(percents) else ""
    return f"{found.mean():+.1f} ({found.max():+.1f}){some}"
