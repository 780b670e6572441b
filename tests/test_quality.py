"""Quality against ffmpeg's filters run apart, and against libvpx's formulas."""

import json
import re
import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pandas as pd
import pytest

from vpxrc import _native
from vpxrc.encoder.log import psnr
from vpxrc.errors import EncoderError, InputError, MissingDependencyError
from vpxrc.media.decoding import decode_vp9, open_video
from vpxrc.media.frames import video_from_frames, write_y4m
from vpxrc.media.muxing import write_webm
from vpxrc.quality import measure, measure_stream, summarize

WIDTH, HEIGHT, FRAMES = 177, 145, 20


def ffmpeg(*arguments, cwd=None):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True, cwd=cwd).stderr.decode()


def decode(stream):
    return decode_vp9(stream, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A source of odd size, its VP9 stream, and a folder with both as ffmpeg needs them."""
    folder = tmp_path_factory.mktemp("encoded")
    source = ("-f", "lavfi", "-i", f"testsrc=s={WIDTH}x{HEIGHT}:r=30000/1001")
    ffmpeg(*source, "-frames:v", FRAMES, "-pix_fmt", "yuv420p", folder / "source.y4m")
    video = open_video(folder / "source.y4m", cache=folder)
    assert (video.width, video.height, video.num_frames) == (WIDTH, HEIGHT, FRAMES)
    vp9 = ("-c:v", "libvpx-vp9", "-b:v", "60k", "-cpu-used", "5", "-auto-alt-ref", "1")
    ffmpeg("-i", folder / "source.y4m", *vp9, folder / "stream.ivf")
    ffmpeg("-c:v", "libvpx-vp9", "-i", folder / "stream.ivf", folder / "decoded.y4m")
    return video, (folder / "stream.ivf").read_bytes(), folder


@pytest.fixture(scope="module")
def table(encoded):
    video, stream, _ = encoded
    return measure(decode(stream), video)


# Decoding


def test_ffmpegs_decoder_agrees_with_libvpxs(encoded):
    _, stream, folder = encoded
    expected = open_video(folder / "decoded.y4m", cache=folder)
    decoded = decode(stream)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, expected.frames)
    np.testing.assert_array_equal(decode(folder / "stream.ivf"), expected.frames)


def test_webm_measures_as_ivf_does(encoded, table):
    video, stream, folder = encoded
    write_webm(folder / "stream.webm", stream)
    pd.testing.assert_frame_equal(measure(decode(folder / "stream.webm"), video), table)


@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_a_truncated_stream_is_an_encoder_error(encoded, keep):
    _, stream, _ = encoded
    with pytest.raises(EncoderError, match="ffmpeg cannot decode the stream: "):
        decode(stream[: int(len(stream) * keep)])


@pytest.mark.parametrize("stream", [b"", b"nothing" * 30, b"DKIF\0\0 \0VP90" + bytes(20)])
def test_what_is_no_stream_is_an_encoder_error(stream):
    with pytest.raises(EncoderError, match="cannot decode the stream"):
        decode(stream)


def test_other_geometry_and_other_lengths_are_encoder_errors(encoded):
    video, stream, _ = encoded
    with pytest.raises(EncoderError, match="177x145, its source 176x144"):
        decode_vp9(stream, 176, 144)
    short = video_from_frames(video.frames[:-1], WIDTH, HEIGHT, video.fps, "short")
    with pytest.raises(EncoderError, match="short: the stream shows 20 frames, its source 19"):
        measure(decode(stream), short)
    lower = video_from_frames(video.frames[:, : 96 * 80 * 3 // 2], 96, 80, video.fps, "lower")
    with pytest.raises(EncoderError, match="lower: the stream's frames are not of its source's"):
        measure(decode(stream), lower)


# Quality


def test_squared_errors_and_psnr_agree_with_ffmpegs_filter(encoded, table):
    _, _, folder = encoded
    graph = "psnr=stats_file=psnr.log"
    inputs = ("-i", "decoded.y4m", "-i", "source.y4m")
    words = ffmpeg(*inputs, "-lavfi", graph, "-f", "null", "-", cwd=folder)
    log = (folder / "psnr.log").read_text()
    for column in ("mse_y", "mse_u", "mse_v", "psnr_y"):
        expected = [float(value) for value in re.findall(rf"{column}:(\S+)", log)]
        assert len(expected) == FRAMES
        np.testing.assert_allclose(table[column], expected, atol=0.0051)
    summary = summarize(table, WIDTH, HEIGHT)
    average = re.search(r"PSNR .*average:(\S+)", words)
    assert average
    assert summary["psnr_overall"] == pytest.approx(float(average[1]), abs=1e-3)
    assert summary["psnr"] == pytest.approx(table["psnr_y"].mean())


def test_ssim_and_vmaf_agree_with_ffmpegs_filters_run_apart(encoded, table):
    _, _, folder = encoded
    inputs = ("-i", "decoded.y4m", "-i", "source.y4m")
    ffmpeg(*inputs, "-lavfi", "ssim=stats_file=ssim.log", "-f", "null", "-", cwd=folder)
    vmaf = "libvmaf=log_fmt=json:log_path=vmaf.json:model=version=vmaf_v0.6.1"
    ffmpeg(*inputs, "-lavfi", vmaf, "-f", "null", "-", cwd=folder)
    ssim = [float(value) for value in re.findall(r" Y:(\S+)", (folder / "ssim.log").read_text())]
    np.testing.assert_array_equal(table["ssim"], ssim)
    report = json.loads((folder / "vmaf.json").read_text())
    expected = [frame["metrics"]["vmaf"] for frame in report["frames"]]
    np.testing.assert_allclose(table["vmaf"], expected, atol=1e-6)
    summary = summarize(table, WIDTH, HEIGHT)
    assert summary["ssim"] == pytest.approx(np.mean(ssim))
    assert summary["vmaf"] == pytest.approx(report["pooled_metrics"]["vmaf"]["mean"], abs=1e-4)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 33), (31, 18), (66, 48), (177, 145)])
def test_our_ssim_is_that_of_ffmpegs_filter(width, height):
    """On noise over all values, flat pictures, the same picture twice and opposite ones."""
    rng = np.random.default_rng(width)
    size = width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    source = rng.integers(0, 256, (8, size), dtype=np.uint8)
    decoded = np.clip(source + rng.normal(0, 12, source.shape), 0, 255).astype(np.uint8)
    source[1], decoded[1] = 77, 79
    source[2], decoded[2] = 0, 255
    decoded[3], decoded[4] = source[3], 255 - source[4]
    video = video_from_frames(source, width, height, 30)
    expected = measure(decoded, video, ["ssim"])["ssim"]
    ours = _native.ssim(decoded, source, width, height)
    # Half of ffmpeg's last decimal.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=5.1e-7)
    assert ours[3] == 1 and ours[4] < 0 < ours[0] < 1
    # Frames need not be adjacent.
    apart = np.pad(decoded, ((0, 0), (6, 0)))[:, 6:]
    np.testing.assert_array_equal(_native.ssim(apart, source, width, height), ours)


def test_what_our_ssim_refuses():
    frames = np.zeros((2, 24 * 16), np.uint8)
    assert _native.ssim(frames, frames, 16, 16).tolist() == [1, 1]
    for ours, theirs, width, height, words in (
        (frames, frames, 7, 16, "7x16 is smaller than a window of 8x8"),
        (frames, frames[:1], 16, 16, "2 frames and 1 of the reference"),
        (frames, frames, 32, 16, "frame_samples"),
        (frames.repeat(2, axis=1)[:, ::2], frames, 16, 16, "their samples adjacent"),
    ):
        with pytest.raises(ValueError, match=words):
            _native.ssim(ours, theirs, width, height)
    with pytest.raises(TypeError):
        _native.ssim(frames.astype(np.float64), frames, 16, 16)


def test_a_stream_is_measured_at_once(encoded, table):
    video, stream, _ = encoded
    found = measure_stream(stream, video, ["ssim", "vmaf"])
    np.testing.assert_allclose(found["ssim"], table["ssim"], rtol=0, atol=5.1e-7)
    np.testing.assert_array_equal(found["vmaf"], table["vmaf"])
    (alone,) = measure_stream(stream, video, ["ssim"]).values()
    np.testing.assert_array_equal(alone, found["ssim"])
    (alone,) = measure_stream(stream, video, ["vmaf"]).values()
    np.testing.assert_array_equal(alone, found["vmaf"])
    short = video_from_frames(video.frames[:-1], WIDTH, HEIGHT, video.fps, "short")
    with pytest.raises(EncoderError, match="short: the stream shows 20 frames, its source 19"):
        measure_stream(stream, short, ["ssim"])
    with pytest.raises(EncoderError, match="cannot measure ssim and vmaf: "):
        measure_stream(stream[: len(stream) // 2], video, ["ssim", "vmaf"])


def test_pictures_that_libvmaf_cannot_take_are_input_errors():
    small = video_from_frames(np.zeros((2, 20 * 16 * 3 // 2), np.uint8), 20, 16, 30, "small")
    assert (measure(small.frames, small, ["ssim"])["ssim"] == 1).all()
    for call in (
        lambda: measure(small.frames, small, ["vmaf"]),
        lambda: measure_stream(b"", small, ["vmaf"]),
    ):
        with pytest.raises(InputError, match="small: 20x16 pixels; VMAF needs at least 17"):
            call()


def test_a_stream_compared_with_shifted_frames_is_worse(encoded, table):
    """The filters must pair frame n with frame n: a slip of one frame is seen at once."""
    video, stream, _ = encoded
    shifted = video_from_frames(np.roll(video.frames, 1, axis=0), WIDTH, HEIGHT, video.fps)
    slipped = measure(decode(stream), shifted, ("psnr", "ssim", "vmaf"))
    for metric in ("psnr_y", "ssim", "vmaf"):
        assert slipped[metric].mean() < table[metric].mean()


def test_threads_do_not_change_the_figures(encoded, table):
    video, stream, _ = encoded
    pd.testing.assert_frame_equal(measure(decode(stream), video, threads=3), table)


def test_only_the_metrics_asked_for(encoded, table):
    video, stream, _ = encoded
    psnr_only = measure(decode(stream), video, ("psnr",))
    assert list(psnr_only) == ["show_index", "mse_y", "mse_u", "mse_v", "psnr_y"]
    assert set(summarize(psnr_only, WIDTH, HEIGHT)) == {"psnr", "psnr_overall"}
    ssim_only = measure(decode(stream), video, ("ssim",))
    assert list(ssim_only) == ["show_index", "ssim"]
    pd.testing.assert_series_equal(ssim_only["ssim"], table["ssim"])
    with pytest.raises(InputError, match="unknown metric 'psrn': choose from psnr, ssim, vmaf"):
        measure(decode(stream), video, ("psrn",))


def test_an_ffmpeg_without_libvmaf_says_what_to_install(encoded, tmp_path, monkeypatch):
    video, stream, _ = encoded
    program = tmp_path / "ffmpeg"
    real = imageio_ffmpeg.get_ffmpeg_exe()
    program.write_text(f'#!/bin/bash\nexec "{real}" "${{@//libvmaf/nolibvmaf}}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    assert len(measure(decode(stream), video, ("ssim",))) == FRAMES
    with pytest.raises(MissingDependencyError, match=r"libvmaf.*pip install imageio-ffmpeg"):
        measure(decode(stream), video, ("vmaf",))


def test_a_source_without_a_file_gives_the_same_numbers(encoded, table):
    video, stream, _ = encoded
    array = video_from_frames(np.array(video.frames), WIDTH, HEIGHT, video.fps)
    pd.testing.assert_frame_equal(measure(decode(stream), array, ("psnr", "ssim", "vmaf")), table)
    # A part of a memory map still names the whole file: it must not be taken for the source.
    part = video_from_frames(video.frames[:], WIDTH, HEIGHT, video.fps)
    pd.testing.assert_frame_equal(
        measure(decode(stream), part, ("psnr", "ssim")), table.iloc[:, :6]
    )


def test_a_lossless_stream_has_libvpxs_highest_psnr(encoded, tmp_path):
    video, _, _ = encoded
    write_y4m(video, tmp_path / "source.y4m")
    ffmpeg("-i", tmp_path / "source.y4m", "-c:v", "libvpx-vp9", "-lossless", 1, tmp_path / "l.ivf")
    table = measure(decode(tmp_path / "l.ivf"), video, ("psnr", "ssim"))
    assert (table[["mse_y", "mse_u", "mse_v"]] == 0).all(axis=None)
    assert (table["ssim"] == 1).all()
    assert summarize(table, WIDTH, HEIGHT)["psnr"] == pytest.approx(100)
    assert summarize(table, WIDTH, HEIGHT)["psnr_overall"] == pytest.approx(100)


def test_psnr_by_hand():
    assert psnr(255**2) == pytest.approx(0)
    assert psnr(1.0) == pytest.approx(48.1308, abs=1e-4)
    np.testing.assert_allclose(psnr([0.0, 1e-12, 6.5025]), [100, 100, 40])


def test_overall_psnr_weighs_planes_by_samples():
    frames = pd.DataFrame(
        {"mse_y": [4.0, 8.0], "mse_u": [1.0, 1.0], "mse_v": [2.0, 6.0], "psnr_y": [40.0, 44.0]}
    )
    # 17x17 luma, 9x9 chroma: chroma is more than a quarter.
    mean = (289 * 12 + 81 * (2 + 8)) / 2 / (289 + 162)
    summary = summarize(frames, 17, 17)
    assert summary["psnr_overall"] == pytest.approx(10 * np.log10(65025 / mean))
    assert summary["psnr"] == pytest.approx(42)


def test_frame_rates_that_are_no_decimals_pair_frames_too(encoded):
    video, stream, _ = encoded
    assert video.fps == Fraction(30000, 1001)
    # The stream's own rate must not matter: the source is paired by number.
    other = video_from_frames(video.frames, WIDTH, HEIGHT, Fraction(24000, 1001))
    table = measure(decode(stream), other, ("ssim",))
    assert list(table["ssim"]) == list(measure(decode(stream), video, ("ssim",))["ssim"])
