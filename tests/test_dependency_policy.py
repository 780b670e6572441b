"""The policy ``dependency``: what the model says is what is decided, and the budget is met."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_video

from vpxrc import EncoderOptions, encode, make_policy, video_from_frames
from vpxrc.agents.teacher.trajectory import Record
from vpxrc.datasets import load_clips
from vpxrc.encoder.quantizer import LOG2_STEP, nearest_q
from vpxrc.errors import InputError
from vpxrc.media.frames import frame_bytes
from vpxrc.policies.dependency import DependencyPolicy
from vpxrc.policies.step_models import DependencyParameters, StepModel, Steps

FIT = Path(__file__).parents[1] / "benchmarks" / "fit_dependency.json"
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


def changed(**values):
    parameters = dataclasses.replace(DependencyParameters(), **values)
    return DependencyPolicy(parameters=parameters)


def test_the_defaults_are_what_the_fit_found():
    best = json.loads(FIT.read_text())["best"]
    assert best == dataclasses.asdict(DependencyParameters())


def test_stored_studies_name_it_tpl():
    assert type(make_policy("tpl")) is type(make_policy("dependency")) is DependencyPolicy


def test_it_takes_no_argument():
    with pytest.raises(InputError, match=r"^policy 'dependency:fine': "):
        make_policy("dependency:fine")


@pytest.mark.parametrize("target", [50, 100])
def test_the_bitrate_is_met_in_one_encode(target):
    video = sample("carphone", 120)
    log = encode(video, EncoderOptions(target_bitrate=target), make_policy("dependency"))
    assert log.encodes == 1
    assert abs(log.overshoot) < 0.08
    assert log.options.auto_alt_ref == 6


def test_what_much_depends_on_is_coded_finer():
    policy = DependencyPolicy()
    on_still = encode(still(), EncoderOptions(target_bitrate=40), policy)
    on_noise = encode(noise(), EncoderOptions(target_bitrate=400), policy)
    assert key_below_leaves(on_still) > 1.0
    assert abs(key_below_leaves(on_noise)) < 0.2


@pytest.mark.parametrize(
    ("moves", "follows_budget", "is_one"),
    [({"group_move": 1e-9, "max_move": 1e-9}, True, True), ({}, False, True), ({}, True, False)],
)
def test_without_strength_the_base_alone_moves_frames(moves, follows_budget, is_one):
    flat = dataclasses.replace(
        DependencyParameters(),
        key_strength=0.0,
        arf_strength=0.0,
        inner_strength=0.0,
        leaf_strength=0.0,
        complexity=0.0,
        **moves,
    )
    policy = DependencyPolicy(parameters=flat, follows_budget=follows_budget)
    log = encode(sample("carphone", 60), EncoderOptions(target_bitrate=80), policy)
    coded = log.records[log.records["is_shown_again"] == 0]
    assert (len(np.unique(coded["q_index"])) == 1) == is_one


def test_what_a_step_model_says_is_what_is_decided():
    class Given(StepModel):
        """Leaves at q index 100, all other frames an octave below, at twice the lambda."""

        training_clips = frozenset({"a clip"})

        def steps(self, group):
            seen.append(group)
            count = len(group.coded)
            return Steps(
                step=np.where(group.update_type == LEAF, 0.0, 1.0),
                bits=np.full(count, 1e4),
                log2_lambda=np.ones(count),
                wanted=float(LOG2_STEP[100]),
                trust=1.0,
            )

    seen: list[Any] = []
    parameters = dataclasses.replace(DependencyParameters(), complexity=0.0)
    policy = DependencyPolicy(steps=Given(), parameters=parameters, follows_budget=False)
    assert policy.training_clips == {"a clip"}
    recorder = Record(policy)
    log = encode(sample("carphone", 60), EncoderOptions(target_bitrate=80), recorder)
    coded = log.records[log.records["is_shown_again"] == 0]
    modelled = np.isin(coded["group_index"], [group.index for group in seen])
    expected = np.where(coded["update_type"] == LEAF, 100, nearest_q(LOG2_STEP[100] - 1))
    assert (coded["q_index"] == expected)[modelled].all()
    is_twice = [decision.lambda_scale == 2.0 for decision in recorder.decisions]
    assert all(np.array(is_twice)[modelled])
    # The views, in order: the first group as often as its base may need.
    assert [group.index for group in seen[:4]] == [0, 0, 0, 1]
    assert [group.base for group in seen[1:]] == [LOG2_STEP[100]] * len(seen[1:])
    for group in seen:
        rows = coded[coded["group_index"] == group.index]
        is_again = len(group.coded) > len(rows)  # the overlay: its ARF was shown again
        assert group.opens_with_overlay or not is_again
        for name in ("group_position", "update_type", "show_index"):
            mine = group.coded if name == "group_position" else getattr(group, name)
            np.testing.assert_array_equal(rows[name], mine[int(is_again) :])
        before = coded[coded["group_index"] < group.index]
        assert (before["show_index"] <= group.last).all()
        assert group.spent == group.records["bits"].sum() >= before["bits"].sum()
        assert group.target_bits == 1000 * 80 * log.clip.duration * (1 - parameters.margin)
    np.testing.assert_array_equal(seen[2].usual, np.where(seen[2].update_type == LEAF, 0.0, 1.0))


def test_levers_change_the_stream():
    video, options = sample("carphone", 40), EncoderOptions(target_bitrate=80)
    own = encode(video, options, DependencyPolicy())
    for change in (
        {"superblock_strength": 0.0},
        {"leaf_lambda": 1.7},
        {"version": "source"},
        {"tail": 0},
    ):
        other = encode(video, options, changed(**change))
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
    video = video_from_frames(frames, 64, 64, 25, name="grey")
    log = encode(video, EncoderOptions(target_bitrate=50), DependencyPolicy())
    assert log.psnr > 50
