"""Many encodes at once give, bit for bit, what one after the other gives."""

import gymnasium
import numpy as np
import psutil
import pytest
from conftest import make_video
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import data_equivalence

from vpxrc.envs import RateControlVectorEnv, SelfCompetition

CLIPS = [make_video(num_frames=n, seed=n, name=f"clip{n}") for n in (8, 12, 15)]
ARGUMENTS = {"clips": CLIPS, "target_bitrate": [40, 160], "cpu_used": 5}
ENVS = 3


def make(env_id, mode, **arguments):
    return gymnasium.make_vec(
        env_id, num_envs=ENVS, vectorization_mode=mode, **{**ARGUMENTS, **arguments}
    )


def logs_to_streams(infos):
    """Logs compare by identity; their streams are what must be equal."""
    infos = dict(infos)
    if "log" in infos:
        infos["log"] = [log and log.stream for log in infos["log"]]
    return infos


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
        yield *results, logs_to_streams(infos)


@pytest.mark.parametrize("env_id", ["vpxrc/RateControl-v1", "vpxrc/RateControlContinuous-v1"])
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_equal_to_gymnasiums_own(env_id, mode):
    ours, theirs = make(env_id, "vector_entry_point"), make(env_id, mode)
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


def test_without_the_dependency_model():
    env = make("vpxrc/RateControl-v1", "vector_entry_point", dependency=False)
    single = gymnasium.make("vpxrc/RateControl-v1", **ARGUMENTS, dependency=False)
    ours, theirs = env.reset(seed=3)[0], single.reset(seed=3)[0]
    assert not ours["importance"].any()
    assert all(np.array_equal(ours[key][0], theirs[key]) for key in theirs)
    env.close(), single.close()


def test_a_shared_reward_is_one_table():
    reward = SelfCompetition()
    env = make("vpxrc/RateControl-v1", "vector_entry_point", reward=reward)
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
