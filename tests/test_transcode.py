"""``vpxrc.transcode`` and ``vpxrc encode`` write the same files."""

import functools
import json
from typing import Any

import pytest
from test_encode import QUICK, clip, run, scenes, scenes_file  # noqa: F401

import vpxrc
from vpxrc import QualityTarget
from vpxrc.agents.teacher.search import improve_by
from vpxrc.errors import InputError

FAST: dict[str, Any] = {"cpu_used": 8, "policy": "libvpx-vbr"}


@pytest.mark.parametrize(
    ("suffix", "options", "arguments"),
    [
        (".webm", ("-b", 60), {"target_bitrate": 60}),
        (".ivf", ("-b", 60, "--fps", 12), {"target_bitrate": 60, "fps": 12}),
        (".webm", ("--size", 0.06), {"size": 0.06}),
        (".webm", ("--target", "psnr=33"), {"target": QualityTarget("psnr", 33)}),
        (".webm", ("-b", 60, "--no-audio"), {"target_bitrate": 60, "audio": False}),
        (
            ".webm",
            ("-b", 60, "--chunk", 0.9, "--jobs", 2),
            {"target_bitrate": 60, "chunk": 0.9, "jobs": 1},
        ),
    ],
)
def test_both_write_the_same_bytes(scenes_file, tmp_path, suffix, options, arguments):  # noqa: F811
    by_command, by_call = tmp_path / f"command{suffix}", tmp_path / f"call{suffix}"
    printed = json.loads(run(scenes_file, "-o", by_command, *options, *QUICK, "--json"))
    result = vpxrc.transcode(scenes_file, by_call, **arguments, **FAST)
    assert by_call.read_bytes() == by_command.read_bytes()
    assert result.path == by_call
    assert result.num_bytes == by_call.stat().st_size
    assert result.log.stream[:4] == b"DKIF"
    figures = json.loads(json.dumps(result.figures()))
    times = {"output", "seconds", "encode_seconds"}
    assert {key: value for key, value in figures.items() if key not in times} == {
        key: printed[key] for key in figures if key not in times
    }


def test_progress_is_of_frames_that_are_counted(scenes_file, tmp_path):  # noqa: F811
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    common: dict[str, Any] = {"target_bitrate": 60, "cpu_used": 8, "progress": progress}
    vpxrc.transcode(scenes_file, tmp_path / "a.ivf", policy="constant-q:120", **common)
    assert (seen[0], seen[-1]) == ((0, 80), (80, 80))
    seen.clear()
    vpxrc.transcode(scenes_file, tmp_path / "b.ivf", policy="libvpx-vbr", **common)
    assert (seen[0], seen[-1]) == ((0, None), (80, None))


def test_a_search_is_handed_in(clip, tmp_path):  # noqa: F811
    by_command, by_call = tmp_path / "command.ivf", tmp_path / "call.ivf"
    run(clip, "-o", by_command, "-b", 60, "--cpu-used", 8, "--policy", "dependency", "--effort", 2)
    search = functools.partial(improve_by, "dependency", 2)
    options: dict[str, Any] = {"target_bitrate": 60, "cpu_used": 8, "policy": "dependency"}
    result = vpxrc.transcode(clip, by_call, encode=search, **options)
    assert result.log.encodes == 2
    assert by_call.read_bytes() == by_command.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "give one of target_bitrate, size and target"),
        ({"target_bitrate": 60, "size": 1}, "give one of target_bitrate, size and target"),
        ({"size": 1, "target": QualityTarget("vmaf", 9)}, "give one of target_bitrate, size and"),
        ({"target": QualityTarget("vmaf", 9), "max_encodes": 0}, "max_encodes must be at least 1"),
        ({"size": float("inf")}, "size must be above 0"),
        ({"target_bitrate": 60, "chunk": -1}, "chunk must be at least 0"),
        ({"target_bitrate": 60, "policy": "none"}, "none"),
        ({"target_bitrate": 60, "fps": "fast"}, "fps 'fast' is not a number"),
    ],
)
def test_bad_arguments_leave_nothing(clip, tmp_path, arguments, words):  # noqa: F811
    with pytest.raises(InputError, match=words):
        vpxrc.transcode(clip, tmp_path / "out.webm", **arguments)
    with pytest.raises(InputError, match=r"one of \.webm, \.ivf"):
        vpxrc.transcode(clip, tmp_path / "out.mp4", target_bitrate=60)
    with pytest.raises(InputError, match="no such file"):
        vpxrc.transcode(tmp_path / "none.mp4", tmp_path / "out.webm", target_bitrate=60)
    assert list(tmp_path.iterdir()) == []
