"""Regions of interest in the environments and in studies: formulas by hand on ffmpeg's frames."""

import dataclasses
import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import in_this_process, make_video
from PIL import Image
from typer.testing import CliRunner

from vpxrc import (
    Decision,
    EncoderOptions,
    InputError,
    Policy,
    RegionOfInterest,
    cli,
    encode,
    make_policy,
)
from vpxrc.envs.region import region_of
from vpxrc.evaluation import study
from vpxrc.media.decoding import decode_vp9
from vpxrc.media.frames import write_y4m
from vpxrc.policies import LibvpxVbr
from vpxrc.quality import region_quality, weighted_psnr

WIDTH, HEIGHT, WEIGHT = 64, 48, 9.0
OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=8)


@pytest.fixture(scope="module")
def clip():
    return make_video(WIDTH, HEIGHT, 6)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[16:32, 8:40] = True
    return mask


class Constant(Policy):
    def decide(self, frame):
        return Decision(110)


def squares(log, video):
    """Squared errors of the luma that ffmpeg decodes, ``[num_frames, height, width]``."""
    frames = decode_vp9(log.stream, video.width, video.height).astype(float) - video.frames
    return frames[:, : video.width * video.height].reshape(-1, video.height, video.width) ** 2


def level(errors):
    return 10 * np.log10(255**2 / errors)


def weighted(log, video, masks):
    """PSNR of (R * errors inside + errors outside) / (R * pixels inside + pixels outside)."""
    values = []
    for error, mask in zip(
        squares(log, video),
        np.broadcast_to(masks, (*video.frames.shape[:1], video.height, video.width)),
        strict=True,
    ):
        total = WEIGHT * error[mask].sum() + error[~mask].sum()
        values.append(level(total / (WEIGHT * mask.sum() + (~mask).sum())))
    return float(np.mean(values))


def make(clip, roi, name="vpxrc/RateControl-v2", **arguments) -> gymnasium.Env[Any, Any]:
    settings = {"target_bitrate": 60, "cpu_used": 8, "roi": roi, "roi_weight": WEIGHT}
    return gymnasium.make(name, clips=[clip], **(settings | arguments))


def play(env, action: Any = 110):
    """The rewards of an episode, and its log."""
    env.reset(seed=1)
    rewards, over = [], False
    while not over:
        _, reward, over, _, _ = env.step(action)
        rewards.append(reward)
    return rewards, env.unwrapped.log


def test_psnr_is_weighted_and_decisions_have_the_region(clip, mask):
    rewards, log = play(make(clip, mask, reward="psnr"))
    assert log.stream == encode(clip, OPTIONS, RegionOfInterest(Constant(), mask, WEIGHT)).stream
    assert log.stream != encode(clip, OPTIONS, Constant()).stream
    assert rewards[:-1] == [0] * (len(rewards) - 1)
    assert rewards[-1] == pytest.approx(weighted(log, clip, mask), abs=1e-4)
    assert abs(rewards[-1] - log.psnr) > 0.01


def test_masks_of_each_frame(clip, mask):
    masks = np.stack([np.roll(mask, 4 * index, axis=1) for index in range(4)])
    rewards, log = play(make(clip, masks, reward="psnr"))
    every = masks[[0, 1, 2, 3, 3, 3]]
    policy = RegionOfInterest(Constant(), lambda index: every[index], WEIGHT)
    assert log.stream == encode(clip, OPTIONS, policy).stream
    assert rewards[-1] == pytest.approx(weighted(log, clip, every), abs=1e-4)


def test_the_reference_has_the_same_region(clip, mask):
    """``relative`` by hand: libvpx with the region at 32 and 64 kbit/s, all PSNRs weighted."""
    rewards, log = play(make(clip, mask))
    levels, bits = [], []
    for target in (32, 64):
        options = dataclasses.replace(OPTIONS, target_bitrate=target)
        other = encode(clip, options, RegionOfInterest(LibvpxVbr(), mask, WEIGHT))
        levels.append(weighted(other, clip, mask))
        bits.append(other.bits)
    distance = math.log2(bits[1] / bits[0])
    slope = 3.0 if distance < 0.1 else min(max((levels[1] - levels[0]) / distance, 3), 10)
    target_bits = 60_000 * clip.duration
    near = min((0, 1), key=lambda one: abs(math.log2(bits[one] / target_bits)))
    at_target = levels[near] + slope * math.log2(target_bits / bits[near])
    gain = (weighted(log, clip, mask) - at_target) / slope
    price = 4 * max(0, math.log2(log.bits / target_bits))
    assert sum(rewards) == pytest.approx(min(gain, 1) - price, abs=1e-4)
    plain, _ = play(gymnasium.make("vpxrc/RateControl-v2", clips=[clip], **asdict_of(OPTIONS)))
    assert sum(plain) != pytest.approx(sum(rewards), abs=1e-3)


def asdict_of(options):
    return {"target_bitrate": options.target_bitrate, "cpu_used": options.cpu_used}


@pytest.mark.parametrize("reward", ["gain", "lagrangian", "self-competition"])
def test_every_reward_sees_it(clip, mask, reward):
    rewards, log = play(make(clip, mask, reward=reward))
    assert rewards[:-1] == [0] * (len(rewards) - 1) and np.isfinite(rewards[-1])
    if reward == "lagrangian":
        assert rewards[-1] == pytest.approx(
            weighted(log, clip, mask) - 20 * max(0, log.overshoot), abs=1e-4
        )


class Lowest:
    """The PSNR of the worst frame, as ffmpeg's frames have it."""

    range = (0.0, 100.0)
    deterministic = True

    def of_video(self, log, video):
        return float(level(squares(log, video).mean(axis=(1, 2))).min())


def test_a_reward_of_ones_own_sees_the_video(clip, mask):
    for arguments in ({"roi": None, "roi_weight": None}, {"roi": mask}):
        rewards, log = play(make(clip, **({"reward": Lowest()} | arguments)))
        assert rewards[:-1] == [0] * (len(rewards) - 1)
        assert rewards[-1] == Lowest().of_video(log, clip)


def test_other_environments(clip, mask):
    rewards, log = play(make(clip, mask, "vpxrc/MORateControl-v0"))
    assert all(np.shape(one) == (2,) for one in rewards) and not np.any(rewards[:-1])
    np.testing.assert_allclose(
        rewards[-1], [weighted(log, clip, mask), -log.overshoot - 1], rtol=1e-6
    )
    base = {"base": "layered", "decisions": "frame", "reward": "psnr"}
    rewards, log = play(make(clip, mask, "vpxrc/ResidualRateControl-v1", **base), action=0)
    policy = RegionOfInterest(make_policy("layered"), mask, WEIGHT)
    assert log.stream == encode(clip, OPTIONS, policy).stream
    assert rewards[-1] == pytest.approx(weighted(log, clip, mask), abs=1e-4)


def test_batches_and_copies(clip, mask):
    env = make(clip, mask, reward="psnr")
    expected, _ = play(env)
    env.reset(seed=1)
    env.step(110)
    copied = pickle.loads(pickle.dumps(env.unwrapped))
    total = 0.0
    for _ in expected[1:]:
        total += copied.step(110)[1]
    assert total == sum(expected)
    arguments = {"clips": [clip], "roi": mask, "roi_weight": WEIGHT, "reward": "psnr"}
    batch = gymnasium.make_vec("vpxrc/RateControl-v2", 2, **arguments, **asdict_of(OPTIONS))
    batch.reset(seed=1)
    totals = np.zeros(2)
    for _ in expected:
        totals += batch.step(np.array([110, 110]))[1]
    assert totals.tolist() == [sum(expected)] * 2
    batch.close()


def test_one_meaning_in_python_json_and_files(mask, tmp_path):
    Image.fromarray(mask).save(tmp_path / "mask.png")
    forms = (
        mask,
        mask.astype(int),
        json.loads(json.dumps(mask.astype(int).tolist())),
        "box:8,16,32,16",
        ["box:8,16,16,16", "box:20,16,20,16"],
        str(tmp_path / "mask.png"),
        tmp_path / "mask.png",
    )
    for form in forms:
        region = region_of(form, None)
        assert region is not None and region.weight == 4
        np.testing.assert_array_equal(region.spec.mask(WIDTH, HEIGHT), mask)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"roi": 3}, "roi must be box:X,Y,W,H, a path, a list of these or a mask, not 3"),
        ({"roi": []}, "a region of interest has at least one box or mask"),
        ({"roi": ["box:8,8,8,8", 3]}, "roi must be box:X,Y,W,H, a path"),
        ({"roi": [[1, 0], [1]]}, "roi must be box"),
        ({"roi": b"box:8,8,8,8"}, "roi must be box"),
        ({"roi": np.full((HEIGHT, WIDTH), 0.5)}, "a mask has 1 or True inside the region"),
        ({"roi": np.ones(WIDTH, np.bool_)}, "roi must be box"),
        ({"roi": np.zeros((HEIGHT, WIDTH), np.bool_)}, "the region is empty"),
        ({"roi": np.ones((HEIGHT, WIDTH), np.bool_)}, "the region is the whole picture"),
        ({"roi": np.zeros((3, HEIGHT, WIDTH), np.bool_)}, "none of its masks has both"),
        ({"roi": np.tile(np.eye(HEIGHT, WIDTH), (7, 1, 1))}, "7 masks for a video of 6 frames"),
        ({"roi": np.eye(40)}, "clip made: roi: a mask of 40x40 does not have the shape"),
        ({"roi": "box:40,20,30,10"}, "clip made: box:40,20,30,10 reaches beyond the picture"),
        ({"roi": "box:0,0,64,48"}, "is the whole picture"),
        ({"roi": "none.png"}, "none.png: no such file"),
        ({"roi": "box:8,8,8,8", "roi_weight": 1}, "above 1 and at most 64, not 1"),
        ({"roi": "box:8,8,8,8", "roi_weight": "4"}, "roi_weight must be a finite number"),
        ({"roi": None}, "roi_weight goes with roi"),
    ],
)
def test_what_an_environment_refuses(clip, change, words):
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        make(clip, **({"roi": None} | change))
    assert "\n" not in str(raised.value)


def test_a_learned_codec_has_no_region(clip, tmp_path):
    codec = tmp_path / "codec.safetensors"
    codec.write_bytes(b"weights")
    with pytest.raises(InputError, match="roi needs the encoder vp9, not learned:"):
        make(clip, "box:8,8,8,8", encoder=f"learned:{codec}", cpu_used=4)


# Studies


def test_frames_without_a_region_are_left_out(clip, mask):
    masks = np.stack([mask, ~mask, mask & False, mask | True, mask, mask])
    noise = np.random.default_rng(0).integers(0, 9, clip.frames.shape, dtype=np.uint8)
    decoded = clip.frames + noise  # the samples of the clip end below 206
    squares = noise[:, : WIDTH * HEIGHT].astype(float).reshape(-1, HEIGHT, WIDTH) ** 2
    inside = [
        level(one[part].mean()) if part.any() else np.nan
        for one, part in zip(squares, masks, strict=True)
    ]
    np.testing.assert_allclose(weighted_psnr(decoded, clip, masks.__getitem__), inside)
    outside = [
        level(one[~part].mean()) for one, part in zip(squares, masks, strict=True) if not part.all()
    ]
    found = region_quality(decoded, clip, masks.__getitem__)
    assert found["roi_psnr"] == pytest.approx(np.nanmean(inside))
    assert found["background_psnr"] == pytest.approx(np.mean(outside))
    with pytest.raises(InputError, match="no frame has a region"):
        region_quality(decoded, clip, lambda index: masks[2])


@pytest.fixture
def command(clip, tmp_path, monkeypatch):
    """The command evaluate on the clip, in this process; returns its result."""
    monkeypatch.setattr(study, "open_workers", in_this_process)
    monkeypatch.chdir(tmp_path)
    write_y4m(clip, "clip.y4m")

    def run(*arguments, out="out", code=0):
        common = ("--agent", "constant-q:120", "--baseline", "libvpx-vbr", "--clips", "clip.y4m")
        more = ("--bitrates", "30,60,90,120", "--cpu-used", "8", "--jobs", "1", "--out", out)
        result = CliRunner().invoke(cli.app, ["evaluate", *common, *more, *arguments])
        assert result.exit_code == code, result.output
        return result

    return run


def test_a_study_measures_inside_and_outside(clip, mask, command):
    roi = ("--metrics", "psnr,roi_psnr", "--roi", "box:8,16,32,16")
    shown = command(*roi).stdout
    summary = json.loads(Path("out/summary.json").read_text())
    assert "PSNR inside" in shown and "PSNR outside" in shown and "known to no policy" in shown
    assert {"psnr", "roi_psnr", "background_psnr"} <= set(
        summary["baselines"]["libvpx-vbr"]["bd_rate"]
    )
    assert "PSNR inside" in Path("out/report.html").read_text()
    stored = {path.name: path.stat().st_mtime_ns for path in Path("out/encodes").iterdir()}
    rows = [json.loads(path.read_text()) for path in Path("out/encodes").glob("*.json")]
    assert len(rows) == 8
    for row in rows:
        (stream,) = (
            path
            for path in Path("out/encodes").glob("*.ivf")
            if json.loads(path.with_suffix(".json").read_text()) == row
        )
        luma = decode_vp9(stream, WIDTH, HEIGHT).astype(float) - clip.frames
        error = luma[:, : WIDTH * HEIGHT].reshape(-1, HEIGHT, WIDTH) ** 2
        for name, part in (("roi_psnr", mask), ("background_psnr", ~mask)):
            by_hand = level(error[:, part].mean(axis=1)).mean()
            assert row[name] == pytest.approx(by_hand, rel=1e-9)
    # The same command makes nothing again; another region and a weight make everything again.
    command(*roi)
    assert {p.name: p.stat().st_mtime_ns for p in Path("out/encodes").iterdir()} == stored
    shown = command(*roi, "--roi-weight", "9").stdout
    assert "known to every policy, with the weight 9" in shown
    assert len(list(Path("out/encodes").glob("*.json"))) == 16
    policy = RegionOfInterest(make_policy("constant-q:120"), mask, 9)
    options = EncoderOptions(target_bitrate=30, cpu_used=8)
    expected = encode(clip, options, policy).stream
    assert expected in [path.read_bytes() for path in Path("out/encodes").glob("*.ivf")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--metrics", "psnr,roi_psnr"), "the metric roi_psnr goes with a region"),
        (("--roi", "box:8,8,8,8"), "the metric roi_psnr goes with a region"),
        (("--roi-weight", "3"), "a weight (roi_weight) goes with a region"),
        (
            ("--metrics", "roi_psnr", "--roi", "box:8,8,8,8", "--roi-weight", "1"),
            "above 1 and at most 64",
        ),
        (("--metrics", "roi_psnr", "--roi", "box:60,8,8,8"), "clip: box:60,8,8,8 reaches beyond"),
        (("--metrics", "roi_psnr", "--roi", "none.png"), "none.png: no such file"),
    ],
)
def test_what_a_study_refuses(command, arguments, words):
    result = command(*arguments, code=2)
    (line,) = result.stderr.splitlines()
    assert words in line
    assert not Path("out").exists()
