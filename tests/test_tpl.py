"""The policy ``tpl``: what the model says is what is decided, and the budget is met."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_video

from vpxrc import EncoderOptions, encode, make_policy, video_from_frames
from vpxrc.datasets import load_clips
from vpxrc.encoder.quantizer import LOG2_STEP
from vpxrc.media.frames import frame_bytes
from vpxrc.policies.dependency import DependencyParameters, DependencyPolicy

FIT = Path(__file__).parents[1] / "benchmarks" / "fit_tpl.json"
KEY, LEAF = 0, 1


def sample(name, num_frames):
    (clip,) = (clip for clip in load_clips("samples") if clip.name == name)
    return dataclasses.replace(clip, num_frames=num_frames).open()


def still(num_frames=40, width=96, height=80):
    """One picture, with the noise of a good camera."""
    rng = np.random.default_rng(3)
    picture = rng.integers(60, 180, frame_bytes(width, height))
    noise = rng.integers(-1, 2, (num_frames, frame_bytes(width, height)))
    frames = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return video_from_frames(frames, width, height, 25, name="still")


def noise(num_frames=40, width=96, height=80):
    frames = np.random.default_rng(4).integers(
        0, 256, (num_frames, frame_bytes(width, height)), dtype=np.uint8
    )
    return video_from_frames(frames, width, height, 25, name="noise")


def key_below_leaves(log):
    """In the first group, within which the base stays where it is; log2 of the quantiser step."""
    first = log.records[(log.records["is_shown_again"] == 0) & (log.records["group_index"] == 0)]
    step = LOG2_STEP[first["q_index"]]
    return step[first["update_type"] == LEAF].mean() - step[first["update_type"] == KEY].mean()


def test_the_defaults_are_what_the_fit_found():
    best = json.loads(FIT.read_text())["best"]
    assert best == dataclasses.asdict(DependencyParameters())


@pytest.mark.parametrize("target", [50, 100])
def test_the_bitrate_is_met_in_one_encode(target):
    video = sample("carphone", 120)
    log = encode(video, EncoderOptions(target_bitrate=target), make_policy("tpl"))
    assert log.encodes == 1
    assert abs(log.overshoot) < 0.08
    assert log.options.auto_alt_ref == 6


def test_what_much_depends_on_is_coded_finer():
    policy = DependencyPolicy()
    on_still = encode(still(), EncoderOptions(target_bitrate=40), policy)
    on_noise = encode(noise(), EncoderOptions(target_bitrate=400), policy)
    assert key_below_leaves(on_still) > 1.0
    assert abs(key_below_leaves(on_noise)) < 0.2


def test_without_strength_all_frames_are_alike():
    flat = dataclasses.replace(
        DependencyParameters(),
        **dict.fromkeys(("key_strength", "arf_strength", "inner_strength", "leaf_strength"), 0.0),
        complexity=0.0,
        group_move=1e-9,
        max_move=1e-9,
    )
    log = encode(sample("carphone", 60), EncoderOptions(target_bitrate=80), DependencyPolicy(flat))
    coded = log.coded
    assert len(np.unique(coded["q_index"])) == 1


def test_levers_change_the_stream():
    video, options = sample("carphone", 40), EncoderOptions(target_bitrate=80)
    own = encode(video, options, DependencyPolicy())
    for change in (
        {"superblock_strength": 0.0},
        {"leaf_lambda": 1.7},
        {"version": "source"},
        {"tail": 0},
    ):
        other = encode(
            video, options, DependencyPolicy(dataclasses.replace(DependencyParameters(), **change))
        )
        assert other.stream != own.stream, change
    assert encode(video, options, DependencyPolicy()).stream == own.stream


@pytest.mark.parametrize(
    "video",
    [make_video(num_frames=2), make_video(width=17, height=16), make_video(num_frames=30)],
    ids=["two frames", "a block and a column", "a cut"],
)
def test_odd_clips(video):
    log = encode(video, EncoderOptions(target_bitrate=60), DependencyPolicy())
    assert np.isfinite(log.psnr)


def test_a_clip_that_opens_with_one_blank_frame():
    """libvpx codes it as a group of its own, before anything is known of the film."""
    video = make_video(num_frames=40, width=96, height=80)
    frames = video.frames.copy()
    frames[0] = 16
    opened = video_from_frames(frames, 96, 80, 30, name="blank first")
    log = encode(opened, EncoderOptions(target_bitrate=300), DependencyPolicy())
    assert log.overshoot < 0.3


def test_a_mean_that_is_all_zero():
    """A clip without any error in its first pass: nothing to divide by."""
    frames = np.full((30, frame_bytes(64, 64)), 128, np.uint8)
    log = encode(
        video_from_frames(frames, 64, 64, 25, name="grey"),
        EncoderOptions(target_bitrate=50),
        DependencyPolicy(),
    )
    assert log.psnr > 50
