"""One contract over both kinds of session: libvpx's, and that of a learned codec."""

import dataclasses
import importlib.util
import json
import pickle
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
from conftest import in_this_process, make_video
from test_cli import complaint, run

import vpxrc.envs  # noqa: F401 - registers the environments
from vpxrc import Decision, EncoderError, PolicyError, SessionPool, encode, make_policy
from vpxrc.codecs.options import learned
from vpxrc.encoder.registry import make_options
from vpxrc.encoder.types import RECORD_DTYPE, State
from vpxrc.errors import EncoderTimeoutError, InputError
from vpxrc.evaluation import study
from vpxrc.media.frames import video_from_frames, write_y4m
from vpxrc.policies.replay import Replay
from vpxrc.quality import measure

HAS_TORCH = all(importlib.util.find_spec(name) for name in ("torch", "constriction"))
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="pip install 'vpxrc[codecs]'")
NUM_FRAMES = 20  # more than a group of the learned session


@pytest.fixture(scope="module")
def small():
    return make_video(48, 34, NUM_FRAMES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A codec of variable quality with random weights: its enhancement layer does the work."""
    import torch

    from vpxrc.codecs.codec import save_checkpoint
    from vpxrc.codecs.papers import build

    path = tmp_path_factory.mktemp("codec") / "random.safetensors"
    torch.manual_seed(0)
    save_checkpoint(path, build("multirate/small"), "multirate/small", {})
    return path


@pytest.fixture(scope="module", params=["vp9", pytest.param("learned", marks=needs_torch)])
def encoder(request):
    if request.param == "vp9":
        return "vp9"
    return f"learned:{request.getfixturevalue('checkpoint')}"


@pytest.fixture(scope="module")
def options(encoder):
    return make_options(encoder, target_bitrate=400, cpu_used=4)


def play(session, q_index=lambda frame: 60 + 5 * (frame.coding_index % 30)):
    """Answer every stop; return the frames that were asked about."""
    frames = []
    while session.state != State.DONE:
        if session.state == State.GROUP:
            session.step_group(None)
            continue
        frames.append(session.frame)
        session.step(Decision(q_index(session.frame)))
    return frames


@pytest.fixture(scope="module")
def log(small, options):
    """What comes of :func:`play`."""
    with options.open(small) as session:
        play(session)
        return session.log()


def test_one_decision_for_each_coded_frame(small, options):
    with options.open(small, keep_reconstruction=True) as session:
        assert session.records().dtype == RECORD_DTYPE
        assert len(session.records()) == 0
        frames = play(session)
        last = session.reconstruction
        log = session.log()
        assert session.frame is None
        assert session.progress == len(log.records)
    assert [frame.coding_index for frame in frames] == log.coded["coding_index"].tolist()
    assert [frame.update_type for frame in frames] == log.coded["update_type"].tolist()
    assert [60 + 5 * (n % 30) for n in log.coded["coding_index"]] == log.coded["q_index"].tolist()
    assert sorted(log.shown["show_index"]) == list(range(NUM_FRAMES))
    assert all(0 <= frame.libvpx_q_low <= frame.libvpx_q_high <= 255 for frame in frames)
    decoded = options.decode(log.stream, log.clip)
    assert np.array_equal(np.concatenate([plane.ravel() for plane in last]), decoded[-1])


def test_the_log_adds_up_to_the_bytes_and_to_what_is_decoded(small, options, log, tmp_path):
    assert log.records["bits"].sum() == pytest.approx(log.bits, abs=8 * len(log.packets))
    assert log.bits == 8 * sum(len(data) for data, _ in log.packets)
    decoded = options.decode(log.stream, log.clip)
    error = np.square(decoded[:, : 48 * 34].astype(float) - small.frames[:, : 48 * 34]).sum(1)
    assert log.shown["sse_y"][np.argsort(log.shown["show_index"])].tolist() == error.tolist()
    assert measure(decoded, small, ["psnr"])["psnr_y"].mean() == pytest.approx(log.psnr)
    (tmp_path / "x.ivf").write_bytes(log.stream)
    assert np.array_equal(options.decode(tmp_path / "x.ivf", log.clip), decoded)
    assert pickle.loads(pickle.dumps(log)) == log
    with pytest.raises(EncoderError, match="decode"):
        options.decode(log.stream[:-3], log.clip)


def test_the_same_decisions_give_the_same_stream(small, options, log):
    assert encode(small, options, Replay(log)) == log
    script = [Decision(int(q)) for q in log.coded["q_index"]]
    with options.open(small, script=script) as session:
        assert session.log().stream == log.stream
    with options.open(small, plan_groups=True) as session:
        assert session.state == State.GROUP
        play(session, lambda frame: 60)
        assert session.state == State.DONE


def test_wrong_answers_change_nothing(small, options):
    with options.open(small, plan_groups=True) as session:
        with pytest.raises(PolicyError, match="made: coded frame 0"):
            session.step_group([300] * session.group.size)
        with pytest.raises(PolicyError):
            session.step_group([10] * (session.group.size + 2))
        session.step_group([100] * session.group.size)
        for decision in (Decision(256), Decision(-2), Decision(100, delta_q_uv=99)):
            with pytest.raises(PolicyError, match="made: coded frame 0"):
                session.step(decision)
        assert session.state == State.FRAME
        assert session.progress == 0
        with pytest.raises(EncoderError, match="not over"):
            session.log()
        session.step(Decision(-1))
        assert session.progress == 1
    session.close()
    with pytest.raises(EncoderError, match="closed"):
        session.step(Decision(100))


def test_a_finer_step_takes_more_bits_and_is_better(small, options):
    logs = [encode(small, options, make_policy(f"constant-q:{q}")) for q in (40, 130, 220)]
    assert logs[0].bits > logs[1].bits > logs[2].bits
    assert logs[0].psnr > logs[1].psnr > logs[2].psnr
    with options.open(small) as session:
        steps = session.log2_step
        assert steps.shape == (256,)
        assert np.all(np.diff(steps) >= 0)
        assert not steps.flags.writeable
        assert session.first_pass.shape == (NUM_FRAMES, 26)


def test_a_pool_runs_them(small, options):
    pool = SessionPool(60)
    ids = {pool.open(small, options, plan_groups=True) for _ in range(2)}
    done = {}
    while len(pool):
        number, session = pool.next()
        if session.state == State.GROUP:
            session.step_group(None)
        elif session.state == State.FRAME:
            session.step(Decision(100))
        else:
            done[number] = session.log()
            pool.close_session(number)
    assert done.keys() == ids
    assert len({log.stream for log in done.values()}) == 1


@pytest.mark.parametrize("kind", ["RateControl-v2", "ResidualRateControl-v1"])
def test_environments_run_on_them(small, encoder, kind):
    extra = {"base": "layered"} if kind.startswith("Residual") else {"dependency": False}
    env = gymnasium.make(
        f"vpxrc/{kind}",
        clips=[small],
        target_bitrate=400,
        cpu_used=4,
        encoder=encoder,
        render_mode="rgb_array",
        **extra,
    )
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert (info["clip_index"], info["target_bitrate"]) == (0, 400)
    terminated, rewards = False, list[float]()
    while not terminated:
        action = 150 if kind == "RateControl-v2" else 0
        observation, reward, terminated, _, info = env.step(action)
        assert env.observation_space.contains(observation)
        rewards.append(float(reward))
    plain: Any = env.unwrapped
    log = plain.log
    assert info["psnr"] == pytest.approx(log.psnr)
    assert sum(rewards) == pytest.approx(plain.reward(log))
    asked = make_options(encoder, target_bitrate=400, cpu_used=4)
    assert log.options in (asked, asked.for_control())
    assert np.asarray(env.render()).shape == (34, 48, 3)
    env.close()
    vector = gymnasium.make_vec(
        f"vpxrc/{kind}",
        num_envs=2,
        clips=[small],
        target_bitrate=400,
        cpu_used=4,
        encoder=encoder,
        **extra,
    )
    vector.reset(seed=0)
    for _ in range(3):
        observations, *_ = vector.step([action, action])
    assert all(np.array_equal(part[0], part[1]) for part in _arrays(observations))
    vector.close()


def _arrays(observations):
    return observations.values() if isinstance(observations, dict) else [observations]


# What is the learned session's alone


@needs_torch
@pytest.mark.parametrize("target", [350, 420, 600])
def test_equal_slope_meets_the_budget(checkpoint, target):
    clip = make_video(48, 34, 12, seed=3)
    options = make_options(f"learned:{checkpoint}", target_bitrate=target)
    log = encode(clip, options, make_policy("equal-slope"))
    assert abs(log.overshoot) < 0.05
    assert len(set(log.coded["q_index"].tolist())) > 1
    # It is the session's own choice.
    with options.open(clip, script=[Decision(-1)] * 12) as session:
        assert session.log() == log


@needs_torch
def test_equal_slope_knows_that_a_later_scene_takes_more_bits():
    frames = make_video(64, 64, 18).frames.copy()
    slope = np.linspace(60, 180, 64 * 64).round().astype(np.uint8)
    frames[:9, : 64 * 64], frames[:9, 64 * 64 :] = slope, 128
    clip = video_from_frames(frames, 64, 64, 30, name="scenes")
    options = make_options("learned:gained-checkerboard-small", target_bitrate=120)
    log = encode(clip, options, make_policy("equal-slope"))
    assert abs(log.overshoot) < 0.02
    bits, q = log.coded["bits"].astype(float), log.coded["q_index"].astype(int)
    assert bits[9:].mean() > 10 * bits[:9].mean()
    assert np.ptp(q) < 12
    # The picture that is coded next is expected to take about what it takes.
    assert log.coded["target_bits"] == pytest.approx(bits, rel=0.1)


@needs_torch
def test_layered_spends_what_it_may(small, checkpoint):
    options = make_options(f"learned:{checkpoint}", target_bitrate=450)
    log = encode(small, options, make_policy("layered"))
    assert -0.15 < log.overshoot < 0.02


@needs_torch
def test_what_a_learned_session_refuses(small, checkpoint, tmp_path):
    options = learned(str(checkpoint), target_bitrate=400)
    for name in ("dependency", "imitation", "constant-quality"):
        with pytest.raises(InputError, match="predicts no picture"):
            encode(small, options, make_policy(name))
    with pytest.raises(InputError, match="libvpx's own rate control"):
        encode(small, options, make_policy("libvpx-vbr"))
    with pytest.raises(InputError, match="no mode 'q'"):
        encode(small, options, make_policy("libvpx-q"))
    with pytest.raises(InputError, match="policy of learned codecs"):
        encode(small, make_options("vp9"), make_policy("equal-slope"))
    with options.open(small) as session, pytest.raises(PolicyError, match="nothing else"):
        session.step(Decision(100, lambda_scale=2.0))
    with pytest.raises(EncoderError, match="script is over"):
        options.open(small, script=[Decision(100)] * 3)
    with options.open(small, timeout=1e-9) as session, pytest.raises(EncoderTimeoutError):
        session.step(Decision(100))
    changed = dataclasses.replace(options, weights="0" * 64)
    with pytest.raises(InputError, match="has changed"):
        changed.open(small)


@needs_torch
def test_a_codec_of_one_quality_has_no_rate_to_control(small, tmp_path):
    from vpxrc.codecs.codec import save_checkpoint
    from vpxrc.codecs.papers import build

    path = tmp_path / "one.safetensors"
    save_checkpoint(path, build("factorized/small"), "factorized/small", {})
    with pytest.raises(InputError, match="one quality"):
        make_options(f"learned:{path}").open(small)


@needs_torch
def test_frames_survive_the_way_to_rgb_and_back():
    from vpxrc.codecs.frames import frame_of, picture_of

    for width, height in ((48, 34), (17, 19)):
        clip = make_video(width, height, 2)
        frame = clip.frames[1]
        back = frame_of(picture_of(frame, width, height))
        assert np.abs(back.astype(int) - frame).max() <= 1


def test_encoders_by_name():
    assert make_options().encoder == "vp9"
    with pytest.raises(InputError, match="unknown encoder 'av1': choose from learned, vp9"):
        make_options("av1")
    with pytest.raises(InputError, match="no such checkpoint"):
        make_options("learned:nothing")
    with pytest.raises(InputError, match="learned needs a codec"):
        make_options("learned", target_bitrate=400)
    for fields in ({}, {"target_bitrate": 400}):
        with pytest.raises(InputError, match="vp9 takes no argument, such as '300'"):
            make_options("vp9:300", **fields)
    with pytest.raises(InputError, match="unexpected keyword"):
        make_options("vp9", colour=1)


@needs_torch
def test_a_study_of_a_learned_codec(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "open_workers", in_this_process)
    clip, out = tmp_path / "clip.y4m", tmp_path / "out"
    write_y4m(make_video(48, 32, 6), clip)
    arguments = ["--encoder", f"learned:{checkpoint}", "--agent", "equal-slope", "--clips", clip]
    arguments += ["--baseline", "constant-q:128", "--bitrates", "320,380,450,540"]
    arguments += ["--metrics", "psnr", "--jobs", 1, "--out", out, "--json"]
    result = run("evaluate", *arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    encodes = pd.read_parquet(out / "encodes.parquet")
    assert set(encodes["encoder"]) == {f"learned:{checkpoint}"}
    assert encodes["overshoot"].where(encodes["policy"] == "equal-slope").abs().max() < 0.05
    # The curve of constant-q is a point: there is nothing to compare.
    assert summary["constraint"].keys() == {"equal-slope", "constant-q:128"}
    page = (out / "report.html").read_text()
    assert "Decoded frames at the same target" in page
    heading = (out / "table.md").read_text().splitlines()[0]
    assert f"encoder learned:{checkpoint}" in heading
    assert "libvpx" not in heading
    before = {path: path.stat().st_mtime_ns for path in (out / "encodes").iterdir()}
    assert run("evaluate", *arguments).exit_code == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "encodes").iterdir()}
    assert "unknown encoder" in complaint("evaluate", *arguments, "--encoder", "av1")
