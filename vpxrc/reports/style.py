"""Colours of policies and layers, and the frames that pages and pictures show."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from vpxrc.encoder.log import psnr
from vpxrc.evaluation.result import Evaluation

# The colours of M. Okabe and K. Ito, which colour-blind readers can tell apart too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
LEAF = "leaf"  # the layer of most frames, drawn small and grey
LEAF_COLOUR = "#999999"
LAYERS = ("key", "golden", "overlay", *(f"ARF, layer {depth}" for depth in range(8)), LEAF)


def policy_colours(encodes: pd.DataFrame) -> dict[str, str]:
    """Return a colour for each policy of a study, in the order of its rows."""
    policies = dict.fromkeys(encodes["policy"])
    return {policy: COLOURS[i % len(COLOURS)] for i, policy in enumerate(policies)}


def middle_target(summary: dict[str, Any]) -> int:
    """Return the middle one of a study's targets in kbit/s, whose frames are shown."""
    rates: list[int] = summary["bitrates"]
    return rates[len(rates) // 2]


def coded_frames(evaluation: Evaluation, target: int, policies: Sequence[str]) -> pd.DataFrame:
    """Return the coded frames of some policies at one target.

    Frames that are only shown again are left out. The column ``psnr`` is added: the luma PSNR of
    each frame in dB.
    """
    frames = evaluation.frames
    frames = frames[
        (frames["target_bitrate"] == target)
        & frames["policy"].isin(policies)
        & ~frames["is_shown_again"]
    ]
    sizes = evaluation.encodes.drop_duplicates("clip").set_index("clip")
    pixels = frames["clip"].map(sizes["width"] * sizes["height"])
    # Studies of 8 bits alone do not have the column.
    depths = frames["clip"].map(sizes["bit_depth"].fillna(8)) if "bit_depth" in sizes else 8
    return frames.assign(psnr=psnr((frames["sse_y"] / pixels).to_numpy(), depths))


def layers_of(frames: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield label, colour and frames of each layer of one encode.

    Args:
        frames: A table with a row per frame and the columns ``update_type``, ``layer_depth`` and
            ``show_index``.

    Yields:
        The layers in the order of :data:`LAYERS`, without empty ones; the frames of each in the
        order of display.
    """
    labels = frames["update_type"].where(
        frames["update_type"] != "arf", "ARF, layer " + frames["layer_depth"].astype(str)
    )
    for number, label in enumerate(LAYERS):
        layer = frames[labels == label]
        if len(layer):
            colour = LEAF_COLOUR if label == LEAF else COLOURS[number % len(COLOURS)]
            yield label, colour, layer.sort_values("show_index")
