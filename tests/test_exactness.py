"""Bit exactness on real clips, against libvpx's own program built from the same source.

Short segments here; `vpxrc verify CLIP` runs the same checks on whole clips.
"""

import dataclasses
import subprocess

import pytest
from conftest import SHARED_CLIPS

from vpxrc import EncoderOptions, encode
from vpxrc.datasets import load_clips
from vpxrc.encoder.first_pass import first_pass_stats
from vpxrc.evaluation.verify import check_oracle, check_psnr, observe, oracle_program
from vpxrc.media.frames import write_y4m
from vpxrc.policies.libvpx import LibvpxVbr
from vpxrc.policies.replay import Replay

EVAL_CLIPS = ("flutter_bee", "openh264_test_cif_I_CABAC_slice", "webrtc_mixed-content")
SETTINGS = [(layers, speed) for layers in (1, 6) for speed in (1, 2, 4)]


def sample(name, num_frames=50):
    (clip,) = (clip for clip in load_clips("samples") if clip.name == name)
    return dataclasses.replace(clip, num_frames=num_frames).open()


def eval_clip(name):
    if not SHARED_CLIPS.is_dir():
        pytest.skip("the shared evaluation clips are not on this machine")
    (clip,) = load_clips(SHARED_CLIPS / "eval" / f"{name}.mp4")
    return dataclasses.replace(clip, num_frames=30).open()


@pytest.fixture(scope="module", params=EVAL_CLIPS)
def eval_video(request):
    return eval_clip(request.param)


@pytest.fixture(scope="module")
def oracle():
    program = oracle_program()
    if program is None:
        pytest.skip("no vpxenc in the cache: the package was not built here")
    return program


def all_exact(video, layers, speed, oracle):
    """Without ``check_replay``, which encodes once more for a figure; test_verify.py has it."""
    options = EncoderOptions(
        target_bitrate=100 if video.width < 400 else 250, cpu_used=speed, auto_alt_ref=layers
    )
    with_tpl, without = (
        observe(video, options),
        observe(video, dataclasses.replace(options, tpl=False)),
    )
    checks = [
        check_oracle(video, with_tpl, oracle),
        check_oracle(video, without, oracle),
        check_psnr(video, with_tpl),
    ]
    assert [check for check in checks if not check.passed] == []
    for log in (with_tpl, without):
        assert encode(video, log.options, Replay(log)).stream == log.stream


@pytest.mark.parametrize("name", [clip.name for clip in load_clips("samples")])
@pytest.mark.parametrize(("layers", "speed"), SETTINGS)
def test_samples_are_exact(name, layers, speed, oracle):
    all_exact(sample(name), layers, speed, oracle)


@pytest.mark.parametrize(("layers", "speed"), SETTINGS)
def test_eval_clips_are_exact(eval_video, layers, speed, oracle):
    all_exact(eval_video, layers, speed, oracle)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_bitrate": 900},
        {"rate_control": "q", "cq_level": 20, "auto_alt_ref": 6},
        {"rate_control": "cq", "cq_level": 30},
        {"tpl": False, "min_quantizer": 10, "max_quantizer": 40},
    ],
)
def test_first_pass_statistics_are_vpxencs_whatever_the_second_pass_wants(
    changes, oracle, tmp_path
):
    video = sample("carphone")
    options = EncoderOptions(**{"target_bitrate": 100, **changes})
    write_y4m(video, tmp_path / "in.y4m")
    subprocess.run(
        [
            oracle,
            "--codec=vp9",
            "--passes=2",
            "--pass=1",
            "--good",
            "--ivf",
            "--cpu-used=2",
            f"--target-bitrate={options.target_bitrate}",
            f"--end-usage={options.rate_control}",
            f"--cq-level={options.cq_level}",
            f"--auto-alt-ref={options.auto_alt_ref}",
            f"--min-q={options.min_quantizer}",
            f"--max-q={options.max_quantizer}",
            f"--enable-tpl={int(options.tpl)}",
            f"--fpf={tmp_path / 'stats'}",
            "--output=/dev/null",
            tmp_path / "in.y4m",
        ],
        check=True,
        capture_output=True,
    )
    assert first_pass_stats(video, options) == (tmp_path / "stats").read_bytes()


def test_replay_stays_exact_over_many_frames_with_recodes():
    """libvpx codes several frames of this encode twice; the traces of that must be replayed."""
    video = sample("bikes", 80)
    options = EncoderOptions(target_bitrate=100, cpu_used=1, tpl=False)
    log = encode(video, options, LibvpxVbr())
    assert encode(video, options, Replay(log)).stream == log.stream
    assert encode(video, options, Replay(log, exact=False)).stream != log.stream
