"""The benchmarks of quality as the target, of hard inputs and of the rate model."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import fit_rate_model, fit_target, hard_inputs, quality_target
from vpxrc import EncoderOptions, QualityTarget, encode, make_policy
from vpxrc.media.frames import frame_bytes

HARD = {clip.name: clip for clip in hard_inputs.CLIPS}


# Quality as the target


@pytest.mark.parametrize("answer", [-1, 0, 1, 31, 62, 63])
def test_the_bisection_finds_the_coarsest_level(answer):
    visited = []

    def at_level(level):
        visited.append(level)
        return {"bitrate": 1000 * 2 ** (-level / 8), "vmaf": 90 - (level - answer) / 2 + 0.1}

    found = quality_target.bisection(at_level, QualityTarget("vmaf", 90))
    if answer == -1:
        assert found is None
    else:
        assert found is not None
        assert found["level"] == answer
        assert 90 <= found["score"] < 90.5
        assert found["encodes"] in (6, 7)
        assert len(found["levels"]) == (1 if answer == 63 else 2)


def test_bits_at_a_score_are_on_the_line_between_levels():
    target = QualityTarget("vmaf", 90)
    levels = [{"bitrate": 400.0, "score": 99.0}, {"bitrate": 100.0, "score": 90.0}]
    middle = 100 - 10**0.5  # 15 dB, in the middle between 10 and 20 dB
    assert quality_target.bits_at(levels, middle, target) == pytest.approx(200)
    assert quality_target.bits_at(levels, 90, target) == pytest.approx(100)
    assert quality_target.bits_at(levels[:1], 90, target) is None


def test_a_level_is_what_libvpx_q_mlarf_tries():
    video = HARD["two-frames"].open()
    log = encode(video, EncoderOptions(100, 8), make_policy("libvpx-q-mlarf"))
    level = quality_target.OneLevel(log.options.cq_level)
    assert encode(video, EncoderOptions(7, 8), level).stream == log.stream


def test_the_rule_is_least_squares():
    rng = np.random.default_rng(0)
    rule = (-6.0, 0.4, 0.7, -0.6)
    found = {}
    for name in "abcdef":
        errors = rng.uniform(5, 12, 2)
        points = []
        for score in (70.0, 80.0, 90.0, 95.0):
            decibels = -10 * math.log10(1 - score / 100)
            bits = 2 ** float(np.dot(rule, (1, decibels, *errors)))
            points.append({"bits_per_pixel": bits, "vmaf": score})
        found[name] = {fit_target.CLIP_ERROR: errors.tolist(), "points": points}
    inputs, octaves, numbers = fit_target.rows(found, "vmaf")
    assert fit_target.fit(inputs, octaves) == pytest.approx(rule)
    assert set(numbers.tolist()) == set(range(6))


# Hard inputs


def test_the_list_covers_what_is_hard():
    assert len(HARD) == len(hard_inputs.CLIPS) == 16
    for clip in hard_inputs.CLIPS:
        assert len(clip.bitrates) == 4
        assert clip.bitrates == sorted(set(clip.bitrates))
    lowest, *_, highest = sorted(bits for clip in HARD.values() for bits in clip.bits_per_pixel)
    assert lowest <= 0.01
    assert highest >= 0.4
    assert {clip.num_frames for clip in HARD.values()} >= {2, 900}
    assert {clip.fps for clip in HARD.values()} >= {10, 60}
    assert any(clip.height > clip.width for clip in HARD.values())


@pytest.mark.parametrize("name", [name for name in HARD if name not in ("1280x720", "60-fps")])
def test_a_hard_clip_is_the_same_every_time(name):
    clip = HARD[name]
    first, second = clip.open(), clip.open()
    assert first.content_hash == second.content_hash
    assert first.frames.shape == (clip.num_frames, frame_bytes(clip.width, clip.height))


def test_hard_clips_show_what_they_are_named_after():
    def lumas(name):
        clip = HARD[name]
        return clip.open().frames[:, : clip.width * clip.height].astype(np.int16)

    assert np.ptp(lumas("still"), axis=0).max() == 0
    changed = abs(np.diff(lumas("slides"), axis=0)).mean(axis=1)
    assert np.flatnonzero(changed).tolist() == [19, 39, 59, 79, 99]
    assert lumas("fade-to-black")[-1].max() <= 17
    assert np.flatnonzero(lumas("white-flashes").min(axis=1) == 235).tolist() == [20, 55, 57, 90]
    changed = abs(np.diff(lumas("short-last-scene"), axis=0)).mean(axis=1)
    assert changed[69] > 10 * np.median(changed)


def test_the_table_has_the_worst_clip_first(tmp_path, monkeypatch, capsys):
    short = (replace(HARD["vertical"], num_frames=8), HARD["two-frames"])
    monkeypatch.setattr(hard_inputs, "CLIPS", short)
    words = ["--agent", "libvpx-vbr", "--clips", "vertical,two-frames", "--cpu-used", "8"]
    monkeypatch.setattr(sys, "argv", ["hard_inputs", *words, "--out", str(tmp_path)])
    hard_inputs.main()
    text = (tmp_path / "table.md").read_text()
    assert capsys.readouterr().out.startswith(text)
    rows = [line.split(" | ") for line in text.splitlines()[4:]]
    assert {row[0].strip("| ") for row in rows} == {"vertical", "two-frames"}
    means = [float(row[6]) for row in rows]
    assert means == sorted(means, reverse=True)
    encodes = sorted(tmp_path.rglob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in encodes if path.parent.name == "encodes"}
    hard_inputs.main()  # goes on where it was: at the end
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(before) == 16


# The rate model


def test_the_fit_of_the_rate_model_finds_the_weights_and_ignores_what_is_far_off():
    rng = np.random.default_rng(0)
    seen = np.column_stack([np.ones(400), rng.normal(0, 5, (400, 2))])
    ratio = seen @ [1.5, 0.3, -0.2]
    names = np.repeat([f"clip {number}" for number in range(40)], 10)
    assert fit_rate_model.fit(seen, ratio) == pytest.approx([1.5, 0.3, -0.2], abs=1e-3)
    assert fit_rate_model.left_out_error(seen, ratio, names) < 1e-3
    ratio[::40] += 8.0
    least_squares = np.linalg.lstsq(seen, ratio)[0]
    robust = fit_rate_model.fit(seen, ratio)
    assert abs(robust[0] - 1.5) < 0.3 * abs(least_squares[0] - 1.5)
