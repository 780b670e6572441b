"""Probing and opening videos, against ffmpeg's own output; bad files; colours; the cache."""

import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from vpxrc.errors import InputError, MissingDependencyError, OutputError
from vpxrc.media import decoding as video_module
from vpxrc.media.decoding import decode, decode_vp9, open_video
from vpxrc.media.frames import (
    Colours,
    Video,
    parse_fps,
    rgb,
    split_planes,
    video_from_frames,
    write_y4m,
)
from vpxrc.media.labels import Labels
from vpxrc.media.probing import Source, Track, probe
from vpxrc.storage import atomic_write, cache_dir, sha256_file

SHARED = Path(__file__).parents[2] / "shared" / "clips"


def ffmpeg(*arguments: str | Path) -> bytes:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-nostdin", "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def synthetic(width: int = 97, height: int = 81, num_frames: int = 12, fps: str = "25") -> Video:
    """A moving gradient with noise, different in every frame and plane."""
    rng = np.random.default_rng(0)
    size = width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    ramp = np.arange(size) // 7 + 9 * np.arange(num_frames)[:, None]
    frames = (ramp + rng.integers(0, 8, ramp.shape)) % 200 + 20
    return video_from_frames(frames.astype(np.uint8), width, height, fps, "synthetic")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A folder with the same 40 frames in several containers."""
    folder = tmp_path_factory.mktemp("media")
    source = folder / "clip.y4m"
    write_y4m(synthetic(96, 80, 40), source)
    x264 = ("-i", source, "-c:v", "libx264", "-bf", "2")
    ffmpeg(*x264, folder / "clip.mp4")
    ffmpeg(*x264, "-movflags", "+faststart", folder / "faststart.mp4")
    ffmpeg(*x264, folder / "clip.mkv")
    ffmpeg("-i", source, "-c:v", "mpeg4", folder / "clip.avi")
    vp9 = ("-i", source, "-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime")
    ffmpeg(*vp9, folder / "clip.webm")
    ffmpeg(*vp9, folder / "clip.ivf")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# Frames and geometry


def test_planes_are_views_with_rounded_up_chroma():
    video = synthetic(97, 81)
    y, u, v = video.planes(3)
    assert (y.shape, u.shape, v.shape) == ((81, 97), (41, 49), (41, 49))
    assert video.frame_bytes == y.size + u.size + v.size == video.frames.shape[1]
    assert b"".join(plane.tobytes() for plane in (y, u, v)) == video.frames[3].tobytes()
    assert all(np.shares_memory(plane, video.frames) for plane in (y, u, v))
    with pytest.raises(IndexError):
        video.planes(12)


def test_frames_cannot_be_written_and_do_not_follow_the_callers_array():
    array = np.full((2, 384), 7, np.uint8)
    video = video_from_frames(array, 16, 16, 25)
    array[:] = 0
    assert video.frames.min() == 7
    with pytest.raises(ValueError, match="read-only"):
        video.frames[0, 0] = 1
    # An array that nobody can write is shared, not copied.
    assert np.shares_memory(video_from_frames(video.frames, 16, 16, 25).frames, video.frames)


def test_content_hash_is_sha256_over_geometry_rate_and_bytes():
    frames = np.arange(768, dtype=np.uint32).astype(np.uint8).reshape(2, 384)
    video = video_from_frames(frames, 16, 16, "30000/1001")
    expected = hashlib.sha256(b"16x16 30000/1001\n" + frames.tobytes()).hexdigest()
    assert video.content_hash == expected
    assert video_from_frames(frames, 16, 16, 30).content_hash != expected
    assert video_from_frames(frames, 16, 16, "30000/1001", "b").content_hash == expected


@pytest.mark.parametrize(("width", "height"), [(97, 81), (96, 81), (97, 80), (96, 80)])
def test_y4m_comes_back_exactly(tmp_path, width, height):
    video = synthetic(width, height, fps="30000/1001")
    write_y4m(video, tmp_path / "clip.y4m")
    again = open_video(tmp_path / "clip.y4m")
    assert (again.name, again.width, again.height) == ("clip", width, height)
    assert again.fps == Fraction(30000, 1001)
    assert again.num_frames == 12
    assert again.duration == pytest.approx(12 * 1001 / 30000)
    np.testing.assert_array_equal(again.frames, video.frames)
    assert again.content_hash == video.content_hash
    assert not again.frames.flags.writeable
    assert again.frames.flags.c_contiguous


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.webm", "clip.ivf"])
def test_frames_are_what_ffmpeg_decodes(media, name):
    raw = ffmpeg("-i", media / name, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-")
    video = open_video(media / name)
    assert (video.width, video.height, video.num_frames) == (96, 80, 40)
    assert video.fps == 25
    assert video.frames.tobytes() == raw


def test_odd_dimensions_of_a_compressed_source_are_kept(tmp_path):
    write_y4m(synthetic(97, 81), tmp_path / "clip.y4m")
    ffmpeg("-i", tmp_path / "clip.y4m", "-c:v", "ffv1", tmp_path / "clip.mkv")
    video = open_video(tmp_path / "clip.mkv")
    assert (video.width, video.height) == (97, 81)
    np.testing.assert_array_equal(video.frames, synthetic(97, 81).frames)


def test_names_that_ffmpeg_could_misread(tmp_path):
    video = synthetic(32, 24, 3)
    for name in ("-v.y4m", "a:b'c %d [1],x.y4m", "concat:x.y4m"):
        write_y4m(video, tmp_path / name)
        assert open_video(tmp_path / name).content_hash == video.content_hash


def test_other_chroma_becomes_420(tmp_path):
    write_y4m(synthetic(97, 81), tmp_path / "clip.y4m")
    ffmpeg("-i", tmp_path / "clip.y4m", "-pix_fmt", "rgb24", "-c:v", "ffv1", tmp_path / "c.mkv")
    video = open_video(tmp_path / "c.mkv")
    assert video.frames.shape == (12, 97 * 81 + 2 * 49 * 41)


@pytest.mark.parametrize(("degrees", "turn"), [("90", 1), ("180", 2), ("-90", 3)])
def test_a_phones_rotation_is_applied(media, tmp_path, degrees, turn):
    rotated = tmp_path / "rotated.mp4"
    ffmpeg("-display_rotation", degrees, "-i", media / "clip.mp4", "-c", "copy", rotated)
    video = open_video(rotated)
    upright = open_video(media / "clip.mp4")
    assert (video.width, video.height) == ((80, 96) if turn % 2 else (96, 80))
    for ours, original in zip(video.planes(5), upright.planes(5), strict=True):
        np.testing.assert_array_equal(ours, np.rot90(original, turn))
    # The size asked for is that of the rotated picture.
    assert open_video(rotated, width=40).height == (48 if turn % 2 else 34)


def test_scaling_keeps_the_aspect_and_is_lanczos(media):
    raw = ffmpeg(
        "-i",
        media / "clip.mp4",
        "-vf",
        "scale=48:40:flags=lanczos",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv420p",
        "-",
    )
    by_width = open_video(media / "clip.mp4", width=48)
    by_height = open_video(media / "clip.mp4", height=40)
    assert (by_width.width, by_width.height) == (48, 40)
    assert by_width.frames.tobytes() == by_height.frames.tobytes() == raw
    odd = open_video(media / "clip.mp4", width=51, height=33)
    assert (odd.width, odd.height) == (51, 33)


def test_segments_and_frame_rates(media):
    whole = open_video(media / "clip.mp4")
    part = open_video(media / "clip.mp4", start=0.4, num_frames=7)
    np.testing.assert_array_equal(part.frames, whole.frames[10:17])
    assert open_video(media / "clip.mp4", num_frames=100).num_frames == 40
    half = open_video(media / "clip.mp4", fps="25/2")
    assert (half.fps, half.num_frames) == (Fraction(25, 2), 20)
    source = {frame.tobytes() for frame in whole.frames}
    kept = {frame.tobytes() for frame in half.frames}
    assert len(kept) == 20
    assert kept <= source


@pytest.mark.parametrize(
    ("source", "chosen", "rate"),
    [
        ("testsrc2=s=64x48:r=25:d=2", "1", "25"),
        ("testsrc2=s=64x48:r=30000/1001:d=2", "1", "30000/1001"),
        ("testsrc2=s=64x48:r=24000/1001:d=2", "1", "24000/1001"),
        ("testsrc2=s=64x48:r=120:d=1", "1", "120"),
        ("testsrc2=s=64x48:r=30000/1001:d=2", "not(eq(mod(n,9),4))", "30000/1001"),
        ("testsrc2=s=64x48:r=60:d=2", "not(mod(n,5))+not(mod(n,7))", "60"),
        # On no grid: what most of the frames need.
        ("testsrc2=s=64x48:r=1000:d=2", "not(mod(n,33))+not(mod(n,500))", "30"),
    ],
)
def test_a_rate_for_frames_that_do_not_come_at_one(tmp_path, source, chosen, rate):
    path = tmp_path / "clip.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        source,
        "-vf",
        f"select='{chosen}'",
        "-fps_mode",
        "vfr",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        "-preset",
        "ultrafast",
        path,
    )
    found = decode(path)
    assert found.video.fps == Fraction(rate)
    packets = ffmpeg("-i", path, "-c", "copy", "-f", "framecrc", "-").split(b"\n")
    times = [int(row.split(b",")[2]) / 1000 for row in packets if row and row[:1] != b"#"]
    assert found.video.duration == pytest.approx(max(times), abs=float(2 / found.video.fps))
    if chosen == "1":
        assert (found.video.num_frames, found.notes) == (len(times), ())
    else:
        assert found.notes[0].startswith("variable frame rate, made")


def test_one_look_finds_all_that_encode_asks_for(media, tmp_path):
    path, words = tmp_path / "film.mkv", tmp_path / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\nconcealing\n")
    tones = [part for codec in range(2) for part in ("-f", "lavfi", "-i", "sine=d=1")]
    ffmpeg(
        *("-i", media / "clip.mp4", *tones, "-i", words, "-map", "0", "-map", "1", "-map", "2"),
        *("-map", "3", "-c:v", "libx264"),
        *("-vf", "setparams=color_trc=bt709:colorspace=bt709:color_primaries=bt709"),
        *("-c:a:0", "aac", "-c:a:1", "libopus", "-metadata", "title=The art of concealing", path),
    )
    found = probe(path)
    assert found == Source(
        path=path,
        pixel_format="yuv420p",
        bit_depth=8,
        labels=Labels(
            colours=Colours("bt709", "bt709", primaries="bt709"), title="The art of concealing"
        ),
        audio=(Track("aac"), Track("opus")),
        subtitles=(Track("ass", is_text=True),),
    )
    video = open_video(found)
    assert video.colours == found.colours
    assert open_video(path).colours == found.colours  # from the cache
    # A title is no message of ffmpeg's.
    assert video.num_frames == 40


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-pix_fmt", "yuvj420p", "-c:v", "mjpeg"), Colours("bt470bg", full_range=True)),
        (("-pix_fmt", "rgb24", "-c:v", "png"), Colours("bt470bg")),
        (("-pix_fmt", "gray", "-c:v", "ffv1"), Colours()),
        (("-pix_fmt", "yuv420p", "-c:v", "ffv1"), Colours()),
    ],
)
def test_colours_are_those_of_the_frames_that_are_decoded(media, tmp_path, options, expected):
    ffmpeg("-i", media / "clip.y4m", *options, tmp_path / "clip.mkv")
    assert probe(tmp_path / "clip.mkv").colours == expected


def test_a_cover_picture_is_no_video(media, tmp_path):
    cover, film = tmp_path / "cover.png", tmp_path / "film.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", "1", cover)
    first = ("-i", cover, "-i", media / "clip.mp4", "-map", "0", "-map", "1")
    ffmpeg(*first, "-c", "copy", "-disposition:v:0", "attached_pic", film)
    assert probe(film).pixel_format == "yuv420p"
    assert open_video(film).num_frames == 40


def test_times_of_decoding_count_where_there_are_no_others(media, tmp_path):
    """AVI with B-frames; its rate is constant."""
    ffmpeg("-i", media / "clip.y4m", "-c:v", "mpeg4", "-bf", "2", tmp_path / "clip.avi")
    assert open_video(tmp_path / "clip.avi").fps == 25


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(
    ("matrix", "name"),
    [
        ("unknown", "bt601"),
        ("smpte170m", "smpte170m"),
        ("smpte240m", "smpte240m"),
        ("bt709", "bt709"),
        ("bt2020nc", "bt2020"),
    ],
)
def test_rgb_is_ffmpegs(tmp_path, matrix, name, full_range):
    """To one level, where ffmpeg's integers do not overflow."""
    width, height = 96, 80
    frames = np.random.default_rng(0).integers(64, 192, (2, 96 * 80 * 3 // 2), np.uint8)
    frames.tofile(tmp_path / "raw")
    size = ("-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", "96x80")
    shown = "pc" if full_range else "tv"
    # Chroma by repetition, without the tables that round twice.
    exact = "flags=neighbor+accurate_rnd+full_chroma_int"
    scale = f"scale=in_color_matrix={name}:in_range={shown}:{exact}"
    raw = ("-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    data = ffmpeg(*size, "-i", tmp_path / "raw", "-vf", scale, *raw)
    theirs = np.frombuffer(data, np.uint8).reshape(2, height, width, 3)
    ours = rgb(*split_planes(frames, width, height), Colours(matrix, full_range=full_range))
    assert ours.dtype == np.uint8
    assert abs(ours.astype(int) - theirs).max() <= 1


def test_rgb_of_odd_sizes_and_extremes():
    planes = synthetic(97, 81).planes(0)
    even = rgb(np.pad(planes[0], ((0, 1), (0, 1))), *planes[1:])
    np.testing.assert_array_equal(rgb(*planes), even[:81, :97])
    grey = np.full((1, 1), 128, np.uint8)
    for luma, colours, level in (
        (16, None, 0),
        (235, None, 255),
        (0, None, 0),
        (255, None, 255),
        (16, Colours(full_range=True), 16),
        (255, Colours(full_range=True), 255),
    ):
        assert (rgb(np.full((2, 2), luma, np.uint8), grey, grey, colours) == level).all()


def test_shared_clips_have_the_geometry_of_their_manifest():
    if not SHARED.is_dir():
        pytest.skip("no ../shared/clips beside the repository")
    video = open_video(SHARED / "eval" / "flutter_bee.mp4")
    assert (video.width, video.height, video.fps) == (640, 360, Fraction(30000, 1001))
    assert video.num_frames == 121


# Bad input


@pytest.mark.parametrize(
    "name",
    ["clip.mp4", "faststart.mp4", "clip.mkv", "clip.avi", "clip.webm", "clip.ivf", "clip.y4m"],
)
def test_a_truncated_file_is_refused(media, tmp_path, cache, name):
    data = (media / name).read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(InputError, match=rf"cut_{name}: .*truncated") as caught:
        open_video(cut)
    assert "\n" not in str(caught.value)
    assert list((cache / "frames").iterdir()) == []


@pytest.mark.parametrize("num_bytes", [50, 400, 1500])
def test_a_damaged_stream_is_refused(media, tmp_path, num_bytes):
    data = bytearray((media / "faststart.mp4").read_bytes())
    middle = len(data) * 7 // 10
    data[middle : middle + num_bytes] = np.random.default_rng(num_bytes).bytes(num_bytes)
    (tmp_path / "damaged.mp4").write_bytes(data)
    with pytest.raises(InputError, match=r"damaged\.mp4: truncated or corrupt: "):
        open_video(tmp_path / "damaged.mp4")


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.mp4: no such file"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="a folder, not a video file"):
        open_video(tmp_path)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InputError, match=r"empty\.mp4: the file is empty"):
        open_video(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    with pytest.raises(InputError, match=r"text\.mp4: not a video"):
        open_video(tmp_path / "text.mp4")
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.1", tmp_path / "sound.wav")
    with pytest.raises(InputError, match=r"sound\.wav: no video stream"):
        open_video(tmp_path / "sound.wav")


def test_too_few_frames_are_refused(media, tmp_path):
    ffmpeg("-i", media / "clip.mp4", "-frames:v", "1", tmp_path / "one.mp4")
    with pytest.raises(InputError, match=r"one\.mp4: 1 frame\(s\); a clip has at least 2"):
        open_video(tmp_path / "one.mp4")
    ffmpeg("-i", media / "clip.mp4", "-frames:v", "1", tmp_path / "still.png")
    with pytest.raises(InputError, match=r"still\.png: a playlist, a list, images or"):
        open_video(tmp_path / "still.png")
    with pytest.raises(InputError, match=r"clip\.mp4: 0 frame\(s\) after 60 s"):
        open_video(media / "clip.mp4", start=60)
    with pytest.raises(InputError, match=r"1 frame\(s\); a clip"):
        video_from_frames(np.zeros((1, 384), np.uint8), 16, 16, 25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 8}, "width 8 is out of range"),
        ({"height": 0}, "height 0 is out of range"),
        ({"height": 16}, "each side must be 16"),  # the width would be 8
        ({"start": -1.0}, "start -1"),
        ({"start": float("nan")}, "start nan"),
        ({"num_frames": 1}, "num_frames 1"),
        ({"fps": 0}, "fps 0 is out of range"),
        ({"fps": "1/0"}, "fps '1/0' is not"),
        ({"fps": "fast"}, "fps 'fast' is not"),
        ({"fps": 1000}, "fps 1000 is out of range"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, arguments, message):
    write_y4m(synthetic(32, 64, 3), tmp_path / "narrow.y4m")
    with pytest.raises(InputError, match=message):
        open_video(tmp_path / "narrow.y4m", **arguments)


def test_small_pictures_are_refused(tmp_path):
    (tmp_path / "tiny.y4m").write_bytes(b"YUV4MPEG2 W8 H8 F25:1\n" + 3 * (b"FRAME\n" + bytes(96)))
    with pytest.raises(InputError, match="8x8 pixels; each side must be 16"):
        open_video(tmp_path / "tiny.y4m")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 384), np.int16), "int16, not uint8"),
        (np.zeros((2, 383), np.uint8), r"\(2, 383\), not \(num_frames, 384\)"),
        (np.zeros((2, 16, 24), np.uint8), r"\(2, 16, 24\), not"),
    ],
)
def test_bad_arrays_are_refused(frames, message):
    with pytest.raises(InputError, match=message):
        video_from_frames(frames, 16, 16, 25)


def test_a_missing_ffmpeg_says_what_to_install(media, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nonexistent/ffmpeg")
    assert open_video(media / "clip.mp4").num_frames == 40  # by the libraries
    with pytest.raises(MissingDependencyError, match=r"pip install .*imageio-ffmpeg"):
        decode_vp9(media / "clip.webm", 96, 80)


def test_parse_fps_is_exact():
    assert parse_fps("30000/1001") == Fraction(30000, 1001)
    assert parse_fps(12.5) == Fraction(25, 2)
    with pytest.raises(InputError):
        parse_fps(float("nan"))


# The cache


def test_a_decoded_clip_is_not_decoded_again(media, cache, monkeypatch):
    first = open_video(media / "clip.mp4")
    assert sorted(path.suffix for path in (cache / "frames").iterdir()) == [".i420", ".json"]

    def refuse(*arguments, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(video_module, "Reading", refuse)
    again = open_video(media / "clip.mp4", name="other")
    assert again.name == "other"
    assert again.content_hash == first.content_hash
    assert again.frames.tobytes() == first.frames.tobytes()
    with pytest.raises(AssertionError, match="decoded again"):
        open_video(media / "clip.mp4", num_frames=10)


@pytest.mark.parametrize("suffix", [".i420", ".json"])
def test_a_damaged_cache_is_made_again(media, cache, suffix):
    first = open_video(media / "clip.mp4").frames.tobytes()
    (file,) = (cache / "frames").glob(f"*{suffix}")
    file.write_bytes(file.read_bytes()[:-7])
    assert open_video(media / "clip.mp4").frames.tobytes() == first


def test_an_explicit_cache_is_used(media, tmp_path, cache):
    open_video(media / "clip.mp4", cache=tmp_path / "elsewhere")
    assert len(list((tmp_path / "elsewhere" / "frames").iterdir())) == 2
    assert not cache.exists()


def test_two_processes_open_a_clip_at_the_same_time(media, cache):
    program = "import sys; from vpxrc.media import *; print(open_video(sys.argv[1]).content_hash)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(media / "clip.mp4")], stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    hashes = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert hashes == {open_video(media / "clip.mp4").content_hash.encode() + b"\n"}
    assert len(list((cache / "frames").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_an_output_error(media, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*: Not a directory"):
        open_video(media / "clip.mp4", cache=tmp_path / "file")


def test_a_full_disk_is_an_output_error_and_leaves_nothing(media, cache):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*: File too large"):
            open_video(media / "clip.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((cache / "frames").iterdir()) == []


# Files


def test_cache_dir_follows_the_environment(monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert cache_dir() == Path("/a")
    monkeypatch.delenv("VPXRC_CACHE")
    assert cache_dir() == Path("/b/vpxrc")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path("/c/.cache/vpxrc")


def test_atomic_write_replaces_only_on_success(tmp_path):
    target = tmp_path / "new" / "summary.json"
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(1))
        assert not target.exists()
        assert temporary.parent == target.parent
    assert target.read_text() == "1"
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(OutputError, match=r"summary\.json: No space left on device"):  # noqa: SIM117
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert target.read_text() == "1"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_output_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        write_y4m(synthetic(), tmp_path / "clip.y4m")


def test_sha256_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_file(tmp_path / "file").startswith("ba7816bf8f01cfea")
    with pytest.raises(InputError, match="cannot read"):
        sha256_file(tmp_path / "none")


# Processes

_READ_AND_FORK = """
import gc, os, sys
from vpxrc.media.decoding import open_video

def threads():
    return {int(name) for name in os.listdir("/proc/self/task")}

gc.collect()
gc.disable()
before = threads()
for path in sys.argv[1:]:
    open_video(path, width=48)
print(len(threads() - before))
child = os.fork()
if not child:
    gc.collect()
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def test_a_forked_process_does_not_wait_for_threads_that_read_before(tmp_path):
    """Filters and scalers that Python has not yet freed hold no threads."""
    source = tmp_path / "clip.y4m"
    write_y4m(synthetic(96, 80, 40), source)
    files = [tmp_path / name for name in ("clip.gif", "fields.mkv", "rgb.mkv")]
    options = (("-f", "gif"), ("-vf", "tinterlace=interleave_top"), ("-pix_fmt", "bgr0"))
    for path, (name, value) in zip(files, options, strict=True):
        coder = () if name == "-f" else ("-c:v", "ffv1")
        ffmpeg("-i", source, *coder, name, value, path)
    done = subprocess.run(
        [sys.executable, "-c", _READ_AND_FORK, *files],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "VPXRC_CACHE": str(tmp_path / "cache")},
    )
    assert done.stdout.split() == ["0", "0"], done.stderr


_READ_DAMAGED = """
import random, sys
from contextlib import suppress
from pathlib import Path
from vpxrc.errors import InputError
from vpxrc.media.decoding import open_video

good, damaged = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
for seed in range(6):
    data, rng = bytearray(good), random.Random(seed)
    for _ in range(1000):
        data[rng.randrange(2000, len(data))] = rng.randrange(256)
    damaged.write_bytes(data)
    with suppress(InputError):
        open_video(damaged)
print("end")
"""


def test_a_decoder_whose_threads_report_damage_ends(tmp_path):
    """Its threads wait for Python's lock to log errors while Python frees the decoder."""
    source, good = tmp_path / "clip.y4m", tmp_path / "clip.mkv"
    write_y4m(synthetic(96, 80, 60), source)
    ffmpeg("-i", source, "-c:v", "ffv1", "-level", "3", "-slicecrc", "1", good)
    done = subprocess.run(
        [sys.executable, "-c", _READ_DAMAGED, good, tmp_path / "damaged.mkv"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "VPXRC_CACHE": str(tmp_path / "cache")},
    )
    assert (done.stdout.strip(), done.stderr) == ("end", "")
