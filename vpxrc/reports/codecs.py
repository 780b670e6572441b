"""The picture of a table of image codecs."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from vpxrc.reports.style import COLOURS
from vpxrc.storage import atomic_write

MARKERS = "os^D"  # one for each round of the colours
_LETTERS = 100  # about as many are as wide as the picture; a name of the legend takes six more


def write_curves(table: pd.DataFrame, learned: list[str], path: Path) -> None:
    """Draw PSNR over bits per pixel into a PNG file.

    Args:
        table: A row for each codec and setting: ``codec``, ``bpp`` and ``psnr``.
        learned: Names of the learned codecs; they come first, and their lines are thicker. Those
            whose name ends in ", published" are dashed.
        path: The file.

    Raises:
        OutputError: It cannot be written.
    """
    names = [*learned, *(name for name in table["codec"].unique() if name not in learned)]
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    panel = figure.subplots()
    for number, name in enumerate(names):
        turn, place = divmod(number, len(COLOURS))
        curve = table[table["codec"] == name].sort_values("bpp")
        panel.plot(
            curve["bpp"],
            curve["psnr"],
            f"{MARKERS[turn % len(MARKERS)]}{'--' if name.endswith(', published') else '-'}",
            ms=4,
            lw=2 if name in learned else 1.1,
            color=COLOURS[place],
            label=name,
        )
    panel.set_xlabel("bits per pixel")
    panel.set_ylabel("PSNR (dB), mean over the pictures")
    panel.grid(alpha=0.3)
    columns = max(1, min(4, _LETTERS // (max(map(len, names)) + 6)))
    figure.legend(loc="outside upper center", ncols=columns, fontsize="small")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
