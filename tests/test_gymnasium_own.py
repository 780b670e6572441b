"""Gymnasium's own tests of environments, run against ours.

They are in its repository and not in its source package. ``VPXRC_GYMNASIUM_SOURCE`` names a folder
with a checkout of the version that is installed (``git clone -b v1.2.2 ...``); without it these
tests are skipped.

``vpxrc/MORateControl-v0`` is left out: its reward is an array, as MO-Gymnasium has it, and these
tests ask for a number.

Gymnasium's tests of wrappers and of vector environments make ``CartPole-v1`` by its name. Here that
name is another one for ``vpxrc/RateControl-v2``. ``OF_CARTPOLE`` are the tests that know more of
CartPole than its name.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("VPXRC_GYMNASIUM_SOURCE", "")
# Neither its wheel nor its source package has the tests, and nothing of them is copied here.
pytestmark = pytest.mark.skipif(
    not SOURCE, reason="VPXRC_GYMNASIUM_SOURCE names no checkout of Gymnasium"
)
FILES = {  # file: expression that chooses tests
    "tests/envs/test_envs.py": "",
    "tests/envs/test_rendering.py": "",
    "tests/vector/test_sync_vector_env.py": "determinism",
}
# Takes the place of tests/envs/utils.py, which keeps to Gymnasium's own environments.
UTILS = """
import gymnasium as gym
import vpxrc.envs

all_testing_env_specs = []
for env_spec in gym.envs.registry.values():
    if not env_spec.id.startswith("vpxrc/") or "MO" in env_spec.id:
        continue
    if "Small" not in env_spec.id and "Medium" not in env_spec.id:
        env_spec.kwargs = {"clips": "small-train", "target_bitrate": 48, "cpu_used": 8}
    if "Residual" in env_spec.id:
        env_spec.kwargs |= {"base": "layered"}
    all_testing_env_specs.append(env_spec)
all_testing_initialised_envs = [
    spec.make(disable_env_checker=True).unwrapped for spec in all_testing_env_specs
]
gym_testing_env_specs = mujoco_testing_env_specs = []
"""


# Another environment under the name that the tests of wrappers and vectors use.
CONFTEST = """
import copy
import gymnasium as gym
import vpxrc.envs

spec = copy.deepcopy(gym.spec("vpxrc/RateControl-v2"))
spec.id, spec.namespace, spec.name, spec.version = "CartPole-v1", None, "CartPole", 1
spec.kwargs = {"clips": "small-train", "target_bitrate": 48, "cpu_used": 8}
gym.registry["CartPole-v1"] = spec
"""
FOLDERS = ("tests/wrappers", "tests/vector")
OF_CARTPOLE = {  # words of a test's name: reason
    "test_clip_reward_wrapper": "a step pays 1",
    "test_padding_type": "an observation has four numbers",
    "test_vectorize_dict_to_box_obs": "an observation has four numbers",
    "RescaleObservation": "an observation has four numbers, two of them without bounds",
    "test_max_episode_steps": "an episode has 500 steps, after which gymnasium.make ends it",
    "test_render_modes": "its vector environment takes a render mode that it does not have",
    "test_reset_async_vector_env": "its info is empty, which the test counts on",
    "test_call_": "it has an attribute gravity",
    "test_set_attr_": "it has an attribute gravity",
    "test_vector_env_wrapper_attributes": "it has an attribute gravity",
}
# Other environments that need more packages.
OTHERS = (
    "CarRacing",
    "Ant",
    "test_resize_shapes",
    "test_invalid_input",
    "test_sync_vector_env_seed",
)


def run(folder, *arguments):
    """Run tests in a folder of tests; return how many passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout[-4000:]
    found = re.search(r"(\d+) passed", result.stdout)
    assert found is not None and "failed" not in result.stdout
    return int(found[1])


def test_gymnasiums_own_tests_of_environments(tmp_path):
    shutil.copytree(Path(SOURCE) / "tests", tmp_path / "tests")
    (tmp_path / "tests" / "envs" / "utils.py").write_text(UTILS)
    passed = sum(
        run(tmp_path, file, *(["-k", chosen] if chosen else [])) for file, chosen in FILES.items()
    )
    assert passed >= 30  # four tests or more for each of six environments


def test_gymnasiums_own_tests_of_wrappers_and_vectors(tmp_path):
    for package in ("moviepy", "cv2", "pygame", "jax"):
        pytest.importorskip(package, reason=f"no {package}: pip install 'gymnasium[other]'")
    shutil.copytree(Path(SOURCE) / "tests", tmp_path / "tests")
    (tmp_path / "conftest.py").write_text(CONFTEST)
    files = [
        str(path.relative_to(tmp_path))
        for folder in FOLDERS
        for path in sorted((tmp_path / folder).rglob("test_*.py"))
        if re.search("CartPole-v1|ENV_ID", path.read_text())
    ]
    left_out = " or ".join((*OF_CARTPOLE, *OTHERS))
    assert run(tmp_path, *files, "-k", f"not ({left_out})") >= 200
