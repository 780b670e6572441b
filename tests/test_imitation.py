"""The imitation agent: one network in two frameworks, and a policy that is its prior without it."""

import dataclasses
import json
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import make_video
from safetensors.numpy import save as save_tensors
from test_dependency_policy import noise, sample, still

from vpxrc import LOG2_STEP, EncoderOptions, UpdateType, encode, make_policy, video_from_frames
from vpxrc.agents.imitation.config import LearnerConfig
from vpxrc.agents.imitation.dataset import JITTER, GroupLesson, Lesson, observe
from vpxrc.agents.imitation.features import (
    DEPENDENCY_INPUTS,
    FIRST_PASS,
    FRAME,
    GROUP,
    Features,
    first_pass_features,
    group_features,
)
from vpxrc.agents.imitation.network import (
    FIRST_PASS_WIDTH,
    FORMAT,
    FRAME_WIDTH,
    GROUP_WIDTH,
    HEADS,
    HIDDEN,
    INNER,
    LIMITS,
    Network,
    inputs,
)
from vpxrc.agents.imitation.policy import PARAMETERS, PRIOR, imitation, imitation_prior
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory
from vpxrc.errors import InputError
from vpxrc.policies.dependency import DependencyPolicy
from vpxrc.policies.step_models import FixedSteps, StepModel

STATE = GROUP_WIDTH + HIDDEN
POOLED = 2 * FRAME_WIDTH + 3 * FIRST_PASS_WIDTH
SHAPES = {
    "first_pass": (FIRST_PASS_WIDTH, len(FIRST_PASS)),
    "frame": (FRAME_WIDTH, len(FRAME)),
    "group": (GROUP_WIDTH, len(GROUP) + POOLED),
    "inner": (INNER, len(FRAME) + FRAME_WIDTH + STATE),
    "heads": (len(HEADS), INNER),
    "excess": (1, STATE),
}
NORMALISED = {"first_pass": len(FIRST_PASS), "frame": len(FRAME), "group": len(GROUP)}
STILL_BASE = dataclasses.replace(PRIOR, group_move=1e-9, max_move=1e-9)


def random_member(rng, says_nothing=False):
    """Parameters of one member, some of the inputs' scales included."""
    values = {}
    for name, (out, given) in SHAPES.items():
        scale = (0.3 if name == "heads" else 1.5) / np.sqrt(given)  # within what tanh tells apart
        values[f"{name}.weight"] = rng.normal(0, scale, (out, given))
        values[f"{name}.bias"] = rng.normal(0, 0.2, out)
    for name, width in (("ih", GROUP_WIDTH), ("hh", HIDDEN)):
        values[f"recur.weight_{name}"] = rng.normal(0, 0.2, (3 * HIDDEN, width))
        values[f"recur.bias_{name}"] = rng.normal(0, 0.2, 3 * HIDDEN)
    for name, width in NORMALISED.items():
        values[f"{name}_mean"] = rng.normal(0, 0.3, width)
        values[f"{name}_gain"] = rng.uniform(0.5, 2, width)
    if says_nothing:
        values["heads.weight"] *= 0
        values["heads.bias"] *= 0
    return {name: value.astype(np.float32) for name, value in values.items()}


def together(*members):
    """Parameters as a checkpoint has them."""
    return {f"{at}.{name}": v for at, own in enumerate(members) for name, v in own.items()}


def random_parameters(rng, says_nothing=False, members=2):
    return together(*(random_member(rng, says_nothing) for _ in range(members)))


def checkpoint(parameters, **changed):
    metadata = {"format": str(FORMAT), "inputs": inputs(), "clips": "b a"} | changed
    return save_tensors(parameters, metadata)


@pytest.fixture
def silent(tmp_path):
    """A checkpoint whose network corrects nothing."""
    path = tmp_path / "silent.safetensors"
    path.write_bytes(checkpoint(random_parameters(np.random.default_rng(0), says_nothing=True)))
    return path


def random_group(rng, n, first, num_frames, last=None):
    """A group of ``n`` coded frames; it shows the frames after ``first``, up to ``last``."""
    inside = np.zeros(num_frames, dtype=bool)
    inside[first + 1 : (first + n if last is None else last) + 1] = True
    label = rng.normal(0, 0.5, (4, n)).astype(np.float32)
    label[2:, rng.random(n) < 0.2] = np.nan
    label[3, rng.random(n) < 0.2] = np.nan
    return GroupLesson(
        features=Features(
            frames=rng.normal(0, 1, (n, len(FRAME))).astype(np.float32),
            group=rng.normal(0, 1, len(GROUP)).astype(np.float32),
            inside=inside,
        ),
        offset=label[0],
        log2_lambda=label[1],
        log2_bits=label[2],
        log2_distortion=label[3],
        weights=np.where(rng.random(n) < 0.2, 0, rng.uniform(0.3, 5, n)).astype(np.float32),
        excess=float(rng.normal()),
    )


def random_lesson(rng, sizes, num_frames, name="random"):
    starts = np.append(0, np.cumsum(sizes)[:-1])
    groups = [
        random_group(rng, n, int(start), num_frames)
        for n, start in zip(sizes, starts.tolist(), strict=True)
    ]
    first_pass = rng.normal(0, 1, (num_frames, len(FIRST_PASS))).astype(np.float32)
    return Lesson(name, f"hash-{len(name)}", first_pass, tuple(groups))


def random_lessons(rng):
    """Of different lengths; one group ends its clip, another shows nothing new."""
    lessons = [
        random_lesson(rng, (9, 1, 17, 4), 31, "long"),
        random_lesson(rng, (2, 12), 40, "short"),
        random_lesson(rng, (5,), 6, "one group"),
    ]
    alone = random_group(rng, 1, 3, 40, last=3)
    assert not alone.features.inside.any()
    lessons[1] = dataclasses.replace(lessons[1], groups=(*lessons[1].groups, alone))
    return lessons


class Watch(StepModel):
    """Notes what a network would see; with ``base``, as if that were the base of every group."""

    def __init__(self, base=None):
        self.model, self.fixed = FixedSteps(PRIOR), base

    def begin(self, episode):
        self.groups = {}
        self.first_pass = first_pass_features(episode.first_pass)

    def steps(self, group):
        if self.fixed is not None:
            group = dataclasses.replace(group, base=self.fixed, shift=0.0)
        steps = self.model.steps(group)
        self.groups[group.index] = group_features(group, steps)
        return steps


def watched(video, target, base=None):
    """A clip's encode and what was seen during it."""
    watch = Watch(base)
    policy = DependencyPolicy(steps=watch, parameters=PRIOR)
    return encode(video, EncoderOptions(target_bitrate=target), policy), watch


@pytest.fixture(scope="module")
def recorded():
    """A clip, its options, and what a prior whose base stays where it is decides for it."""
    video, options = sample("carphone", 48), EncoderOptions(target_bitrate=80)
    recorder = Record(imitation_prior(parameters=STILL_BASE))
    log = encode(video, options, recorder)
    return video, options, Trajectory.of(log, recorder.decisions)


@pytest.fixture(scope="module")
def observed(recorded):
    return observe("carphone", *recorded, views=3)


# The network, without a learning framework


def test_a_checkpoint_comes_back(silent):
    parameters = random_parameters(np.random.default_rng(0), says_nothing=True)
    network = Network.load(silent)
    assert network.clips == {"a", "b"}
    assert network.settings["format"] == str(FORMAT)
    lesson = random_lesson(np.random.default_rng(1), (7,), 20)
    hidden = network.start()
    ours, theirs = (
        net.step(lesson.groups[0].features, net.see(lesson.first_pass), hidden)
        for net in (network, Network(parameters))
    )
    for field in dataclasses.fields(ours):
        np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))
    assert hidden.shape == ours.hidden.shape == (2, HIDDEN)
    assert network.see(lesson.first_pass).shape == (2, 20, FIRST_PASS_WIDTH)
    assert ours.offset.shape == (7,) and isinstance(ours.excess, float)


def test_the_members_outputs_are_averaged_and_each_keeps_its_state():
    rng = np.random.default_rng(3)
    members = [random_member(rng) for _ in range(3)]
    network, alone = Network(together(*members)), [Network(together(own)) for own in members]
    lesson = random_lesson(rng, (7, 3, 9), 20)
    hidden, states = network.start(), [one.start() for one in alone]
    for group in lesson.groups:
        ours = network.step(group.features, network.see(lesson.first_pass), hidden)
        theirs = [
            one.step(group.features, one.see(lesson.first_pass), state)
            for one, state in zip(alone, states, strict=True)
        ]
        for name in (*HEADS, "excess"):
            each = np.stack([getattr(out, name) for out in theirs])
            np.testing.assert_allclose(getattr(ours, name), each.mean(axis=0), atol=1e-6)
            assert each.std(axis=0).max() > 1e-2
        hidden, states = ours.hidden, [out.hidden for out in theirs]
        np.testing.assert_array_equal(hidden, np.concatenate(states))


NO_NUMPY_TYPE = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
BROKEN = {
    "missing": None,
    "a folder": "folder",
    "empty": b"",
    "four bytes": 4,
    "within the header": 200,
    "half": 0.5,
    "all but a byte": -1,
    "random bytes": np.random.default_rng(2).bytes(3000),
    "text": b"not a checkpoint\nat all\n" * 50,
    "bfloat16": len(NO_NUMPY_TYPE).to_bytes(8, "little") + NO_NUMPY_TYPE + bytes(4),
    "another format": {"format": "0"},
    "of no format": {"format": ""},
    "other inputs": {"inputs": inputs().replace("importance", "imporsance")},
    "inputs in another order": {"inputs": " ".join(reversed(inputs().split()))},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_checkpoint_is_an_input_error_of_one_line(broken, tmp_path):
    path = tmp_path / "broken.safetensors"
    whole = checkpoint(random_parameters(np.random.default_rng(0)))
    if broken == "folder":
        path.mkdir()
    elif isinstance(broken, dict):
        path.write_bytes(checkpoint(random_parameters(np.random.default_rng(0)), **broken))
    elif isinstance(broken, bytes):
        path.write_bytes(broken)
    elif broken is not None:
        at = int(broken * len(whole)) if isinstance(broken, float) else broken
        path.write_bytes(whole[:at])
    for load in (Network.load, imitation):
        with pytest.raises(InputError, match=r"broken\.safetensors") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def instead(name, change):
    return lambda tensors: {**tensors, name: np.array(change(tensors[name]), order="C")}


def renamed(old, new):
    return lambda tensors: {k.replace(old, new): value for k, value in tensors.items()}


# Every tensor of a member, missing and with one row too many; and what a file can have besides.
OTHER_TENSORS = {
    **{f"no {name}": without(f"1.{name}") for name in random_member(np.random.default_rng(0))},
    **{
        f"a longer {name}": instead(f"1.{name}", lambda v: np.concatenate([v, v[:1]]))
        for name in random_member(np.random.default_rng(0))
    },
    "none at all": lambda _: {},
    "a transposed weight": instead("0.heads.weight", np.transpose),
    "a column less": instead("0.recur.weight_ih", lambda v: v[:, :-1]),
    "one dimension more": instead("0.heads.bias", lambda v: v[:, None]),
    "a number": instead("0.excess.bias", lambda v: v[0]),
    "no first member": renamed("0.", "2."),
    "of no member": renamed("0.", ""),
    "of a member without a number": renamed("1.", "one."),
    "one too many": lambda tensors: {**tensors, "0.more": np.zeros(3, np.float32)},
    "a member of one tensor": lambda tensors: {**tensors, "2.excess.bias": np.zeros(1, np.float32)},
}


@pytest.mark.parametrize("change", OTHER_TENSORS.values(), ids=OTHER_TENSORS.keys())
def test_tensors_of_another_network_are_an_input_error_of_one_line(change, tmp_path):
    path, parameters = tmp_path / "other.safetensors", random_parameters(np.random.default_rng(0))
    path.write_bytes(checkpoint(change(parameters)))
    for load in (Network.load, imitation):
        with pytest.raises(InputError, match=r"other\.safetensors: a network of another") as caught:
            load(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(checkpoint(parameters))
    Network.load(path)


def test_a_checkpoint_that_was_trained_anew_is_read_anew(silent):
    assert imitation(silent).training_clips == {"a", "b"}
    silent.write_bytes(checkpoint(random_parameters(np.random.default_rng(1)), clips="c"))
    assert imitation(silent).training_clips == {"c"}


def test_outputs_stay_within_their_limits_whatever_comes_in():
    rng = np.random.default_rng(5)
    network = Network(random_parameters(rng))
    lesson = random_lesson(rng, (12,), 30)
    wild = dataclasses.replace(
        lesson.groups[0].features,
        frames=lesson.groups[0].features.frames * np.float32(1e6),
        group=lesson.groups[0].features.group * np.float32(1e6),
    )
    out = network.step(wild, network.see(lesson.first_pass * np.float32(1e6)), network.start())
    for values, most in (
        *zip((out.offset, out.log2_lambda, out.log2_bits), LIMITS, strict=True),
        (out.log2_distortion, 100),
        (out.excess, 100),
        (out.hidden, 1),
    ):
        assert np.abs(values).max() <= most


def test_the_state_remembers_groups():
    rng = np.random.default_rng(6)
    network = Network(random_parameters(rng))
    lesson = random_lesson(rng, (8, 8, 8), 25)
    seen = network.see(lesson.first_pass)
    before, other, now = (group.features for group in lesson.groups)
    after = [
        network.step(now, seen, network.step(group, seen, network.start()).hidden).offset
        for group in (before, other)
    ]
    assert np.abs(after[0] - after[1]).max() > 1e-3


def test_it_decides_and_loads_fast(silent):
    start = time.perf_counter()
    network = Network.load(silent)
    assert time.perf_counter() - start < 1.0
    rng = np.random.default_rng(7)
    lesson = random_lesson(rng, (16,), 300)
    seen, hidden, seconds = network.see(lesson.first_pass), network.start(), []
    for _ in range(30):
        start = time.perf_counter()
        hidden = network.step(lesson.groups[0].features, seen, hidden).hidden
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) / 16 < 1e-3


def test_the_policy_needs_no_learning_framework():
    code = "import sys; from vpxrc.agents.imitation.policy import imitation; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "cma", "ray"} & set(run.stdout.split())


# What it sees

CLIPS = {
    "still": (still, 40),
    "noise": (noise, 400),
    "one group": (lambda: make_video(num_frames=8), 60),
    "two frames": (lambda: make_video(num_frames=2), 60),
    "a cut": (lambda: make_video(num_frames=60, width=96, height=80), 200),
    "176x144": (lambda: sample("carphone", 48), 80),
    "grey": (
        lambda: video_from_frames(np.full((30, 64 * 96), 128, np.uint8), 64, 64, 25, name="grey"),
        50,
    ),
}


@pytest.mark.parametrize("name", CLIPS)
def test_features_are_finite_and_within_bounds(name):
    make, target = CLIPS[name]
    video = make()
    _, watch = watched(video, target)
    assert watch.groups
    if name in ("one group", "two frames"):
        assert len(watch.groups) == 1
    assert watch.first_pass.shape == (video.num_frames, len(FIRST_PASS))
    for features in watch.groups.values():
        n = len(features.frames)
        assert features.frames.shape == (n, len(FRAME)) and features.group.shape == (len(GROUP),)
        assert features.inside.shape == (video.num_frames,) and features.inside.sum() <= n
        assert (features.frames[:, :5].sum(axis=1) == 1).all()  # one kind each
    frames = np.concatenate([features.frames for features in watch.groups.values()])
    groups = np.stack([features.group for features in watch.groups.values()])
    for names, values in ((FRAME, frames), (GROUP, groups), (FIRST_PASS, watch.first_pass)):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        # "budget": that of a clip that overshoots is spent before it ends.
        most = {n: np.abs(values[:, at]).max() for at, n in enumerate(names) if n != "budget"}
        assert max(most.values()) <= 4, most


def test_the_group_before_is_a_whole_group():
    """Not the alternate reference frame that opens the next one and is shown again for a byte."""
    log, watch = watched(sample("carphone", 48), 80)
    opens = log.records[log.records["group_position"] == 0]
    assert opens["is_shown_again"].any()
    per_frame = 1000 * 80 * log.clip.duration / log.clip.num_frames * (1 - PRIOR.margin)
    for group, features in list(watch.groups.items())[1:]:
        before = log.records[log.records["group_index"] == group - 1]
        rate = before["bits"].sum() / (before["is_shown"] != 0).sum() / per_frame
        seen = features.group[GROUP.index("group_before")]
        assert seen == pytest.approx(np.log2(rate) / 2, abs=1e-5)


def test_the_model_sees_no_further_than_it_looks():
    """Nor do features that are not of the first pass, which has seen the whole clip."""
    video = make_video(num_frames=120, width=96, height=80)
    frames = video.frames.copy()
    frames[100:] = video.frames[20:40]
    other = video_from_frames(frames, 96, 80, 30, name="another end")
    first = []
    for clip in (video, other):
        _, watch = watched(clip, 200, base=6.5)
        first.append(watch.groups[0])
    a, b = first
    assert (watch.first_pass[100:] != 0).any()
    np.testing.assert_array_equal(a.inside, b.inside)
    changed = {
        name
        for names, one, two in ((FRAME, a.frames.T, b.frames.T), (GROUP, a.group, b.group))
        for name, x, y in zip(names, one, two, strict=True)
        if not np.array_equal(x, y)
    }
    of_the_first_pass = {name for name in GROUP if name.startswith("complexity")}
    assert changed
    assert changed <= of_the_first_pass | {"complexity", "spread", "frames_to_key"}
    assert not changed & set(DEPENDENCY_INPUTS)


# The policy


def test_the_prior_has_a_name():
    policy = make_policy("imitation-prior")
    assert type(policy) is DependencyPolicy
    assert policy.options(EncoderOptions()).auto_alt_ref == 6
    assert not policy.training_clips


@pytest.mark.parametrize("name", ["carphone", "a cut", "two frames"])
def test_a_network_that_says_nothing_is_the_prior(name, silent):
    """Bit for bit, where its word on the budget has no weight either."""
    make, target = CLIPS.get(name, CLIPS["176x144"])
    video, options = make(), EncoderOptions(target_bitrate=target)
    prior = imitation_prior(parameters=PARAMETERS)
    ours, theirs = Record(imitation(silent, trust=0.0)), Record(prior)
    assert encode(video, options, ours).stream == encode(video, options, theirs).stream
    for mine, priors in zip(ours.decisions, theirs.decisions, strict=True):
        assert (mine.q_index, mine.lambda_scale) == (priors.q_index, priors.lambda_scale)
        assert (mine.superblock_scale is None) == (priors.superblock_scale is None)
        if mine.superblock_scale is not None:
            np.testing.assert_array_equal(mine.superblock_scale, priors.superblock_scale)


def test_what_a_network_says_is_what_is_decided(tmp_path):
    """The same offset and lambda for every frame: one is the budget's business, one is taken.

    Of two members that do not agree, what they say on average.
    """
    parameters = random_parameters(np.random.default_rng(0), says_nothing=True)
    # Offset, lambda and bits of either: the means are 0.4, 0.5 and 0.
    for member, said in enumerate(([0.2, 0.8, 1.0], [0.6, 0.2, -1.0])):
        parameters[f"{member}.heads.bias"][:3] = np.arctanh(np.array(said) / LIMITS)
    path = tmp_path / "constant.safetensors"
    path.write_bytes(checkpoint(parameters))
    video, options = sample("carphone", 48), EncoderOptions(target_bitrate=80)
    still_base = dataclasses.replace(PARAMETERS, group_move=1e-9, max_move=1e-9)
    recorders = [
        Record(imitation(path, parameters=still_base, trust=0.0)),
        Record(imitation_prior(parameters=still_base)),
    ]
    logs = [encode(video, options, recorder) for recorder in recorders]
    coded = [log.coded for log in logs]
    first = [rows["group_index"] == 0 for rows in coded]
    assert (coded[0]["update_type"][first[0]] == coded[1]["update_type"][first[1]]).all()
    # Only the first group has no frame without a say (an overlay is coded as its ARF was).
    moved = [LOG2_STEP[rows["q_index"][here]] for rows, here in zip(coded, first, strict=True)]
    assert np.ptp(moved[0] - moved[1]) < 0.15
    assert abs(np.mean(moved[0] - moved[1])) < 0.1
    for decision in recorders[0].decisions:
        assert decision.lambda_scale == pytest.approx(2**0.5, rel=1e-5)


def test_a_clip_after_another_is_as_if_alone(silent):
    video, options = sample("carphone", 30), EncoderOptions(target_bitrate=80)
    policy = imitation(silent)
    alone = encode(video, options, policy).stream
    encode(make_video(num_frames=40), EncoderOptions(target_bitrate=60), policy)
    assert encode(video, options, policy).stream == alone


@pytest.mark.parametrize("target", [50, 100])
def test_the_shipped_policy_meets_the_bitrate_in_one_encode(target):
    policy = imitation()
    assert policy.training_clips
    log = encode(sample("carphone", 120), EncoderOptions(target_bitrate=target), policy)
    assert log.encodes == 1
    assert abs(log.overshoot) < 0.08


# Lessons


def test_the_prior_has_nothing_to_learn_from_itself(recorded, observed):
    """Its trajectory is its own, up to the base and to what q indices there are."""
    video, _, trajectory = recorded
    assert len(observed) == 3
    for lesson in observed:
        assert (lesson.name, lesson.content_hash) == ("carphone", video.content_hash)
        offsets = np.concatenate([g.offset[g.weights > 0] for g in lesson.groups])
        assert len(offsets) == len(trajectory)
        assert np.abs(offsets - np.median(offsets)).max() < 0.15
        assert np.abs(offsets - np.median(offsets)).mean() < 0.02
        assert abs(np.median(offsets)) < 0.1
        for group in lesson.groups:
            assert (group.log2_lambda == 0).all()
            overlay = group.features.frames[:, FRAME.index("is_overlay")] > 0
            np.testing.assert_array_equal(np.isnan(group.log2_bits), overlay)
            np.testing.assert_array_equal(np.isnan(group.log2_distortion), group.weights == 0)
            assert np.abs(np.nan_to_num(group.log2_distortion)).max() < 2
            assert np.abs(np.nan_to_num(group.log2_bits)).max() < 2


def test_frames_shown_again_have_no_label(recorded, observed):
    """They open groups after an ARF: nothing is coded, so nothing is to be decided."""
    video, options, trajectory = recorded
    log = encode(video, options, Follow(trajectory))
    again = log.records["is_shown_again"] != 0
    opens = set(log.records["group_index"][again & (log.records["group_position"] == 0)].tolist())
    coded = set(log.records["group_index"][~again & (log.records["group_position"] == 0)].tolist())
    assert len(opens) >= 2 and len(coded) >= 2
    for lesson in observed:
        for at, group in enumerate(lesson.groups):
            unlabelled = np.zeros(len(group.offset), dtype=bool)
            unlabelled[0] = at in opens
            np.testing.assert_array_equal(group.weights == 0, unlabelled)
            np.testing.assert_array_equal(np.isnan(group.log2_distortion), unlabelled)


def test_a_jittered_view_knows_by_how_much_it_is_off(observed):
    """A coarser base takes less than is left, and so does a budget that is less spent."""
    plain, *jittered = observed
    base, budget = GROUP.index("base"), GROUP.index("budget")
    jitters = []
    for lesson in jittered:
        for seen, own in zip(lesson.groups, plain.groups, strict=True):
            moved = seen.features.group - own.features.group
            jitter, saved = 4 * float(moved[base]), float(moved[budget])
            assert seen.excess == pytest.approx(-PRIOR.slope * jitter - saved, abs=1e-4)
            jitters.append((jitter, saved))
    assert np.ptp([group.features.group[base] for group in plain.groups]) < 1e-4
    assert all(group.excess == 0 for group in plain.groups)
    assert np.abs(jitters).max() < 4 * max(JITTER)
    # Either varies, over groups and over views, and not in step with the other.
    assert (np.std(jitters, axis=0) > 0.3 * np.array(JITTER)).all()
    assert abs(np.corrcoef(np.transpose(jitters))[0, 1]) < 0.95


def test_a_moved_trajectory_is_the_label(recorded):
    """ARFs finer by half a step than the prior has them."""
    video, options, trajectory = recorded
    is_arf = trajectory.update_type == UpdateType.ARF
    moved = trajectory.moved(np.where(is_arf, -0.5, 0.0), np.where(is_arf, 0.25, 0.0))
    (lesson,) = observe("moved", video, options, moved, views=1)
    arfs, leaves = [], []
    for group in lesson.groups:
        frames = group.features.frames
        arf = (frames[:, FRAME.index("is_arf")] > 0) & (group.weights > 0)
        leaf = (frames[:, FRAME.index("is_leaf")] > 0) & (group.weights > 0)
        arfs.append(group.offset[arf])
        leaves.append(group.offset[leaf])
        np.testing.assert_allclose(group.log2_lambda[arf], 0.25, atol=0.01)
        np.testing.assert_allclose(group.log2_lambda[leaf], 0, atol=0.01)
    difference = np.mean(np.concatenate(arfs)) - np.mean(np.concatenate(leaves))
    assert difference == pytest.approx(-0.5, abs=0.1)


# Training


@pytest.fixture
def learning():
    torch = pytest.importorskip(
        "torch", reason="torch is not installed: pip install 'vpxrc[agents]'"
    )
    from vpxrc.agents.imitation import learner

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch, learner
    torch.set_num_threads(threads)


def with_parameters(torch, members, parameters):
    assert {n: v.shape for n, v in parameters.items()} == {
        n: tuple(v.shape) for n, v in members.state_dict().items()
    }
    members.load_state_dict({n: torch.from_numpy(v) for n, v in parameters.items()})


@pytest.mark.parametrize("members", [1, 3])
def test_numpy_and_the_mean_of_torch_say_the_same(members, learning, tmp_path):
    torch, learner = learning
    rng = np.random.default_rng(8)
    lessons = random_lessons(rng)
    made = learner.Learner(lessons, LearnerConfig(members=members))
    with_parameters(torch, made.members, random_parameters(rng, members=members))
    path = tmp_path / "network.safetensors"
    made.save(path, note="kept")
    network = Network.load(path)
    assert network.clips == {lesson.content_hash for lesson in lessons}
    assert network.settings["note"] == "kept"
    made.members.eval()
    with torch.no_grad():
        said = [member(learner.collate(lessons)) for member in made.members]
    heads, excess = (np.mean([x.numpy() for x in part], axis=0) for part in zip(*said, strict=True))
    for lesson, their_heads, their_excess in zip(lessons, heads, excess, strict=True):
        hidden, seen = network.start(), network.see(lesson.first_pass)
        for at, group in enumerate(lesson.groups):
            out = network.step(group.features, seen, hidden)
            hidden = out.hidden
            ours = np.stack([getattr(out, name) for name in HEADS], axis=1)
            np.testing.assert_allclose(ours, their_heads[at, : len(ours)], atol=2e-5)
            assert out.excess == pytest.approx(their_excess[at], abs=2e-5)
            if len(ours) > 1:
                assert ours.std(axis=0).min() > 1e-3  # it does say something


def test_the_recurrence_is_torchs(learning):
    torch, _ = learning
    rng = np.random.default_rng(9)
    parameters = random_member(rng)
    cell = torch.nn.GRUCell(GROUP_WIDTH, HIDDEN)
    cell.load_state_dict(
        {name: torch.from_numpy(parameters[f"recur.{name}"]) for name in cell.state_dict()}
    )
    (member,), hidden = Network(together(parameters))._members, np.zeros(HIDDEN, np.float32)
    theirs = torch.zeros(1, HIDDEN)
    for _ in range(20):
        z = rng.normal(0, 2, GROUP_WIDTH).astype(np.float32)
        hidden = member._recur(z, hidden)
        with torch.no_grad():
            theirs = cell(torch.from_numpy(z)[None], theirs)
        np.testing.assert_allclose(hidden, theirs[0].numpy(), atol=1e-5)


def test_a_constant_error_costs(learning):
    """A trajectory's level is a label like any other: what is off by it is off."""
    torch, learner = learning
    batch = learner.collate(random_lessons(np.random.default_rng(10)))
    heads, excess = batch["labels"].clone(), batch["excess"]
    assert all(float(value) == 0 for value in learner.losses(heads, excess, batch).values())
    heads[..., 0] += torch.tensor([0.7, -1.3, 2.0])[:, None, None]
    costs = learner.losses(heads, excess, batch)
    # Huber's, of 1: squared below it, straight above; a lesson counts as one, of any length.
    expected = (0.7**2 / 2 + (1.3 - 0.5) + (2.0 - 0.5)) / 3
    assert float(costs.pop("offset")) == pytest.approx(expected, rel=1e-5)
    assert all(float(value) == 0 for value in costs.values())


def test_padding_and_frames_without_a_label_cost_nothing(learning):
    torch, learner = learning
    batch = learner.collate(random_lessons(np.random.default_rng(11)))
    heads, excess = torch.zeros_like(batch["labels"]), torch.zeros_like(batch["excess"])
    before = learner.losses(heads, excess, batch)
    heads[batch["frame_mask"] == 0] = 9.0
    excess[batch["group_mask"] == 0] = 9.0
    for at, name in enumerate(("weights", "weights", "bits_mask", "distortion_mask")):
        unlabelled = batch[name] == 0
        assert (unlabelled & (batch["frame_mask"] > 0)).any()
        heads[..., at][unlabelled] = 9.0
    after = learner.losses(heads, excess, batch)
    assert {n: float(v) for n, v in after.items()} == {n: float(v) for n, v in before.items()}


def explained(learning, members, lessons) -> float:
    """The share of the offsets' loss that the members' mean takes away, at most 1."""
    torch, learner = learning
    batch = learner.collate(lessons)
    with torch.no_grad():
        outputs = [member.eval()(batch) for member in members]
        heads, excess = (torch.stack(parts).mean(0) for parts in zip(*outputs, strict=True))
        ours = learner.losses(heads, excess, batch)["offset"]
        nothing = learner.losses(torch.zeros_like(heads), excess, batch)["offset"]
    return float(1 - ours / nothing)


def test_two_lessons_are_learned_by_heart(learning):
    _, learner = learning
    rng = np.random.default_rng(12)
    lessons = [random_lesson(rng, (6, 5), 12, "one"), random_lesson(rng, (7,), 9, "two")]
    config = LearnerConfig(epochs=250, dropout=0.0, decay=0.0, rate=5e-3, members=2)
    made = learner.Learner(lessons, config)
    assert explained(learning, made.members, lessons) == pytest.approx(0, abs=1e-6)
    seen = []
    made.train(lambda epoch, parts: seen.append((epoch, parts["offset"])))
    assert [epoch for epoch, _ in seen] == list(range(1, 251))
    assert seen[-1][1] < seen[0][1]
    assert explained(learning, made.members, lessons) > 0.9


def test_members_start_apart_and_learn_as_if_alone(learning):
    torch, learner = learning
    lessons = random_lessons(np.random.default_rng(19))
    config = LearnerConfig(epochs=4, batch=2, dropout=0.0, members=3)
    made = learner.Learner(lessons, config)
    alone = learner.Learner(lessons, dataclasses.replace(config, members=1))
    weights = [member.inner.weight for member in made.members]
    assert min((weights[a] - weights[b]).abs().max() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.01
    for member in made.members:
        assert torch.equal(member.group_mean, made.members[0].group_mean)
        assert torch.equal(member.group_gain, made.members[0].group_gain)
    # Heads start at 0, so a first epoch of one batch costs what nothing costs: a mean, not a sum.
    one = learner.Learner(lessons, dataclasses.replace(config, batch=9))
    batch = learner.collate(lessons)
    zeros = torch.zeros_like(batch["labels"]), torch.zeros_like(batch["excess"])
    nothing = learner.losses(*zeros, batch)
    parts = one.run_epoch()
    for name in ("offset", "lambda", "bits", "distortion"):
        assert parts[name] == pytest.approx(float(nothing[name]), rel=1e-5)
    made.train()
    alone.train()
    for name, value in alone.members[0].state_dict().items():
        torch.testing.assert_close(made.members[0].state_dict()[name], value)
    assert (made.members[0].heads.weight - made.members[1].heads.weight).abs().max() > 1e-3


def test_without_the_model_it_sees_nothing_of_it(learning, tmp_path):
    _, learner = learning
    rng = np.random.default_rng(13)
    lesson = random_lesson(rng, (9, 8), 20)
    config = LearnerConfig(epochs=3, dependency_inputs=False, members=2)
    made = learner.Learner([lesson], config)
    made.train()
    path = tmp_path / "ablated.safetensors"
    made.save(path)
    network, group = Network.load(path), lesson.groups[0].features
    frames, whole = group.frames.copy(), group.group.copy()
    frames[:, [name in DEPENDENCY_INPUTS for name in FRAME]] += 3
    whole[[name in DEPENDENCY_INPUTS for name in GROUP]] += 3
    assert (frames != group.frames).any() and (whole != group.group).any()
    seen, hidden = network.see(lesson.first_pass), network.start()
    ours = network.step(group, seen, hidden)
    theirs = network.step(Features(frames, whole, group.inside), seen, hidden)
    for name in (*HEADS, "excess", "hidden"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for member in made.members:
        for columns, gain in ((FRAME, member.frame_gain), (GROUP, member.group_gain)):
            assert [name in DEPENDENCY_INPUTS for name in columns] == (gain == 0).tolist()


def test_training_goes_on_where_it_was(learning, tmp_path):
    torch, learner = learning
    lessons = random_lessons(np.random.default_rng(14))
    config = LearnerConfig(epochs=6, batch=2, seed=3, members=2)
    whole = learner.Learner(lessons, config)
    whole.train()
    first = learner.Learner(lessons, config)
    for _ in range(3):
        first.run_epoch()
    first.save_state(tmp_path / "state.pt")
    torch.manual_seed(99)
    second = learner.Learner(lessons, config)
    second.load_state(tmp_path / "state.pt")
    assert second.epoch == 3
    second.train()
    assert second.epoch == 6
    theirs = second.members.state_dict()
    assert whole.members.state_dict().keys() == theirs.keys()
    for name, value in whole.members.state_dict().items():
        assert torch.equal(value, theirs[name]), name


STATES = {
    "missing": None,
    "empty": b"",
    "random bytes": np.random.default_rng(15).bytes(500),
    "text": b"not a state\n" * 20,
    "truncated": 0.5,
    "another configuration": "config",
    "another number of members": "members",
    "a number": "number",
}


@pytest.mark.parametrize("broken", STATES.values(), ids=STATES.keys())
def test_a_broken_state_is_an_input_error_of_one_line(broken, learning, tmp_path):
    torch, learner = learning
    path = tmp_path / "state.pt"
    made = learner.Learner([random_lesson(np.random.default_rng(16), (5,), 9)])
    if isinstance(broken, bytes):
        path.write_bytes(broken)
    elif broken in ("config", "members"):
        config = LearnerConfig(**{"config": {"epochs": 7}, "members": {"members": 3}}[broken])
        learner.Learner(made.lessons, config).save_state(path)
    elif broken == "number":
        torch.save(3, path)
    elif broken is not None:
        made.save_state(path)
        path.write_bytes(path.read_bytes()[: int(broken * path.stat().st_size)])
    with pytest.raises(InputError, match=r"state\.pt") as caught:
        made.load_state(path)
    assert "\n" not in str(caught.value)


def test_there_has_to_be_something_to_learn_from(learning):
    _, learner = learning
    lesson = random_lesson(np.random.default_rng(17), (5,), 9)
    for lessons in ([], [dataclasses.replace(lesson, groups=())]):
        with pytest.raises(InputError, match="no lessons"):
            learner.Learner(lessons)


def test_a_trained_policy_meets_the_bitrate(learning, observed, tmp_path):
    """From lessons of half the clip, at a target between the two that it is tried at."""
    _, learner = learning
    config = LearnerConfig(epochs=60, dropout=0.0, members=2)
    made = learner.Learner(observed, config)
    made.train()
    path = tmp_path / "trained.safetensors"
    made.save(path)
    policy = imitation(path)
    assert policy.training_clips == {observed[0].content_hash}
    for target in (60, 100):
        log = encode(sample("carphone", 100), EncoderOptions(target_bitrate=target), policy)
        assert log.encodes == 1
        assert abs(log.overshoot) < 0.08
