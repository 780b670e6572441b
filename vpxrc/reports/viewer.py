"""The decoded frames in the viewer of a page."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc.encoder.log import psnr
from vpxrc.encoder.registry import make_options
from vpxrc.evaluation.result import Clip, Evaluation
from vpxrc.media.frames import ClipFormat, Colours, Samples, split_planes
from vpxrc.reports.html import (
    JPEG_QUALITY,
    MAX_PICTURE_WIDTH,
    ViewedClip,
    ViewedStream,
    picture,
)
from vpxrc.storage import sha256_file

MAX_CLIPS = 3
MAX_FRAMES = 8  # of each clip
MAX_BYTES = 6_000_000  # of all pictures, so that the page opens quickly


def viewed_clips(
    evaluation: Evaluation, target: int, policies: Sequence[str], clips: Sequence[Clip]
) -> tuple[list[ViewedClip], str]:
    """Return the clips of the viewer and the text above it.

    Of more than :data:`MAX_CLIPS` clips those are chosen that are evenly spaced in the order of the
    agent's BD-rate. Clips whose streams were not kept are left out.

    Args:
        evaluation: The study.
        target: Target in kbit/s whose streams are shown.
        policies: The agent and the first baseline.
        clips: Clips to take source frames from.

    Raises:
        InputError: A clip cannot be read.
        EncoderError: A stream cannot be decoded.
    """
    sources = {clip.name: clip for clip in clips}
    streams = {
        clip: paths
        for clip in dict.fromkeys(evaluation.encodes["clip"])
        if (paths := _kept_streams(evaluation, clip, target, policies))
    }
    gains = _gains(evaluation)
    ranked = sorted(streams, key=lambda clip: gains.get(clip, np.inf))
    if not ranked:
        return [], (
            f"The viewer has no frames, because the streams at {target} kbit/s are not in the "
            "results folder. Older versions of vpxrc did not keep them. Run the same command with "
            "an empty folder to encode again."
        )
    if len(ranked) > MAX_CLIPS:
        places = np.linspace(0, len(ranked) - 1, MAX_CLIPS).round().astype(int)
        ranked = [ranked[place] for place in places]
    viewed: list[ViewedClip] = []
    left = MAX_BYTES
    for clip in ranked:
        found = _view(evaluation, clip, target, streams[clip], sources.get(clip))
        left -= sum(len(one) for stream in found.streams for one in stream.pictures)
        if viewed and left < 0:
            break
        gain = f" ({gains[clip]:+.1f} %)" if clip in gains else ""
        viewed.append(ViewedClip(found.clip + gain, found.frames, found.streams))
    num_clips = len(set(evaluation.encodes["clip"]))
    words = [
        f"Decoded frames at the same target of {target} kbit/s, up to {MAX_FRAMES} of each clip, "
        f"evenly spaced. They are JPEG pictures of quality {JPEG_QUALITY}, scaled down to a width "
        f"of {MAX_PICTURE_WIDTH} pixels if they are wider."
    ]
    if len(viewed) < num_clips:
        words.append(
            f"The menu has {len(viewed)} of {num_clips} clips, chosen by the agent's BD-rate, from "
            "the most bits saved to the fewest."
        )
    if gains:
        words.append(
            f"The percentages in the menu are BD-rates in PSNR of {policies[0]} against "
            f"{policies[1]}."
        )
    if not all(clip in sources for clip in ranked):
        words.append("Source frames are missing, because the source clips were not given.")
    return viewed, " ".join(words)


def _gains(evaluation: Evaluation) -> dict[str, float]:
    """Return the agent's BD-rate in PSNR against the first baseline by clip, in percent."""
    baseline = next(iter(evaluation.summary["baselines"]))
    rows = [
        (clip["clip"], clip["bd_rate"][baseline].get("psnr", {}).get("percent"))
        for clip in evaluation.summary["clips"]
    ]
    return {clip: percent for clip, percent in rows if percent is not None}


def _row(evaluation: Evaluation, clip: str, policy: str, target: int) -> dict[str, Any]:
    """Return one encode's row of :attr:`Evaluation.encodes`."""
    encodes = evaluation.encodes
    rows = encodes[
        (encodes["clip"] == clip)
        & (encodes["policy"] == policy)
        & (encodes["target_bitrate"] == target)
    ]
    return {str(name): value for name, value in rows.iloc[0].items()}


def _kept_streams(
    evaluation: Evaluation, clip: str, target: int, policies: Sequence[str]
) -> dict[str, Path]:
    """Return the files of the streams by policy; nothing if one is missing or has changed."""
    paths = {}
    for policy in policies:
        row = _row(evaluation, clip, policy, target)
        path = evaluation.folder / "encodes" / f"{row.get('key')}.ivf"
        if not path.is_file() or sha256_file(path) != row["stream_sha256"]:
            return {}
        paths[policy] = path
    return paths


def _view(
    evaluation: Evaluation,
    clip: str,
    target: int,
    paths: Mapping[str, Path],
    source: Clip | None,
) -> ViewedClip:
    """Return frames of each policy's stream, after those of the source if it is given."""
    row = _row(evaluation, clip, next(iter(paths)), target)
    width, height = int(row["width"]), int(row["height"])
    last = int(row["num_frames"]) - 1
    numbers = np.unique(np.linspace(0, last, MAX_FRAMES).round().astype(int)).tolist()
    original = colours = None
    streams = []
    if source is not None:
        video = source.open()
        if video.content_hash == row["content_hash"]:
            original, colours = video.frames[numbers], video.colours
            pictures = _pictures(original, width, height, colours)
            streams.append(ViewedStream("source", "", pictures, []))
    for policy, path in paths.items():
        row = _row(evaluation, clip, policy, target)
        # Studies of libvpx do not have the column.
        encoder = row.get("encoder", "vp9")
        frames = make_options(encoder).decode(path, _format(row))[numbers]
        notes = []
        if original is not None:
            luma = slice(width * height)
            errors = frames[:, luma].astype(np.float64) - original[:, luma]
            levels = psnr((errors**2).mean(axis=1), video.bit_depth)
            notes = [f"{value:.2f} dB in this frame" for value in levels]
        caption = f"{row['bitrate']:.1f} kbit/s ({100 * row['overshoot']:+.1f} %)"
        pictures = _pictures(frames, width, height, colours)
        streams.append(ViewedStream(policy, caption, pictures, notes))
    return ViewedClip(clip, numbers, streams)


def _format(row: Mapping[str, Any]) -> ClipFormat:
    """Return the clip of an encode's row."""
    return ClipFormat(
        row["clip"],
        int(row["width"]),
        int(row["height"]),
        Fraction(row["fps"]),
        int(row["num_frames"]),
        row["content_hash"],
        int(np.nan_to_num(row.get("bit_depth", 8), nan=8)),  # studies of 8 bits lack the column
    )


def _pictures(frames: Samples, width: int, height: int, colours: Colours | None) -> list[str]:
    return [picture(split_planes(frame, width, height), colours) for frame in frames]
