"""The README and the pages: their figures are the stored ones, their links lead somewhere."""

import importlib.util
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest
from test_docs import FENCE, PAGES, fenced

from vpxrc.datasets import load_clips
from vpxrc.media.frames import video_from_frames, write_y4m

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
LINK = re.compile(r"\[[^\[\]]+\]\(([^()\s]+)\)")


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
        if not place.exists() and path.parent == docs and place.is_relative_to(docs):
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
