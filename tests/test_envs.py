"""The environments: Gymnasium's own checks, exact repetition, rewards by hand, clean ends."""

import dataclasses
import inspect
import math
import pickle
import re
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
import psutil
import pytest
from conftest import make_video
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env

from vpxrc import (
    Decision,
    EncoderOptions,
    EncodeSession,
    InputError,
    UpdateType,
    Video,
    encode,
    video_from_frames,
)
from vpxrc.datasets import load_clips
from vpxrc.dependency import analyse
from vpxrc.envs import (
    TABLES,
    LagrangianReward,
    PsnrReward,
    RateControlContinuousEnv,
    RateControlEnv,
    SelfCompetition,
    view,
)
from vpxrc.envs.problem import EncodeEnv
from vpxrc.media.decoding import decode_vp9
from vpxrc.media.frames import frame_bytes
from vpxrc.policies.constant import ConstantQ

IDS = ("vpxrc/RateControl-v2", "vpxrc/RateControlContinuous-v2")
CLIPS = [make_video(num_frames=14, seed=seed, name=f"clip{seed}") for seed in range(3)]
TARGETS = [40, 80, 160]


def make(env_id=IDS[0], **arguments):
    standard = {"observation": "dict", "cpu_used": 4}
    arguments = {"clips": CLIPS, "target_bitrate": TARGETS, **standard, **arguments}
    return gymnasium.make(env_id, **arguments)


@pytest.fixture(scope="module")
def carphone():
    return dataclasses.replace(load_clips("samples")[0], num_frames=50).open()


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def episode(env, seed=None, action=None, **options):
    """One episode under random or given actions: observations, rewards, last info."""
    observation, info = env.reset(seed=seed, options=options or None)
    rng = np.random.default_rng(0)
    observations, rewards, done = [observation], [], False
    while not done:
        if action is None:
            taken = (
                rng.integers(256)
                if isinstance(env.action_space, gymnasium.spaces.Discrete)
                else rng.uniform(-1, 1, 3)
            )
        else:
            taken = action
        observation, reward, done, truncated, info = env.step(taken)
        assert not truncated
        observations.append(observation)
        rewards.append(reward)
    info["log"] = env.unwrapped.log
    return observations, rewards, info


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasiums_checker_has_nothing_to_say(env_id):
    env = make(env_id, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_two_environments_in_lock_step_are_equal(env_id):
    a, b = make(env_id), make(env_id)
    for seed in (7, None, None):
        first, second = episode(a, seed), episode(b, seed)
        assert len(first[0]) == len(second[0]) > 10
        assert all(same(x, y) for x, y in zip(first[0], second[0], strict=True))
        assert first[1] == second[1]
        assert first[2]["log"].stream == second[2]["log"].stream
    a.close(), b.close()


def test_seeds_draw_clips_and_targets_and_a_second_reset_draws_on():
    env = make()

    def drawn(seed):
        _, info = env.reset(seed=seed)
        return info["clip_index"], info["target_bitrate"]

    assert drawn(3) == drawn(3)
    many = {drawn(seed) for seed in range(40)}
    assert len(many) == len(CLIPS) * len(TARGETS)
    assert len({drawn(None) for _ in range(40)}) > 5
    env.close()
    ranged = make(target_bitrate={"low": 30, "high": 300})
    targets = [ranged.reset(seed=seed)[1]["target_bitrate"] for seed in range(60)]
    assert min(targets) >= 30 and max(targets) <= 300
    assert 60 < math.exp(np.mean(np.log(targets))) < 150  # the geometric mean is 95
    ranged.close()


def test_reset_options_choose():
    env = make()
    _, info = env.reset(seed=0, options={"clip": "clip2", "target_bitrate": 99})
    assert (info["clip_index"], info["target_bitrate"]) == (2, 99)
    assert env.unwrapped.clip_names[2] == "clip2"
    for options, words in (
        ({"clip": "nothing"}, "unknown clip 'nothing': choose from clip0, clip1, clip2"),
        ({"target_bitrate": 0}, "target_bitrate"),
        ({"speed": 1}, "unknown option 'speed'"),
    ):
        with pytest.raises(InputError, match=words):
            env.reset(options=options)
    env.close()


def test_an_episode_is_an_encode():
    env = make()
    *_, info = episode(env, seed=0, action=90, clip="clip1", target_bitrate=80)
    log = encode(CLIPS[1], EncoderOptions(target_bitrate=80, cpu_used=4), ConstantQ(90))
    assert info["log"].stream == log.stream
    assert info["psnr"] == log.psnr
    assert info["bitrate"] == log.bitrate
    assert info["overshoot"] == pytest.approx(log.bitrate / 80 - 1)
    assert info["constraint_met"] == (log.bitrate <= 80)
    env.close()


def test_the_spec_pickles_and_makes_an_equal_environment():
    env = make()
    again = gymnasium.make(pickle.loads(pickle.dumps(env.spec)))
    first, second = episode(env, 5), episode(again, 5)
    assert first[2]["log"].stream == second[2]["log"].stream
    env.close(), again.close()


@pytest.mark.parametrize("env_id", IDS)
def test_observations_are_in_the_space_and_every_column_is_used(env_id, carphone):
    env = make(env_id, clips=[carphone, make_video(64, 48, 140)], auto_alt_ref=6)
    seen = {key: np.zeros(len(columns), bool) for key, columns in TABLES.items()}
    for clip in (carphone.name, "made"):
        observations, *_ = episode(env, seed=1, clip=clip)
        for observation in observations:
            assert env.observation_space.contains(observation)
            for key, value in observation.items():
                assert np.isfinite(value).all()
                if key in seen:
                    rows = value.reshape(-1, value.shape[-1])
                    seen[key] |= (rows != 0).any(axis=0)
    unused = {
        f"{key}.{column.name}"
        for key, columns in TABLES.items()
        for column, used in zip(columns, seen[key], strict=True)
        if not used
    }
    # Neither clip has letterbox bars or flat blocks; libvpx codes each golden frame with an ARF.
    allowed = {
        "first_pass.inactive_zone_rows",
        "first_pass.inactive_zone_cols",
        "first_pass.intra_skip_pct",
        "first_pass.pcnt_intra_low",
        "history.is_golden",
        "history.is_overlay",
        "frame.is_golden",
        "frame.is_overlay",
        "group.is_golden",
        "group.is_overlay",
    }
    if env_id == IDS[0]:
        allowed.add("history.lambda_scale")
    assert unused <= allowed, unused - allowed
    env.close()


def test_the_docstring_shows_the_spaces():
    env = make(max_frames=150).unwrapped
    doc = inspect.getdoc(type(env))
    assert doc
    assert "generated" not in doc
    for key in TABLES:
        space = env.observation_space[key]
        low, high = (bound.reshape(-1, space.shape[-1])[0] for bound in (space.low, space.high))
        text = doc[doc.index(f"\n`{key}` (") :]
        assert re.match(rf"\n`{key}` \(.*\b{space.shape[-1]},?\)", text)
        table = text[text.index("| Num") :].partition("\n\n")[0].splitlines()[2:]
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
        assert [row[0] for row in rows] == list(map(str, range(space.shape[-1])))
        assert np.array_equal(np.array([row[2] for row in rows], np.float32), low)
        assert np.array_equal(np.array([row[3] for row in rows], np.float32), high)
        assert len({row[1] for row in rows}) == len(rows) and all(row[4] for row in rows)
    env.close()


def test_nothing_of_the_pending_frame_is_left_at_the_end():
    env = make()
    observations, *_ = episode(env, 0)
    assert not observations[-1]["frame"].any()
    assert observations[0]["frame"].any()
    assert not observations[0]["history_mask"].any()
    assert observations[-1]["history_mask"].sum() >= 14
    env.close()


# The temporal dependency model in the observation

COLUMNS = {column.name: number for number, column in enumerate(TABLES["group"])}
DEPENDENCY = [COLUMNS[name] for name in ("has_dependency", "importance", "model_bits")]


def blocks_of_cell(cell, cells, blocks):
    if blocks < cells:
        return [math.floor(Fraction(2 * cell + 1, 2) * blocks / cells)]
    return [
        n for n in range(blocks) if n in range(cell * blocks // cells, (cell + 1) * blocks // cells)
    ]


def map_by_hand(own, importance):
    """ln(importance) / 10 of each cell of 9x16, one after the other."""
    result = np.zeros((9, 16))
    for row, col in np.ndindex(9, 16):
        blocks = [
            (y, x)
            for y in blocks_of_cell(row, 9, own.shape[0])
            for x in blocks_of_cell(col, 16, own.shape[1])
        ]
        total = sum(float(own[block]) * importance[block] for block in blocks)
        result[row, col] = math.log(total / sum(float(own[block]) for block in blocks)) / 10
    return result


def dependency_by_hand(video, group, q_index):
    """The three columns of a group, and the maps of its frames by position."""
    coded = [
        position
        for position in range(group.size)
        if group.update_type[position] != UpdateType.SHOWN_AGAIN
        and group.show_index[position] < video.num_frames
    ]
    columns, maps = np.zeros((group.size, 3)), {}
    if len(coded) > 1:
        references = [
            [coded.index(r) if r in coded else -1 for r in group.references[position]]
            for position in coded
        ]
        shown = [int(group.show_index[position]) for position in coded]
        model = analyse(video, shown, references, [q_index] * len(coded))
        for n, position in enumerate(coded):
            importance = math.log(model.frame_importance[n]) / 10
            bits = math.log(model.rate[n].sum() / (video.width * video.height)) / 10
            columns[position] = 1, importance, bits
            maps[position] = map_by_hand(model.own[n], model.importance[n])
    return columns, maps


@pytest.mark.parametrize("layers", [1, 6])
def test_the_dependency_model_is_the_one_computed_by_hand(layers, carphone):
    env = make(clips=[carphone], target_bitrate=60, auto_alt_ref=layers)
    observation, _ = env.reset(seed=0)
    options = EncoderOptions(target_bitrate=60, cpu_used=4, auto_alt_ref=layers)
    groups, seen = [], 0
    with EncodeSession(carphone, options) as session:
        while (frame := session.frame) is not None:
            if frame.group_index not in groups:
                groups.append(frame.group_index)
                columns, maps = dependency_by_hand(carphone, session.group, frame.libvpx_q_high)
            found = observation["group"][: len(columns), DEPENDENCY]
            np.testing.assert_allclose(found, columns, rtol=1e-6)
            assert not observation["group"][len(columns) :, DEPENDENCY].any()
            expected = maps.get(frame.group_position, np.zeros((9, 16)))
            np.testing.assert_allclose(observation["importance"], expected, rtol=1e-5, atol=1e-8)
            seen += bool(expected.any())
            session.step(Decision(120))
            observation, *_ = env.step(120)
    assert len(groups) > 2
    assert seen > 10
    assert not observation["importance"].any()
    env.close()


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (8, 17), (9, 16), (10, 15), (23, 40), (68, 120)])
def test_the_map_is_the_one_of_a_slow_loop(size):
    rng = np.random.default_rng(0)
    own = rng.integers(1, 200_000, (2, *size), np.int32)
    importance = 1 + rng.exponential(2, own.shape)
    starts = tuple(
        view.cell_starts(n, cells) for n, cells in zip(size, view.IMPORTANCE_GRID, strict=True)
    )
    found = view.importance_map(own, importance, starts)
    assert found.shape == (2, 9, 16)
    for n in range(2):
        np.testing.assert_allclose(found[n], map_by_hand(own[n], importance[n]), rtol=1e-12)


def test_the_model_runs_once_per_group_and_not_at_all_unless_asked(carphone, monkeypatch):
    calls = []

    def counted(video, show_index, *arguments):
        calls.append(int(show_index[-1]))
        return analyse(video, show_index, *arguments)

    monkeypatch.setattr(view, "analyse", counted)
    chosen = {"clips": [carphone], "target_bitrate": 60, "auto_alt_ref": 6}
    with_model, without = make(**chosen), make(dependency=False, **chosen)
    bare, *_ = episode(without, 0, action=120)
    assert not calls
    full, *_, info = episode(with_model, 0, action=120)
    decided = info["log"].records[info["log"].records["is_shown_again"] == 0]
    assert 1 < len(calls) <= len(set(decided["group_index"].tolist()))
    assert with_model.observation_space == without.observation_space
    for a, b in zip(bare, full, strict=True):
        assert not a["importance"].any()
        assert not a["group"][:, DEPENDENCY].any()
        b["importance"][...] = 0
        b["group"][:, DEPENDENCY] = 0
        assert same(a, b)
    with_model.close(), without.close()


def test_pictures_smaller_than_a_block_have_no_model():
    frames = make_video(24, 16, 14).frames[:, : frame_bytes(24, 12)]
    # Built by hand, since nothing that opens videos takes such a size.
    small = Video("small", np.ascontiguousarray(frames), 24, 12, Fraction(30), "24x12")
    env = make(clips=[small])
    for observation in episode(env, 0, action=120)[0]:
        assert not observation["importance"].any()
        assert not observation["group"][:, DEPENDENCY].any()
    env.close()


def test_of_a_group_that_is_too_long_the_first_frames_are_modelled():
    frames = np.full((140, frame_bytes(64, 48)), 128, np.uint8)
    frames[:, : 64 * 48] = make_video().frames[0, : 64 * 48]
    still = video_from_frames(frames, 64, 48, 30, name="still")
    env = make(clips=[still], cpu_used=8, key_frame_max_distance=9999)
    *observations_, _ = episode(env, 0, action=120)[0]
    assert len(observations_) == 140  # a single group, without an ARF
    assert observations_[0]["group"][:, COLUMNS["has_dependency"]].all()
    has_map = [bool(observation["importance"].any()) for observation in observations_]
    assert all(has_map[:100]) and not any(has_map[126:])
    env.close()


@pytest.mark.parametrize(
    ("earlier", "now", "observation"),
    [
        ("vpxrc/RateControl-v1", IDS[0], "dict"),
        ("vpxrc/RateControlContinuous-v1", IDS[1], "dict"),
        ("vpxrc/ResidualRateControl-v0", "vpxrc/ResidualRateControl-v1", "columns"),
        (
            "vpxrc/ResidualRateControlContinuous-v0",
            "vpxrc/ResidualRateControlContinuous-v1",
            "columns",
        ),
    ],
)
def test_earlier_versions_have_their_observations_and_reward(earlier, now, observation):
    arguments: Any = {"clips": CLIPS, "target_bitrate": 80, "cpu_used": 8}
    with pytest.warns(DeprecationWarning, match="out of date"):
        old = gymnasium.make(earlier, **arguments)
    new = gymnasium.make(now, observation=observation, **arguments)
    assert old.observation_space == new.observation_space
    rewards = [cast(EncodeEnv[Any], env.unwrapped).reward for env in (old, new)]
    assert [isinstance(reward, PsnrReward) for reward in rewards] == [True, False]
    old.close()
    new.close()


# Rewards, each against its definition by hand on logs with chosen figures


def log_with(psnr, bitrate, target=100):
    return SimpleNamespace(
        clip=CLIPS[0].format,
        options=EncoderOptions(target_bitrate=target),
        psnr=psnr,
        bitrate=bitrate,
        overshoot=bitrate / target - 1,
    )


def test_psnr_and_lagrangian():
    assert PsnrReward()(log_with(33.5, 120)) == 33.5
    assert LagrangianReward(10)(log_with(33.5, 120)) == pytest.approx(31.5)
    assert LagrangianReward(10)(log_with(33.5, 240, target=200)) == pytest.approx(31.5)
    assert LagrangianReward(10)(log_with(33.5, 80)) == 33.5


def test_strict_self_competition_is_the_papers():
    """sgn(O_ema - O) where either overshoots, else sgn(P - P_ema); then the averages move."""
    reward = SelfCompetition(decay=0.5)
    assert reward(log_with(30, 90)) == 0  # starts P_ema = 30, O_ema = -0.1
    assert reward(log_with(32, 90)) == 1  # P_ema = 31
    assert reward(log_with(30.5, 90)) == -1  # P_ema = 30.75
    assert reward(log_with(40, 120)) == -1  # overshoots: quality does not count; O_ema = 0.05
    assert reward(log_with(10, 90)) == 1  # the average overshoots, this one less
    key = (CLIPS[0].content_hash, 100)
    assert reward.table[key] == pytest.approx(
        (((30.75 + 40) / 2 + 10) / 2, ((-0.1 + 0.2) / 2 - 0.1) / 2)
    )
    assert reward(log_with(50, 90, target=200)) == 0  # another pair


def test_augmented_self_competition_prices_the_bitrate():
    reward = SelfCompetition(decay=0.5, overshoot_price=0.005)
    reward(log_with(30, 90))  # quality 30.05
    assert reward(log_with(30, 80)) == 1  # 30.1
    assert reward(log_with(30.01, 100)) == -1  # 30.01 < 30.075


def test_the_table_of_averages_survives():
    reward, other = SelfCompetition(), SelfCompetition()
    reward(log_with(30, 90))
    other.load_state_dict(reward.state_dict())
    assert other.table == reward.table != {}
    assert other(log_with(31, 90)) == 1


def test_an_environment_pays_what_its_reward_says():
    competition = SelfCompetition()
    env = make(reward=competition)
    for expected, q in ((0, 100), (1, 90), (-1, 110)):
        chosen = {"clip": "clip0", "target_bitrate": 2000}
        _, rewards, _ = episode(env, action=q, **chosen)
        assert rewards[-1] == expected
        assert not any(rewards[:-1])
    env.close()


# Actions


@pytest.mark.parametrize("action", [256, -1, 3.5, float("nan"), None, [3, 4]])
def test_bad_actions_are_refused_and_change_nothing(action):
    env = make().unwrapped
    env.reset(seed=0)
    env.step(100)
    with pytest.raises(InvalidAction):
        env.step(action)
    env.step(100)
    env.close()


@pytest.mark.parametrize("action", [[0, 0, 2], [0, 0], [0, math.nan, 0], "abc"])
def test_bad_continuous_actions(action):
    env = make(IDS[1]).unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step(action)
    env.close()


def test_step_needs_a_reset():
    env = make().unwrapped
    with pytest.raises(ResetNeeded):
        env.step(100)
    episode(env, 0)
    with pytest.raises(ResetNeeded):
        env.step(100)
    env.close()
    env.close()


def test_continuous_levers(carphone):
    env = make(IDS[1], clips=[carphone], target_bitrate=60, auto_alt_ref=6)
    options = EncoderOptions(target_bitrate=60, cpu_used=4, auto_alt_ref=6)

    def stream(*action):
        return episode(env, 0, action=np.array(action, np.float32))[2]["log"]

    neutral = stream(0, 0, 0)
    assert neutral.stream == encode(carphone, options, ConstantQ(128)).stream
    assert stream(0, 0, -1).stream != neutral.stream
    assert stream(0, 1, 0).bits < neutral.bits < stream(0, -1, 0).bits
    assert stream(-0.5, 0, 0).bits > neutral.bits
    env.close()


# Pictures and ends


def test_render_is_the_decoded_frame():
    env = make(render_mode="rgb_array")
    env.reset(seed=0, options={"clip": "clip0"})
    assert env.render().shape == (48, 64, 3)
    assert not env.render().any()
    env.step(60)
    picture = env.render()
    done = False
    while not done:
        _, _, done, *_ = env.step(60)
    frame = decode_vp9(env.unwrapped.log.stream, 64, 48)[0]
    luma = frame[: 64 * 48].reshape(48, 64).astype(float)
    u, v = (frame[64 * 48 :].reshape(2, 24, 32).astype(float) - 128).repeat(2, 1).repeat(2, 2)
    # BT.601, limited range, by the standard's coefficients
    green = 1.164 * (luma - 16) - 0.392 * u - 0.813 * v
    red = 1.164 * (luma - 16) + 1.596 * v
    assert np.abs(picture[..., 1] - np.clip(green, 0, 255)).max() <= 1
    assert np.abs(picture[..., 0] - np.clip(red, 0, 255)).max() <= 1
    env.close()


def test_closing_anywhere_leaves_nothing():
    process = psutil.Process()
    env = make()
    rng = np.random.default_rng(0)

    def some(count):
        for _ in range(count):
            env.reset()
            for _ in range(rng.integers(10)):
                env.step(120)

    some(10)
    env.close()
    threads, memory = process.num_threads(), process.memory_info().rss
    some(60)
    env.close()
    assert process.num_threads() == threads
    assert process.memory_info().rss - memory < 3 * 2**20


def test_arguments_are_checked_at_once():
    with pytest.raises(InputError, match="target_bitrate"):
        RateControlEnv(CLIPS, 0)
    with pytest.raises(InputError, match="cpu_used"):
        RateControlContinuousEnv(CLIPS, 80, cpu_used=12)
    with pytest.raises(InputError, match="names of the clips must differ"):
        RateControlEnv([CLIPS[0], CLIPS[0]], 80)


def test_specification_is_in_gymnasiums_order():
    headings = re.findall(r"## (.+)", RateControlEnv.__doc__ or "")
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
