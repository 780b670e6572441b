"""``vpxrc encode --target``: the search over bitrates, and files whose quality ffmpeg measures."""

import itertools
import json
import math
import re
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from test_encode import QUICK, complaint, facts, run

from vpxrc.encoder.types import FIRST_PASS_FIELDS
from vpxrc.errors import InputError
from vpxrc.media.frames import ClipFormat
from vpxrc.transcoding.target import QualityTarget, Try, chosen, first_bitrate, next_bitrate

ROOT = Path(__file__).parents[1]
VMAF = QualityTarget("vmaf", 90)


def tries(*points):
    """Tries at (bitrate, score) pairs."""
    return [Try(bitrate, float(bitrate), score, 1) for bitrate, score in points]


def searched(target, score_at, start, most=30):
    """All tries of a search over a curve; ``score_at`` gives the score at a bitrate in kbit/s."""
    found = tries((start, score_at(start)))
    while len(found) < most and (bitrate := next_bitrate(target, found)) is not None:
        assert 1 <= bitrate <= 2_000_000
        assert bitrate not in [one.target_bitrate for one in found]
        found += tries((bitrate, score_at(bitrate)))
    return found


# The target


def test_targets_are_read_as_they_are_written():
    assert QualityTarget.parse("vmaf=90") == VMAF
    assert str(QualityTarget.parse("psnr_overall=40.5")) == "overall PSNR 40.5 dB"
    assert QualityTarget("ssim", 0.98).in_words(0.98012) == "SSIM 0.9801"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("93", "a target is QUALITY=SCORE as in vmaf=93, not '93'"),
        ("vmaf=high", "a target is QUALITY=SCORE as in vmaf=93, not 'vmaf=high'"),
        ("mos=4", "unknown quality 'mos': choose from vmaf, ssim, psnr, psnr_overall"),
        ("vmaf=0", "vmaf is above 0 and at most 100, not 0"),
        ("vmaf=nan", "vmaf is above 0 and at most 100, not nan"),
        ("ssim=98", "ssim is above 0 and at most 1, not 98"),
        ("psnr=101", "psnr is above 0 and at most 100, not 101"),
    ],
)
def test_bad_targets(text, words):
    with pytest.raises(InputError, match=re.escape(words)):
        QualityTarget.parse(text)


def test_decibels_are_the_distance_from_perfection():
    assert VMAF.decibels(90) == pytest.approx(10)
    assert VMAF.decibels(99) == pytest.approx(20)
    assert QualityTarget("ssim", 0.9).decibels(0.999) == pytest.approx(30)
    assert QualityTarget("psnr", 40).decibels(37.5) == 37.5
    assert math.isfinite(VMAF.decibels(100))


def test_a_score_meets_its_target_from_above():
    assert [VMAF.is_met(score) for score in (89.99, 90, 90.3, 90.31)] == [False, True, True, False]
    assert [VMAF.is_close(score) for score in (89.69, 89.71)] == [False, True]


# The search


def test_the_first_bitrate_is_the_rule_by_hand():
    stats = np.zeros((11, len(FIRST_PASS_FIELDS)))
    stats[:, FIRST_PASS_FIELDS.index("coded_error")] = 1023
    stats[:, FIRST_PASS_FIELDS.index("intra_error")] = 4095
    clip = ClipFormat("clip", 320, 180, Fraction(25), 11, "")
    decibels = -10 * math.log10((100 - 90.15) / 100)
    octaves = np.dot(VMAF.start, (1, decibels, 10, 12))
    assert first_bitrate(VMAF, clip, stats) == round(2**octaves * 320 * 180 * 25 / 1000)
    assert first_bitrate(VMAF, replace(clip, width=16, height=16), stats) >= 1
    # No first guess is above a bit per pixel: libvpx may fail where frames are larger than raw.
    assert first_bitrate(QualityTarget("psnr", 100), clip, stats) == 1440


def test_the_rule_is_the_fitted_one():
    table = (ROOT / "docs/results/quality-target/start/table.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", table, re.MULTILINE)
    assert [name for name, _ in rows] == ["vmaf", "ssim", "psnr", "psnr_overall"]
    for name, cells in rows:
        fitted = [float(cell) for cell in cells.split("|")]
        assert QualityTarget(name, 1).start == pytest.approx(fitted[:4])


@pytest.mark.parametrize("slope", [1.3, 2.5, 4.5])  # decibels per octave
@pytest.mark.parametrize("start", [40, 400, 4000])
@pytest.mark.parametrize("bend", [0.0, 0.15])
def test_a_smooth_curve_takes_few_encodes(slope, start, bend):
    def score_at(bitrate):
        octaves = math.log2(bitrate / 400)
        return 100 - 100 * 10 ** (-(slope * octaves - bend * octaves**2 + 10) / 10)

    found = searched(VMAF, score_at, start)
    assert VMAF.is_met(found[-1].score)
    assert chosen(VMAF, found) == len(found) - 1
    assert len(found) <= 7


@pytest.mark.parametrize("seed", range(20))
def test_a_search_ends_where_chance_moves_the_score(seed):
    noise = np.random.default_rng(seed).normal(0, 0.5, 2_000_001)

    def score_at(bitrate):
        return 30 + 10 * math.log2(bitrate) / 1.2 + noise[bitrate]

    target = QualityTarget("psnr", 77)
    found = searched(target, score_at, 17)
    assert len(found) < 30
    kept = chosen(target, found)
    assert kept is not None
    assert found[kept].score >= 77


def test_bitrates_are_whole_kilobits():
    found = searched(QualityTarget("psnr", 40), lambda bitrate: 10.0 * bitrate + 1, 9)
    assert found[-1].target_bitrate in (3, 4)
    assert {one.target_bitrate for one in found} >= {3, 4}  # 31 and 41 dB: none is nearer
    kept = chosen(QualityTarget("psnr", 40), found)
    assert kept is not None
    assert found[kept].target_bitrate == 4


def test_nothing_is_sought_beyond_what_a_policy_spends():
    asked = QualityTarget("vmaf", 99)
    constant = [Try(rate, 312.5, 95.0, 1) for rate in (200, 400)]
    assert next_bitrate(asked, constant) is None
    assert chosen(asked, constant) is None
    assert next_bitrate(QualityTarget("vmaf", 80), constant) is None
    assert chosen(QualityTarget("vmaf", 80), constant) == 0
    assert next_bitrate(asked, tries((2_000_000, 90))) is None
    assert next_bitrate(QualityTarget("vmaf", 80), tries((1, 90))) is None


def test_steps_are_bounded_and_lead_towards_the_target():
    for score in (1.0, 50.0, 89.9999, 90.4, 99.0, 100.0):
        moved = next_bitrate(VMAF, tries((1000, score)))
        assert moved is not None
        assert 250 <= moved <= 4000
        assert (moved > 1000) == (score < 90)
    # Between two tries, away from both, also where both are perfect.
    for low, high in itertools.product((80.0, 89.99), (90.31, 100.0)):
        moved = next_bitrate(VMAF, tries((100, low), (1000, high)))
        assert moved is not None
        assert 120 <= moved <= 800
    perfect = QualityTarget("vmaf", 100)
    assert next_bitrate(perfect, tries((100, 99.999), (110, 100.0))) is None
    assert next_bitrate(QualityTarget("vmaf", 99.9), tries((100, 99.5), (101, 100.0))) is None


def test_the_fewest_bits_that_reach_the_target_are_kept():
    found = tries((100, 80), (300, 95), (200, 91), (150, 89.9))
    assert chosen(VMAF, found) == 2
    assert chosen(VMAF, tries((100, 80), (150, 89.9))) == 1  # close, and none reaches it
    assert chosen(VMAF, tries((100, 80), (150, 89.6))) is None


# Files


def scores_by_ffmpeg(path, source, metric):
    """The mean over frames of a filter's luma values, of a file against its source."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "info", "-i", path, "-i", source]
    same = ";".join(f"[{i}:v]settb=1/25,setpts=N[v{i}]" for i in (0, 1))
    log = "ssim.log" if metric == "ssim" else "psnr.log"
    command += ["-lavfi", f"{same};[v0][v1]{metric}=stats_file={log}", "-f", "null", "-"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=path.parent)
    pattern = r" Y:(\S+)" if metric == "ssim" else r"psnr_y:(\S+)"
    return np.mean([float(value) for value in re.findall(pattern, (path.parent / log).read_text())])


@pytest.mark.parametrize(
    ("quality", "score", "tolerance"), [("psnr", 34, 0.1), ("ssim", 0.95, 0.0005)]
)
def test_the_file_has_the_quality_asked_for(scenes_file, tmp_path, quality, score, tolerance):
    output = tmp_path / "out.webm"
    found = facts(scenes_file, "-o", output, "--target", f"{quality}={score}", *QUICK)
    assert found["score"] == pytest.approx(
        scores_by_ffmpeg(output, scenes_file, quality), abs=0.005 if quality == "psnr" else 1e-5
    )
    assert found["target"] == f"{quality}={score}"
    rates = sorted(one["target_bitrate"] for one in found["tries"])
    kept = next(one for one in found["tries"] if one["bitrate"] == found["bitrate"])
    assert kept["score"] == found["score"] >= score
    # 80 frames at few kbit/s: the next lower bitrate may lie between.
    skipped = kept["target_bitrate"] - 1 in rates
    assert found["score"] <= score + tolerance or skipped
    assert found["encodes"] == len(found["tries"]) <= 8
    assert found["target_bitrate"] is None


def test_in_chunks_the_whole_is_measured(scenes_file, tmp_path):
    output = tmp_path / "out.webm"
    options = ("--target", "ssim=0.94", "--chunk", 0.9, *QUICK)
    found = facts(scenes_file, "-o", output, *options, "--jobs", 1)
    assert len(found["chunks"]) > 1
    assert found["score"] >= 0.94
    expected = scores_by_ffmpeg(output, scenes_file, "ssim")
    assert found["score"] == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_reached_says_so(scenes_file, tmp_path):
    options = ("-o", tmp_path / "out.webm", "--cpu-used", 8)
    words = complaint(scenes_file, *options, "--policy", "constant-q:200", "--target", "psnr=60")
    assert re.search(r"scenes: PSNR 60 dB cannot be reached: the best is PSNR \d+\.\d\d dB", words)
    words = complaint(scenes_file, *options, *QUICK, "--target", "psnr=60", "--max-encodes", 1)
    assert "PSNR 60 dB cannot be reached within 1 encode(s): the best is PSNR" in words
    assert not list(tmp_path.iterdir())


def test_the_result_in_words(scenes_file, tmp_path):
    words = run(scenes_file, "-o", tmp_path / "out.ivf", "--target", "psnr=30", *QUICK)
    assert re.search(r"kbit/s, PSNR 3\d\.\d\d dB \(30 asked for\), .* encode\(s\)", words)
    assert "scores at bitrates in kbit/s: " in words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--target", "vmaf=93", "-b", 60), "give one of -b KBIT, --size MB and --target"),
        (("--target", "vmaf=93", "--size", 1), "give one of -b KBIT, --size MB and --target"),
        (("--target", "vmaf"), "a target is QUALITY=SCORE"),
        (("--target", "vmaf=930"), "at most 100"),
        (("--target", "vmaf=93", "--max-encodes", 0), "--max-encodes"),
    ],
)
def test_bad_options(scenes_file, tmp_path, options, words):
    assert words in complaint(scenes_file, "-o", tmp_path / "out.webm", *options)
    assert not list(tmp_path.iterdir())


def test_figures_of_other_goals_have_no_tries(scenes_file, tmp_path):
    found = json.loads(run(scenes_file, "-o", tmp_path / "a.ivf", "-b", 60, *QUICK, "--json"))
    assert (found["score"], found["tries"], found["target"]) == (None, [], None)
    assert found["encodes"] == 1
