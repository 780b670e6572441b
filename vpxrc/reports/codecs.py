"""The pictures of a table of image codecs."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vpxrc.reports.style import COLOURS
from vpxrc.storage import atomic_write

MARKERS = "os^D"  # one for each round of the colours
_LETTERS = 160  # about as many are as wide as the picture; a name of the legend takes six more


def write_pictures(
    table: pd.DataFrame, speeds: pd.DataFrame, learned: list[str], out: Path
) -> None:
    """Write ``rd.png`` and ``trade_off.png``; see :func:`write_curves` and :func:`write_trade_off`.

    Raises:
        OutputError: The folder cannot be written.
    """
    write_curves(table, learned, out / "rd.png")
    write_trade_off(speeds, learned, out / "trade_off.png")


def write_trade_off(speeds: pd.DataFrame, learned: list[str], path: Path) -> None:
    """Draw the BD-rate of codecs over the time that their decoders take into a PNG file.

    Args:
        speeds: A row for each codec: ``codec``, ``decode_seconds`` for a megapixel, ``percent`` and
            ``anchor``, the codec that the BD-rate is against.
        learned: Names of the learned codecs; their dots are larger.
        path: The file.

    Raises:
        OutputError: It cannot be written.
    """
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    panel = figure.subplots()
    known = speeds.dropna(subset="percent")
    places = zip(known["codec"], known["decode_seconds"], known["percent"], strict=True)
    for number, (name, seconds, percent) in enumerate(places):
        colour = COLOURS[number % len(COLOURS)]
        panel.scatter(seconds, percent, s=70 if name in learned else 30, color=colour)
        panel.annotate(
            name,
            (seconds, percent),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize="small",
        )
    panel.set_xscale("log")
    panel.margins(0.3, 0.12)
    panel.set_xlabel("seconds of decoding for a megapixel")
    panel.set_ylabel(f"BD-rate in PSNR against {speeds['anchor'].iloc[0]} (%)")
    panel.grid(alpha=0.3)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def write_curves(table: pd.DataFrame, learned: list[str], path: Path) -> None:
    """Draw PSNR and MS-SSIM over bits per pixel into a PNG file.

    Args:
        table: A row for each codec and setting: ``codec``, ``bpp``, ``psnr`` and ``ms_ssim``.
        learned: Names of the learned codecs; they come first, and their lines are thicker. Those
            whose name ends in ", published" are dashed.
        path: The file.

    Raises:
        OutputError: It cannot be written.
    """
    names = [*learned, *(name for name in table["codec"].unique() if name not in learned)]
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, name in enumerate(names):
        turn, place = divmod(number, len(COLOURS))
        curve = table[table["codec"] == name].sort_values("bpp")
        for panel, values in (
            (left, curve["psnr"]),
            (right, -10 * np.log10(1 - curve["ms_ssim"])),
        ):
            panel.plot(
                curve["bpp"],
                values,
                f"{MARKERS[turn % len(MARKERS)]}{'--' if name.endswith(', published') else '-'}",
                ms=4,
                lw=2 if name in learned else 1.1,
                color=COLOURS[place],
                label=name if panel is left else None,
            )
    left.set_ylabel("PSNR (dB), mean over the pictures")
    right.set_ylabel("MS-SSIM, -10 log10(1 - mean) (dB)")
    for panel in (left, right):
        panel.set_xlabel("bits per pixel")
        panel.grid(alpha=0.3)
    columns = max(1, min(4, _LETTERS // (max(map(len, names)) + 6)))
    figure.legend(loc="outside upper center", ncols=columns, fontsize="small")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
