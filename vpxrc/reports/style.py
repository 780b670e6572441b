"""Colours, labels and selections that pages and pictures share."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from vpxrc.encoder.log import psnr
from vpxrc.evaluation.result import Evaluation

# Okabe and Ito's colours, which colour-blind readers can tell apart too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LABELS = {
    "psnr": "PSNR (dB)",
    "psnr_overall": "overall PSNR (dB)",
    "ssim": "SSIM",
    "vmaf": "VMAF",
}
QUALITIES = {name: label.removesuffix(" (dB)") for name, label in LABELS.items()}
MAX_PANELS = 24  # clips in a picture
MAX_LARGE_DOTS = 20  # clips; more have small ones
MAX_CHOICES = 200  # clips in the page's menus
MAX_VIEWED = 3  # clips in the viewer
VIEWER_FRAMES = 8  # of each clip
VIEWER_BYTES = 6_000_000  # of all its pictures; a page has to open quickly
LAYERS = ("key", "golden", "overlay", *(f"ARF, layer {depth}" for depth in range(8)), "leaf")
SYMBOLS = ("square", "diamond", "x", "triangle-up", "triangle-down", "star", "cross")


# Of encodes and frames


def policy_colours(encodes: pd.DataFrame) -> dict[str, str]:
    """Return a colour for each policy of a study, in the order of its rows."""
    policies = dict.fromkeys(encodes["policy"])
    return {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(policies)}


def measured_qualities(encodes: pd.DataFrame) -> list[str]:
    """Return the columns of the qualities that a study has measured."""
    return [metric for metric in LABELS if metric in encodes]


def middle_target(summary: dict[str, Any]) -> int:
    """Return the target whose frames are shown."""
    rates: list[int] = summary["bitrates"]
    return rates[len(rates) // 2]


def coded_frames(evaluation: Evaluation, target: int, policies: Sequence[str]) -> pd.DataFrame:
    """Return the frames of some policies at one target as they were coded, with their PSNR."""
    frames = evaluation.frames
    frames = frames[
        (frames["target_bitrate"] == target)
        & frames["policy"].isin(policies)
        & ~frames["is_shown_again"]
    ]
    sizes = evaluation.encodes.drop_duplicates("clip").set_index("clip")
    pixels = frames["clip"].map(sizes["width"] * sizes["height"])
    return frames.assign(psnr=psnr((frames["sse_y"] / pixels).to_numpy()))


def layers_of(frames: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, colour and frames of each layer of one encode, in order of show index."""
    labels = frames["update_type"].where(
        frames["update_type"] != "arf", "ARF, layer " + frames["layer_depth"].astype(str)
    )
    for number, label in enumerate(LAYERS):
        layer = frames[labels == label]
        if len(layer):
            colour = "#999999" if label == "leaf" else COLOURS[number % len(COLOURS)]
            yield label, colour, layer.sort_values("show_index")
