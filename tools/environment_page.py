"""Write the generated parts of docs/environment.md, so that the page is readable without a build.

    python tools/environment_page.py

A part lies between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``. A test compares the page
with what this program would write.
"""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from gymnasium.envs.registration import registry

import vpxrc.envs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "environment.md"


def environments() -> str:
    """Return the specification of every environment: the docstrings of the classes."""
    parts = []
    for spec in registry.values():
        if not spec.id.startswith("vpxrc/") or spec.kwargs:  # earlier versions have arguments
            continue
        name = str(spec.entry_point).rpartition(":")[2]
        doc = inspect.getdoc(getattr(vpxrc.envs, name))
        assert doc is not None
        first, _, text = doc.partition("\n")
        parts.append(f"## {spec.id}\n\n`vpxrc.envs.{name}`: {first}\n")
        parts.append(re.sub(r"^## ", "### ", text.strip("\n"), flags=re.M) + "\n")
    return "\n".join(parts).strip()


def spaces() -> str:
    """Return the keys of the observation ``dict`` of ``RateControlEnv`` with shapes and types."""
    rows = ["| Key | Shape at `max_frames=150` | Type |", "| --- | --- | --- |"]
    for key, space in vpxrc.envs.observation_space(150).spaces.items():
        shape = " x ".join(map(str, space.shape or ()))
        rows.append(f"| `{key}` | {shape} | `{space.dtype}` |")
    return "\n".join(rows)


def sizes() -> str:
    """Return a table of the sizes of the flat observations."""
    rows = ["| environment | numbers of the observation |", "| --- | --- |"]
    rows.append(f"| `vpxrc/RateControl-v2` | {len(vpxrc.envs.FLAT)} |")
    rows.append(f"| `vpxrc/ResidualRateControl-v1` | {len(vpxrc.envs.OBSERVATION)} |")
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {
    function.__name__: function for function in (environments, spaces, sizes)
}


def filled(page: str) -> str:
    """Return a page with its generated parts written anew."""

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- begin: {name} -->\n\n{PARTS[name]()}\n\n<!-- end: {name} -->"

    pattern = r"<!-- begin: (?P<name>\w+) -->.*?<!-- end: (?P=name) -->"
    return re.sub(pattern, part, page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
