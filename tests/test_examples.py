"""The example package: installed as pip does it, found by its entry point, used by the program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import pytest

pytestmark = pytest.mark.xdist_group("examples")  # one installation for all of them

EXAMPLE = Path(__file__).parents[1] / "examples" / "vpxrc-example-policy"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The environment of a process that has the example installed."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "package"
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)  # builds leave files beside it
    options = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
    return {**os.environ, "PYTHONPATH": str(target)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    source = ["-f", "lavfi", "-i", "testsrc2=s=96x80:r=25", "-frames:v", "12"]
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-v", "error", *source, "-pix_fmt", "yuv420p", path], check=True)
    return path


def run(environment, *arguments):
    command = [sys.executable, "-m", "vpxrc", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_it_is_found(environment):
    assert "pyramid" in json.loads(run(environment, "doctor", "--json").stdout)["policies"]


@pytest.mark.parametrize("policy", ["pyramid", "pyramid:3"])
def test_it_encodes(environment, clip, tmp_path, policy):
    output = tmp_path / "out.webm"
    result = run(environment, "encode", clip, "-b", 100, "-o", output, "--policy", policy, "--json")
    facts = json.loads(result.stdout)
    assert output.is_file()
    assert facts["policy"] == policy
    assert 1 <= facts["encodes"] <= (3 if policy.endswith("3") else 8)
    if policy == "pyramid":
        assert facts["overshoot"] <= 0


def test_it_is_evaluated(environment, clip, tmp_path):
    """In worker processes, which find it by its entry point as well."""
    policies = ("--agent", "pyramid:3", "--baseline", "libvpx-vbr")
    settings = ("--bitrates", "40,60,90,140", "--cpu-used", 8, "--metrics", "psnr", "--jobs", 1)
    out = tmp_path / "out"
    result = run(
        environment, "evaluate", *policies, *settings, "--clips", clip, "--out", out, "--json"
    )
    summary = json.loads(result.stdout)
    assert summary["agent"] == "pyramid:3"
    assert summary["encodes"]["pyramid:3"] <= 12
