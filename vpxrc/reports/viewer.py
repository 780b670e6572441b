"""The decoded frames that a page shows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc.encoder.log import psnr
from vpxrc.evaluation.result import Clip, Evaluation
from vpxrc.media.decoding import decode_vp9
from vpxrc.media.frames import Colours, split_planes
from vpxrc.reports import html as page
from vpxrc.reports.style import MAX_VIEWED, VIEWER_BYTES, VIEWER_FRAMES
from vpxrc.storage import sha256_file


def viewed_clips(
    evaluation: Evaluation, target: int, policies: Sequence[str], clips: Sequence[Clip]
) -> tuple[list[page.Viewed], str]:
    """Return what the viewer shows, and what is said of it."""
    sources = {clip.name: clip for clip in clips}
    streams = {
        clip: paths
        for clip in dict.fromkeys(evaluation.encodes["clip"])
        if (paths := _kept(evaluation, clip, target, policies))
    }
    gains = _gains(evaluation)
    ranked = sorted(streams, key=lambda clip: gains.get(clip, np.inf))
    if not ranked:
        return [], (
            f"The viewer has no frames: the streams at {target} kbit/s are not kept with these "
            "results. An older vpxrc kept none; the same command with an empty folder does."
        )
    if len(ranked) > MAX_VIEWED:
        places = np.linspace(0, len(ranked) - 1, MAX_VIEWED).round().astype(int)
        ranked = [ranked[place] for place in places]
    viewed: list[page.Viewed] = []
    left = VIEWER_BYTES
    for clip in ranked:
        found = _view(evaluation, clip, target, streams[clip], sources.get(clip))
        left -= sum(len(one) for stream in found.streams for one in stream.pictures)
        if viewed and left < 0:
            break
        gain = f" ({gains[clip]:+.1f} %)" if clip in gains else ""
        viewed.append(page.Viewed(found.clip + gain, found.frames, found.streams))
    words = (
        f"Decoded frames at the same target, {target} kbit/s: {VIEWER_FRAMES} of a clip at most, "
        f"evenly spaced, as JPEG of quality {page.JPEG_QUALITY}, scaled down to "
        f"{page.MAX_PICTURE_WIDTH} pixels where they are wider. "
    )
    if len(viewed) < len(set(evaluation.encodes["clip"])):
        words += (
            f"{len(viewed)} of {len(set(evaluation.encodes['clip']))} clips, chosen by the agent's "
            "BD-rate, from the most bits saved to the least. "
        )
    words += f"Menu: the BD-rate in PSNR of {policies[0]} against {policies[1]}." if gains else ""
    if not all(clip in sources for clip in ranked):
        words += " The source clips were not at hand, so their frames are missing."
    return viewed, words


def _gains(evaluation: Evaluation) -> dict[str, float]:
    """Return the agent's BD-rate in PSNR against the first baseline by clip, in percent."""
    baseline = next(iter(evaluation.summary["baselines"]))
    rows = [
        (clip["clip"], clip["bd_rate"][baseline].get("psnr", {}).get("percent"))
        for clip in evaluation.summary["clips"]
    ]
    return {clip: percent for clip, percent in rows if percent is not None}


def _row(evaluation: Evaluation, clip: str, policy: str, target: int) -> dict[str, Any]:
    encodes = evaluation.encodes
    rows = encodes[
        (encodes["clip"] == clip)
        & (encodes["policy"] == policy)
        & (encodes["target_bitrate"] == target)
    ]
    return {str(name): value for name, value in rows.iloc[0].items()}


def _kept(
    evaluation: Evaluation, clip: str, target: int, policies: Sequence[str]
) -> dict[str, Path]:
    """Return the kept streams by policy; nothing where one is missing, or is another."""
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
) -> page.Viewed:
    """Return some frames of the source, where there is one, and of each policy's stream."""
    row = _row(evaluation, clip, next(iter(paths)), target)
    width, height = int(row["width"]), int(row["height"])
    last = int(row["num_frames"]) - 1
    numbers = np.unique(np.linspace(0, last, VIEWER_FRAMES).round().astype(int)).tolist()
    original = colours = None
    streams = []
    if source is not None:
        video = source.open()
        if video.content_hash == row["content_hash"]:
            original, colours = video.frames[numbers], video.colours
            pictures = _pictures(original, width, height, colours)
            streams.append(page.Shown("source", "", pictures, []))
    for policy, path in paths.items():
        frames = decode_vp9(path, width, height)[numbers]
        row = _row(evaluation, clip, policy, target)
        notes = []
        if original is not None:
            luma = slice(width * height)
            errors = frames[:, luma].astype(np.float64) - original[:, luma]
            notes = [f"{value:.2f} dB here" for value in psnr((errors**2).mean(axis=1))]
        caption = f"{row['bitrate']:.1f} kbit/s ({100 * row['overshoot']:+.1f} %)"
        pictures = _pictures(frames, width, height, colours)
        streams.append(page.Shown(policy, caption, pictures, notes))
    return page.Viewed(clip, numbers, streams)


def _pictures(frames: Any, width: int, height: int, colours: Colours | None) -> list[str]:
    return [page.picture(split_planes(frame, width, height), colours) for frame in frames]
