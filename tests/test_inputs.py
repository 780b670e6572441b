"""Files of all kinds in, judged by what ffmpeg's own program makes of them; docs/inputs.md."""

import gc
import json
import os
import struct
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vpxrc import cli
from vpxrc.errors import InputError
from vpxrc.media.decoding import decode, open_video
from vpxrc.media.probing import probe
from vpxrc.media.timing import at_rate, complete, find_timing
from vpxrc.transcoding.pipeline import transcode

QUICK: dict[str, Any] = {
    "target_bitrate": 100,
    "policy": "libvpx-vbr",
    "cpu_used": 8,
    "jobs": 1,
}
PICTURES = ("-f", "lavfi", "-i", "testsrc2=s=96x80:r=25:d=1")
SOUND = ("-f", "lavfi", "-i", "sine=440:d=1")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-x264-params", "b-adapt=0")
# A flash and a beep at 0.6 s.
FLASH = "color=black:s=96x80:r=25:d=1.2,drawbox=c=white:t=fill:enable='gte(t,0.6)'"
BEEP = "sine=1000:d=1.2:r=48000,volume=0:enable='lt(t,0.6)'"


def ffmpeg(*arguments: object) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "quiet", "-y"]
    done = subprocess.run([*command, *map(os.fsencode, map(str, arguments))], capture_output=True)
    assert done.returncode == 0, arguments
    return done.stdout


def ffmpegs_frames(path: Path, *options: object) -> np.ndarray:
    """Return what ffmpeg shows: uint8 ``[frames, bytes]``, none repeated and none dropped."""
    video = open_video(path)
    return ffmpegs_frames_of(path, video.width, video.height, *options)


def ffmpegs_frames_of(path: Path, width: int, height: int, *options: object) -> np.ndarray:
    raw = ffmpeg(
        *("-i", path, "-map", "0:V:0", *options, "-fps_mode", "passthrough"),
        *("-pix_fmt", "yuv420p", "-f", "rawvideo", "-"),
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, width * height * 3 // 2)


def encode(source: Path, output: Path, **options: Any) -> Any:
    return transcode(source, output, **QUICK, **options)


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    quick = ("-b", 100, "--policy", "libvpx-vbr", "--cpu-used", 8, "--jobs", 1)
    words = [sys.executable, "-m", "vpxrc", "encode", *map(str, (*arguments, *quick))]
    return subprocess.run([os.fsencode(one) for one in words], capture_output=True, **options)


def complaint(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, ["encode", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A second of pictures and sound, H.264 and AAC."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    ffmpeg(*PICTURES, *SOUND, *X264, "-pix_fmt", "yuv420p", "-c:a", "aac", path)
    return path


# A. Every frame, without a seek first. B. Times that a format does not have. J. No frame twice.


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("bframes.flv", X264),
        ("raw.h264", X264),
        ("raw.hevc", ("-c:v", "libx265", "-x265-params", "log-level=none")),
        ("b.avi", X264),
        ("es.m4v", ("-c:v", "mpeg4", "-bf", "2", "-f", "m4v")),
        ("raw.m2v", ("-c:v", "mpeg2video", "-bf", "2")),
        ("raw.mjpeg", ("-c:v", "mjpeg", "-strict", "-1")),
        ("vp8.ivf", ("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "9")),
        ("pal.avi", ("-c:v", "rawvideo", "-pix_fmt", "bgr24")),
        ("xvid.avi", ("-c:v", "mpeg4", "-bf", "2", "-vtag", "XVID")),
        ("mpeg2.avi", ("-c:v", "mpeg2video", "-bf", "2")),
        ("mpeg4.asf", ("-c:v", "mpeg4", "-bf", "2")),
        ("old.wmv", ("-c:v", "wmv2")),
        ("old.mpg", ("-c:v", "mpeg2video", "-bf", "2")),
        ("old.nut", ("-c:v", "mpeg4", "-bf", "2")),
        ("old.mxf", ("-c:v", "mpeg2video")),
        ("old.ogv", ("-c:v", "libtheora")),
        ("old.3gp", ("-c:v", "mpeg4", "-bf", "0")),
    ],
)
def test_every_frame_once_at_the_rate_of_the_file(tmp_path, name, codec):
    path = tmp_path / name
    ffmpeg(*PICTURES, "-pix_fmt", "yuv420p", *codec, path)
    found = decode(path)
    assert found.video.fps == 25 and not found.notes
    expected = ffmpegs_frames(path)
    assert len(expected) == 25
    close = abs(found.video.frames.astype(int) - expected).max()
    assert close <= (1 if "bgr24" in codec else 0)  # the program may round colours otherwise


@pytest.mark.parametrize("suffix", ["mpg", "ts", "mkv", "mov", "flv", "avi", "m2v"])
@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001"])
def test_rates_that_are_no_integers(tmp_path, suffix, rate):
    path = tmp_path / f"clip.{suffix}"
    codec = ("-c:v", "mpeg2video", "-bf", "2") if suffix in ("mpg", "m2v") else X264
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=s=64x48:r={rate}:d=2", "-pix_fmt", "yuv420p", *codec, path
    )
    found = decode(path)
    assert (found.video.fps, found.notes) == (Fraction(rate), ())
    assert found.video.num_frames == len(ffmpegs_frames(path))


@pytest.mark.parametrize("suffix", ["mkv", "flv", "ts", "mov"])
def test_sound_that_begins_first_repeats_no_picture(film, tmp_path, suffix):
    """AAC begins 21 ms before the pictures where the container has no list of edits."""
    path, output = tmp_path / f"film.{suffix}", tmp_path / "out.webm"
    ffmpeg("-i", film, "-c", "copy", path)
    result = encode(path, output)
    assert result.log.clip.num_frames == 25
    np.testing.assert_array_equal(open_video(path).frames, open_video(film).frames)


@pytest.mark.parametrize("suffix", ["ts", "m2ts", "mpg", "mkv", "mov"])
def test_pictures_that_are_not_the_first_stream_are_read_to_their_end(tmp_path, suffix):
    """Frames that are kept back for B-frames come out when the decoder is told of the end."""
    path = tmp_path / f"clip.{suffix}"
    ffmpeg(
        *(*SOUND, *PICTURES, "-map", 0, "-map", 1),
        *("-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2", path),
    )
    with av.open(path) as container:
        assert container.streams.audio[0].index < container.streams.video[0].index
    found = decode(path)
    assert found.video.num_frames == found.video.fps == 25
    assert not found.notes
    np.testing.assert_array_equal(found.video.frames, ffmpegs_frames(path))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_of_a_camera_with_exif(tmp_path, orientation):
    """PyAV knows EXIF beside a frame as little as other new kinds; it may turn the frame."""
    path = tmp_path / "camera.mjpeg"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "maker"
    with open(path, "wb") as file:
        for n in range(3):
            picture = Image.new("RGB", (96, 80), (60 * n, 90, 40))
            picture.paste((250, 240, 0), (0, 0, 30, 12))
            picture.save(file, "JPEG", exif=exif, quality=95)
    found = decode(path)
    size = (found.video.width, found.video.height)
    assert size == ((96, 80) if orientation < 5 else (80, 96))
    np.testing.assert_array_equal(found.video.frames, ffmpegs_frames(path))
    assert probe(path).bit_depth == 8


@pytest.mark.parametrize("left", [2, 26])
def test_pixels_that_a_stream_leaves_out_at_the_left(tmp_path, left):
    path = tmp_path / "cropped.mp4"
    crop = f"h264_metadata=crop_left={left}:crop_right=10:crop_top=6"
    ffmpeg(*PICTURES, *X264, "-pix_fmt", "yuv420p", "-bsf:v", crop, path)
    found = decode(path)
    assert (found.video.width, found.video.height) == (96 - left - 10, 74)
    np.testing.assert_array_equal(found.video.frames, ffmpegs_frames(path))


def test_frames_are_let_go_one_by_one(film):
    """Data beside a frame keep it in a cycle of references, which only the collector ends."""
    gc.collect()
    gc.disable()
    try:
        assert decode(film).video.num_frames == 25
        assert gc.collect() < 25
    finally:
        gc.enable()


# Animated WebP, which the libraries do not decode, but ffmpeg's newer program does


def animated_webp(path: Path, durations: Any, alpha: int = 255, **options: Any) -> Path:
    """Write eight frames, each with a square at another place, with times in ms."""
    size = (80, 64)
    pictures = [Image.new("RGBA", size, (20 * n, 200 - 20 * n, 80, alpha)) for n in range(8)]
    for n, picture in enumerate(pictures):
        picture.paste((255, 30, 0, 255), (8 * n, 10, 8 * n + 16, 40))
    options = {"lossless": True, **options}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, **options)
    return path


@pytest.mark.parametrize("lossless", [True, False])
def test_animated_webp(tmp_path, lossless):
    path = animated_webp(tmp_path / "a.webp", 40, lossless=lossless)
    found = decode(path)
    assert found.video.fps == 25
    assert not found.notes
    expected = ffmpegs_frames(path)
    assert len(expected) == found.video.num_frames == 8
    # Two decoders' ways to fill in the colours of lossy frames.
    assert abs(found.video.frames.astype(int) - expected).mean() < (0.5 if lossless else 1.5)
    result = encode(path, tmp_path / "out.webm")
    assert result.log.clip.num_frames == 8


def test_times_of_animated_webp_are_those_of_the_same_gif(tmp_path):
    """A frame without a duration counts as 100 ms in both; ffmpeg gives it the same."""
    durations = [100, 40, 40, 200, 100, 0, 100, 300]
    path, gif = animated_webp(tmp_path / "a.webp", durations), tmp_path / "a.gif"
    pictures = [Image.new("L", (80, 64), 30 * n) for n in range(8)]
    times = [one or 100 for one in durations]
    pictures[0].save(gif, save_all=True, append_images=pictures[1:], duration=times)
    mine, theirs = decode(path), decode(gif)
    assert mine.video.fps == theirs.video.fps == 50
    assert mine.video.num_frames == theirs.video.num_frames == sum(times) / 20
    assert mine.notes == theirs.notes and "variable frame rate" in mine.notes[0]


def test_a_webp_whose_end_is_missing(tmp_path):
    path, output = animated_webp(tmp_path / "a.webp", 40), tmp_path / "out.webm"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    expected = len(ffmpegs_frames_of(path, 80, 64))
    assert 2 <= expected < 8
    result = encode(path, output)
    kept = f"the file is damaged (the end is missing); {expected} frames could be decoded"
    assert kept in result.notes
    output.unlink()
    assert "the end is missing" in complaint(path, "-o", output, "-b", 100, "--strict")
    assert not output.exists()


def test_webp_that_cannot_be_read(tmp_path):
    whole = animated_webp(tmp_path / "a.webp", 40)
    data = whole.read_bytes()
    path = tmp_path / "b.webp"
    path.write_bytes(data[: data.index(b"ANMF") + 40])
    assert "b.webp: not a video, truncated or corrupt" in complaint(path, "-o", "x.webm", "-b", 9)
    # The second frame begins as it should, and no decoder can go on.
    at = data.index(b"VP8L", data.index(b"VP8L") + 4)
    path.write_bytes(data[: at + 16] + b"\xff" * 30 + data[at + 46 :])
    assert "frame 1 cannot be decoded" in complaint(path, "-o", "x.webm", "-b", 9, "--strict")
    Image.new("RGB", (8, 8)).save(
        path, save_all=True, append_images=[Image.new("RGB", (8, 8), "red")], duration=40
    )
    assert "8x8 pixels" in complaint(path, "-o", "x.webm", "-b", 9)
    Image.new("RGB", (80, 64)).save(path)
    assert "1 frame(s)" in complaint(path, "-o", "x.webm", "-b", 9)


def test_transparent_webp(tmp_path):
    path = animated_webp(tmp_path / "a.webp", 40, alpha=100)
    assert decode(path).notes == ("transparency is left out",)


# The grid of frames, by hand


def times(*seconds: object) -> list[Fraction]:
    return [Fraction(str(one)) for one in seconds]


def test_frames_without_times_follow_the_rate():
    assert complete([None, None, None], [None, Fraction(10)]) == times(0, 0.1, 0.2)
    assert complete([*times(1), None, *times(1.2)], [Fraction(10)]) == times(1, 1.1, 1.2)
    assert complete([None, *times(1)], [Fraction(10)]) == times(0.9, 1)
    assert complete(times(0, 0.2, 0.1), [Fraction(10)]) == times(0, 0.1, 0.2)


def test_a_frame_is_shown_until_the_next_one_comes():
    found = at_rate("x", times(0, 0.1, 0.4), Fraction(10), Fraction(1, 5), Fraction(0))
    assert found.shown.tolist() == [0, 1, 1, 1, 2, 2]
    assert not found.is_constant
    half = at_rate("x", times(0, 0.1, 0.2, 0.3), Fraction(5), Fraction(1, 10), Fraction(0))
    assert half.shown.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("seconds", "named", "rate", "num_frames"),
    [
        ([n / 25 for n in range(50)], [50], 25, 50),  # a field rate
        ([round(n / 24, 3) for n in range(240)], [], 24, 240),
        ([n / 30 + 0.008 * (-1) ** n for n in range(90)], [30], 30, 90),  # a phone's jitter
        ([n * 0.0335 for n in range(300)], [30], Fraction(2000, 67), 300),  # a slow clock
        ([*(n / 30 for n in range(10)), *(1 + n / 30 for n in range(10))], [30], 30, 40),
    ],
)
def test_a_rate_by_the_times(seconds, named, rate, num_frames):
    exact = [Fraction(one) for one in seconds]
    found = find_timing("x", exact, map(Fraction, named), Fraction(1, 1000), Fraction(0))
    assert found.rate == rate
    assert len(found.shown) == num_frames
    assert found.is_constant == (num_frames == len(seconds))


# C. One clock for pictures and sound


def flash_and_beep(path: Path) -> float:
    """Return how long after the flash the beep comes, in seconds."""
    with av.open(path) as container:
        pictures = {
            frame.time: frame.to_ndarray(format="gray").mean()
            for frame in container.decode(video=0)
        }
    with av.open(path) as container:
        loud = [
            (frame.time or 0) + int(hot.argmax()) / frame.sample_rate
            for frame in container.decode(audio=0)
            if (hot := abs(np.asarray(frame.to_ndarray())).reshape(-1) > 0.05).any()
        ]
    return loud[0] - min(time for time, level in pictures.items() if level > 100)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mov", "flv", "mpg", "avi"])
@pytest.mark.parametrize("late", ["video", "audio", "neither"])
def test_sound_and_pictures_stay_together(tmp_path, suffix, late):
    both, source, output = tmp_path / "both.mkv", tmp_path / f"late.{suffix}", tmp_path / "o.webm"
    ffmpeg(
        *("-f", "lavfi", "-i", FLASH, "-f", "lavfi", "-i", BEEP, "-pix_fmt", "yuv420p"),
        *("-c:v", "mpeg2video", "-bf", "2", "-b:v", "2M", "-c:a", "mp2", both)
        if suffix in ("mpg", "avi", "ts")
        else (*X264, "-c:a", "aac", both),
    )
    delays = {"video": ("0.48", "0"), "audio": ("0", "0.48"), "neither": ("0", "0")}[late]
    if suffix == "avi":  # which has no times
        delays = ("0", "0")
    inputs = [part for delay in delays for part in ("-itsoffset", delay, "-i", both)]
    ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    encode(source, output)
    expected = float(delays[1]) - float(delays[0])
    assert flash_and_beep(output) == pytest.approx(expected, abs=1 / 25 + 0.01)


@pytest.mark.parametrize(("offsets"), [(0, 5000), (5000, 0), (0, 0), (3, 0)])
def test_a_broadcast_whose_clock_begins_anew(film, tmp_path, offsets):
    first, second = tmp_path / "1.ts", tmp_path / "2.ts"
    for path, offset in zip((first, second), offsets, strict=True):
        ffmpeg("-i", film, "-c", "copy", "-output_ts_offset", offset, path)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    result = encode(joined, tmp_path / "out.webm")
    assert result.log.clip.num_frames in (50, 51)
    assert result.log.clip.duration == pytest.approx(2, abs=0.05)
    assert result.audio.duration == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("suffix", ["ts", "mpg"])
def test_a_broadcast_whose_clock_goes_back_a_little(tmp_path, suffix):
    parts = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for part, picture in zip(parts, ("testsrc2", "testsrc"), strict=True):
        ffmpeg(
            *("-f", "lavfi", "-i", f"{picture}=s=96x80:r=25:d=1", *SOUND, "-c:v", "mpeg2video"),
            *("-bf", "2", "-c:a", "mp2", part),
        )
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = decode(joined, strict=False)  # counters of packets begin anew: "not whole"
    # The sound of a part is longer than its pictures, so there is a gap of less than a frame.
    assert found.video.fps == pytest.approx(25, rel=0.02) and found.video.num_frames == 50
    assert np.array_equal(found.video.frames, ffmpegs_frames_of(joined, 96, 80))
    result = encode(joined, tmp_path / "out.webm")
    assert result.audio.duration == pytest.approx(2, abs=0.1)


def test_sound_that_becomes_another_kind_and_overlaps(tmp_path):
    parts = [tmp_path / f"{number}.ts" for number in range(2)]
    kinds = ((), ("-ar", 32000, "-ac", 2, "-output_ts_offset", 1))
    for part, kind in zip(parts, kinds, strict=True):
        ffmpeg(*PICTURES, *SOUND, *X264, "-pix_fmt", "yuv420p", "-c:a", "mp2", *kind, part)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    result = encode(joined, tmp_path / "out.webm")
    assert result.audio.duration == pytest.approx(2, abs=0.1)
    with av.open(tmp_path / "out.webm") as container:
        times = [packet.pts for packet in container.demux(audio=0) if packet.size]
    assert times == sorted(set(times))


# D. The words of a file are no words of ffmpeg's; E. what is there now


@pytest.mark.parametrize("words", ["concealing", "corrupt [error]", "File ended prematurely"])
def test_titles_and_chapters_decide_nothing(film, tmp_path, words):
    path, about = tmp_path / "titled.mkv", tmp_path / "about.txt"
    chapter = f"[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle={words}\n"
    about.write_text(f";FFMETADATA1\ntitle={words}\ncomment={words}\n{chapter}")
    ffmpeg("-i", film, "-i", about, "-map_metadata", 1, "-map_chapters", 1, "-c", "copy", path)
    found = decode(path)
    assert (found.video.num_frames, found.notes) == (25, ())
    assert probe(path).labels.title == words


def test_the_frames_are_those_of_the_file_as_it_is_now(tmp_path):
    path = tmp_path / "clip.avi"
    shown = set()
    for colour in ("red", "blue"):
        ffmpeg("-f", "lavfi", "-i", f"color={colour}:s=64x48:d=0.2", "-c:v", "rawvideo", path)
        os.utime(path, (1, 1))
        shown.add(open_video(path).content_hash)
    assert len(shown) == 2


# F. Nothing that is read is replaced; L. trouble is told before the work


def test_no_source_is_replaced(film, tmp_path):
    source = tmp_path / "film.webm"
    ffmpeg("-i", film, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus", source)
    data = source.read_bytes()
    (tmp_path / "link.webm").symlink_to(source)
    os.link(source, tmp_path / "hard.webm")
    (tmp_path / "folder").mkdir()
    for name in ("film.webm", "link.webm", "hard.webm", "folder/../film.webm"):
        line = complaint(source, "-o", tmp_path / name, "-b", 60)
        assert f"{name}: it would replace {source}" in line
    for option in ("--log", "--two-pass-log"):
        line = complaint(source, "-o", tmp_path / "out.webm", "-b", 60, option, source)
        assert f"it would replace {source}" in line
    with open(source, "rb") as stdin:
        done = command("-", "-o", tmp_path / "hard.webm", stdin=stdin)
    assert done.returncode == 2 and b"it would replace -" in done.stderr
    assert source.read_bytes() == data
    log = ("--log", tmp_path / "log", "--two-pass-log", tmp_path / "log")
    assert "it would replace" in complaint(source, "-o", tmp_path / "out.webm", "-b", 60, *log)


def test_places_that_cannot_be_written_are_told_first(film, tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("vpxrc.transcoding.pipeline.assemble", never)
    (tmp_path / "folder.webm").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.webm")
    for name, words in (
        ("folder.webm", "a folder"),
        (f"{'x' * 300}.webm", "File name too long"),
        ("file/out.webm", "Not a directory"),
        ("pipe.webm", "no file"),
    ):
        assert words in complaint(film, "-o", tmp_path / name, "-b", 60)
    assert "--fps 'fast' is not" in complaint(film, "-o", "o.webm", "-b", 60, "--fps", "fast")
    assert "give -o OUTPUT" in complaint(film, "-b", 60)


def test_a_full_folder_for_temporary_files_is_told_as_that(film, tmp_path, monkeypatch):
    open_video(film)  # so that only the sound is left to write

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vpxrc.media.audio._copy", full)
    monkeypatch.setattr("vpxrc.media.audio._Encoding.run", full)
    line = complaint(film, "-o", tmp_path / "out.webm", "-b", 60)
    assert "cannot write" in line and "No space left on device" in line
    assert "--no-audio" not in line


# G. What the file says beside its pixels


def labels_of(path: Path) -> dict[str, Any]:
    """Return what PyAV reads of a file."""
    with av.open(path) as container:
        video = container.streams.video[0]
        context = video.codec_context
        return {
            "aspect": video.sample_aspect_ratio or Fraction(1),
            "colours": (
                int(context.color_primaries),
                int(context.color_trc),
                int(context.colorspace),
                int(context.color_range),
            ),
            "stereo": video.metadata.get("stereo_mode"),
            "title": container.metadata.get("title"),
            "languages": [one.metadata.get("language") for one in container.streams],
            "chapters": [
                (one["metadata"].get("title"), float(one["start"] * (one["time_base"] or 1)))
                for one in container.chapters()
            ],
        }


@pytest.mark.parametrize(
    ("aspect", "degrees"), [("32/27", 0), ("12/11", 90), ("4/3", 180), ("8/9", -90)]
)
def test_the_shape_of_the_pixels(tmp_path, aspect, degrees):
    flat, source, output = (tmp_path / name for name in ("flat.mp4", "source.mp4", "out.webm"))
    ffmpeg(*PICTURES, "-vf", f"setsar={aspect}", *X264, "-pix_fmt", "yuv420p", flat)
    ffmpeg("-display_rotation", degrees, "-i", flat, "-c", "copy", source)
    encode(source, output)
    theirs = tmp_path / "theirs.webm"  # by ffmpeg's own conversion
    ffmpeg("-i", source, "-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", 8, theirs)
    assert labels_of(output)["aspect"] == labels_of(theirs)["aspect"] != 1


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1)])
def test_a_shape_that_no_pixel_has(tmp_path, shape):
    source, output = tmp_path / "source.mov", tmp_path / "out.webm"
    ffmpeg(*PICTURES, "-frames:v", 3, "-vf", "setsar=32/27", "-c:v", "mjpeg", source)
    data, field = source.read_bytes(), b"pasp" + struct.pack(">II", 32, 27)
    assert data.count(field) == 1
    source.write_bytes(data.replace(field, b"pasp" + struct.pack(">II", *shape)))
    encode(source, output)
    with av.open(output) as container:
        assert container.streams.video[0].sample_aspect_ratio == 1


@pytest.mark.parametrize(
    ("primaries", "transfer", "matrix", "shown"),
    [
        ("smpte432", "iec61966-2-1", "bt709", "tv"),
        ("bt709", "bt709", "bt709", "pc"),
        ("bt470bg", "bt470bg", "bt470bg", "tv"),
        ("bt2020", "bt2020-10", "bt2020nc", "tv"),
    ],
)
def test_colours_are_named_as_in_the_source(tmp_path, primaries, transfer, matrix, shown):
    source, output = tmp_path / "source.mkv", tmp_path / "out.webm"
    tags = f"color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}:range={shown}"
    ffmpeg(*PICTURES, "-vf", f"format=yuv420p,setparams={tags}", *X264, source)
    encode(source, output)
    expected = labels_of(source)["colours"]
    assert 2 not in expected[:3]
    assert labels_of(output)["colours"] == expected
    with av.open(output) as container:  # in the stream itself, too
        frame = next(container.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_range)) == expected[2:]


@pytest.mark.parametrize("mode", ["left_right", "right_left", "top_bottom", "bottom_top"])
def test_two_eyes(film, tmp_path, mode):
    source, output = tmp_path / "source.mkv", tmp_path / "out.webm"
    tag = ("-metadata:s:v:0", f"stereo_mode={mode}")
    ffmpeg("-i", film, "-map", "0:v", "-c", "copy", *tag, source)
    assert encode(source, output).notes == ()
    assert labels_of(output)["stereo"] == mode


def test_two_eyes_that_webm_cannot_say(film, tmp_path):
    source = tmp_path / "source.mkv"
    tag = ("-metadata:s:v:0", "stereo_mode=row_interleaved_lr")
    ffmpeg("-i", film, "-map", "0:v", "-c", "copy", *tag, source)
    assert "stereoscopic" in encode(source, tmp_path / "out.webm").notes[0]


@pytest.mark.parametrize(
    ("pix_fmt", "codec"), [("argb", "qtrle"), ("rgba", "png"), ("yuva444p10le", "prores_ks")]
)
def test_transparency_is_left_out_with_a_note(tmp_path, pix_fmt, codec):
    source, output = tmp_path / "source.mov", tmp_path / "out.webm"
    ffmpeg(
        "-f", "lavfi", "-i", f"color=red@0.5:s=64x48:d=0.4,format={pix_fmt}", "-c:v", codec, source
    )
    assert "transparency is left out" in encode(source, output).notes


def test_transparency_that_begins_later_has_a_note(tmp_path):
    fade = "color=red:s=64x48:d=0.4,format=rgba,fade=out:5:5:alpha=1"
    ffmpeg("-f", "lavfi", "-i", fade, "-c:v", "png", tmp_path / "fade.mov")
    assert encode(tmp_path / "fade.mov", tmp_path / "out.webm").notes == (
        "transparency is left out",
    )


def test_streams_that_are_left_out_have_a_note(film, tmp_path):
    two, output = tmp_path / "two.mkv", tmp_path / "out.webm"
    ffmpeg("-i", film, *PICTURES, "-map", 0, "-map", 1, *X264, "-c:a", "copy", two)
    assert "1 more video stream(s) are left out" in encode(two, output).notes
    data = two.read_bytes()
    assert data.count(b"A_AAC") == 1 and data.count(b"V_MPEG4/ISO/AVC") == 2
    two.write_bytes(data.replace(b"A_AAC", b"A_XYZ"))
    result = encode(two, output)
    assert result.audio is None and result.log.clip.num_frames == 25
    assert "audio is left out: there is no decoder for it" in result.notes
    two.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"))
    assert "there is no decoder for its video" in complaint(two, "-o", output, "-b", 60)


def test_the_colours_of_ivf_have_a_note(tmp_path):
    source = tmp_path / "full.avi"
    ffmpeg(*PICTURES, "-pix_fmt", "yuvj420p", "-c:v", "mjpeg", source)
    notes = encode(source, tmp_path / "out.ivf").notes
    assert "the colours' names are left out: .ivf has none" in notes


def test_opaque_pictures_with_an_alpha_plane_have_no_note(tmp_path):
    ffmpeg(*PICTURES, "-pix_fmt", "rgba", "-c:v", "png", tmp_path / "source.mov")
    assert encode(tmp_path / "source.mov", tmp_path / "out.webm").notes == ()


WORDS = """1
00:00:00,200 --> 00:00:00,500
Hello <i>you</i>
two lines

2
00:00:00,600 --> 00:00:00,900
and me
"""


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mkv", "srt"), ("mkv", "ass"), ("mp4", "mov_text"), ("mkv", "webvtt")]
)
@pytest.mark.parametrize("sound", [True, False])
def test_title_chapters_languages_and_subtitles(film, tmp_path, suffix, codec, sound):
    source, output = tmp_path / f"source.{suffix}", tmp_path / "out.webm"
    words, about = tmp_path / "words.srt", tmp_path / "about.txt"
    words.write_text(WORDS)
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={at}\nEND={at + 500}\ntitle=Part {at}\n"
        for at in (0, 500)
    )
    about.write_text(f";FFMETADATA1\ntitle=Größe\n{chapters}")
    streams = ("-map", "0:v", *(("-map", "0:a") if sound else ()), "-map", "1")
    tags = ("-metadata:s:s", "language=fra", "-metadata:s:a", "language=deu")
    ffmpeg(
        *("-i", film, "-i", words, "-i", about, *streams, "-map_metadata", 2),
        *("-map_chapters", 2, "-c:v", "copy", "-c:a", "copy", "-c:s", codec, *tags, source),
    )
    result = encode(source, output)
    assert "subtitles: 1 stream(s) made WebVTT" in result.notes
    found = labels_of(output)
    assert found["title"] == "Größe"
    assert found["chapters"] == [("Part 0", 0), ("Part 500", 0.5)]
    assert found["languages"][1:] == (["deu", "fra"] if sound else ["fra"])
    with av.open(output) as container:
        stream = container.streams.subtitles[0]
        assert stream.codec_context.name == "webvtt"
        cues = [(p.pts, p.duration, bytes(p)) for p in container.demux(stream) if p.size]
    text = b"Hello <i>you</i>\ntwo lines"
    assert cues == [(200, 300, text), (600, 300, b"and me")]


def test_a_subtitle_that_begins_before_the_pictures(tmp_path):
    source, output, words = tmp_path / "late.mkv", tmp_path / "out.webm", tmp_path / "words.srt"
    words.write_text(
        "1\n00:00:00,000 --> 00:00:00,040\nnever seen\n\n"
        "2\n00:00:00,000 --> 00:00:00,500\nearly\n\n3\n00:00:00,600 --> 00:00:00,900\nlater\n"
    )
    ffmpeg("-itsoffset", "0.08", *PICTURES, "-i", words, *X264, "-c:s", "srt", source)
    encode(source, output)
    with av.open(output) as container:
        cues = [(p.pts, p.duration, bytes(p)) for p in container.demux(subtitles=0) if p.size]
    assert cues == [(0, 420, b"early"), (520, 300, b"later")]


# H. Names and surroundings; M. input that is no file


def test_names_of_any_bytes(film, tmp_path):
    for name in (b"caf\xe9.mp4", b"\xff\xfe.mp4", "日本 %d.mp4".encode(), b"-x.mp4"):
        source = tmp_path / os.fsdecode(name)
        source.write_bytes(film.read_bytes())
        output = source.with_suffix(".webm")
        assert encode(source, output).log.clip.num_frames == 25
        assert len(ffmpegs_frames(output)) == 25
    done = command(
        tmp_path / os.fsdecode(b"caf\xe9.mp4"), "-o", tmp_path / os.fsdecode(b"\xe9.webm")
    )
    assert done.returncode == 0, done.stderr
    assert b"udce9.webm" in done.stdout


def test_a_user_without_a_home(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    for name in ("VPXRC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    result = CliRunner().invoke(cli.app, ["cache"])
    assert result.exit_code == 2
    assert "set VPXRC_CACHE" in result.stderr


def test_a_cache_that_cannot_be_written_names_the_variable(film, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "file"))
    line = complaint(film, "-o", tmp_path / "out.webm", "-b", 60)
    assert "Not a directory" in line and "VPXRC_CACHE" in line


def test_standard_input(film, tmp_path):
    by_pipe, by_file = tmp_path / "pipe.webm", tmp_path / "file.webm"
    done = command("-", "-o", by_pipe, input=film.read_bytes())
    assert done.returncode == 0, done.stderr
    encode(film, by_file)
    assert by_pipe.read_bytes() == by_file.read_bytes()
    done = command("-", "-o", by_pipe, input=b"")
    assert (done.returncode, done.stderr) == (2, b"vpxrc: -: nothing came out of it\n")


def test_a_named_pipe(film, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(film.read_bytes()), daemon=True)
    feeder.start()
    assert encode(pipe, tmp_path / "out.webm").log.clip.num_frames == 25
    assert "not a file" in complaint("/dev/null", "-o", tmp_path / "out.webm", "-b", 60)


# I. A wrong number makes no endless work; K. what can be decoded is encoded


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "nut"])
def test_one_wrong_time_stamp(film, tmp_path, cache, suffix):
    path = tmp_path / f"gap.{suffix}"
    late = "setts=pts=PTS+gt(N\\,20)*7200/TB:dts=DTS+gt(N\\,20)*7200/TB"
    ffmpeg("-i", film, "-an", "-c", "copy", "-bsf:v", late, path)
    with pytest.raises(InputError, match=r"25 frame\(s\) are spread over 7,20\d s"):
        decode(path)
    assert sum(file.stat().st_size for file in cache.rglob("*")) < 10_000_000


@pytest.mark.parametrize(("times", "num_frames"), [("N*60", 5), ("N*(N+1)*15", 11)])
def test_slides_are_no_wrong_time_stamps(tmp_path, times, num_frames):
    path, source = tmp_path / "slides.mkv", "testsrc2=s=64x48:r=25:d=0.2"
    slow = ("-vf", f"setpts={times}/TB", "-fps_mode", "passthrough", "-enc_time_base", "1/1000")
    ffmpeg("-f", "lavfi", "-i", source, *slow, *X264, "-pix_fmt", "yuv420p", path)
    result = encode(path, tmp_path / "out.webm")
    assert result.log.clip.num_frames == num_frames
    assert result.log.clip.duration == pytest.approx(300, abs=60)


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory):
    path = tmp_path_factory.mktemp("broadcast") / "full.ts"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=192x108:r=25:d=3", "-f", "lavfi", "-i", "sine=440:d=3"),
        *("-c:v", "libx264", "-g", "25", "-bf", "2", "-pix_fmt", "yuv420p", "-c:a", "aac", path),
    )
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["begins inside a group", "lost packets", "cut", "flipped"])
def test_a_damaged_broadcast(broadcast, tmp_path, kind):
    path, packet = tmp_path / "damaged.ts", 188
    half = len(broadcast) // packet // 2 * packet
    path.write_bytes(
        {
            "begins inside a group": broadcast[60 * packet :],
            "lost packets": broadcast[:half] + broadcast[half + 3 * packet :],
            "cut": broadcast[:half],
            "flipped": broadcast[:half] + bytes(2000) + broadcast[half + 2000 :],
        }[kind]
    )
    found = decode(path, strict=False)
    assert found.notes[0].startswith("the file is damaged (")
    theirs = ffmpeg("-i", path, "-map", "0:v", "-fps_mode", "passthrough", "-f", "framecrc", "-")
    expected = sum(line[:1] != b"#" for line in theirs.splitlines())
    assert found.video.num_frames == pytest.approx(expected, abs=1)
    with pytest.raises(InputError, match="truncated or corrupt"):
        decode(path, strict=True)
    assert "truncated or corrupt" in complaint(
        path, "-o", tmp_path / "out.webm", "-b", 60, "--strict"
    )


def test_a_broadcast_that_stops_inside_a_packet(broadcast, tmp_path):
    """ffmpeg says nothing about it."""
    path = tmp_path / "cut.ts"
    path.write_bytes(broadcast[: 188 * 300 + 7])
    found = decode(path, strict=False)
    expected = len(ffmpegs_frames_of(path, 192, 108))
    kept = f"the file is damaged (the end is missing); {expected} frames could be decoded"
    assert found.notes[0] == kept
    path.write_bytes(broadcast[: 188 * 300])
    assert not any("damaged" in note for note in decode(path).notes)  # nothing tells it
    path.write_bytes(broadcast)
    assert not decode(path).notes


def test_a_webm_whose_last_block_is_longer_than_the_file(tmp_path):
    whole, path = tmp_path / "whole.webm", tmp_path / "damaged.webm"
    ffmpeg(*PICTURES, "-c:v", "libvpx-vp9", "-cpu-used", "8", "-g", "5", "-cues_to_front", 1, whole)
    assert decode(whole).video.num_frames == 25
    with av.open(whole) as container:
        packets = [bytes(one) for one in container.demux(video=0) if one.size]
    data = bytearray(whole.read_bytes())
    # Before a packet of 64 bytes or more are its length in two bytes, and four more of its header.
    at = data.index(max(packets[-5:], key=len)) - 6
    assert data[at - 1] == 0xA3 and data[at] & 0xC0 == 0x40
    data[at : at + 2] = b"\x7f\xf0"
    path.write_bytes(data)
    expected = len(ffmpegs_frames_of(path, 96, 80))
    assert expected < 25
    found = decode(path, strict=False)
    kept = f"the file is damaged (a part cannot be read); {expected} frames could be decoded"
    assert found.notes == (kept,)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("ts", "libx264"),
        ("h264", "libx264"),
        ("hevc", "libx265"),
        ("mpg", "mpeg2video"),
        ("m2v", "mpeg2video"),
    ],
)
def test_a_stream_whose_beginning_is_missing(tmp_path, suffix, codec):
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"rest.{suffix}"
    ffmpeg(*PICTURES, "-pix_fmt", "yuv420p", "-c:v", codec, "-g", 10, "-bf", 2, whole)
    path.write_bytes(whole.read_bytes()[whole.stat().st_size // 4 :])
    found = decode(path, strict=False)
    assert found.notes[0].startswith("the file is damaged (the beginning is missing")
    expected = ffmpegs_frames_of(path, 96, 80)
    assert 10 <= len(expected) < 25
    assert np.array_equal(found.video.frames, expected)
    with pytest.raises(InputError, match="the beginning is missing"):
        decode(path)


@pytest.mark.parametrize("cut", [0, 1, 5000, 11526])
def test_y4m_whose_frames_have_parameters(tmp_path, cut):
    path = tmp_path / "clip.y4m"
    ffmpeg(*PICTURES, "-frames:v", 3, "-pix_fmt", "yuv420p", path)
    data = path.read_bytes().replace(b"FRAME\n", b"FRAME Itpp\n")
    path.write_bytes(data[: len(data) - cut])
    found = decode(path, strict=False)
    assert found.video.num_frames == (2 if cut else 3)
    assert found.notes == (
        ("the file is damaged (the end is missing); 2 frames could be decoded",) if cut else ()
    )


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "flv"])
def test_a_file_that_ends_early(film, tmp_path, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    ffmpeg("-i", film, "-an", "-c", "copy", "-movflags", "+faststart", whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    found = decode(cut, strict=False)
    assert 10 <= found.video.num_frames < 25
    assert found.notes[0].startswith("the file is damaged (")


# Interlaced pictures


@pytest.mark.parametrize("first", ["tff", "bff"])
def test_interlaced_pictures_are_deinterlaced(tmp_path, first):
    path = tmp_path / "interlaced.mkv"
    fields = (
        f"testsrc2=s=96x80:r=50:d=1,tinterlace=interleave_{'top' if first == 'tff' else 'bottom'}"
    )
    order = f"fieldorder={first},setfield={first}"
    codec = ("-c:v", "mpeg2video", "-flags", "+ilme+ildct", "-q:v", "2")
    ffmpeg("-f", "lavfi", "-i", f"{fields},{order}", "-pix_fmt", "yuv420p", *codec, path)
    found = decode(path)
    count = found.video.num_frames
    assert found.notes == (f"{count} of {count} frames are interlaced, deinterlaced",)
    expected = ffmpegs_frames(path, "-vf", "bwdif=mode=send_frame")
    assert len(expected) == count
    apart = abs(found.video.frames.astype(int) - expected) > 1
    assert not apart[1:].any()
    assert apart[0].mean() < 0.05  # versions of bwdif differ at the first frame's upper edge
    kept = decode(path, deinterlace=False)
    np.testing.assert_array_equal(kept.video.frames, ffmpegs_frames(path))
    assert kept.notes == (f"{count} of {count} frames are interlaced, left interlaced",)


# N. The cache


def test_the_cache_is_shown_and_cleared(film, cache):
    open_video(film)

    def shown(*options):
        result = CliRunner().invoke(cli.app, ["cache", "--json", *options])
        assert result.exit_code == 0
        return json.loads(result.stdout)

    (frames,) = shown()["kinds"]
    assert (frames["kind"], frames["files"], frames["bytes"]) == (
        "frames",
        1,
        25 * 96 * 80 * 3 // 2,
    )
    (cache / "downloads").mkdir()
    (cache / "downloads" / "original").write_bytes(b"kept")
    assert shown("--clear")["freed"] == frames["bytes"]
    assert (cache / "downloads" / "original").read_bytes() == b"kept"
    assert not list((cache / "frames").iterdir())
    words = CliRunner().invoke(cli.app, ["cache"]).stdout
    assert "downloads: 1 files, 0.0 MB, kept" in words and "5,000 MB" in words
