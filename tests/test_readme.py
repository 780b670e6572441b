"""The README and the pages: their figures are the stored ones, their links lead somewhere."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest
from test_docs import FENCE, PAGES, fenced

from vpxrc.datasets import load_clips
from vpxrc.evaluation.quality import QUALITIES
from vpxrc.media.frames import video_from_frames, write_y4m

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
LINK = re.compile(r"\[[^\[\]]+\]\(([^()\s]+)\)")
FIGURE = re.compile(r"[+-]\d+\.\d\d \([+-]\d+\.\d\d\)(?: \[[^\]]+\])?")  # mean (median) [interval]


def load(path):
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Places of the site that are files elsewhere in the repository
SITE = {page: source for source, page in load(ROOT / "docs" / "hooks.py").EXTRA_PAGES.items()}


def headings(text):
    """Return the anchors of a page's headings."""
    found = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in found]
    return {heading.strip().replace(" ", "-") for heading in words}


def broken_links(path, text):
    """Return the links of a page that lead to no file, or to no heading of it."""
    found = []
    # A link may begin on one line and end on the next.
    for target in LINK.findall(FENCE.sub("", text).replace("\n", " ")):
        file, _, anchor = target.partition("#")
        if "://" in file or file.startswith("mailto:"):
            continue
        place = (path.parent / file).resolve() if file else path
        docs = ROOT / "docs"
        if not place.exists() and path.parent == docs:
            place = ROOT / SITE.get(place.relative_to(docs).as_posix(), "no such file")
        page = place / "README.md" if place.is_dir() else place
        if not place.exists() or (
            anchor and page.suffix == ".md" and anchor not in headings(page.read_text())
        ):
            found.append(target)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    assert broken_links(path, path.read_text()) == []


def test_a_broken_link_is_found():
    text = "[a](LICENSE) [b](none.md) [c](docs/cli.md#none) [d](docs) [e](https://example.org/f)"
    assert broken_links(README, text) == ["none.md", "docs/cli.md#none"]


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= 900


def test_the_readmes_table_is_the_stored_results():
    command = [sys.executable, str(ROOT / "tools" / "readme_table.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(printed.splitlines()) > 4
    assert f"\n\n{printed}\n" in README.read_text()


def test_the_imitation_cards_table_is_the_stored_results():
    summary = json.loads((RESULTS / "imitation-eval" / "summary.json").read_text())
    labels = [quality.label for quality in QUALITIES.values()]
    lines = [f"| clip | {' | '.join(labels)} |", "| --- | --- | --- | --- | --- |"]
    for clip in summary["clips"]:
        rates = clip["bd_rate"]["libvpx-vbr"]
        figures = [f"{rates[name]['percent']:+.1f}" for name in QUALITIES]
        lines.append(f"| {clip['clip']} | {' | '.join(figures)} |")
    card = (ROOT / "agents" / "imitation" / "README.md").read_text()
    assert "\n".join(lines) in card


def test_the_muzero_cards_table_is_the_stored_results():
    stored = "".join(path.read_text() for path in (RESULTS / "muzero").glob("eval*/table.md"))
    card = (ROOT / "agents" / "muzero" / "README.md").read_text()
    section = card.partition("### On the evaluation clips")[2].partition("\n## ")[0]
    figures = [
        cell for line in section.splitlines() if line[:1] == "|" for cell in FIGURE.findall(line)
    ]
    assert len(figures) == 5 * len(QUALITIES)
    assert [figure for figure in figures if figure not in stored] == []


def test_the_readmes_program_runs(tmp_path, monkeypatch, capsys):
    """The first one, on the beginning of a sample clip."""
    video = load_clips("samples")[0].open()
    start = video_from_frames(video.frames[:20], video.width, video.height, video.fps)
    write_y4m(start, tmp_path / "clip.y4m")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "clip.y4m", "clip.mp4"]
    subprocess.run(command, check=True, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(fenced(README, "python")[0], README.name, "exec"), names)
    log = names["log"]
    assert len(log.shown) == 20
    assert capsys.readouterr().out == f"{log.bitrate} {log.psnr}\n"
    assert set(log.coded["q_index"].tolist()) == {90, 140}
