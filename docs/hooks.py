"""What MkDocs cannot do by itself: pages and parts of pages that are made of the package.

A comment ``<!-- generated: NAME -->`` in a page is replaced by what the function ``NAME`` of
``GENERATED`` returns, so the command line's help and the list of policies are always those of the
package that is installed. The model cards beside the
agents become pages too. Links that leave the site become the name of the file that they lead to.
"""

import inspect
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.testing import CliRunner

import vpxrc
from vpxrc.cli import app
from vpxrc.policies.registry import GROUP

ROOT = Path(__file__).resolve().parents[1]
# Files outside docs/ that are pages: path in the repository -> path in the site.
EXTRA_PAGES = {
    **{
        f"agents/{name}/README.md": f"agents/{name}.md"
        for name in ("imitation", "teacher", "muzero", "rllib")
    },
    **{
        f"agents/{name}/notes.md": f"agents/{name}-notes.md"
        for name in ("imitation", "muzero", "rllib")
    },
    "codecs/README.md": "codecs.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "THIRD_PARTY.md": "third-party.md",
}
TERMINAL_WIDTH = "88"


# MkDocs' events


def on_startup(**_: Any) -> None:
    """Link the package's sources together, for mkdocstrings."""
    subprocess.run([sys.executable, str(ROOT / "tools" / "package_view.py")], check=True)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in EXTRA_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, give tables of results a title, and mend links."""
    markdown = re.sub(
        r"^<!-- generated: (\w+) -->$", lambda match: GENERATED[match[1]](), markdown, flags=re.M
    )
    source = page.file.src_uri
    if source.startswith("results/"):
        markdown = f"# docs/{posixpath.splitext(source)[0]}\n\n{markdown}"
    return mend_links(markdown, source, [f.src_uri for f in files if f.inclusion.is_included()])


def on_page_content(html: str, **_: Any) -> str:
    """Show what docstrings have in reStructuredText as MkDocs has it."""
    html = re.sub(r":(?:class|func|meth|attr|mod|data):(?=<code>)", "", html)
    return html.replace("::</p>", ":</p>")


# Links


def mend_links(markdown: str, page: str, site: Sequence[str]) -> str:
    """Return a page whose links lead to other pages, or nowhere but with the file's name.

    Args:
        markdown: The page.
        page: Its path in the site, as ``agents/imitation.md``.
        site: Paths of all files of the site.
    """
    pages = {file: f"docs/{file}" for file in site}
    pages |= {page: source for source, page in EXTRA_PAGES.items()}
    places = {source: file for file, source in pages.items()} | {"README.md": "index.md"}
    here = posixpath.dirname(pages[page])

    def mended(match: re.Match[str]) -> str:
        text, target = match["text"], match["target"]
        path, _, anchor = target.partition("#")
        if not path or "://" in path:
            return match[0]
        if posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) in pages:
            return match[0]
        path = posixpath.normpath(posixpath.join(here, path))
        folder = (f"{path}/{name}" for name in ("README.md", "table.md", "bounds.md"))
        for candidate in (path, *folder):
            if found := places.get(candidate):
                link = os.path.relpath(found, posixpath.dirname(page) or ".")
                # The README's sections are not those of the site's first page.
                end = f"#{anchor}" if anchor and candidate == path else ""
                return f"{match['image']}[{text}]({link}{end})"
        plain = text.strip("`")
        return f"`{path}`" if path.endswith(plain) else f"{text} (`{path}`)"

    pieces = re.split(r"(^```.*?^```$|^(?: {4}[^\n]*\n)+)", markdown, flags=re.M | re.S)
    link = r"(?P<image>!?)\[(?P<text>[^\[\]]+)\]\((?P<target>[^()\s]+)\)"
    pieces[::2] = [re.sub(link, mended, piece) for piece in pieces[::2]]
    return "".join(pieces)


# What is generated


def commands() -> str:
    """Return the help of every command, of every agent of ``train``, and of what a group has."""
    runner = CliRunner(env={"COLUMNS": TERMINAL_WIDTH, "TERMINAL_WIDTH": TERMINAL_WIDTH})
    parts = []
    # Typer types it as a command; one with subcommands is a group.
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        option = ["--agent"] if name == "train" else []
        for words in ([name], *([name, *option, part] for part in _parts(command))):
            text = runner.invoke(app, [*words, "--help"], prog_name="vpxrc").stdout.rstrip()
            level = "##" if words == [name] else "###"
            parts.append(f"{level} vpxrc {' '.join(words)}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _parts(command: Any) -> list[str]:
    """Return the commands of a group; those of ``train`` are values of ``--agent``."""
    return list(getattr(command, "commands", ()))


def policies() -> str:
    """Return a table of the policies that the package itself has."""
    rows = ["| policy | made by | description |", "| --- | --- | --- |"]
    named: dict[str, str] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        if entry.dist is None or entry.dist.name != "vpxrc":
            continue
        summary = (inspect.getdoc(entry.load()) or "").partition("\n")[0].removeprefix("Return ")
        if (first := named.setdefault(entry.value, entry.name)) != entry.name:
            summary = f"Another name of `{first}`, which stored studies contain."
        if not summary.startswith("libvpx"):
            summary = summary[:1].upper() + summary[1:]
        rows.append(f"| `{entry.name}` | `{entry.value}` | {summary} |")
    return "\n".join(rows)


def frame() -> str:
    """Return a table of what is known of a frame that waits for its decision."""
    return _properties(vpxrc.Frame)


def group() -> str:
    """Return a table of what is known of a golden-frame group."""
    return _properties(vpxrc.Group)


def _properties(kind: type) -> str:
    rows = ["| attribute | what it is |", "| --- | --- |"]
    for name, value in vars(kind).items():
        if isinstance(value, property):
            text = " ".join((value.__doc__ or "").split())
            rows.append(f"| `{name}` | {text} |")
    return "\n".join(rows)


GENERATED: dict[str, Callable[[], str]] = {
    function.__name__: function for function in (commands, policies, frame, group)
}
