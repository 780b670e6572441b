"""What the teacher's searches saved, as a page and as figures for JSON."""

import math
from typing import Any

import pandas as pd

from vpxrc import _native


def bounds_page(table: pd.DataFrame, start: str, cpu_used: int, command: str) -> str:
    """Return the savings of each search, with mean and median, in Markdown.

    Args:
        table: The savings, as :func:`vpxrc.agents.teacher.lessons.bounds` returns them.
        start: Spec of the policy that the searches started from.
        cpu_used: The encoder's speed.
        command: The command line that makes the table again.
    """
    figures = _figures(table)
    titles = [name.replace("_start", ", start").replace("_found", ", found") for name in figures]
    rows = [["clip", "size", "kbit/s", "encodes", *titles]]
    for row in table.to_dict("records"):
        names = [str(row[name]) for name in ("clip", "size", "target_bitrate", "encodes")]
        rows.append([*names, *(_signed(row[name]) for name in figures)])
    for name in ("mean", "median"):
        summary = table[["encodes", *figures]].agg(name)
        cells = [_signed(summary[figure]) for figure in figures]
        rows.append([name, "", "", f"{summary['encodes']:.1f}", *cells])
    rows.insert(1, ["---"] * len(rows[0]))
    parts = [
        f"Percent of bits saved at equal quality against libvpx-vbr: by `{start}`, where the "
        f"searches start, and by what they found. cpu-used {cpu_used}, libvpx "
        f"{_native.LIBVPX_VERSION}.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    if table[figures].isna().to_numpy().any():
        parts.append(
            "`-`: libvpx-vbr's quality does not rise with its rate there. Not in mean and median."
        )
    parts.append(f"```\n{command}\n```")
    return "\n\n".join(parts) + "\n"


def bounds_figures(table: pd.DataFrame, command: str) -> dict[str, Any]:
    """Return the savings in a form that JSON takes; None where libvpx-vbr has no curve.

    Args:
        table: The savings, as :func:`vpxrc.agents.teacher.lessons.bounds` returns them.
        command: The command line that makes the table again.

    Returns:
        ``command``, ``lessons`` (a dictionary per row), and ``mean`` and ``median`` of the figures.
    """
    figures = table[["encodes", *_figures(table)]]
    return {
        "command": command,
        "lessons": [_without_nan(row) for row in table.to_dict("records")],
        "mean": _without_nan(figures.mean().to_dict()),
        "median": _without_nan(figures.median().to_dict()),
    }


def _figures(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name.endswith(("_start", "_found"))]


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.1f}"


def _without_nan(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in row.items()
    }
