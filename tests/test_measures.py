"""All measures beside each other, evenness, and results by the kind of clip."""

import json
import statistics
from pathlib import Path

import bjontegaard
import numpy as np
import pandas as pd
import pytest

from vpxrc import EncoderOptions, video_from_frames
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.evaluation.axes import (
    AXES,
    Axis,
    clip_axes,
    counts_by_axis,
    first_pass_axes,
    results_by_axis,
    results_by_clip,
)
from vpxrc.evaluation.comparison import compare, read_study
from vpxrc.evaluation.result import Evaluation
from vpxrc.evaluation.tables import bd_rate_figures, compare_curves, evenness_means, table
from vpxrc.media.frames import frame_bytes
from vpxrc.quality import BALANCED, QUALITIES, evenness

RESULTS = Path(__file__).parents[1] / "docs" / "results"
AGENT, BASELINE = "imitation", "libvpx-vbr"
WIDTH, HEIGHT = 96, 80


@pytest.fixture(scope="module")
def stored():
    """A study that was made before evenness and the first pass's figures were stored."""
    return read_study(RESULTS / "imitation-eval")


@pytest.fixture(scope="module")
def comparisons(stored):
    return compare_curves(stored.encodes, [(AGENT, BASELINE)], list(QUALITIES))


# All measures


def test_balanced_is_the_mean_of_what_the_bjontegaard_package_says(stored, comparisons):
    found = comparisons[comparisons["metric"] == BALANCED].set_index("clip")["percent"]
    assert len(found) == 9
    curves = dict(list(stored.encodes.groupby(["policy", "clip"])))
    for clip, percent in found.items():
        mine, theirs = (curves[policy, clip].sort_values("bitrate") for policy in (AGENT, BASELINE))
        expected = [
            bjontegaard.bd_rate(
                *(theirs[name].to_numpy() for name in ("bitrate", quality)),
                *(mine[name].to_numpy() for name in ("bitrate", quality)),
                method="pchip",
                require_matching_points=False,
                min_overlap=0,
            )
            for quality in ("psnr", "psnr_overall", "ssim", "vmaf")
        ]
        assert percent == pytest.approx(sum(expected) / 4, rel=1e-9)


def test_balanced_needs_all_four(stored):
    three = compare_curves(stored.encodes, [(AGENT, BASELINE)], ["psnr", "psnr_overall", "ssim"])
    assert BALANCED not in set(three["metric"])
    flat = stored.encodes.assign(vmaf=90.0)
    none = compare_curves(flat, [(AGENT, BASELINE)], list(QUALITIES))
    balanced = none[none["metric"] == BALANCED]
    assert balanced["percent"].isna().all()
    assert set(balanced["status"]) == {"not-monotonic"}


def test_the_worst_clip_stands_beside_the_mean(stored, comparisons):
    rows = comparisons[comparisons["metric"] == "ssim"].reset_index(drop=True)
    worst = max(rows.to_dict("records"), key=lambda row: row["percent"])
    figures = bd_rate_figures(rows)
    assert (figures["worst"], figures["worst_clip"]) == (worst["percent"], worst["clip"])
    # A clip without a BD-rate is not the worst.
    rows.loc[rows["clip"] == worst["clip"], ["percent", "status"]] = [np.nan, "no-overlap"]
    assert bd_rate_figures(rows)["worst_clip"] not in (None, worst["clip"])

    text = table(Evaluation(Path(), stored.summary, stored.encodes, pd.DataFrame(), comparisons))
    line = next(line for line in text.splitlines() if line.startswith(f"| {AGENT} | {BASELINE}"))
    cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
    for cell, quality in zip(cells[2:], [BALANCED, *QUALITIES], strict=False):
        percents = comparisons[comparisons["metric"] == quality]["percent"]
        assert cell.startswith(f"{percents.mean():+.2f} ({percents.max():+.2f}) [")
    balanced = comparisons[comparisons["metric"] == BALANCED]
    assert cells[-1] == balanced.loc[balanced["percent"].astype(float).idxmax(), "clip"]
    assert "worst twentieth" not in text  # nothing of what the study does not have


def test_older_studies_are_still_compared():
    found = compare([RESULTS / "layered-eval", RESULTS / "imitation-eval"])
    words = json.loads(json.dumps(found.to_json()))
    assert words["evenness"] == {}
    four = [words["bd_rate"][0][quality]["mean"] for quality in QUALITIES]
    assert words["bd_rate"][0][BALANCED]["mean"] == pytest.approx(sum(four) / 4)


# Evenness


@pytest.mark.parametrize(("count", "worst"), [(1, 1), (19, 1), (20, 1), (21, 2), (40, 2)])
def test_evenness_by_hand(count, worst):
    values = np.random.default_rng(count).uniform(0.5, 1, count).tolist()
    found = evenness(pd.DataFrame({"ssim": values}))
    assert found["ssim_std"] == pytest.approx(statistics.pstdev(values))
    assert found["ssim_worst"] == pytest.approx(statistics.mean(sorted(values)[:worst]))


def test_evenness_needs_ssim():
    assert evenness(pd.DataFrame({"psnr_y": [30.0]})) == {}


def test_evenness_is_compared_at_targets_that_all_policies_have():
    def encode(policy, target, ssim, std=0.1):
        row = {"policy": policy, "clip": "a", "target_bitrate": target, "ssim": ssim}
        return {**row, "ssim_std": std, "ssim_worst": ssim - 0.2}

    rows = [encode("ours", 10, 0.8), encode("ours", 20, 0.9), encode("theirs", 20, 0.7)]
    found = evenness_means(pd.DataFrame(rows))
    assert found["ssim"].to_dict() == {"ours": 0.9, "theirs": 0.7}
    assert found["ssim_worst"].to_dict() == pytest.approx({"ours": 0.7, "theirs": 0.5})
    # The encodes of an older study have no such figures, and do not take part.
    old = [encode("old", 20, 0.7, std=np.nan), encode("old", 30, 0.7)]
    pd.testing.assert_frame_equal(evenness_means(pd.DataFrame(rows + old)), found)
    assert evenness_means(pd.DataFrame([encode("ours", 10, 0.8), encode("theirs", 20, 0.8)])).empty


# Kinds of clips


def video(luma):
    """Return a clip with this luma, float ``[num_frames, height, width]``, and grey chroma."""
    frames = np.full((len(luma), frame_bytes(WIDTH, HEIGHT)), 128, np.uint8)
    frames[:, : WIDTH * HEIGHT] = np.clip(luma.round(), 0, 255).reshape(len(luma), -1)
    return video_from_frames(frames, WIDTH, HEIGHT, 25)


def figures(luma):
    made = video(luma)
    table = first_pass_table(first_pass_stats(made, EncoderOptions()))
    return first_pass_axes(table, WIDTH, HEIGHT)


def test_the_first_pass_tells_clips_apart():
    rng = np.random.default_rng(0)
    texture = rng.normal(128, 20, (HEIGHT, WIDTH + 60))
    still = figures(np.repeat(texture[None, :, :WIDTH], 20, axis=0))
    assert still["still_share"] == pytest.approx(1, abs=0.01)
    assert still["cuts"] == 0
    panned = figures(np.stack([texture[:, 2 * n : 2 * n + WIDTH] for n in range(20)]))
    assert panned["still_share"] < 0.1
    noise = figures(rng.normal(128, 12, (20, HEIGHT, WIDTH)))
    # A flat prediction of noise is off by its standard deviation.
    assert noise["complexity"] == pytest.approx(12, rel=0.1)
    assert still["complexity"] < 0.5 * noise["complexity"]
    scenes = rng.normal(128, 30, (3, HEIGHT // 8, WIDTH // 8)).repeat(8, axis=1).repeat(8, axis=2)
    assert figures(np.repeat(scenes, 20, axis=0))["cuts"] == 2


def test_a_bound_belongs_to_the_range_above_it():
    axis = Axis("fps", "frames per second", (20, 40.5))
    assert axis.ranges == ["below 20", "20 to 40.5", "40.5 or more"]
    found = axis.range_of(pd.Series([19.99, 20.0, 40.49, 40.5], index=list("abcd")))
    assert found.to_dict() == dict(zip("abcd", [axis.ranges[n] for n in (0, 1, 1, 2)], strict=True))
    assert all(list(one.edges) == sorted(one.edges) for one in AXES)


CLIPS = pd.DataFrame(
    [
        {"clip": "small", "width": 176, "height": 144, "fps": 10.0, "num_frames": 30},
        {"clip": "large", "width": 640, "height": 360, "fps": 30.0, "num_frames": 300},
        {"clip": "other", "width": 640, "height": 360, "fps": 30.0, "num_frames": 300},
    ]
)


def test_axes_by_hand():
    encodes = CLIPS.merge(pd.DataFrame({"target_bitrate": [50, 200]}), how="cross")
    encodes = encodes.assign(still_share=0.5, cuts=2, complexity=7.0)
    found = clip_axes(encodes)
    assert found.columns.tolist() == [axis.name for axis in AXES]
    assert found["pixels"].to_dict() == {"small": 25344, "large": 230400, "other": 230400}
    assert found.loc["small", "bits_per_pixel"] == pytest.approx(100e3 / (25344 * 10))
    assert found.loc["small", "cuts_per_minute"] == pytest.approx(40)  # 2 in 3 seconds
    # What is not known of every clip is left out, and so is what no study has.
    partly = encodes.assign(complexity=encodes["complexity"].where(encodes["clip"] != "small"))
    assert "complexity" not in clip_axes(partly)
    assert clip_axes(CLIPS).columns.tolist() == ["pixels", "fps", "num_frames"]
    counts = counts_by_axis(clip_axes(CLIPS))
    assert counts.groupby("axis")["clips"].sum().tolist() == [3, 3, 3]
    sizes = counts[counts["axis"] == "luma samples per frame"]
    assert sizes["clips"].tolist() == [1, 0, 2, 0]


def rows_of(text):
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines()]


def test_results_by_axis_by_hand():
    values = {"small": 5.0, "large": -8.0, "other": -3.0}
    judged = pd.DataFrame(
        [
            {"test": "a", "anchor": "b", "clip": clip, "metric": metric, "percent": percent}
            for clip, value in values.items()
            for metric, percent in (("psnr", 99.0), (BALANCED, value))
        ]
    ).assign(status="ok", overlap=1.0)
    heading, _, *rows = rows_of(results_by_axis(CLIPS, judged))
    assert heading == ["axis", "range", "clips", "a against b"]
    assert rows[0] == ["luma samples per frame", "below 50000", "1", "+5.0 (+5.0)"]
    assert rows[1] == ["luma samples per frame", "120000 to 240000", "2", "-5.5 (-3.0)"]
    assert len(rows) == 6
    large = judged["clip"] == "large"
    judged["percent"] = judged["percent"].where(large)
    judged["status"] = judged["status"].where(large, "no-overlap")
    rows = rows_of(results_by_axis(CLIPS, judged))[2:]
    assert [row[3] for row in rows[:2]] == ["none", "-8.0 (-8.0) n=1"]
    by_clip = rows_of(results_by_clip(CLIPS, judged))
    assert by_clip[2:] == [
        ["small", "25344", "10", "30", "none"],
        ["large", "230400", "30", "300", "-8.0"],
        ["other", "230400", "30", "300", "none"],
    ]
