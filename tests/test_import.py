"""`import vpxrc` is quick: what tables, figures, networks and ffmpeg need comes when it is used."""

import subprocess
import sys

HEAVY = (
    "av",
    "constriction",
    "datasets",
    "ffmpeg",
    "gymnasium",
    "imageio_ffmpeg",
    "matplotlib",
    "pandas",
    "plotly",
    "pyarrow",
    "rich",
    "safetensors",
    "scipy",
    "skvideo",
    "torch",
    "typer",
)


def loaded(program: str) -> set[str]:
    """The top-level modules that are there after a program, in a fresh process."""
    code = f"{program}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/"
    )
    return set(done.stdout.split())


def test_import_of_the_package_loads_nothing_heavy():
    assert loaded("import vpxrc") & set(HEAVY) == set()


def test_the_program_starts_without_what_curves_need():
    assert loaded("import vpxrc.cli") & {"scipy", "matplotlib", "torch"} == set()


def test_the_list_can_be_found_out():
    assert "pandas" in loaded("import vpxrc.evaluation")
