"""Link the package together in ``build/typing``, for tools that read sources: mypy, mkdocstrings.

pyproject.toml maps several folders of the repository to one package, which exists only once it is
installed. Every run brings the links up to date. It replaces each link atomically, because mypy or
a build of the documentation may be reading them.
"""

import os
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VIEW = ROOT / "build" / "typing"
BESIDE = ("tests", "benchmarks")  # which import the package


def wanted_links() -> dict[Path, Path]:
    """Return the links of the view, each with the file or folder that it leads to."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    links = {VIEW / folder: ROOT / folder for folder in BESIDE}
    for package, folder in settings["tool"]["scikit-build"]["wheel"]["packages"].items():
        if "/" in package:
            links[VIEW / package] = ROOT / folder
        else:  # a real folder, so that the links of its subpackages have a place
            parts = (part for part in (ROOT / folder).iterdir() if part.name != "__pycache__")
            links |= {VIEW / package / part.name: part for part in parts}
    return links


def main() -> None:
    """Make the links that are wanted, and remove all others."""
    links = wanted_links()
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".{link.name}.{os.getpid()}")
        temporary.symlink_to(target)
        temporary.replace(link)
    for package in {link.parent for link in links}:
        for other in package.iterdir():
            if other.is_symlink() and other not in links and not other.name.startswith("."):
                other.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
