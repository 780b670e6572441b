"""HTML pages that need no other file and no network."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image
from plotly.offline import get_plotlyjs

from vpxrc.media.frames import Colours, Samples, rgb
from vpxrc.storage import atomic_write

MAX_PICTURE_WIDTH = 640  # pixels
JPEG_QUALITY = 90  # so fine that the visible faults are the stream's, not JPEG's


@dataclass(frozen=True)
class Plot:
    """One plot of a section.

    Attributes:
        title: Heading above the plot.
        traces: Plotly's traces as dictionaries. Traces of one name are shown and hidden together.
        layout: Plotly's layout without colours of axes and text, which follow the page's theme.
        caption: Text below the plot.
    """

    title: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    caption: str = ""


@dataclass(frozen=True)
class ViewedStream:
    """One stream of a clip in the frame viewer.

    Attributes:
        name: Name of the stream.
        caption: Text below every frame.
        pictures: The frames as :func:`picture` returns them.
        notes: Text for each frame; empty if there is none.
    """

    name: str
    caption: str
    pictures: list[str]
    notes: list[str]


@dataclass(frozen=True)
class ViewedClip:
    """A clip in the frame viewer.

    Attributes:
        clip: Name in the menu.
        frames: Show indices of the pictures.
        streams: Streams that are shown side by side.
    """

    clip: str
    frames: list[int]
    streams: list[ViewedStream]


class Page:
    """A page that is built section by section, then written.

    The same content gives the same bytes. Headings, names and texts are escaped; only the parts of
    :meth:`section` are HTML already.

    Args:
        title: Title and heading of the page.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._body: list[str] = []
        self._plots: dict[str, dict[str, Any]] = {}
        self._viewer: list[dict[str, Any]] = []

    def section(self, heading: str, *parts: str) -> None:
        """Add a section.

        Args:
            heading: Heading of the section.
            parts: Pieces of HTML, as the functions of this module return them.
        """
        place = f"section-{len(self._body)}"
        inner = "\n".join(parts)
        self._body.append(
            f'<section aria-labelledby="{place}"><h2 id="{place}">{escape(heading)}</h2>\n'
            f"{inner}</section>"
        )

    def plots(
        self, heading: str, menu: str, plots: Mapping[str, Sequence[Plot]], words: str = ""
    ) -> None:
        """Add a section of plots.

        Args:
            heading: Heading of the section.
            menu: Label of the menu.
            plots: Plots of each choice in the menu, the same number for each. A single choice has
                no menu.
            words: Text above the plots.
        """
        place = f"plots-{len(self._plots)}"
        choices = {choice: [asdict(plot) for plot in drawn] for choice, drawn in plots.items()}
        self._plots[place] = {"menu": menu, "choices": choices}
        self.section(heading, paragraph(words), f'<div class="plots" id="{place}"></div>')

    def viewer(self, heading: str, clips: Sequence[ViewedClip], words: str) -> None:
        """Add the frame viewer, at most one per page. Without clips only the text is added.

        Args:
            heading: Heading of the section.
            clips: Clips of the menu.
            words: Text above the viewer.
        """
        self._viewer = [asdict(clip) for clip in clips]
        place = '<div class="viewer" id="viewer"></div>' if clips else ""
        self.section(heading, paragraph(words), place)

    def write(self, path: Path) -> None:
        """Write the page.

        Raises:
            OutputError: The file cannot be written.
        """
        script, style = (
            Path(__file__).with_name(f"html.{suffix}").read_text(encoding="utf-8")
            for suffix in ("js", "css")
        )
        data = json.dumps({"plots": self._plots, "viewer": self._viewer}, allow_nan=False)
        title = escape(self._title)
        text = "\n".join(
            [
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                '<meta name="color-scheme" content="light dark">',
                '<link rel="icon" href="data:,">',
                f"<title>{title}</title><style>{style}</style></head><body><main>",
                f"<h1>{title}</h1>",
                "<noscript><p>The plots and the viewer need JavaScript.</p></noscript>",
                *self._body,
                "</main>",
                f"<script>{get_plotlyjs()}</script>",
                # A name with "</script>" in it would end the script early.
                '<script type="application/json" id="data">',
                data.replace("<", "\\u003c"),
                f"</script><script>{script}</script></body></html>\n",
            ]
        )
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def paragraph(words: str) -> str:
    """Return text as HTML."""
    return f"<p>{escape(words)}</p>" if words else ""


def code(text: str) -> str:
    """Return a command or a program's text as HTML."""
    return f"<pre>{escape(text)}</pre>"


def table(rows: Iterable[Sequence[object]], name: str) -> str:
    """Return a table as HTML. A table that is too wide scrolls without the page.

    Args:
        rows: The rows, with the heading first.
        name: Name for screen readers.
    """
    heading, *body = (list(map(escape, map(str, row))) for row in rows)
    lines = [f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in body]
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f'<thead><tr><th scope="col">{"</th><th scope=col>".join(heading)}</th></tr></thead>\n'
        f"<tbody>{chr(10).join(lines)}</tbody></table></div>"
    )


def markdown(text: str) -> str:
    """Return Markdown as HTML: paragraphs, lists and tables, as this package writes them."""
    parts = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        if block.startswith("|"):
            rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
            parts.append(table([rows[0], *rows[2:]], "figures"))
        elif block.startswith("- "):
            items = "".join(f"<li>{escape(line[2:])}</li>" for line in lines)
            parts.append(f"<ul>{items}</ul>")
        else:
            parts.append(paragraph(block))
    return "\n".join(parts)


def details(summary: str, inner: str) -> str:
    """Return HTML that is hidden until the reader opens it."""
    return f"<details><summary>{escape(summary)}</summary>\n{inner}</details>"


def picture(planes: Sequence[Samples], colours: Colours | None = None) -> str:
    """Return a frame as a JPEG in a ``data:`` address, scaled down if it is wide.

    Args:
        planes: The Y, U and V planes, as :func:`vpxrc.media.frames.rgb` takes them.
        colours: Colour description of the samples; by default BT.601 in the limited range.
    """
    luma, blue, red = planes
    image = Image.fromarray(rgb(luma, blue, red, colours))
    image.thumbnail((MAX_PICTURE_WIDTH, image.height), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
