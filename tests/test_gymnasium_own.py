"""Gymnasium's own tests of environments, run against ours.

They are in its repository and not in its source package. ``VPXRC_GYMNASIUM_SOURCE`` names a folder
with a checkout of the version that is installed (``git clone -b v1.2.2 ...``); without it these
tests are skipped.

``vpxrc/MORateControl-v0`` is left out: its reward is an array, as MO-Gymnasium has it, and these
tests ask for a number.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = os.environ.get("VPXRC_GYMNASIUM_SOURCE", "")
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


@pytest.mark.skipif(not SOURCE, reason="VPXRC_GYMNASIUM_SOURCE names no checkout of Gymnasium")
def test_gymnasiums_own_tests_of_environments(tmp_path):
    shutil.copytree(Path(SOURCE) / "tests", tmp_path / "tests")
    (tmp_path / "tests" / "envs" / "utils.py").write_text(UTILS)
    passed = 0
    for file, chosen in FILES.items():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
        result = subprocess.run(
            [*command, *(["-k", chosen] if chosen else [])],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-4000:]
        found = re.search(r"(\d+) passed", result.stdout)
        assert found is not None and "failed" not in result.stdout
        passed += int(found[1])
    assert passed >= 30  # four tests or more for each of six environments
