"""The linked view that mypy and mkdocstrings read has every module, and nothing that has gone."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VIEW = ROOT / "build" / "typing"


def test_the_view_is_the_package():
    gone = VIEW / "vpxrc" / "gone.py"
    gone.parent.mkdir(parents=True, exist_ok=True)
    gone.unlink(missing_ok=True)
    gone.symlink_to(ROOT / "vpxrc" / "gone.py")
    command = [sys.executable, str(ROOT / "tools" / "package_view.py")]
    runs = [subprocess.Popen(command) for _ in range(4)]  # at the same time
    assert [run.wait() for run in runs] == [0] * 4

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = settings["tool"]["scikit-build"]["wheel"]["packages"]
    for package, folder in packages.items():
        for module in (ROOT / folder).rglob("*.py*"):
            if "__pycache__" not in module.parts:
                linked = VIEW / package / module.relative_to(ROOT / folder)
                assert linked.samefile(module)
    assert not gone.is_symlink()
    names = {path.name for path in (VIEW / "vpxrc").iterdir() if not path.name.startswith(".")}
    there = {path.name for path in (ROOT / "vpxrc").iterdir()} - {"__pycache__"}
    assert names == there | {package.partition("/")[2] for package in packages} - {""}
