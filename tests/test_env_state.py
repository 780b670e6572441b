"""Environments copied, pickled and forked in the middle of an episode; what is told; arguments."""

import copy
import json
import multiprocessing
import pickle

import gymnasium
import numpy as np
import pytest
from conftest import make_video
from gymnasium.envs.registration import EnvSpec

from vpxrc import EncoderOptions, InputError, encode, make_policy
from vpxrc.envs import REWARD_NAMES, FirstRows, RelativeReward, StepReward, make_reward
from vpxrc.policies.constant import ConstantQ

CLIPS = [make_video(num_frames=9, seed=seed, name=f"clip{seed}") for seed in range(2)]
KINDS = {
    "vpxrc/RateControl-v2": {},
    "vpxrc/ResidualRateControl-v1": {"base": "constant-q:120", "decisions": "frame"},
}


def make(env_id="vpxrc/RateControl-v2", **arguments):
    standard = {"clips": CLIPS, "target_bitrate": [40, 160], "cpu_used": 8, "dependency": False}
    if "Residual" in env_id:
        del standard["dependency"]
    return gymnasium.make(env_id, **{**standard, **KINDS.get(env_id, {}), **arguments})


def finish(env, actions):
    """Step to the end of the episode; everything that comes of it."""
    found = []
    for action in actions:
        observation, reward, done, _, info = env.step(action)
        found.append((observation.tolist(), reward, done, info))
        if done:
            break
    return found, env.unwrapped.log.stream


@pytest.mark.parametrize("env_id", KINDS)
def test_a_copy_goes_on_where_the_original_was(env_id):
    env = make(env_id)
    rng = np.random.default_rng(1)
    actions = rng.integers(1, env.action_space.n, 30)
    env.reset(seed=4)
    for action in actions[:4]:
        env.step(action)
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env)), env.unwrapped.clone()]
    # The branch that differs is finished first, so it would show in the others.
    other = env.unwrapped.clone()
    changed = finish(other, rng.integers(1, env.action_space.n, 30))
    expected = finish(env, actions[4:])
    assert expected[0][-1][2]
    for one in copies:
        assert finish(one, actions[4:]) == expected
    assert changed[1] != expected[1]
    after = env.reset()
    for one in copies:  # the generator is part of the state
        observation, info = one.reset()
        assert np.array_equal(observation, after[0]) and info == after[1]
        one.close()
    other.close(), env.close()


@pytest.mark.parametrize("env_id", KINDS)
def test_another_environment_goes_on_from_the_decisions(env_id):
    env, other = make(env_id), make(env_id)
    rng = np.random.default_rng(1)
    actions = rng.integers(1, env.action_space.n, 30)
    assert env.unwrapped.played is None
    env.reset(seed=4)
    other.reset(seed=5)
    for action in actions[:4]:
        env.step(action)
        other.step(0)
    played = env.unwrapped.played
    assert played is not None
    other.unwrapped.resume(played)
    expected = finish(env, actions[4:])
    assert finish(other, actions[4:]) == expected
    assert len(played.actions) == 4
    env.close(), other.close()


def test_a_copy_of_a_finished_or_new_environment():
    env = make()
    again = pickle.loads(pickle.dumps(env))
    assert np.array_equal(env.reset()[0], again.reset()[0])
    finish(env, [150] * 20)
    done = copy.deepcopy(env)
    assert done.unwrapped.log.stream == env.unwrapped.log.stream
    with pytest.raises(gymnasium.error.ResetNeeded):
        done.step(150)
    for one in (env, again, done):
        one.close()


def _in_child(env, actions, queue):
    queue.put(finish(env, actions))
    queue.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_by_itself():
    env = make()
    env.reset(seed=1)
    env.step(100)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(env, [140] * 20, queue))
    child.start()
    found = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    assert finish(env, [140] * 20) == found
    env.close()


def test_info_is_numbers_of_the_same_names():
    env = make(cost_limit=1.1)
    _, info = env.reset(seed=0)
    names, costs = list(info), []
    done = False
    while not done:
        *_, done, _, info = env.step(120)
        assert list(info) == names
        assert all(isinstance(value, np.number) for value in info.values())
        assert info["cost"] >= 0
        costs.append(info["cost"])
    log = env.unwrapped.log
    assert sum(costs) == pytest.approx(log.bitrate / log.options.target_bitrate)
    assert info["constraint_met"] == (log.overshoot <= 0.1)
    assert (info["psnr"], info["psnr_overall"]) == (log.psnr, log.psnr_overall)
    assert len(pickle.dumps(info)) < 1000
    env.close()


def test_the_spec_survives_json_and_has_a_horizon():
    env = make(clips="small-train", target_bitrate={"low": 64, "high": 96}, max_frames=12)
    assert env.spec is not None and env.spec.max_episode_steps == 16
    again = gymnasium.make(EnvSpec.from_json(env.spec.to_json()))
    for seed in range(3):
        first, second = env.reset(seed=seed)[1], again.reset(seed=seed)[1]
        assert first == second and 64 <= first["target_bitrate"] <= 96
    pair, listed = make(target_bitrate=(64, 96)), make(target_bitrate=[64, 96])
    drawn = {pair.reset(seed=seed)[1]["target_bitrate"] for seed in range(20)}
    assert drawn == {64, 96}
    assert drawn == {listed.reset(seed=seed)[1]["target_bitrate"] for seed in range(20)}
    for one in (env, again, pair, listed):
        one.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reward": "best"}, "unknown reward 'best': choose from relative"),
        ({"reward": 3}, "reward must be a name"),
        ({"reward": RelativeReward}, "reward must be a name"),
        ({"target_bitrate": []}, "one target at least"),
        ({"target_bitrate": "64"}, "target_bitrate must be an integer"),
        ({"target_bitrate": True}, "target_bitrate must be an integer"),
        ({"target_bitrate": {"low": 96, "high": 64}}, "low 96 is above high 64"),
        ({"target_bitrate": {"min": 96}}, "keys low and high"),
        ({"max_frames": 2.5}, "max_frames must be an integer"),
        ({"max_frames": 5}, "9 frames, more than max_frames=5"),
        ({"dependency": "no"}, "dependency must be True or False"),
        ({"observation": "image"}, "observation must be one of 'flat', 'dict'"),
        ({"cost_limit": 0}, "cost_limit must be a finite number above 0"),
        ({"timeout": "long"}, "timeout must be a finite number above 0"),
        ({"clips": 7}, "clips must be"),
        ({"clips": [7]}, "clips must be"),
        ({"speed": 1}, "speed"),
    ],
)
def test_arguments_are_checked_when_it_is_made(arguments, words):
    with pytest.raises(InputError, match=words):
        make(**arguments)


@pytest.mark.parametrize("name", REWARD_NAMES)
def test_rewards_by_name(name):
    env = make(reward=name, clips=CLIPS[:1], target_bitrate=60)
    env.reset(seed=0)
    found, _ = finish(env, [170] * 20)
    log = env.unwrapped.log
    paid = sum(reward for _, reward, *_ in found)
    if name.startswith("self-competition"):
        assert paid == 0  # the first of its pair
    else:
        assert paid == pytest.approx(env.unwrapped.reward(log))
    if isinstance(env.unwrapped.reward, StepReward):  # else the first step would pay for nothing
        nothing = env.unwrapped.reward.so_far(FirstRows(log, 0))
        assert nothing == pytest.approx(0, abs=1e-9)
    assert type(make_reward(name)) is type(env.unwrapped.reward)
    env.close()


def test_the_default_reward_is_best_near_the_target_and_paid_as_it_comes():
    (video,) = CLIPS[:1]
    reward = RelativeReward()
    options = EncoderOptions(target_bitrate=60, cpu_used=8)
    reward.prepare(video, options)
    logs = [encode(video, options, ConstantQ(q)) for q in (0, 40, 80, 120, 160, 200, 225, 250)]
    best = max(logs, key=reward)
    assert abs(best.overshoot) < 0.5
    assert reward(logs[0]) < -5  # the finest q is the worst of all
    env = make(clips=[video], target_bitrate=60)
    env.reset(seed=0)
    found, _ = finish(env, [200] * 20)
    rewards = [abs(reward) for _, reward, *_ in found]
    assert rewards[-1] <= max(rewards[:-1])
    env.close()


def test_a_vector_of_rewards():
    env = make("vpxrc/MORateControl-v0")
    env.reset(seed=0)
    total, done = np.zeros(2), False
    while not done:
        _, reward, done, _, info = env.step(150)
        assert reward.shape == env.unwrapped.reward_space.shape
        total += reward
    assert total == pytest.approx([info["psnr"], -info["overshoot"] - 1], rel=1e-5)
    env.close()


def test_the_flat_observation_is_small_and_scaled():
    shapes = set()
    for frames in (20, 300):
        env = make(max_frames=frames)
        space = env.observation_space
        shapes.add(space.shape)
        assert np.abs([space.low, space.high]).max() <= 1
        env.close()
    assert len(shapes) == 1
    assert json.dumps(env.spec.kwargs["max_frames"]) == "300"


def test_references_are_made_for_any_target(video):
    """The highest and the lowest have two neighbours as well."""
    reward = RelativeReward()
    for target in (1, 48, 2_000_000):
        reward.prepare(video, EncoderOptions(target_bitrate=target, cpu_used=8))
    log = encode(video, EncoderOptions(target_bitrate=48, cpu_used=8), make_policy("libvpx-vbr"))
    assert -2 < reward(log) < 0.5
    other = encode(video, EncoderOptions(target_bitrate=47, cpu_used=8), ConstantQ(150))
    with pytest.raises(InputError, match="call prepare"):
        reward(other)
