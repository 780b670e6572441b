"""The documentation: commands that exist, code that runs, and a site that builds by itself."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import imageio_ffmpeg
import pytest
import typer.main

from vpxrc.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "agents").glob("*/*.md")),
    ROOT / "codecs" / "README.md",
    *sorted((ROOT / "examples").glob("*/README.md")),
]
COMMANDS = typer.main.get_group(app).commands
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(path, *languages):
    return [code for language, code in FENCE.findall(path.read_text()) if language in languages]


def commands(path):
    """Return the command lines of a page, continued lines joined and comments cut off."""
    lines = "\n".join(fenced(path, "", "sh", "bash", "console")).replace("\\\n", " ").splitlines()
    # In running text too: what stands between backticks, over line ends.
    text = FENCE.sub("", path.read_text())
    lines += [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    return [re.sub(r"\s+#.*", "", line).strip().removeprefix("$ ") for line in lines]


DOCUMENTED = [
    pytest.param(line, id=f"{path.relative_to(ROOT)}: {line[:60]}")
    for path in PAGES
    for line in dict.fromkeys(commands(path))
    if re.match(r"vpxrc [a-z]", line)
]
BENCHMARKS = [
    pytest.param(line, id=f"{path.relative_to(ROOT)}: {line[:60]}")
    for path in PAGES
    for line in dict.fromkeys(commands(path))
    if line.startswith("python -m benchmarks")
]


def test_there_are_commands():
    assert len(DOCUMENTED) > 30
    assert len(BENCHMARKS) > 5


def unknown_options(line: str) -> list[str]:
    """Return the words of a command line that the program would not understand."""
    _, name, *words = line.split()
    if name not in COMMANDS:
        return [name]
    commands = [COMMANDS[name]]
    if parts := getattr(commands[0], "commands", None):  # `train` has options for each agent
        part = line.partition("--agent ")[2].partition(" ")[0] if name == "train" else words[0]
        commands += [parts[part]] if part in parts else []
    known = {option for one in commands for parameter in one.params for option in parameter.opts}
    known |= {"--help", "-h"}
    return [
        word
        for word in words
        if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known
    ]


@pytest.mark.parametrize("line", DOCUMENTED)
def test_a_documented_command_exists(line):
    assert unknown_options(line) == []


def test_a_command_that_does_not_exist_is_found():
    assert unknown_options("vpxrc encode in.mp4 --colour red -b 3 -z") == ["--colour", "-z"]
    assert unknown_options("vpxrc decode in.webm") == ["decode"]
    assert unknown_options("vpxrc train --agent bc in --epochs 3 --iterations 3") == ["--epochs"]


@pytest.mark.parametrize("line", BENCHMARKS)
def test_a_documented_benchmark_exists(line):
    _, _, module, *words = line.split()
    path = ROOT / module.replace(".", "/")
    source = (path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    # Loops may make options of names, as f"--without-{name}".
    families = re.findall(r'f"(--[a-z-]+)\{', source)
    for word in words:
        if word.startswith("--"):
            option = word.partition("=")[0]
            assert f'"{option}"' in source or any(map(option.startswith, families)), option


def test_the_code_of_extending_runs(tmp_path, capsys):
    """As it stands on the page, one piece after the other."""
    page = ROOT / "docs/extending.md"
    source = ["-f", "lavfi", "-i", "testsrc2=s=160x96:r=25:d=1.6", "-pix_fmt", "yuv420p"]
    clip, catalogue = tmp_path / "clip.mp4", tmp_path / "catalogue.toml"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *source, clip], check=True)
    entry_points, encoders, clips = fenced(page, "toml")
    assert "vpxrc.policies" in entry_points
    assert "vpxrc.encoders" in encoders
    catalogue.write_text(clips)
    names = {"clip": clip, "catalogue": catalogue}
    for code in fenced(page, "python"):
        exec(compile(code, page.name, "exec"), names)
    log = names["log"]
    assert names["video"].num_frames == 24
    assert (log.records["q_index"] <= log.records["libvpx_q_index"]).all()
    assert names["reward"] == -100.0 or names["info"]["overshoot"] <= 0
    assert names["opening"].open().width == 128
    assert capsys.readouterr().out.endswith("opening 24\n")


# The site


class _Fetched(HTMLParser):
    """Collects what a browser would load by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get("href", ""))
        elif tag != "a":
            self.found.append(given.get("src") or "")


def test_the_site(tmp_path):
    """One test, because the build takes most of the time."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    check_that_it_fetches_nothing(tmp_path)
    check_that_what_is_generated_is_there(tmp_path)
    check_that_links_are_mended(tmp_path)


def check_that_it_fetches_nothing(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        parser = _Fetched()
        parser.feed(page.read_text())
        assert not [url for url in parser.found if re.match(r"(https?:)?//", url)], page


def check_that_what_is_generated_is_there(site):
    environment = (site / "environment/index.html").read_text()
    for name in ("RateControl-v2", "ResidualRateControlContinuous-v1", "tpl_ratio", "188 x 14"):
        assert name in environment
    cli = (site / "cli/index.html").read_text()
    assert all(f"Usage: vpxrc {name}" in cli for name in COMMANDS)
    assert "--effort" in cli
    assert all(f"Usage: vpxrc train --agent {name}" in cli for name in COMMANDS["train"].commands)
    api = (site / "api/index.html").read_text()
    for name in (
        "vpxrc.EncodeSession.step",
        "vpxrc.evaluation.bd_rate.bd_rate",
        "vpxrc.errors.InputError",
    ):
        assert f'id="{name}"' in api
    assert not re.search(r":(class|func|meth|attr):", api)
    extending = (site / "extending/index.html").read_text()
    assert "takes_superblock_scale" in extending
    assert "<td></td>" not in extending  # every attribute of a frame and a group is described
    assert "generated:" not in environment + cli + api + extending


def check_that_links_are_mended(site):
    card = (site / "agents/imitation/index.html").read_text()
    assert 'href="../../dependency/"' in card
    assert "encodes.parquet</code>" in card
    assert 'href="agents/imitation/"' in (site / "index.html").read_text()
    assert not list(site.rglob("*.parquet"))
    assert not list(site.rglob("hooks.py"))


def test_the_page_of_the_environments_is_that_of_the_code():
    path = ROOT / "tools" / "environment_page.py"
    spec = importlib.util.spec_from_file_location("environment_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text()
    assert module.filled(page) == page, "run python tools/environment_page.py"
    assert module.filled(page.replace("q index", "q", 1)) == page.replace("q index", "q", 1)
    assert "tpl_ratio" in page and "| `cost` " in page


@pytest.mark.parametrize("name", ["environment.md", "questions.md", "recipes.md"])
def test_the_code_of_the_environments_pages_runs(name, monkeypatch, tmp_path):
    """As it stands on the page, one piece after the other."""
    page = ROOT / "docs" / name
    monkeypatch.chdir(tmp_path)
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.5", "-pix_fmt", "yuv420p"]
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", *source, "clip.mp4"], check=True)
    pieces = fenced(page, "python")
    assert pieces
    names: dict[str, object] = {}
    for code in pieces:  # the docstrings' have prompts
        exec(compile(re.sub(r"^>>> ", "", code, flags=re.M), page.name, "exec"), names)


def test_tables_of_results_are_those_of_the_stored_encodes():
    path = ROOT / "tools" / "result_tables.py"
    spec = importlib.util.spec_from_file_location("result_tables", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tables = module.tables()
    assert sum(map(len, tables.values())) > 5
    for page, of_page in tables.items():
        text = (ROOT / page).read_text()
        assert all(table in text for table in of_page), page


def test_pages_name_no_machine():
    paths = [
        f"{folder}/"
        for folder in (ROOT.parent, Path.home(), "/home", "/opt")
        if folder != Path("/")
    ]
    for path in (*PAGES, ROOT / "mkdocs.yml", *sorted((ROOT / "notebooks").glob("*.ipynb"))):
        text = path.read_text()
        assert not [word for word in paths if word in text], path
    for path in sorted((ROOT / "docs" / "results").rglob("summary.json")):
        command = json.loads(path.read_text()).get("command", "")  # older ones have none
        assert not [word for word in command.split() if word.startswith("/")], path
