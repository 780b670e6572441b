"""Video of 10 bits, SDR and HDR, from the file to the decoders, by what ffmpeg's programs say."""

import dataclasses
import json
import subprocess
from fractions import Fraction
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pandas as pd
import pytest
from chromium import PROGRAM, Chromium
from conftest import in_this_process, make_video
from typer.testing import CliRunner

from vpxrc import (
    Decision,
    EncoderOptions,
    EncodeSession,
    SessionPool,
    _native,
    cli,
    encode,
    make_policy,
    open_video,
    video_from_frames,
)
from vpxrc.datasets import load_clips
from vpxrc.dependency import analyse
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.quantizer import LOG2_STEP, log2_steps, nearest_q
from vpxrc.envs import MORateControlEnv, RateControlEnv
from vpxrc.errors import EncoderError, InputError
from vpxrc.evaluation import study, verify
from vpxrc.media.decoding import decode, decode_vp9
from vpxrc.media.frames import split_planes, to_8_bits, write_y4m
from vpxrc.media.labels import ContentLight, Labels, MasteringDisplay
from vpxrc.media.muxing import Companions, write_webm
from vpxrc.media.probing import probe
from vpxrc.quality import measure, measure_stream, summarize
from vpxrc.transcoding import assembly
from vpxrc.transcoding.pipeline import transcode
from vpxrc.transcoding.target import QualityTarget

SIZE = (96, 80)
SCREEN = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
QUICK: dict[str, Any] = {"cpu_used": 8, "jobs": 1}


def ffmpeg(*arguments, level="error"):
    command = [FFMPEG, "-nostdin", "-hide_banner", "-v", level, "-y"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True)
    assert done.returncode == 0, done.stderr
    return done


def samples(path, *options, pix_fmt="yuv420p10le", decoder=()):
    """Return ffmpeg's frames of a file, ``[num_frames, samples]``."""
    raw = ffmpeg(
        *(*decoder, "-i", path, *options, "-pix_fmt", pix_fmt),
        *("-fps_mode", "passthrough", "-f", "rawvideo", "-"),
    ).stdout
    kind = np.uint8 if pix_fmt == "yuv420p" else np.uint16
    return np.frombuffer(raw, kind).reshape(-1, SIZE[0] * SIZE[1] * 3 // 2)


def lavfi(transfer="bt709", matrix="bt709", primaries="bt709", *, seconds=1.0, source="testsrc2"):
    tags = (
        f"setparams=color_primaries={primaries}:colorspace={matrix}:color_trc={transfer}:range=tv"
    )
    picture = f"{source}=s={SIZE[0]}x{SIZE[1]}:r=25:d={seconds},format=gbrp10le"
    # Noise in the lowest bits, which 8 bits cannot hold.
    return ("-f", "lavfi", "-i", f"{picture},noise=alls=6:allf=t,format=yuv420p10le,{tags}")


@pytest.fixture(scope="module")
def sdr(tmp_path_factory):
    path = tmp_path_factory.mktemp("sdr") / "sdr.mkv"
    ffmpeg(*lavfi(), "-c:v", "ffv1", path)
    return path


@pytest.fixture(scope="module")
def hdr10(tmp_path_factory):
    path = tmp_path_factory.mktemp("hdr") / "hdr10.mkv"
    facts = f"log-level=none:hdr10=1:master-display={SCREEN}:max-cll=1000,400"
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    x265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", facts, *tags)
    ffmpeg(*lavfi("smpte2084", "bt2020nc", "bt2020"), *x265, path)
    return path


@pytest.fixture(scope="module")
def deep(sdr):
    return open_video(sdr)


@pytest.fixture(scope="module")
def pair():
    """The same pictures in 8 bits and in 10."""
    flat = make_video(num_frames=24)
    return flat, video_from_frames(flat.frames.astype(np.uint16) * 4, 64, 48, 30, "deep")


def complaint(*arguments):
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


# Decoding


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "note"),
    [
        ("yuv420p10le", "ffv1", ""),
        ("yuv422p10le", "prores_ks", ""),
        ("yuv420p12le", "ffv1", "12 bits per sample are made 10"),
        ("gbrp10le", "ffv1", ""),
        ("gray10le", "ffv1", ""),
        ("rgb48le", "png", "16 bits per sample are made 10"),
    ],
)
def test_frames_of_more_than_8_bits_are_ffmpegs_of_10(tmp_path, pix_fmt, codec, note):
    source = tmp_path / "source.mov" if codec == "prores_ks" else tmp_path / "source.mkv"
    ffmpeg(*lavfi(seconds=0.2), "-pix_fmt", pix_fmt, "-c:v", codec, source)
    decoded = decode(source)
    video = decoded.video
    assert (video.bit_depth, video.num_frames) == (10, 5)
    assert video.frames.dtype == np.uint16
    assert video.frame_bytes == 2 * video.frame_samples == video.frames[0].nbytes
    theirs = samples(source, "-sws_flags", "bicubic")
    np.testing.assert_array_equal(video.frames, theirs)
    assert decoded.notes == ((note,) if note else ())
    assert (video.frames % 4 != 0).any()


def test_the_bit_depth_can_be_chosen(sdr, tmp_path):
    flat = decode(sdr, bit_depth=8)
    theirs = samples(sdr, "-sws_flags", "bicubic", pix_fmt="yuv420p")
    np.testing.assert_array_equal(flat.video.frames, theirs)
    assert flat.video.bit_depth == 8
    assert flat.notes == ("10 bits per sample are made 8",)
    ffmpeg("-i", sdr, "-pix_fmt", "yuv420p", "-c:v", "ffv1", tmp_path / "flat.mkv")
    raised = open_video(tmp_path / "flat.mkv", bit_depth=10)
    assert raised.bit_depth == 10
    np.testing.assert_array_equal(raised.frames, flat.video.frames.astype(np.uint16) * 4)
    with pytest.raises(InputError, match="bit_depth 12 is none of 8 and 10"):
        open_video(sdr, bit_depth=12)
    hashes = {flat.video.content_hash, raised.content_hash, open_video(sdr).content_hash}
    assert len(hashes) == 3


def test_y4m_of_10_bits(deep, tmp_path):
    path = tmp_path / "whole.y4m"
    write_y4m(deep, path)
    np.testing.assert_array_equal(samples(path), deep.frames)
    assert open_video(path).content_hash == deep.content_hash
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        open_video(path)


def test_samples_that_have_no_10_bits_are_refused():
    frames = np.full((2, 16 * 16 * 3 // 2), 1024, np.uint16)
    with pytest.raises(InputError, match="a sample is 1024"):
        video_from_frames(frames, 16, 16, 25)


def test_samples_rounded_to_8_bits():
    assert to_8_bits(np.array([0, 1, 2, 5, 6, 1021, 1023], np.uint16)).tolist() == [
        0, 0, 1, 1, 2, 255, 255,
    ]  # fmt: skip


# The encoder


@pytest.mark.parametrize(("layers", "rate_control"), [(1, "vbr"), (6, "vbr"), (6, "q")])
def test_streams_are_libvpxs_own(deep, layers, rate_control):
    options = EncoderOptions(
        target_bitrate=150, cpu_used=2, auto_alt_ref=layers, rate_control=rate_control
    )
    log = verify.observe(deep, options)
    checks = [verify.check_plain(deep, log), verify.check_psnr(deep, log)]
    oracle = verify.oracle_program(bit_depth=10)
    if oracle is not None:  # the package was built here
        checks.append(verify.check_oracle(deep, log, oracle))
    if rate_control == "vbr":
        checks.append(verify.check_replay(deep, log))
    assert [check for check in checks if not check.passed] == []


def test_two_of_ffmpegs_decoders_give_the_frames_of_the_encoder(deep):
    options = EncoderOptions(target_bitrate=150, cpu_used=5)
    with EncodeSession(deep, options, keep_reconstruction=True) as session:
        last = None
        while session.frame is not None:
            session.step(Decision(100))
            last = session.reconstruction
        log = session.log()
    frames = log.options.decode(log.stream, log.clip)
    assert frames.dtype == np.uint16
    assert frames.shape == deep.frames.shape
    theirs = subprocess.run(
        [FFMPEG, "-v", "error", "-c:v", "libvpx-vp9", "-i", "-", "-f", "rawvideo", "-"],
        input=log.stream,
        capture_output=True,
        check=True,
    ).stdout
    np.testing.assert_array_equal(np.frombuffer(theirs, np.uint16).reshape(frames.shape), frames)
    assert last is not None
    for ours, decoded in zip(last, split_planes(frames[-1], *SIZE), strict=True):
        np.testing.assert_array_equal(ours, decoded)
    with pytest.raises(EncoderError, match="10 bits per sample, its source 8"):
        decode_vp9(log.stream, *SIZE)


def test_both_bit_depths_share_a_pool(pair):
    pool, options, logs = SessionPool(), EncoderOptions(target_bitrate=60, cpu_used=8), {}
    names = {pool.open(video, options): video.name for video in pair}
    while len(pool):
        number, session = pool.next()
        if session.frame is not None:
            session.step(Decision(110))
        else:
            logs[names[number]] = session.log()
            pool.close_session(number)
    for video in pair:
        with EncodeSession(video, options) as session:
            while session.frame is not None:
                session.step(Decision(110))
            assert session.log() == logs[video.name]


def test_the_quantizer_has_the_steps_of_the_specification():
    # ac_qlookup for 10 bits: the first steps and the last of section 8.6.1.
    steps = np.exp2(log2_steps(10)) * 4
    assert steps[:8].round(6).tolist() == [4, 9, 11, 13, 16, 18, 21, 24]
    assert steps[255].round(6) == 7312
    # The unit is that of 8 bits: both scales meet at their coarse ends.
    assert np.abs(log2_steps(10) - LOG2_STEP)[128:].max() < 0.01
    assert nearest_q(float(log2_steps(10)[77]), log2_steps(10)) == 77


def test_statistics_are_those_of_the_same_pictures_in_8_bits(pair):
    options = EncoderOptions(target_bitrate=60, cpu_used=4, auto_alt_ref=6)
    flat, deep = (first_pass_table(first_pass_stats(video, options)) for video in pair)
    np.testing.assert_allclose(deep, flat, rtol=0.1, atol=0.5)
    costs = []
    for video in pair:
        with EncodeSession(video, options) as session:
            while session.frame is not None and not session.frame.has_tpl:
                session.step(Decision(120))
            assert session.tpl is not None
            costs.append(np.nansum(session.tpl[..., :4], axis=(0, 1, 2)))
    assert costs[1] == pytest.approx(costs[0], rel=0.1)


def test_the_dependency_model_sees_8_bits(pair):
    flat, deep = pair
    group: dict[str, Any] = {
        "show_index": [2, 6, 4],
        "references": [[-1, -1, -1], [0, -1, -1], [0, 1, -1]],
    }
    q = [60, 80, 100]
    there = [nearest_q(float(LOG2_STEP[one]), log2_steps(10)) for one in q]
    ours, theirs = analyse(deep, q_index=there, **group), analyse(flat, q_index=q, **group)
    for field in ("rate", "distortion", "importance", "mv"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    np.testing.assert_array_equal(ours.flow(), theirs.flow())
    with pytest.raises(InputError, match="show_index 24 is outside the clip"):
        analyse(deep, [0, 24], [[-1] * 3] * 2, [50, 50])
    with pytest.raises(InputError, match="q_index 256"):
        analyse(deep, [0, 1], [[-1] * 3] * 2, [50, 256])


def test_observations_are_those_of_8_bits(pair):
    seen = []
    for video in pair:
        env = RateControlEnv([video], 60, observation="dict", cpu_used=4)
        observation, _ = env.reset(seed=1)
        for _ in range(6):
            observation, *_ = env.step(140)
        env.close()
        seen.append(observation)
    flat, deep = seen
    for name, values in flat.items():
        # Some columns of the first pass count the 12 macroblocks of the picture.
        assert np.isclose(deep[name], values, atol=0.06).mean() > 0.97, name


@pytest.mark.parametrize("reward", ["relative", "gain", "quality and rate"])
def test_rewards_are_those_of_8_bits(pair, reward):
    """What is paid adds up to the value, though the peak of a sample is another."""
    values = []
    for video in pair:
        env: Any = (
            MORateControlEnv([video], 60, cpu_used=4)
            if reward == "quality and rate"
            else RateControlEnv([video], 60, reward=reward, cpu_used=4)
        )
        env.reset(seed=1)
        paid, done = np.zeros(1), False
        while not done:
            _, step, done, *_ = env.step(190)
            paid = paid + step
        value = env.reward(env.log)
        assert paid == pytest.approx(np.broadcast_to(value, paid.shape), rel=1e-4)
        values.append(value)
    # The references differ by libvpx's own decisions; a wrong peak would be 12 dB, some 50 percent.
    near = {"relative": 0.1, "gain": 15.0}.get(reward, 1)
    assert values[1] == pytest.approx(values[0], abs=near)


@pytest.mark.parametrize("policy", ["constant-quality", "dependency", "imitation"])
def test_policies_meet_the_bitrate(policy):
    (clip,) = (clip for clip in load_clips("samples") if clip.name == "carphone")
    flat = dataclasses.replace(clip, num_frames=60).open()
    frames = flat.frames.astype(np.uint16) * 4
    video = video_from_frames(frames, flat.width, flat.height, flat.fps, "deep")
    options = EncoderOptions(target_bitrate=120, cpu_used=4)
    logs = [encode(one, options, make_policy(policy)) for one in (flat, video)]
    assert abs(logs[1].overshoot) < max(0.05, abs(logs[0].overshoot) + 0.02)
    assert logs[1].psnr == pytest.approx(logs[0].psnr, abs=0.5)


def test_a_learned_codec_refuses_them(sdr, tmp_path):
    from vpxrc.codecs.options import CodecOptions

    with pytest.raises(InputError, match="10 bits per sample; a learned codec takes 8"):
        CodecOptions(target_bitrate=100, codec="none", weights="").open(open_video(sdr))


# Measures


def test_measures_are_ffmpegs_of_10_bits(deep, tmp_path):
    log = encode(deep, EncoderOptions(target_bitrate=150, cpu_used=8), make_policy("libvpx-vbr"))
    decoded = log.options.decode(log.stream, log.clip)
    table = measure(decoded, deep)
    (tmp_path / "out.ivf").write_bytes(log.stream)
    write_y4m(deep, tmp_path / "source.y4m")
    chain = "[0:v]setpts=N[a];[1:v]setpts=N[b];[a][b]psnr=stats_file=psnr.log"
    inputs = ["-v", "error", "-i", "out.ivf", "-i", "source.y4m"]
    command = [FFMPEG, *inputs, "-lavfi", chain, "-f", "null", "-"]
    subprocess.run(command, cwd=tmp_path, check=True)
    rows = (tmp_path / "psnr.log").read_text().splitlines()
    theirs = [dict(field.split(":") for field in row.split()) for row in rows]
    for name in ("psnr_y", "mse_y", "mse_u", "mse_v"):
        values = [float(row[name]) for row in theirs]
        np.testing.assert_allclose(table[name], values, atol=0.0051)
    ours = _native.ssim(decoded, deep.frames, *SIZE)
    np.testing.assert_allclose(ours, table["ssim"], atol=1e-6)
    quick = measure_stream(log.stream, deep, ["ssim", "vmaf"])
    np.testing.assert_allclose(quick["vmaf"], table["vmaf"], atol=1e-6)
    np.testing.assert_allclose(quick["ssim"], table["ssim"], atol=1e-6)
    summary = summarize(table, *SIZE, bit_depth=10)
    assert summary["psnr"] == pytest.approx(log.psnr)
    assert summary["psnr_overall"] == pytest.approx(log.psnr_overall)
    same = summarize(measure(deep.frames, deep), *SIZE, bit_depth=10)
    assert (same["psnr"], same["ssim"]) == (100, 1)
    with pytest.raises(EncoderError, match="bit depth"):
        measure(to_8_bits(decoded), deep, ["psnr"])


def test_a_study_measures_in_10_bits(sdr, deep, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "open_workers", in_this_process)
    policies = ("--agent", "libvpx-vbr-mlarf", "--baseline", "libvpx-vbr")
    how = ("--bitrates", "100,150,220,330", "--cpu-used", 8, "--metrics", "psnr", "--jobs", 1)
    arguments = ["evaluate", *policies, "--clips", sdr, *how, "--out", tmp_path / "study"]
    result = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "study" / "encodes.parquet")
    assert table["bit_depth"].tolist() == [10] * 8
    luma = slice(SIZE[0] * SIZE[1])
    found = []
    for path in (tmp_path / "study" / "encodes").glob("*.ivf"):
        error = np.square(samples(path)[:, luma].astype(float) - deep.frames[:, luma])
        found.append((10 * np.log10(1023**2 / error.mean(axis=1))).mean())
    assert sorted(found) == pytest.approx(sorted(table["psnr"]))
    page = (tmp_path / "study" / "report.html").read_text()
    assert f"{table['psnr'].max():.2f}" in page


# Files


def side_data(path):
    """Return what ffmpeg says of a file's colours and HDR."""
    words = ffmpeg("-i", path, "-t", 0.1, "-f", "null", "-", level="info").stderr.decode()
    lines = [line.strip() for line in words.split("Output #0")[0].splitlines()]
    return sorted(line for line in lines if "metadata:" in line.lower() and "=" in line)


def test_hdr10_keeps_its_samples_and_its_metadata(hdr10, tmp_path):
    output = tmp_path / "out.webm"
    result = transcode(hdr10, output, target_bitrate=400, policy="libvpx-vbr", **QUICK)
    assert result.notes == ()
    before, after = probe(hdr10), probe(output)
    assert after.pixel_format == "yuv420p10le"
    assert after.colours == before.colours
    assert dataclasses.astuple(after.colours) == ("bt2020nc", "smpte2084", False, "bt2020")
    assert after.labels.light == ContentLight(1000, 400)
    screen = after.labels.mastering
    assert screen is not None
    assert screen.chromaticities == pytest.approx(
        (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.3127, 0.329)
    )
    assert screen.luminances == pytest.approx((0.005, 1000))
    said = side_data(output)
    assert len(said) == 2
    assert "MaxCLL=1000, MaxFALL=400" in said[0]
    assert "min_luminance=0.005000, max_luminance=1000.000000" in said[1]
    shown = samples(output)
    np.testing.assert_array_equal(shown, samples(output, decoder=("-c:v", "libvpx-vp9")))
    error = np.square(shown.astype(float) - samples(hdr10)).mean()
    assert 10 * np.log10(1023**2 / error) == pytest.approx(result.log.psnr_overall, abs=1e-6)
    ivf = transcode(hdr10, tmp_path / "out.ivf", target_bitrate=400, policy="libvpx-vbr", **QUICK)
    assert "the metadata of HDR are left out: .ivf has none" in ivf.notes


@pytest.mark.parametrize(
    ("transfer", "pix_fmt"), [("smpte2084", "yuv420p"), ("arib-std-b67", "yuv420p10le")]
)
def test_hdr_without_metadata_keeps_its_colours(tmp_path, transfer, pix_fmt):
    source, output = tmp_path / "source.mkv", tmp_path / "out.webm"
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc")
    ffmpeg(
        *lavfi(transfer, "bt2020nc", "bt2020", seconds=0.2), "-pix_fmt", pix_fmt, "-c:v", "ffv1",
        *tags, source,
    )  # fmt: skip
    result = transcode(source, output, target_bitrate=200, policy="libvpx-vbr", **QUICK)
    assert (result.notes, probe(output).pixel_format) == ((), pix_fmt)
    assert probe(output).colours == probe(source).colours
    assert probe(output).labels.mastering is None


@pytest.mark.parametrize(
    "labels",
    [
        Labels(light=ContentLight(2**32 - 1, 1)),
        Labels(mastering=MasteringDisplay((), (0.0625, 4000.0))),
        Labels(
            mastering=MasteringDisplay(
                (0.6875, 0.3125, 0.25, 0.6875, 0.125, 0.0625, 0.3125, 0.325)
            ),
            light=ContentLight(1, 2),
            aspect=Fraction(4, 3),
        ),
    ],
)
def test_metadata_of_hdr_that_is_not_whole(deep, tmp_path, labels):
    log = encode(deep, EncoderOptions(target_bitrate=100, cpu_used=8), make_policy("libvpx-vbr"))
    write_webm(tmp_path / "out.webm", log.stream, Companions(labels=labels))
    found = probe(tmp_path / "out.webm").labels
    assert (found.light, found.aspect) == (labels.light, labels.aspect)
    if labels.mastering is None:
        assert found.mastering is None
    else:
        assert found.mastering is not None
        theirs, ours = found.mastering, labels.mastering
        assert theirs.chromaticities == pytest.approx(ours.chromaticities, abs=1e-5)
        assert theirs.luminances == pytest.approx(ours.luminances, abs=1e-4)
    plain = tmp_path / "plain.webm"
    write_webm(plain, log.stream)
    with av.open(tmp_path / "out.webm") as one, av.open(plain) as other:
        rates = [file.streams.video[0].average_rate for file in (one, other)]
        assert rates == [25, 25]
        assert one.duration == other.duration
    np.testing.assert_array_equal(samples(tmp_path / "out.webm"), samples(plain))


def test_chunks_and_a_resumed_encode(sdr, tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    options = ("-b", 200, "--policy", "constant-quality", "--cpu-used", 8, "--chunk", 0.5)

    def run(name, *more):
        output = tmp_path / name
        arguments = ["encode", sdr, "-o", output, *options, *more, "--json"]
        result = CliRunner().invoke(cli.app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return json.loads(result.output), output.read_bytes()

    facts, one = run("one.webm", "--jobs", 1)
    assert len(facts["chunks"]) == 2
    assert probe(tmp_path / "one.webm").bit_depth == 10
    _, two = run("two.webm", "--jobs", 2)
    assert two == one

    def fail(*_):
        raise InputError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(assembly.Output, "write", fail)
        arguments = ("encode", sdr, "-o", tmp_path / "x.webm", *options, "--jobs", 1)
        result = CliRunner().invoke(cli.app, list(map(str, arguments)))
        assert result.exit_code == 2
    facts, resumed = run("resumed.webm", "--resume")
    assert resumed == one
    assert any("chunk(s) of an earlier encode were used" in note for note in facts["notes"])


def test_a_quality_is_met_in_10_bits(sdr, deep, tmp_path):
    output = tmp_path / "out.webm"
    target = QualityTarget.parse("psnr=36")
    result = transcode(sdr, output, target=target, **QUICK)
    frames = decode_vp9(output, *SIZE, bit_depth=10)
    error = np.square(
        frames[:, : SIZE[0] * SIZE[1]].astype(float) - deep.frames[:, : SIZE[0] * SIZE[1]]
    )
    by_hand = (10 * np.log10(1023**2 / error.mean(axis=1))).mean()
    assert result.score == pytest.approx(by_hand)
    assert 36 <= by_hand <= 36.1


def test_the_option_of_the_command(sdr, tmp_path):
    output = tmp_path / "out.webm"
    options = ("-b", 100, "--policy", "libvpx-vbr", "--cpu-used", 8, "-o", output)
    assert "auto, 8 or 10, not '9'" in complaint("encode", sdr, *options, "--bit-depth", 9)
    result = CliRunner().invoke(
        cli.app, ["encode", str(sdr), *map(str, options), "--bit-depth", "8"]
    )
    assert "10 bits per sample are made 8" in result.output
    assert probe(output).pixel_format == "yuv420p"
    result = CliRunner().invoke(cli.app, ["encode", str(sdr), *map(str, options), "--sample"])
    assert result.exit_code == 0, result.output


# Chromium

PAGE = """<!doctype html><video id="v" src="out.webm" muted></video><script>
const video = document.getElementById("v");
const happens = name => new Promise(done => video.addEventListener(name, done, {once: true}));
window.watch = (async () => {
  if (video.readyState < 2) await Promise.race([happens("loadeddata"), happens("error")]);
  if (video.error) return {error: video.error.message};
  // After "seeked" alone, a canvas may still get a black picture where the processor is busy.
  const shown = new Promise(done => video.requestVideoFrameCallback(done));
  const sought = happens("seeked");
  video.currentTime = 0.1;
  await Promise.all([sought, shown]);
  const [width, height] = [video.videoWidth, video.videoHeight];
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(video, 0, 0);
  const places = [...Array(7).keys()].map(bar => Math.round((bar + 0.5) * width / 7));
  return {error: null, size: [width, height], colours: places.map(
    x => [...canvas.getImageData(x, 20, 1, 1).data.slice(0, 3)])};
})();
</script>"""


def bars_by_hand(path, weights):
    """Return the RGB of seven bars of a frame of 140x80 by ITU-T H.273, in 8 bits."""
    raw = ffmpeg("-i", path, "-frames:v", 1, "-f", "rawvideo", "-").stdout
    planes = split_planes(np.frombuffer(raw, np.uint16), 140, 80)
    red, blue = weights
    colours = []
    for x in range(10, 140, 20):
        places = (20, x), (10, x // 2), (10, x // 2)
        y, u, v = (float(plane[at]) for plane, at in zip(planes, places, strict=True))
        y, u, v = (y - 64) / 876, (u - 512) / 896, (v - 512) / 896
        r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
        colours.append((r, (y - red * r - blue * b) / (1 - red - blue), b))
    return np.clip(np.array(colours) * 255, 0, 255)


@pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("kind", ["SDR", "HDR10"])
def test_chromium_shows_the_right_colours(tmp_path, kind):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    names = ("bt709",) * 3 if kind == "SDR" else ("smpte2084", "bt2020nc", "bt2020")
    tags = ("-color_trc", names[0], "-colorspace", names[1], "-color_primaries", names[2])
    seen = []
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "page.html").write_text(PAGE)
    matrix = "bt709" if kind == "SDR" else "bt2020"
    bars = (
        f"smptebars=s=140x80:r=25:d=0.4,format=gbrp,scale=out_color_matrix={matrix}:out_range=tv,"
        f"format=yuv420p10le,setparams=color_primaries={names[2]}:colorspace={names[1]}:"
        f"color_trc={names[0]}:range=tv"
    )
    source = tmp_path / "source.mkv"
    weights = (0.2126, 0.0722) if kind == "SDR" else (0.2627, 0.0593)
    ffmpeg("-f", "lavfi", "-i", bars, "-c:v", "ffv1", *tags, source)
    transcode(source, ours / "out.webm", target_bitrate=2000, policy="libvpx-vbr", **QUICK)
    lossless = ("-c:v", "libvpx-vp9", "-profile:v", 2, "-lossless", 1)
    ffmpeg("-i", source, *lossless, *tags, theirs / "out.webm")
    by_hand = bars_by_hand(source, weights)
    with Chromium(tmp_path / "profile") as browser:
        for folder in (ours, theirs):
            browser.open((folder / "page.html").as_uri())
            seen.append(browser.run("window.watch"))
    assert [one["error"] for one in seen] == [None, None]
    assert seen[0]["size"] == [140, 80]
    np.testing.assert_allclose(seen[0]["colours"], seen[1]["colours"], atol=4)
    if kind == "SDR":
        # Chromium's converter libyuv has 2.0 where BT.709 has 2.11 for blue, in 8 bits as well.
        np.testing.assert_allclose(np.array(seen[0]["colours"])[:, :2], by_hand[:, :2], atol=3)
        np.testing.assert_allclose(np.array(seen[0]["colours"])[:, 2], by_hand[:, 2], atol=10)
    else:  # shown as PQ, for which 75 % are some 1,000 cd/m2, and not as if they were SDR
        assert np.abs(np.array(seen[0]["colours"]) - by_hand).max() > 20
