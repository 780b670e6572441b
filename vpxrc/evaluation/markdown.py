"""Tables in Markdown."""

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table, aligned so that it reads well as plain text.

    Args:
        rows: Cells of each row, with the heading first.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    heading, *body = rows
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heading, ["-" * width for width in widths], *body)
    ]
    return "\n".join(f"| {line} |" for line in lines)
