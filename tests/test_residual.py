"""Residual rate control: the base policy, offsets and its account, the observation, the rules."""

import dataclasses
import inspect
import json
import math
import pickle
import re
from types import SimpleNamespace
from typing import Any, Literal

import gymnasium
import numpy as np
import pytest
from conftest import make_video
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

from vpxrc import (
    Decision,
    EncoderOptions,
    EncodeSession,
    InputError,
    Policy,
    PolicyError,
    UpdateType,
    _native,
    encode,
    make_policy,
    video_from_frames,
)
from vpxrc.datasets import load_clips
from vpxrc.envs import (
    FRAME_OFFSETS,
    GROUP_OFFSETS,
    OBSERVATION,
    EncodeEpisode,
    EpisodePool,
    FirstRows,
    GainReward,
    ResidualConfig,
    ResidualController,
    ResidualProblem,
    ResidualRateControlContinuousEnv,
    ResidualRateControlEnv,
)
from vpxrc.envs.residual.config import make_base, offset_decision
from vpxrc.envs.residual.observation import COLUMNS, VECTOR, ResidualObserver
from vpxrc.media.frames import frame_bytes
from vpxrc.policies.base import Episode
from vpxrc.policies.dependency import DependencyPolicy

IDS = ("vpxrc/ResidualRateControl-v1", "vpxrc/ResidualRateControlContinuous-v1")
CLIPS = [make_video(num_frames=14, seed=seed, name=f"clip{seed}") for seed in range(3)]
ALL = [column for columns in COLUMNS.values() for column in columns]
GROUP_FIELDS = ("update_type", "layer_depth", "show_index", "first_show_index", "bit_allocation")
DECISIONS: tuple[Literal["group", "frame"], ...] = ("group", "frame")


def make(env_id=IDS[0], **arguments):
    standard = {"base": "dependency", "observation": "columns"}
    arguments = {"clips": CLIPS, "target_bitrate": [40, 80], **standard, **arguments}
    return gymnasium.make(env_id, cpu_used=8, **arguments)


def carphone(num_frames):
    return dataclasses.replace(load_clips("samples")[0], num_frames=num_frames).open()


@pytest.fixture(scope="module")
def clip():
    return carphone(45)


def play(env, seed=None, action=None, **options):
    """One episode: observations, rewards, last info, the episode."""
    observation, _ = env.reset(seed=seed, options=options or None)
    rng = np.random.default_rng(0)
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    observations, rewards, done = [observation], [], False
    while not done:
        if action is not None:
            taken = action
        else:
            taken = rng.integers(env.action_space.n) if discrete else rng.uniform(-1, 1, 2)
        observation, reward, done, truncated, info = env.step(taken)
        assert not truncated
        observations.append(observation)
        rewards.append(reward)
    info["log"] = env.unwrapped.log
    return observations, rewards, info


def begin(session, base, config=None):
    """The episode of a session."""
    controller = ResidualController(Episode(session), base, config or ResidualConfig())
    return EncodeEpisode(session, controller)


def run(video, base, config, choose, target=60, **options):
    """One episode by hand; ``choose`` gives the action, of the decision's number."""
    asked = base.options(EncoderOptions(target_bitrate=target, cpu_used=8, **options))
    with asked.open(video, plan_groups=base.plans_groups) as session:
        episode = begin(session, base, config)
        while episode.log is None:
            if episode.advance() is not None and episode.log is None:
                episode.act(choose(len(offsets_of(episode))))
    return episode


def offsets_of(episode):
    return episode.controller.offsets


def coded(log):
    return log.coded


class Recorded(DependencyPolicy):
    """Remembers what it decided and what it was told."""

    def __init__(self):
        super().__init__()
        self.decided, self.told = [], []

    def decide(self, frame):
        decision = super().decide(frame)
        self.decided.append(decision.q_index)
        return decision

    def overruled(self, frame, decision):
        self.told.append((frame.coding_index, decision.q_index))
        super().overruled(frame, decision)


# The base policy and the offsets


@pytest.mark.parametrize("base", ["dependency", "imitation", "constant-q:120"])
def test_without_offsets_it_is_the_base_policy_itself(base, clip):
    options: dict[str, Any] = {"auto_alt_ref": 6, "cpu_used": 8}
    log = encode(clip, EncoderOptions(target_bitrate=60, **options), make_policy(base))
    for decisions in DECISIONS:
        env = ResidualRateControlEnv([clip], 60, base=base, decisions=decisions, **options)
        observations, _, info = play(env, 0, 0)
        assert info["log"].stream == log.stream
        groups = len(set(coded(log)["group_index"].tolist()))
        assert groups > 2
        expected = groups if decisions == "group" else len(coded(log))
        assert len(observations) == expected + 1
    continuous = ResidualRateControlContinuousEnv([clip], 60, base=base, **options)
    assert play(continuous, 0, np.zeros(2))[2]["log"].stream == log.stream
    continuous.close()


def test_a_base_policy_that_plans_groups_is_asked():
    class Provisional(DependencyPolicy):
        def plan_group(self, group):
            self.asked += 1
            return np.full(group.size, 200)

        asked = 0

    base = Provisional()
    episode = run(CLIPS[0], base, ResidualConfig(), lambda n: 0)
    assert base.asked
    log = encode(CLIPS[0], EncoderOptions(target_bitrate=60, cpu_used=8), Provisional())
    assert episode.log.stream == log.stream


@pytest.mark.parametrize("decisions", ["group", "frame"])
def test_offsets_change_the_quantiser_step_as_they_say(decisions, clip):
    offsets = ((0, 0), (0.3, 0), (-0.2, 0.45), (0, -0.7), (9, 0), (-9, 0))
    base, config = Recorded(), ResidualConfig(decisions=decisions, offsets=offsets)
    episode = run(clip, base, config, lambda n: (4, 5, 1, 2, 3, 0)[n % 6])
    rows = coded(episode.log)
    assert len(rows) == len(base.decided)
    step = np.array([_native.ac_quantizer(q) for q in range(256)], float)  # libvpx's own
    number, group, told = -1, None, []
    for row, own in zip(rows, base.decided, strict=True):
        if decisions == "frame" or row["group_index"] != group:
            number, group = number + 1, row["group_index"]
        level, reference = offsets_of(episode)[number]
        offset = level + (
            reference
            if row["update_type"] in (UpdateType.KEY, UpdateType.GOLDEN, UpdateType.ARF)
            else 0
        )
        wanted = step[own] * 2**offset
        # nearest in the logarithm; 0 would be lossless
        nearest = 1 + np.abs(np.log(step[1:] / wanted)).argmin() if offset else own
        assert row["q_index"] == nearest
        if nearest != own:
            told.append((row["coding_index"], nearest))
    assert number + 1 == len(offsets_of(episode)) == len(episode.steps)
    assert base.told == told != []
    assert {1, 255} <= set(rows["q_index"].tolist())


def test_a_decision_left_to_libvpx_is_offset_from_libvpxs_own():
    frame: Any = SimpleNamespace(update_type=UpdateType.LEAF, libvpx_q_index=100)
    own = Decision(-1, lambda_scale=0.5)
    assert offset_decision(frame, own, (0.0, 0.5)) is own
    there = offset_decision(frame, own, (1.0, 0.0))
    assert _native.ac_quantizer(there.q_index) == pytest.approx(
        2 * _native.ac_quantizer(100), rel=0.02
    )
    assert there.lambda_scale == 0.5
    frame.update_type = UpdateType.ARF
    assert offset_decision(frame, own, (0.25, -0.25)) is own


def test_steps_are_a_partition_of_the_log(clip):
    for decisions in ("group", "frame"):
        episode = run(
            clip, make_policy("dependency"), ResidualConfig(decisions=decisions), lambda n: n % 7
        )
        rows = episode.log.records
        assert [first for first, _ in episode.steps] == [0, *(n for _, n in episode.steps[:-1])]
        assert episode.steps[-1][1] == len(rows)
        for first, last in episode.steps:
            inside = rows[first:last]
            inside = inside[inside["is_shown_again"] == 0]
            assert len(inside) == 1 if decisions == "frame" else len(inside) > 1
            assert len(set(inside["group_index"].tolist())) == 1


def test_the_budget_survives_offsets_because_the_base_policy_is_told(monkeypatch):
    """The encode of a base policy with a constant offset lands where the base policy's own does.

    The account is right where what a frame costs, over what the model foresees at the base it is
    booked at, does not depend on the offsets: without ``overruled`` it is off by the whole offset.
    """
    video = carphone(90)
    config = ResidualConfig(decisions="frame")

    def costs(offset):
        base = DependencyPolicy()
        episode = run(video, base, config, lambda n: offset)
        assert abs(episode.log.overshoot) < 0.05
        paid, expected = base.budget.paid, base.budget.expected
        return np.log2([paid[kind] / expected[kind] for kind in (UpdateType.KEY, UpdateType.ARF)])

    without, told = costs((0.0, 0.0)), costs((0.3, 0.0))
    monkeypatch.setattr(DependencyPolicy, "overruled", Policy.overruled)
    untold = costs((0.3, 0.0))
    assert np.abs(told - without).max() < 0.2
    assert (np.abs(untold - without) > np.abs(told - without) + 0.1).all()
    assert untold[0] == pytest.approx(told[0] - 0.3, abs=0.03)  # the same key frame


# Episodes in a pool


def test_many_episodes_in_a_pool_are_as_one_after_the_other():
    config = ResidualConfig("dependency")
    alone = [run(v, make_base(config.base), config, lambda n: (5 * n + 3) % 9) for v in CLIPS]
    pool: EpisodePool[Any] = EpisodePool()
    episodes: dict[int, EncodeEpisode[Any]] = {}
    for key, video in enumerate(CLIPS):
        options = EncoderOptions(target_bitrate=60, cpu_used=8)
        pool.start(key, video, options, ResidualProblem(config))
    while len(pool):
        key, episode, observation = pool.next()
        episodes[key] = episode
        assert np.array_equal(episode.advance(), observation)  # it waits
        assert (episode.log is None) == (key in pool)
        if episode.log is None:
            episode.act((5 * len(offsets_of(episode)) + 3) % 9)
    pool.close()
    for key, expected in enumerate(alone):
        log = episodes[key].log
        assert log and log.stream == expected.log.stream
        assert episodes[key].steps == expected.steps
        assert offsets_of(episodes[key]) == offsets_of(expected)


def test_a_pool_ends_an_episode_that_is_started_anew():
    pool: EpisodePool[Any] = EpisodePool()
    options = EncoderOptions(target_bitrate=60, cpu_used=8)
    for video in CLIPS[:2]:
        pool.start(0, video, options, ResidualProblem(ResidualConfig("dependency")))
    assert len(pool) == 1
    key, episode, _ = pool.next()
    assert key == 0 and episode.session.video is CLIPS[1]
    pool.end(0)
    pool.end(0)
    assert not len(pool) and 0 not in pool


# The environments


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_has_nothing_to_say(env_id, short, clip):
    # A short clip has one group: the first step is the last, and two such steps' logs are compared.
    env = make(env_id, clips=[CLIPS[0] if short else clip], render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_two_environments_in_lock_step_are_equal(env_id):
    a, b = make(env_id, decisions="frame"), make(env_id, decisions="frame")
    for seed in (7, None, None):
        first, second = play(a, seed), play(b, seed)
        assert len(first[0]) == len(second[0]) > 10
        assert np.array_equal(first[0], second[0])
        assert first[1] == second[1]
        assert first[2]["log"].stream == second[2]["log"].stream
    a.close(), b.close()


def test_an_episode_tells_what_came_of_it():
    env = make(decisions="frame", render_mode="rgb_array")
    _, info = env.reset(seed=0, options={"clip": "clip2", "target_bitrate": 99})
    assert (info["clip_index"], info["target_bitrate"], info["q_index"]) == (2, 99, -1)
    assert not env.render().any()
    *_, info = env.step(1)
    assert info["update_type"] == UpdateType.KEY and info["show_index"] == 0 and info["bits"] > 0
    assert env.render().shape == (48, 64, 3) and env.render().any()
    *_, info = play(env, 0, 1, clip="clip2", target_bitrate=99)
    log = info["log"]
    assert (info["clip_index"], info["target_bitrate"]) == (2, 99)
    assert info["psnr"] == log.psnr and info["bitrate"] == log.bitrate
    assert info["overshoot"] == pytest.approx(log.bitrate / 99 - 1)
    assert info["constraint_met"] == (log.bitrate <= 99)
    env.close()


def test_rewards_come_at_the_end_or_by_step(clip):
    env = make(clips=[clip], target_bitrate=60, reward="psnr")
    _, rewards, info = play(env, 0)
    assert len(rewards) > 2 and not any(rewards[:-1])
    assert rewards[-1] == info["psnr"]
    reward = GainReward(tolerance=0.5)
    reward.reference(play(env, 0, 0)[2]["log"], slope=4.0)
    env.close()
    for decisions in ("group", "frame"):
        env = make(clips=[clip], target_bitrate=60, reward=reward, decisions=decisions)
        _, rewards, info = play(env, 0)
        assert np.count_nonzero(rewards) > 2
        assert sum(rewards) == pytest.approx(reward(info["log"]))
        episode, log = env.unwrapped.episode, info["log"]
        worth = 0.0
        for paid, (_, last) in zip(rewards[:-1], episode.steps, strict=False):
            before, worth = worth, reward.so_far(FirstRows(log, last))
            assert paid == pytest.approx(worth - before)
        _, rewards, _ = play(env, 0, 0)
        assert not np.any(rewards)
        env.close()


def test_the_spec_pickles_and_makes_an_equal_environment():
    env = make(offsets=((0, 0), (0.5, 0.25)))
    again = gymnasium.make(pickle.loads(pickle.dumps(env.spec)))
    assert play(env, 5)[2]["log"].stream == play(again, 5)[2]["log"].stream
    env.close(), again.close()


@pytest.mark.parametrize("action", [9, -1, 3.5, float("nan"), None, [3, 4]])
def test_bad_actions_are_refused_and_change_nothing(action):
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(action)
    stream = None
    while stream is None:
        _, _, done, *_ = env.step(0)
        stream = env.log.stream if done else None
    assert stream == play(env, 0, 0)[2]["log"].stream
    env.close()


@pytest.mark.parametrize("action", [[0, 2], [0], [math.nan, 0], "abc"])
def test_bad_continuous_actions(action):
    env = make(IDS[1]).unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(action)
    env.close()


def test_continuous_actions_are_in_units_of_the_reach():
    env = make(IDS[1], reach=0.4).unwrapped
    env.reset(seed=0)
    episode = env.episode
    env.step([0.5, -1])
    assert offsets_of(episode) == [pytest.approx((0.2, -0.4))]
    env.close()


def test_step_needs_a_reset():
    env = make().unwrapped
    with pytest.raises(ResetNeeded):
        env.step(0)
    play(env, 0, 0)
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.close()
    env.close()


# What cannot be


def test_configurations_are_checked_and_survive_json():
    assert ResidualConfig().actions == GROUP_OFFSETS
    assert ResidualConfig(decisions="frame").actions == FRAME_OFFSETS
    assert GROUP_OFFSETS[0] == FRAME_OFFSETS[0] == (0, 0)
    assert set(GROUP_OFFSETS) == {(a, b) for a in (-0.2, 0, 0.2) for b in (-0.2, 0, 0.2)}
    config = ResidualConfig("constant-q:90", "frame", ((0, 0), (0.5, -0.25)))
    assert ResidualConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    arguments: dict[str, Any]
    for arguments, words in (
        ({"decisions": "clip"}, "decisions must be"),
        ({"offsets": ()}, "begin with"),
        ({"offsets": ((0.1, 0),)}, "begin with"),
        ({"offsets": ((0, 0), (math.inf, 0))}, "finite"),
        ({"offsets": (0.0, 0.1)}, "pairs"),
    ):
        with pytest.raises(InputError, match=words):
            ResidualConfig(**arguments)
    for arguments, words in (
        ({"base": "nothing"}, "unknown policy"),
        ({"base": "libvpx-vbr"}, "decides nothing"),
        ({"target_bitrate": 0}, "target_bitrate"),
        ({"cpu_used": 12}, "cpu_used"),
    ):
        with pytest.raises(InputError, match=words):
            ResidualRateControlEnv(CLIPS, **arguments)
    with pytest.raises(InputError, match="reach"):
        ResidualRateControlContinuousEnv(CLIPS, reach=0)


def test_an_episode_refuses_what_it_cannot_do():
    base = make_policy("dependency")
    with EncodeSession(CLIPS[0], base.options(EncoderOptions(cpu_used=8))) as session:
        episode = begin(session, base)
        with pytest.raises(InputError, match="no decision is pending"):
            episode.act(0)
        before = episode.advance()
        for action in (9, -1, (math.nan, 0.0)):
            with pytest.raises(InputError):
                episode.act(action)
        assert np.array_equal(episode.advance(), before) and not offsets_of(episode)


def test_a_base_policy_that_raises_is_named_with_its_frame():
    class Broken(Policy):
        def decide(self, frame):
            if frame.coding_index == 3:
                raise ZeroDivisionError("oh")
            return Decision(100)

    with pytest.raises(
        PolicyError, match=r"clip0: coded frame 3: the base policy raised.*oh"
    ) as caught:
        run(CLIPS[0], Broken(), ResidualConfig(), lambda n: 0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# The observation


def test_observations_are_in_the_space_and_every_column_is_used(clip):
    assert 90 <= len(OBSERVATION) == len(set(OBSERVATION)) <= 130
    assert all(-4 <= column.low < column.high <= 4 for column in ALL)
    seen = np.zeros(len(OBSERVATION), bool)
    for base, decisions, video in (
        ("dependency", "group", carphone(90)),
        ("imitation", "frame", clip),
        ("constant-q:120", "frame", clip),
    ):
        env = make(clips=[video], target_bitrate=60, base=base, decisions=decisions)
        observations, *_ = play(env, 0)
        for observation in observations:
            assert observation.dtype == np.float32
            assert env.observation_space.contains(observation)
            assert np.isfinite(observation).all()
        assert not observations[-1].any()
        seen |= np.any(observations, axis=0)
        env.close()
    unused = {name for name, used in zip(OBSERVATION, seen, strict=True) if not used}
    # The clip has no flat blocks, libvpx codes each golden frame with an ARF, and the policies
    # leave lambda to it.
    flat = ("pcnt_intra_low", "intra_skip_pct")
    parts = [f"{part}_{name}" for part in ("group", "rest", "clip") for name in flat]
    allowed = {"is_golden", "base_lambda", *parts}
    assert unused <= allowed, unused - allowed


def test_long_and_short_clips_are_observed_too():
    still = np.full((60, frame_bytes(64, 48)), 128, np.uint8)
    still[:, : 64 * 48] = make_video().frames[0, : 64 * 48]
    videos = [
        video_from_frames(still, 64, 48, 30, name="still"),
        make_video(num_frames=2, name="short"),
        make_video(16, 16, 20, name="small"),
    ]
    env = make(clips=videos, decisions="frame", base="constant-q:200")
    for video in videos:
        for observation in play(env, 0, clip=video.name)[0]:
            assert env.observation_space.contains(observation)
    env.close()


def test_four_times_the_picture_at_four_times_the_target_looks_the_same():
    small = make_video(64, 48, 16)
    luma = small.frames[:, : 64 * 48].reshape(-1, 48, 64)
    chroma = small.frames[:, 64 * 48 :].reshape(-1, 2, 24, 32)
    planes = np.tile(luma, (1, 2, 2)).reshape(16, -1), np.tile(chroma, (1, 1, 2, 2)).reshape(16, -1)
    large = video_from_frames(np.hstack(planes), 128, 96, 30, name="large")
    seen = {}
    for video, target in ((small, 200), (large, 800)):
        env = make(clips=[video], base="constant-q:150", target_bitrate=target, decisions="frame")
        seen[video.name] = np.array(play(env, 0, 0)[0][:-1])
        env.close()
    a, b = (dict(zip(OBSERVATION, values.T, strict=True)) for values in seen.values())
    pixels = b.pop("log_pixels") - a.pop("log_pixels")
    np.testing.assert_allclose(pixels, math.log(4) / 20, atol=1e-6)
    # What libvpx codes differs at the seams, so its bits do; the rest does not.
    alike = ["target", "psnr", "target_bits", "group_rate", "references_model_bits"]
    alike += [column.name for column in COLUMNS["first_pass"]]
    for name in alike:
        np.testing.assert_allclose(a[name], b[name], atol=0.05, err_msg=name)


def test_bits_are_seen_relative_to_pixels_and_target(clip):
    """Four times the bits, squared errors, pixels and target: the same, to the last column."""
    base = Recorded()
    options = base.options(EncoderOptions(target_bitrate=60, cpu_used=8))
    with options.open(clip) as session:
        episode = begin(session, base, ResidualConfig(decisions="frame"))
        while len(offsets_of(episode)) < 30:
            if episode.advance() is not None:
                episode.act(len(offsets_of(episode)) % 7)
        values, view = episode.advance(), episode.controller.view
        assert (values != 0).sum() > 80
        scaled: Any = SimpleNamespace(**vars(view))
        scaled.rows = [row._replace(bits=4 * row.bits, sse_y=4 * row.sse_y) for row in view.rows]
        scaled.episode = SimpleNamespace(first_pass=session.first_pass, log2_step=session.log2_step)
        scaled.group = SimpleNamespace(**{name: getattr(view.group, name) for name in GROUP_FIELDS})
        scaled.group.bit_allocation = 4 * view.group.bit_allocation
        scaled.modelled = view.modelled * (1, 4, 1)
        scaled.pixels, scaled.bits, scaled.target_bits = (
            4 * value for value in (view.pixels, view.bits, view.target_bits)
        )
        frame = {name: getattr(view.frame, name) for name in dir(view.frame) if name[0] != "_"}
        scaled.frame = SimpleNamespace(**frame)
        scaled.frame.target_bits = 4 * view.frame.target_bits
        decision = Decision(base.decided[-1])
        found = ResidualObserver(scaled).observation(decision, offsets_of(episode))
        same = dict(zip(OBSERVATION, values, strict=True))
        again = dict(zip(OBSERVATION, found, strict=True))
        assert again.pop("log_pixels") > same.pop("log_pixels")
        for name, value in same.items():
            assert again[name] == pytest.approx(value, abs=1e-6), name


def test_the_base_policys_decision_by_hand():
    class Halved(Policy):
        def decide(self, frame):
            return Decision(100, lambda_scale=0.5)

    base = Halved()
    with EncodeSession(CLIPS[0], EncoderOptions(cpu_used=8)) as session:
        observation = begin(session, base).advance()
        assert session.frame
        own = _native.ac_quantizer(session.frame.libvpx_q_index)
    values = dict(zip(OBSERVATION, observation.tolist(), strict=True))
    step = _native.ac_quantizer(100)
    assert values["base_q_index"] == pytest.approx(100 / 255)
    assert values["base_step"] == pytest.approx(math.log2(step) / 4 - 2)
    assert values["base_over_libvpx"] == pytest.approx(math.log2(step / own) / 2)
    assert values["base_lambda"] == -1


def test_columns_by_hand(clip):
    """Those of the last action, the budget and the last group, from the log of the encode."""
    env = make(clips=[clip], target_bitrate=60, auto_alt_ref=6).unwrapped
    observation, _ = env.reset(seed=0)
    episode, seen = env.episode, []
    while episode.log is None:
        seen.append(dict(zip(OBSERVATION, observation.tolist(), strict=True)))
        observation, *_ = env.step((3 * len(seen) + 1) % 9)
    rows, per_frame = episode.log.records, 60_000 * clip.duration / clip.num_frames
    assert len(seen) == len(episode.steps) > 2
    errors = episode.log.first_pass[:, 2:4]  # weight, ... intra_error and coded_error
    level = reference = 0.0
    for n, (values, (first, _)) in enumerate(zip(seen, episode.steps, strict=True)):
        before = rows[:first]
        shown = before[before["is_shown"] != 0]
        assert values["action_level"] == pytest.approx(level)
        assert values["action_reference"] == pytest.approx(reference)
        assert values["actions"] == pytest.approx(math.log2(n + 1) / 4)
        assert values["frames_left"] == pytest.approx((clip.num_frames - len(shown)) / 64)
        assert values["spent"] == pytest.approx(before["bits"].sum() / per_frame / clip.num_frames)
        if n:
            left = per_frame * clip.num_frames - before["bits"].sum()
            left /= clip.num_frames - len(shown)
            assert values["left"] == pytest.approx(math.log2(left / per_frame), abs=1e-5)
            last = coded(episode.log)["group_index"]
            last = last[last < rows[first]["group_index"]].max()
            group = before[before["group_index"] == last]
            visible = group[group["is_shown"] != 0]
            bits = group["bits"].sum() / len(visible) / per_frame
            assert values["before_bits"] == pytest.approx(math.log2(bits) / 2, abs=1e-5)
            quality = 10 * np.log10(255**2 * 176 * 144 / visible["sse_y"]).mean()
            overall = 10 * np.log10(255**2 * 176 * 144 / shown["sse_y"]).mean()
            assert values["before_psnr"] == pytest.approx((quality - overall) / 8, abs=1e-5)
        row = rows[first]
        assert values["is_key"] == (row["update_type"] == UpdateType.KEY)
        assert values["show_position"] == pytest.approx(row["show_index"] / clip.num_frames)
        clip_error = np.log1p(errors).mean(axis=0) / 10
        assert values["clip_intra_error"] == pytest.approx(clip_error[0], rel=1e-5)
        assert values["clip_coded_error"] == pytest.approx(clip_error[1], rel=1e-5)
        level, reference = offsets_of(episode)[n]
    env.close()


# The specification


def test_the_docstring_shows_the_spaces():
    env = make(decisions="frame").unwrapped
    doc = inspect.getdoc(type(env))
    assert doc
    assert f"A `Box` of {env.observation_space.shape[0]} float32" in doc
    rows = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in doc.splitlines()]
    numbered = [row for row in rows if len(row) == 5 and row[0].isdigit()]
    assert [int(row[0]) for row in numbered] == list(range(*env.observation_space.shape))
    assert tuple(row[1].strip("`") for row in numbered) == OBSERVATION == VECTOR.names
    bounds = np.array([row[2:4] for row in numbered], np.float32)
    assert np.array_equal(bounds.T, [env.observation_space.low, env.observation_space.high])
    actions = [tuple(map(float, row[1:])) for row in rows if len(row) == 3 and row[0].isdigit()]
    assert tuple(actions) == GROUP_OFFSETS + FRAME_OFFSETS
    assert env.action_space.n == len(FRAME_OFFSETS)
    assert "generated" not in doc
    env.close()


def test_specification_is_in_gymnasiums_order():
    headings = re.findall(r"## (.+)", ResidualRateControlEnv.__doc__ or "")
    expected = [
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode End",
        "Arguments",
    ]
    assert [heading for heading in headings if heading in expected] == expected
