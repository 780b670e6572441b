"""``vpxrc.transcode`` and ``vpxrc encode`` write the same files."""

import functools
import json
from typing import Any

import pytest
from conftest import ffmpeg
from test_encode import QUICK, run

import vpxrc
from vpxrc import QualityTarget
from vpxrc.agents.teacher.search import improve_by
from vpxrc.errors import InputError
from vpxrc.transcoding.chunks import encode_by
from vpxrc.transcoding.pipeline import preview_transcode

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
def test_both_write_the_same_bytes(scenes_file, tmp_path, suffix, options, arguments):
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


def test_progress_is_of_frames_that_are_counted(scenes_file, tmp_path):
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))

    common: dict[str, Any] = {"target_bitrate": 60, "cpu_used": 8, "progress": progress}
    vpxrc.transcode(scenes_file, tmp_path / "a.ivf", policy="constant-q:120", **common)
    assert (seen[0], seen[-1]) == ((0, 80), (80, 80))
    seen.clear()
    vpxrc.transcode(scenes_file, tmp_path / "b.ivf", policy="libvpx-vbr", **common)
    assert (seen[0], seen[-1]) == ((0, None), (80, None))


def test_a_search_is_handed_in(clip, tmp_path):
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
def test_bad_arguments_leave_nothing(clip, tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        vpxrc.transcode(clip, tmp_path / "out.webm", **arguments)
    with pytest.raises(InputError, match=r"one of \.webm, \.ivf"):
        vpxrc.transcode(clip, tmp_path / "out.mp4", target_bitrate=60)
    with pytest.raises(InputError, match="no such file"):
        vpxrc.transcode(tmp_path / "none.mp4", tmp_path / "out.webm", target_bitrate=60)
    assert list(tmp_path.iterdir()) == []


# Interruptions


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def limited(video, options, progress, *, left):
    """Encode as long as encodes are left; then the process is as good as killed."""
    if not left:
        raise KeyboardInterrupt
    left.pop()
    return encode_by("libvpx-vbr", video, options, progress)


def test_an_interrupted_encode_goes_on(scenes_file, tmp_path, cache):
    common: dict[str, Any] = {"target_bitrate": 60, "chunk": 0.6, "jobs": 1, **FAST}
    whole = vpxrc.transcode(scenes_file, tmp_path / "whole.webm", **common)
    count = len(whole.chunks)
    assert count >= 4
    output = tmp_path / "out.webm"
    kept = {"recipe": "mine", **common}
    for _ in range(2):  # killed twice, after a chunk each
        with pytest.raises(KeyboardInterrupt):
            vpxrc.transcode(
                scenes_file,
                output,
                encode=functools.partial(limited, left=[None]),
                resume=True,
                **kept,
            )
        assert not output.exists()
    assert len(list((cache / "chunks").glob("*.npz"))) == 2
    resumed = vpxrc.transcode(scenes_file, output, resume=True, **kept)
    assert output.read_bytes() == (tmp_path / "whole.webm").read_bytes()
    assert resumed.log == whole.log
    assert resumed.notes[-1] == "2 chunk(s) of an earlier encode were used"
    assert not list((cache / "chunks").iterdir())  # which the file has made useless


@pytest.mark.parametrize("change", ["recipe", "bitrate", "no resume", "damage"])
def test_chunks_of_another_encode_are_not_used(scenes_file, tmp_path, cache, change):
    common: dict[str, Any] = {"chunk": 0.6, "jobs": 1, **FAST}
    half = functools.partial(limited, left=[None])
    with pytest.raises(KeyboardInterrupt):
        vpxrc.transcode(
            scenes_file, tmp_path / "a.webm", target_bitrate=60, encode=half, recipe="a", **common
        )
    (kept,) = (cache / "chunks").glob("*.npz")
    if change == "damage":
        kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    found = vpxrc.transcode(
        scenes_file,
        tmp_path / "b.webm",
        target_bitrate=90 if change == "bitrate" else 60,
        recipe="b" if change == "recipe" else "a",
        resume=change != "no resume",
        **common,
    )
    assert not any("earlier encode" in note for note in found.notes)


# A look at what will be


def test_a_preview_is_close_to_the_whole(tmp_path, cache):
    source = tmp_path / "long.mkv"
    pictures = "testsrc2=s=96x80:r=25:d=20,noise=alls=10:allf=t"
    ffmpeg("-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", "sine=d=20", "-c:v", "ffv1", source)
    common: dict[str, Any] = {"target_bitrate": 80, "jobs": 1, **FAST}
    expected = preview_transcode(source, **common)
    assert 50 <= expected.num_frames <= 260
    found = vpxrc.transcode(source, tmp_path / "out.webm", **common)
    assert expected.bitrate == pytest.approx(found.log.bitrate, rel=0.2)
    assert expected.num_bytes == pytest.approx(found.num_bytes, rel=0.2)
    assert expected.psnr == pytest.approx(found.log.psnr, abs=1)
    assert expected.seconds > 0
    assert json.loads(json.dumps(expected.figures()))["notes"] == list(expected.notes)


def test_a_preview_of_a_short_video_is_its_encode(scenes_file, cache):
    printed = json.loads(run(scenes_file, "--sample", "-b", 60, *QUICK, "--json"))
    assert printed["num_frames"] == 80
    assert printed["bitrate"] == pytest.approx(60, rel=0.2)
    assert "about" in run(scenes_file, "--sample", "-b", 60, *QUICK)
