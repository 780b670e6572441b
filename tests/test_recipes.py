"""The recipes in examples/: each runs for a few steps where its library is installed."""

import importlib.util
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import make_video

import vpxrc.envs  # noqa: F401 - registers the environments
from vpxrc.evaluation.leaderboard import check_submission

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(**options):
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def test_ppo_in_one_file(tmp_path):
    pytest.importorskip("torch")
    out, curve = tmp_path / "ppo.json", tmp_path / "curve.csv"
    score = example("ppo").main(
        arguments(total_steps=64, num_envs=2, num_steps=16, out=out, curve=curve)
    )
    _, checked = check_submission(out)
    assert checked.value.mean == pytest.approx(score)
    assert len(curve.read_text().splitlines()) == 3
    assert len((EXAMPLES / "ppo.py").read_text().splitlines()) < 200


def test_stable_baselines3(tmp_path):
    pytest.importorskip("stable_baselines3", reason="pip install stable-baselines3")
    out = tmp_path / "sb3.json"
    example("sb3_ppo").main(arguments(total_steps=32, num_envs=2, num_steps=16, out=out))
    assert json.loads(out.read_text())["task"] == "Small-v0"


@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore")  # RLlib's own
def test_rllib_by_name(tmp_path, local_ray):
    pytest.importorskip("ray.rllib.algorithms.ppo", reason="no RLlib: pip install 'vpxrc[ray]'")
    out = tmp_path / "rllib.json"
    options = {"total_steps": 32, "num_envs": 2, "num_steps": 16, "runners": 1}
    example("rllib_ppo").main(arguments(**options, out=out))
    assert json.loads(out.read_text())["name"] == "RLlib PPO, seed 1"


@pytest.mark.filterwarnings("ignore")  # Minari's own
def test_a_minari_data_set(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="pip install 'minari[hdf5]'")
    pytest.importorskip("h5py", reason="pip install 'minari[hdf5]'")
    files = []
    for place in (tmp_path / "again", tmp_path / "first"):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(place))
        example("minari_dataset").main(arguments(name="vpxrc/try-v0", episodes=4, tries=2))
        files.append((place / "vpxrc" / "try-v0" / "data" / "main_data.hdf5").read_bytes())
    assert files[0] == files[1]  # so its hash can be published
    data = minari.load_dataset("vpxrc/try-v0")
    assert data.total_episodes == 4
    first = next(data.iterate_episodes())
    assert first.observations.shape == (len(first.rewards) + 1, *data.observation_space.shape)
    env = gymnasium.make("vpxrc/Small-v0")
    env.reset(seed=0)
    paid = [env.step(action)[1] for action in first.actions]
    assert paid == pytest.approx(first.rewards.tolist())
    env.close()


@pytest.mark.filterwarnings("ignore")  # Minari's and d3rlpy's own
@pytest.mark.parametrize("method", ["bc", "iql", "td3+bc"])
def test_offline_learning(tmp_path, monkeypatch, method):
    minari = pytest.importorskip("minari", reason="pip install 'minari[hdf5]'")
    pytest.importorskip("d3rlpy", reason="pip install d3rlpy")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    example("minari_dataset").main(arguments(name="vpxrc/try-v0", episodes=4, tries=2))
    offline = example("offline")
    data = minari.load_dataset("vpxrc/try-v0")
    returns = sorted(float(one.rewards.sum()) for one in data.iterate_episodes())
    best = [episode.rewards.sum() for episode in offline.load("vpxrc/try-v0", 0.5).episodes]
    assert best == pytest.approx(returns[:1:-1], rel=1e-5)
    out = tmp_path / "offline.json"
    score = offline.main(arguments(data="vpxrc/try-v0", method=method, steps=2, out=out))
    assert check_submission(out)[1].value.mean == pytest.approx(score)


def test_lightzero():
    pytest.importorskip("lzero", reason="no LightZero: see docs/recipes.md")
    module = example("lightzero_muzero")
    env = module.LightZeroEnv(module.configuration(module.parse([]))[0].env)
    env.seed(1)
    seen, done, total = env.reset(), False, 0.0
    assert seen["observation"].shape == (module.INPUTS,)
    while not done:
        seen, reward, done, info = env.step(env.random_action())
        total += reward
    assert info["eval_episode_return"] == pytest.approx(total)
    assert seen["action_mask"].tolist() == [1] * len(module.LEVELS)
    env.close()


def small():
    clips = [make_video(num_frames=9, seed=seed, name=f"clip{seed}") for seed in range(2)]
    return {"clips": clips, "target_bitrate": [40, 80], "cpu_used": 8, "dependency": False}


@pytest.mark.filterwarnings("ignore")  # TorchRL's own
def test_torchrl():
    envs = pytest.importorskip("torchrl.envs", reason="pip install torchrl")
    env = envs.GymEnv("vpxrc/RateControl-v2", **small()).auto_register_info_dict()
    envs.check_env_specs(env)
    played = env.rollout(4)
    assert played["next", "cost"].shape == (4,)
    env.close()


def test_mo_gymnasium():
    mo_gymnasium = pytest.importorskip("mo_gymnasium", reason="pip install mo-gymnasium")
    env = mo_gymnasium.make("vpxrc/MORateControl-v0", **small())
    assert env.unwrapped.reward_space.shape == (2,)
    env = mo_gymnasium.wrappers.MORecordEpisodeStatistics(env)
    env.reset(seed=0)
    done, total = False, np.zeros(2)
    while not done:
        _, reward, done, _, info = env.step(150)
        total += reward
    assert info["episode"]["r"] == pytest.approx(total, rel=1e-5)
    assert total == pytest.approx([info["psnr"], -info["overshoot"] - 1], rel=1e-5)
    env.close()


def test_stable_baselines3_checks():
    checker = pytest.importorskip(
        "stable_baselines3.common.env_checker", reason="pip install stable-baselines3"
    )
    for env_id in ("vpxrc/RateControl-v2", "vpxrc/RateControlContinuous-v2"):
        checker.check_env(gymnasium.make(env_id, **small()))


def test_examples_are_all_tried():
    found = {path.stem for path in EXAMPLES.glob("*.py")}
    online = {"ppo", "sb3_ppo", "rllib_ppo", "lightzero_muzero"}
    assert found == online | {"minari_dataset", "offline"}
