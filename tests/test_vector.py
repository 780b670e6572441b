"""Many encodes at once give, bit for bit, what one after the other gives."""

import copy
import multiprocessing
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import psutil
import pytest
from conftest import make_video
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

from vpxrc import EncoderOptions, InputError, encode, make_policy
from vpxrc.envs import (
    GainReward,
    RateControlVectorEnv,
    ResidualRateControlVectorEnv,
    SelfCompetition,
)

CLIPS = [make_video(num_frames=n, seed=n, name=f"clip{n}") for n in (8, 12, 15)]
ARGUMENTS: dict[str, Any] = {"clips": CLIPS, "target_bitrate": [40, 160], "cpu_used": 5}
DICT: dict[str, Any] = {"observation": "dict"}
ENVS = 3


def make(env_id, mode, **arguments):
    return gymnasium.make_vec(
        env_id, num_envs=ENVS, vectorization_mode=mode, **{**ARGUMENTS, **arguments}
    )


def run(env, steps, seed=11):
    rng = np.random.default_rng(5)
    yield env.reset(seed=seed)
    for _ in range(steps):
        actions = (
            rng.integers(1, 256, ENVS)
            if env.single_action_space.shape == ()
            else rng.uniform(-1, 1, (ENVS, 3)).astype(np.float32)
        )
        *results, infos = env.step(actions)
        yield *results, infos


@pytest.mark.parametrize("env_id", ["vpxrc/RateControl-v2", "vpxrc/RateControlContinuous-v2"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_equal_to_gymnasiums_own(env_id, mode):
    ours, theirs = make(env_id, "vector_entry_point", **DICT), make(env_id, mode, **DICT)
    assert type(ours).__module__ == "vpxrc.envs.vector"
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    ended, importance = 0, 0.0
    for a, b in zip(run(ours, 50), run(theirs, 50), strict=True):
        assert data_equivalence(a, b, exact=True)
        ended += int(a[2].sum()) if len(a) == 5 else 0
        importance += a[0]["importance"].sum()
    assert ended >= 2 * ENVS  # so the automatic resets were compared too
    assert importance > 0
    ours.close(), theirs.close()


RESIDUAL = {"base": "dependency", "decisions": "frame"}


@pytest.mark.parametrize("kind", ["ResidualRateControl", "ResidualRateControlContinuous"])
def test_residual_environments_are_equal_to_single_ones(kind):
    """Step by step, with gains paid step by step, and the resets between."""
    env_id, steps, rng = f"vpxrc/{kind}-v1", 60, np.random.default_rng(6)
    reward = GainReward(tolerance=9.0)
    for clip in CLIPS:
        for target in (40, 160):
            options = EncoderOptions(target, cpu_used=5)
            reward.reference(encode(clip, options, make_policy("dependency")), slope=4.0)
    arguments = {**ARGUMENTS, **RESIDUAL, "reward": reward}
    ours = gymnasium.make_vec(env_id, num_envs=4, **arguments)
    assert type(ours.unwrapped).__name__ == f"{kind}VectorEnv"
    singles = [gymnasium.make(env_id, **arguments).unwrapped for _ in range(4)]
    assert ours.single_observation_space == singles[0].observation_space
    assert ours.single_action_space == singles[0].action_space
    observations, _ = ours.reset(seed=21)
    expected = [env.reset(seed=21 + i)[0] for i, env in enumerate(singles)]
    assert np.array_equal(observations, expected)
    over, ended, paid = [False] * 4, 0, 0
    for _ in range(steps):
        if kind == "ResidualRateControl":
            actions = rng.integers(7, size=4)
        else:
            actions = rng.uniform(-1, 1, (4, 2)).astype(np.float32)
        observations, rewards, terminations, truncations, infos = ours.step(actions)
        assert not truncations.any()
        for i, env in enumerate(singles):
            if over[i]:
                wanted: SupportsFloat
                (seen, info), wanted, over[i] = env.reset(), 0.0, False
            else:
                seen, wanted, over[i], _, info = env.step(actions[i])
            assert np.array_equal(observations[i], seen)
            assert (rewards[i], terminations[i]) == (wanted, over[i])
            for name, value in info.items():
                assert infos[name][i] == value
            ended += over[i]
            paid += wanted != 0
    assert ended >= 8 and paid > 100
    ours.close()
    for env in singles:
        env.close()


def test_residual_environments_are_equal_to_gymnasiums_own():
    arguments = {**ARGUMENTS, **RESIDUAL, "num_envs": ENVS}
    ours = gymnasium.make_vec("vpxrc/ResidualRateControl-v1", **arguments)
    theirs = gymnasium.make_vec(
        "vpxrc/ResidualRateControl-v1", vectorization_mode="sync", **arguments
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert data_equivalence(ours.reset(seed=2), theirs.reset(seed=2), exact=True)
    for n in range(20):
        actions = (np.arange(ENVS) + n) % 7
        *a, a_infos = ours.step(actions)
        *b, b_infos = theirs.step(actions)
        assert data_equivalence(a, b, exact=True)
        assert data_equivalence(a_infos, b_infos, exact=True)
    ours.close(), theirs.close()


def test_bad_residual_actions_change_nothing():
    env = ResidualRateControlVectorEnv(ENVS, **ARGUMENTS, base="constant-q:120")
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step([0, 0, 99])
    env.step([0] * ENVS)
    with pytest.raises(InputError, match="unknown policy"):
        ResidualRateControlVectorEnv(ENVS, **ARGUMENTS, base="nothing")
    env.close()
    with pytest.raises(ResetNeeded):
        env.step([0] * ENVS)


def test_without_the_dependency_model():
    env = make("vpxrc/RateControl-v2", "vector_entry_point", dependency=False, **DICT)
    single = gymnasium.make("vpxrc/RateControl-v2", **ARGUMENTS, dependency=False, **DICT)
    ours, theirs = env.reset(seed=3)[0], single.reset(seed=3)[0]
    assert not ours["importance"].any()
    assert all(np.array_equal(ours[key][0], theirs[key]) for key in theirs)
    env.close(), single.close()


def test_a_shared_reward_is_one_table():
    reward = SelfCompetition()
    env = make("vpxrc/RateControl-v2", "vector_entry_point", reward=reward)
    paid = sum(np.abs(step[1]).sum() for step in run(env, 60) if len(step) == 5)
    assert len(reward.table) > 1
    assert paid > 0
    env.close()


def test_bad_actions_change_nothing():
    env = RateControlVectorEnv(ENVS, **ARGUMENTS)
    with pytest.raises(ResetNeeded):
        env.step([100] * ENVS)
    env.reset(seed=0)
    with pytest.raises(InvalidAction):
        env.step([100, 100, 256])
    with pytest.raises(InvalidAction):
        env.step([100])
    env.step([100] * ENVS)
    env.close()


def test_closing_leaves_no_thread():
    threads = psutil.Process().num_threads()
    for _ in range(20):
        env = RateControlVectorEnv(ENVS, **ARGUMENTS)
        env.reset(seed=0)
        env.step([100] * ENVS)
        env.close()
        env.close()
    assert psutil.Process().num_threads() == threads


@pytest.mark.parametrize("env_id", ["vpxrc/RateControl-v2", "vpxrc/ResidualRateControl-v1"])
def test_same_step_is_gymnasiums(env_id):
    own = RESIDUAL if "Residual" in env_id else {"dependency": False}
    arguments = {**ARGUMENTS, **own, "num_envs": 2}
    ours: Any = gymnasium.make_vec(env_id, **arguments, autoreset_mode="SameStep")
    theirs: Any = gymnasium.make_vec(
        env_id,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **arguments,
    )
    assert ours.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert data_equivalence(ours.reset(seed=2), theirs.reset(seed=2), exact=True)
    ended = 0
    for n in range(22):
        actions = (np.arange(2) + n) % 7
        a, b = ours.step(actions), theirs.step(actions)
        assert data_equivalence(a[:4], b[:4], exact=True)
        assert a[4].keys() == b[4].keys()
        for i in np.flatnonzero(a[2]):
            ended += 1
            assert np.array_equal(a[4]["final_obs"][i], b[4]["final_obs"][i])
            assert a[4]["final_info"]["psnr"][i] == b[4]["final_info"]["psnr"][i]
    assert ended >= 2
    assert [log.stream for log in ours.call("log")] == [log.stream for log in theirs.call("log")]
    assert ours.get_attr("clip_names")[0] == ("clip8", "clip12", "clip15")
    ours.close(), theirs.close()


def test_the_first_that_are_ready():
    arguments = {**ARGUMENTS, "dependency": False}
    env = RateControlVectorEnv(4, **arguments, batch_size=2)
    singles = [gymnasium.make("vpxrc/RateControl-v2", **arguments) for _ in range(4)]
    expected = [[single.reset(seed=5 + i)[0]] for i, single in enumerate(singles)]
    steps = np.zeros(4, int)
    env.async_reset(seed=5)
    for _ in range(40):
        observations, _, terminations, truncations, infos = env.recv()
        ids = infos["env_id"]
        assert len(ids) == len(set(ids.tolist())) == len(observations) == 2
        assert not truncations.any()
        for place, i in enumerate(ids):
            if steps[i] < 6:
                assert np.array_equal(observations[place], expected[i][-1])
                expected[i].append(singles[i].step(120)[0])
        steps[ids] += 1
        env.send(np.full(2, 120), ids)
    assert steps.min() >= 10  # none is left waiting
    assert terminations.dtype == np.bool_
    with pytest.raises(ResetNeeded, match="waits for no action"):
        env.send([120], [int(ids[0])])
    env.close()
    with pytest.raises(InputError, match="need autoreset_mode NextStep"):
        RateControlVectorEnv(2, **arguments, autoreset_mode="SameStep").async_reset()
    with pytest.raises(InputError, match="autoreset_mode must be one of"):
        RateControlVectorEnv(2, **arguments, autoreset_mode="Sometimes")
    for single in singles:
        single.close()


def test_its_environments_can_be_copied_and_it_cannot():
    env = RateControlVectorEnv(2, **ARGUMENTS, dependency=False)
    env.reset(seed=0)
    env.step([120, 130])
    with pytest.raises(TypeError, match=r"copy env.envs\[i\].clone\(\) instead"):
        copy.deepcopy(env)
    copies = [one.clone() for one in env.envs]
    observations, rewards, *_ = env.step([140, 150])
    for i, (one, action) in enumerate(zip(copies, (140, 150), strict=True)):
        observation, reward, *_ = one.step(action)
        assert np.array_equal(observation, observations[i]) and reward == rewards[i]
        one.close()
    env.close()


def _reset_in_child(env, queue):
    try:
        env.step([120, 120])
    except ResetNeeded as error:
        queue.put(str(error))
    queue.put(env.reset(seed=3)[0].tolist())
    queue.put(env.step([120, 130])[0].tolist())
    queue.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_begins_anew():
    env = RateControlVectorEnv(2, **ARGUMENTS, dependency=False)
    env.reset(seed=1)
    env.step([120, 120])
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_reset_in_child, args=(env, queue))
    child.start()
    complaint, *found = [queue.get(timeout=60) for _ in range(3)]
    child.join(60)
    assert child.exitcode == 0
    assert "is a fork" in complaint
    env.step([120, 120])  # the parent's go on
    assert found == [env.reset(seed=3)[0].tolist(), env.step([120, 130])[0].tolist()]
    env.close()


def test_episodes_that_are_cut_off():
    env = RateControlVectorEnv(2, **ARGUMENTS, dependency=False, max_episode_steps=3)
    env.reset(seed=0)
    truncated = [env.step([120, 120])[3].tolist() for _ in range(5)]
    assert truncated == [[False] * 2, [False] * 2, [True] * 2, [False] * 2, [False] * 2]
    env.close()
