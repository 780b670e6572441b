"""RLlib's agents: the policy beside the environment, the exported networks, and that they learn."""

import dataclasses
import ipaddress
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import make_video
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vpxrc import Decision, EncoderOptions, Policy, encode
from vpxrc.agents.checkpoints import checkpoint_metadata
from vpxrc.agents.residual import ResidualPolicy
from vpxrc.agents.rllib import Rllib, training
from vpxrc.agents.rllib.config import ALGORITHMS, RllibConfig
from vpxrc.agents.rllib.offline import (
    Demonstration,
    demonstrate,
    no_offset,
    read_episodes,
    run,
    write_episodes,
)
from vpxrc.agents.rllib.policy import FORMAT, LIMIT, PROBLEM, Network, exported
from vpxrc.agents.rllib.state import TrainingState
from vpxrc.agents.rllib.training import train
from vpxrc.agents.teacher.lessons import results
from vpxrc.agents.teacher.trajectory import Record, Trajectory
from vpxrc.datasets import Clip
from vpxrc.envs import OBSERVATION, ResidualConfig, ResidualRateControlEnv
from vpxrc.envs.residual.config import REFERENCES
from vpxrc.errors import InputError, MissingDependencyError
from vpxrc.media.frames import write_y4m
from vpxrc.policies.registry import make_policy

OPTIONS: dict[str, Any] = {"cpu_used": 8, "auto_alt_ref": 6}
# A base policy that ignores the target: at 60 kbit/s it is far above it, so that every coarser
# frame is worth more. Gains are counted from a policy that keeps to its targets.
SPENDING = ResidualConfig("constant-q:120", "frame", ((0, 0), (-1, 0), (1, 0)))
SPENT = {**OPTIONS, "reference": "libvpx-vbr", "rate": 3e-3}

pytestmark = [
    pytest.mark.xdist_group("ray"),  # one Ray for all of them
    # RLlib's own, where it builds an algorithm or reads a checkpoint, and where it builds a second.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Overriding environment rllib:UserWarning"),
]


@pytest.fixture(scope="session")
def rllib(request):
    """The session's Ray, with RLlib."""
    request.getfixturevalue("local_ray")
    pytest.importorskip("ray.rllib.algorithms.ppo", reason="no RLlib: pip install 'vpxrc[ray]'")


@pytest.fixture(scope="module")
def clip():
    return make_video(num_frames=14)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))


# The policy


class Given(ResidualPolicy):
    """Acts as it is told."""

    def __init__(self, config, actions):
        super().__init__(config)
        self.actions = actions
        self.seen = []

    def choose(self, observation):
        self.seen.append(observation)
        return self.actions[len(self.seen) - 1]


@pytest.mark.parametrize("decisions", ["group", "frame"])
@pytest.mark.parametrize("base", ["imitation-prior", "constant-q:120"])
def test_a_policy_codes_what_the_environment_codes(base, decisions):
    video = make_video(num_frames=40)
    arguments = {"base": base, "decisions": decisions, "observation": "columns", **OPTIONS}
    env = ResidualRateControlEnv([video], 60, **arguments)
    rng = np.random.default_rng(1)
    observation, _ = env.reset(seed=0)
    actions, seen, done = [], [], False
    while not done:
        actions.append(int(rng.integers(1, env.action_space.n)))
        seen.append(observation)
        observation, _, done, *_ = env.step(actions[-1])
    assert len(actions) == (3 if decisions == "group" else 40)
    policy = Given(ResidualConfig(base, decisions), actions)
    log = encode(video, EncoderOptions(target_bitrate=60, **OPTIONS), policy)
    assert env.log is not None and log.stream == env.log.stream
    np.testing.assert_array_equal(policy.seen, seen)


def test_a_policy_without_offsets_codes_what_its_base_policy_codes(clip):
    options = EncoderOptions(target_bitrate=60, cpu_used=8)
    base = encode(clip, options, make_policy("layered"))
    assert encode(clip, options, Given(ResidualConfig("layered"), [0] * 9)).stream == base.stream


# The networks


def standardised(seed):
    rng = np.random.default_rng(seed)
    size = len(OBSERVATION)
    return {
        "mean": rng.normal(0.3, 0.2, size).tolist(),
        "gain": rng.uniform(1, 20, size).tolist(),
    }


def untrained(algorithm, config=SPENDING, **own):
    """RLlib's default module of an algorithm, as it is trained here."""
    from vpxrc.agents.rllib.components import algorithm_config

    made = algorithm_config(algorithm, config, RllibConfig(**own), **standardised(0))
    return made.get_rl_module_spec().build()


def scattered(algorithm, config, **own):
    """The same with random parameters."""
    import torch

    module = untrained(algorithm, config, **own)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return module


def state_of(module):
    return {name: value.numpy() for name, value in module.state_dict().items()}


@pytest.mark.usefixtures("rllib")
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_exported_network_decides_as_the_module(algorithm, activation):
    import torch

    module = scattered(algorithm, ResidualConfig(), hidden=(32, 16), activation=activation)
    tensors = exported(algorithm, state_of(module))
    network = Network(tensors, activation, 0.5 if algorithm == "sac" else None)
    seen = np.random.default_rng(1).uniform(-4, 4, (200, len(OBSERVATION))).astype(np.float32)
    assert (np.abs((seen - tensors["mean"]) * tensors["gain"]) > LIMIT).any()
    with torch.no_grad():
        out = module.forward_inference({"obs": torch.from_numpy(seen)})["action_dist_inputs"]
    np.testing.assert_allclose(network.forward(seen), out, rtol=1e-4, atol=1e-4)
    distribution = module.get_inference_action_dist_cls().from_logits(out)
    best = distribution.to_deterministic().sample()
    if algorithm == "sac":
        offsets = 0.5 * torch.tanh(best).numpy()
        np.testing.assert_allclose([network.action(row) for row in seen], offsets, atol=1e-4)
        assert offsets.std() > 0.1
    else:
        assert [network.action(row) for row in seen] == best.tolist()
        assert len(set(best.tolist())) > 3


@pytest.mark.usefixtures("rllib")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_untrained_policy_begins_at_the_base_policy(algorithm):
    tensors = exported(algorithm, state_of(untrained(algorithm, base_share=0.8, spread=0.25)))
    out = Network(tensors, "tanh").forward(np.ones(len(OBSERVATION), np.float32))
    if algorithm == "sac":
        np.testing.assert_allclose(out, [0, 0, math.log(0.25), math.log(0.25)], rtol=1e-6)
    else:
        np.testing.assert_allclose(np.exp(out) / np.exp(out).sum(), [0.8, 0.1, 0.1], rtol=1e-6)


# Training


@pytest.mark.usefixtures("rllib")
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_slow_runner_is_waited_for(algorithm):
    from vpxrc.agents.rllib.components import algorithm_config

    made = algorithm_config(algorithm, SPENDING, RllibConfig(), **standardised(0))
    assert made.sample_timeout_s is None


def trained(out, clip, algorithm="ppo", *, config=SPENDING, **given):
    """Train, and return the figures of every iteration and what came of it."""
    figures: dict[str, Any] = {}
    arguments = {
        "clips": [clip],
        "target_bitrates": [60],
        "options": SPENT,
        "iterations": 2,
        "runners": 0,
        "seed": 1,
        "ray": "local",
        "lessons": [],
        "device": "cpu",
        "progress": lambda done, total, words, row: figures.__setitem__(done, row),
        **given,
    }
    return figures, train(algorithm, out, config=config, **arguments)


def overshoot(policy, clip):
    """Of the stream, from its bytes."""
    log = encode(clip, EncoderOptions(target_bitrate=60, **OPTIONS), policy)
    return 8 * len(log.stream) / clip.duration / 60_000 - 1


@pytest.mark.usefixtures("rllib", "cached")
def test_ppo_learns_in_processes_of_its_own(clip, tmp_path):
    out = tmp_path / "ppo.safetensors"
    seen = []

    def progress(number, total, words, figures):
        seen.append(figures)
        if number > 1:
            return
        names = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
        assert sum("Runner" in name for name in names) == 1
        assert_on_loopback()

    _, told = trained(out, clip, iterations=24, runners=1, progress=progress)
    returns = [figures["return"] for figures in seen]
    assert np.mean(returns[-3:]) > np.mean(returns[:2]) + 15  # percent
    policy = Rllib(out)
    # By 2 to 4 points: rounding errors, and so the training, differ from processor to processor.
    assert overshoot(policy, clip) < overshoot(make_policy("constant-q:120"), clip) - 0.01
    assert policy.training_clips == {clip.content_hash}
    assert told["iterations"] == 24 and told["clips"] == 1 and not told["left_out"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [out.name]


def assert_on_loopback():
    """Whoever reaches a port of Ray's may run code here."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections():
                if connection.status == psutil.CONN_LISTEN:
                    address = ipaddress.ip_address(connection.laddr.ip)
                    own = getattr(address, "ipv4_mapped", None) or address
                    assert own.is_loopback, (process.name(), own)


@pytest.mark.usefixtures("rllib", "cached")
def test_sac_moves_by_any_amount(clip, tmp_path):
    out = tmp_path / "sac.safetensors"
    options = {**SPENT, "warmup": 32, "steps": 32, "batch": 64, "reuse": 32.0, "reach": 1.0}
    figures, _ = trained(out, clip, "sac", options=options, iterations=16)
    assert {"return", "overshoot", "qf_loss"} <= figures[16].keys()
    assert overshoot(Rllib(out), clip) < overshoot(make_policy("constant-q:120"), clip) - 0.1


def stop(number, total, words, figures):
    """The end of a training that has states of two iterations."""
    if number == 3:
        raise KeyboardInterrupt


def kill(number, total, words, figures):
    """The end of its process too."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)


SHORT: dict[str, Any] = {"target_bitrates": [60, 90], "iterations": 3}
# Iterations of sac end inside of episodes, which have 15 steps.
SMALL = {**SPENT, "batch": 32, "minibatch": 16, "epochs": 2}
SMALL |= {"warmup": 16, "steps": 20, "reuse": 16.0}


@pytest.mark.usefixtures("rllib", "cached")
@pytest.mark.parametrize("runners", [0, 1])
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_killed_training_comes_to_the_same_bytes(clip, tmp_path, monkeypatch, algorithm, runners):
    whole, out, state = (tmp_path / name for name in ("a.safetensors", "b.safetensors", "b.state"))
    rewards = ["self-competition", "gain"]
    arguments = {**SHORT, "options": {**SMALL, "reward": rewards[runners]}, "runners": runners}
    expected, _ = trained(whole, clip, algorithm, **arguments)
    monkeypatch.setattr(training, "STATE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(out, clip, algorithm, progress=stop, **arguments)
    assert {path.name for path in state.iterdir()} == {"training.json", "2"}
    (runner,) = json.loads((state / "2" / "resuming.json").read_text())["runners"]
    (environment,) = runner["environments"]
    if not runners:
        averages = environment["table"]["averages"]
        assert {row[0] for row in averages} == {clip.content_hash}
        assert {row[1] for row in averages} <= {60, 90}
    if algorithm == "sac":
        assert runner["ended"] == [False] and 0 < len(environment["played"][2]) < 15

    # RLlib's checkpoint is a policy too, of the same problem.
    policy = Rllib(state / "2")
    assert policy.config == SPENDING and policy.training_clips == {clip.content_hash}
    assert policy.choose(np.zeros(len(OBSERVATION), np.float32)) is not None
    assert overshoot(policy, clip) > 0

    with pytest.raises(InputError, match="a state of another training"):
        trained(out, clip, algorithm, **{**arguments, "seed": 2})
    figures, _ = trained(out, clip, algorithm, **arguments)
    assert figures == {3: expected[3]}
    assert out.read_bytes() == whole.read_bytes()
    assert not state.exists()


@pytest.mark.usefixtures("rllib", "cached")
def test_a_process_that_is_killed_goes_on_in_another_one(clip, tmp_path, monkeypatch):
    whole, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    arguments = {**SHORT, "options": SMALL}
    trained(whole, clip, "sac", **arguments)
    code = (
        "import sys; from pathlib import Path; from conftest import make_video; import test_rllib\n"
        "test_rllib.training.STATE_EVERY = 0.0\n"
        "test_rllib.trained(Path(sys.argv[1]), make_video(num_frames=14), 'sac',"
        " options=test_rllib.SMALL, progress=test_rllib.kill, ray=sys.argv[2], **test_rllib.SHORT)"
    )
    import ray

    address = ray.get_runtime_context().gcs_address
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    command = [sys.executable, "-W", "ignore", "-c", code, str(out), address]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name for path in out.with_suffix(".state").iterdir()} == {"training.json", "2"}
    figures, _ = trained(out, clip, "sac", **arguments)
    assert list(figures) == [3]
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.usefixtures("rllib", "cached")
def test_a_state_that_cannot_be_used(clip, tmp_path, monkeypatch):
    out, state = tmp_path / "a.safetensors", tmp_path / "a.state"
    monkeypatch.setattr(training, "STATE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(out, clip, progress=stop, options=SMALL, iterations=4)
    # Of a kill while the states are removed, there is none left.
    monkeypatch.setattr(shutil, "rmtree", lambda *given, **named: None)
    TrainingState(out, json.loads((state / "training.json").read_text())["key"]).remove()
    assert state.exists() and not list(state.glob("[0-9]*"))
    monkeypatch.undo()
    (state / "3").mkdir()
    with pytest.raises(InputError, match="3: not a state of a training; remove it"):
        trained(out, clip, options=SMALL, iterations=4)


@pytest.mark.usefixtures("rllib", "cached")
def test_an_error_in_a_runner_arrives_as_itself(clip, tmp_path):
    with pytest.raises(InputError, match=r"^made: 14 frames, more than max_frames=12$"):
        trained(tmp_path / "a.safetensors", clip, runners=1, options={**SPENT, "max_frames": 12})


@pytest.mark.usefixtures("rllib", "cached")
def test_a_clip_without_a_curve_is_left_out(clip, tmp_path):
    """The base policy's own encodes are the same at every target."""
    with pytest.raises(InputError, match="made: 2 reference encodes give no slope at 60 kbit/s"):
        trained(tmp_path / "a.safetensors", clip, options=OPTIONS)


# Lessons


TAUGHT = 200  # kbit/s: no frame at the end of the scale
CORRECTED = ResidualConfig("layered", offsets=((0, 0), (0, 0.4), (0.4, 0), (0.4, -0.8)))


class Shifted(Policy):
    """Layered, with one offset throughout."""

    def __init__(self, offset):
        self._base = make_policy("layered")
        self._offset = offset

    def options(self, options):
        return self._base.options(options)

    def begin(self, episode):
        self._base.begin(episode)

    def decide(self, frame):
        decided = self._base.decide(frame)
        level, reference = self._offset
        own = level + reference * (frame.update_type in REFERENCES)
        steps = np.array([dc(q) for q in range(256)])
        q = int(np.abs(steps - steps[decided.q_index] - own).argmin())
        decision = Decision(q)
        self._base.overruled(frame, decision)
        return decision


def dc(q_index):
    """log2 of VP9's quantiser step, about: from 8 to 1828 with few bends."""
    from vpxrc import LOG2_STEP

    return LOG2_STEP[q_index]


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """What `vpxrc teach` leaves of a search that ended at an offset of the base policy."""
    folder = tmp_path_factory.mktemp("lessons")
    video = make_video(num_frames=40)
    write_y4m(video, folder / "made.y4m")
    clip = Clip("made", str(folder / "made.y4m"))
    record = Record(Shifted(CORRECTED.actions[3]))
    options = record.options(EncoderOptions(target_bitrate=TAUGHT, cpu_used=8))
    log = encode(video, options, record)
    table = Trajectory.of(log, record.decisions).to_pandas()
    rows = log.coded
    for name in ("q_index", "is_shown", "bits", "sse_y", "sse_u", "sse_v"):
        table[name] = rows[name]
    path = folder / f"made-64x48-{TAUGHT}.json"
    table.to_parquet(path.with_suffix(".trajectory.parquet"))
    result = {
        "clip": "made",
        "content_hash": video.content_hash,
        "width": 64,
        "height": 48,
        "start": "layered",
        "options": {"target_bitrate": TAUGHT, "cpu_used": 8, "auto_alt_ref": 6},
        "search": {},
        "encodes": 1,
        "saved": {},
        "source": {"name": "made", "source": clip.source, "fps": None},
    }
    path.write_text(json.dumps(result))
    return path, clip, log


def test_a_lesson_is_labelled_by_the_nearest_offsets(lesson):
    path, clip, log = lesson
    (result,) = results(path)
    teacher, base, *random = demonstrate(Demonstration(result, clip, CORRECTED, 2, 0, "code"))
    assert set(teacher.actions.tolist()) == {3} and len(teacher.actions) >= 3
    assert set(base.actions.tolist()) == {0}
    assert len(random) == 2 and len({action for e in random for action in e.actions.tolist()}) > 2
    # The base policy is what gains are counted from, and the teacher's way is what it was.
    assert float(base.rewards.sum()) == pytest.approx(0, abs=1e-4)
    assert float(teacher.rewards.sum()) != pytest.approx(0, abs=1e-2)
    again, own = run(clip.open(), log.options, CORRECTED, lambda frame: 3)
    assert own.stream == log.stream
    np.testing.assert_array_equal(again.observations, teacher.observations)


def test_by_frame_every_frame_is_labelled(lesson):
    path, clip, log = lesson
    (result,) = results(path)
    config = ResidualConfig("layered", "frame", ((0, 0), (-0.4, 0), (0.4, 0)))
    (teacher,) = demonstrate(Demonstration(result, clip, config, None, 0, "code"))
    types = log.records["update_type"][log.records["is_shown_again"] == 0]
    finer, coarser = teacher.actions == 1, teacher.actions == 2
    assert finer.sum() + coarser.sum() == len(teacher.actions) == len(types)
    assert finer.sum() == np.isin(types, REFERENCES).sum()
    assert not teacher.rewards.any()


def test_episodes_are_kept_as_they_were(tmp_path):
    config = ResidualConfig("layered")
    episode, _ = run(make_video(), EncoderOptions(60, **OPTIONS), config, no_offset)
    path = tmp_path / "episodes"
    write_episodes(path, [episode, episode])
    for other in read_episodes(path):
        for field in dataclasses.fields(episode):
            np.testing.assert_array_equal(getattr(other, field.name), getattr(episode, field.name))
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot read"):
        read_episodes(path)


@pytest.mark.usefixtures("rllib", "cached")
@pytest.mark.parametrize("algorithm", ["bc", "marwil"])
def test_learning_from_lessons_goes_on(lesson, tmp_path, monkeypatch, algorithm):
    path, clip, _ = lesson
    whole, out = tmp_path / "whole.safetensors", tmp_path / "agent.safetensors"
    # A batch is no whole number of passes over the steps.
    options = {"contrast": 1, "batch": 7}
    arguments = {"config": CORRECTED, "lessons": [path], "options": options, "seed": 2}
    trained(whole, clip, algorithm, iterations=9, **arguments)
    monkeypatch.setattr(training, "STATE_EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(out, clip, algorithm, iterations=9, progress=stop, **arguments)
    (place,) = (tmp_path / "agent.state").glob("2/learner_group/learner/rl_module/default_policy")
    then = exported(algorithm, pickle.loads((place / "module_state.pkl").read_bytes()))
    shutil.copytree(tmp_path / "agent.state", tmp_path / "short.state")
    figures, _ = trained(out, clip, algorithm, iterations=9, **arguments)
    assert list(figures) == list(range(3, 10))
    assert out.read_bytes() == whole.read_bytes()
    # Where nothing is left to do, the weights are those of the state.
    out = tmp_path / "short.safetensors"
    figures, _ = trained(out, clip, algorithm, iterations=2, **arguments)
    assert not figures
    for name, tensor in load_file(out).items():
        np.testing.assert_array_equal(tensor, then[name])


@pytest.mark.usefixtures("rllib", "cached")
@pytest.mark.parametrize("algorithm", ["bc", "marwil"])
def test_an_agent_does_what_its_lesson_did(lesson, tmp_path, algorithm):
    path, clip, log = lesson
    out = tmp_path / "agent.safetensors"
    figures, _ = trained(
        out,
        clip,
        algorithm,
        config=CORRECTED,
        lessons=[path],
        iterations=80,
        options={"rate": 1e-2, "batch": 12},
    )
    assert figures[80]["policy_loss"] < figures[1]["policy_loss"] / 2
    policy = Rllib(out)
    assert encode(clip.open(), log.options, policy).stream == log.stream
    assert policy.training_clips == {clip.open().content_hash}


# What cannot be used


def test_arguments_that_cannot_be_used(clip, tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="unknown algorithm 'dqn': choose from ppo, sac"):
        trained(out, clip, "dqn")
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        trained(tmp_path / "a.pt", clip)
    with pytest.raises(InputError, match="device must be cpu or cuda"):
        trained(out, clip, device="tpu")
    with pytest.raises(InputError, match="unknown option 'lr'"):
        trained(out, clip, options={"lr": 1})
    for name, value in (("hidden", ()), ("minibatch", 0), ("reward", "psnr"), ("beta", 2)):
        with pytest.raises(InputError, match=name):
            trained(out, clip, options={name: value})


@pytest.mark.usefixtures("rllib")
def test_nothing_to_train_on(clip, tmp_path):
    out = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="ppo needs clips"):
        trained(out, clip, clips=[])
    with pytest.raises(InputError, match="bc needs lessons"):
        trained(out, clip, "bc")
    with pytest.raises(InputError, match="the names of the clips must differ"):
        trained(out, clip, clips=[clip, make_video(seed=1)])


def checkpoint(path, **changed):
    rng = np.random.default_rng(0)
    size = len(OBSERVATION)
    tensors = {
        "mean": np.zeros(size, np.float32),
        "gain": np.ones(size, np.float32),
        "layers.0.weight": rng.normal(size=(9, size)).astype(np.float32),
        "layers.0.bias": np.zeros(9, np.float32),
    }
    settings = {"algorithm": "ppo", "activation": "tanh"}
    words = checkpoint_metadata(FORMAT, ResidualConfig("layered"), ["abc"], **settings)
    save_file(tensors, path, words | changed)
    return path


def test_checkpoints_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.safetensors"
    policy = Rllib(checkpoint(path))
    assert policy.training_clips == {"abc"}
    # The right answer by hand.
    tensors, row = load_file(path), np.linspace(-1, 1, len(OBSERVATION), dtype=np.float32)
    assert policy.choose(row) == (tensors["layers.0.weight"] @ row).argmax()
    with safe_open(path, "numpy") as file:
        assert file.metadata()["observation"].split() == list(OBSERVATION)
    for number, (changed, words) in enumerate(
        (
            ({"format": "rllib 0"}, "another agent or version"),
            ({"observation": "a b c"}, "another agent or version"),
            ({"algorithm": "dqn"}, "an unknown algorithm 'dqn'"),
            ({"config": "{}"}, None),
            ({"config": '{"bases": 1}'}, "not the settings of a residual problem"),
            ({"config": '{"offsets": [[0, 0], [1, 0]]}'}, "a network of another form"),
            ({"algorithm": "sac", "reach": "0.5"}, "a network of another form"),
        )
    ):
        other = checkpoint(tmp_path / f"{number}.safetensors", **changed)
        if words is None:
            assert Rllib(other).config == ResidualConfig()
            continue
        with pytest.raises(InputError, match=words):
            Rllib(other)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a checkpoint"):
        Rllib(path)
    with pytest.raises(InputError, match="cannot read"):
        Rllib(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="no checkpoint of RLlib's"):
        Rllib(tmp_path)


@pytest.mark.usefixtures("rllib")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_module_of_rllibs_is_a_policy(tmp_path, algorithm):
    """Without ``residual.json`` it is of the default problem."""
    module = scattered(algorithm, ResidualConfig())
    module.save_to_path(str(tmp_path))
    policy = Rllib(tmp_path)
    assert policy.config == ResidualConfig()
    network = Network(
        exported(algorithm, state_of(module)), "tanh", 0.5 if algorithm == "sac" else None
    )
    for row in np.random.default_rng(2).uniform(-4, 4, (20, len(OBSERVATION))):
        row = row.astype(np.float32)
        np.testing.assert_allclose(policy.choose(row), network.action(row), atol=1e-5)
    (tmp_path / PROBLEM).write_text('{"config": {"decisions": "never"}}')
    with pytest.raises(InputError, match="decisions must be"):
        Rllib(tmp_path)
    if algorithm != "sac":
        (tmp_path / PROBLEM).write_text('{"config": {"decisions": "frame"}}')
        with pytest.raises(InputError, match="9 actions"):
            Rllib(tmp_path)


@pytest.mark.usefixtures("rllib")
def test_rllib_is_not_installed(clip, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vpxrc.agents.rllib.components", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vpxrc\[ray\]'"):
        trained(tmp_path / "a.safetensors", clip)
    (tmp_path / "class_and_ctor_args.pkl").touch()
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vpxrc\[ray\]'"):
        Rllib(tmp_path)


def test_deciding_needs_neither_ray_nor_torch(tmp_path):
    path = checkpoint(tmp_path / "a.safetensors")
    code = (
        "import sys; from vpxrc.agents.rllib import Rllib; policy = Rllib(sys.argv[1]); "
        "policy.choose(__import__('numpy').zeros(int(sys.argv[2]), 'f')); "
        "print({'ray', 'torch'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, str(path), str(len(OBSERVATION))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.usefixtures("rllib")
def test_a_checkpoint_of_rllibs_leaves_ray_on_loopback(tmp_path):
    """Whichever is first: the policy that imports Ray, or a Ray that is started."""
    scattered("bc", ResidualConfig()).save_to_path(str(tmp_path))
    code = (
        "import sys; from vpxrc.agents.rllib import Rllib; Rllib(sys.argv[1]); "
        "from ray._private import ray_constants; "
        "print(ray_constants.ENABLE_RAY_CLUSTER)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.usefixtures("rllib", "cached")
def test_ppo_acts_on_a_learned_codec(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("constriction")
    from vpxrc.codecs.codec import save_checkpoint
    from vpxrc.codecs.papers import build
    from vpxrc.encoder.registry import make_options

    torch.manual_seed(0)
    codec, out = tmp_path / "codec.safetensors", tmp_path / "ppo.safetensors"
    save_checkpoint(codec, build("multirate/slim"), "multirate/slim", {})
    clip = make_video(48, 32, 6)
    config = ResidualConfig("equal-slope", "frame", ((0, 0), (-0.3, 0), (0.3, 0)))
    encoder = f"learned:{codec}"
    arguments: dict[str, Any] = {
        "clips": [clip],
        "target_bitrates": [350, 450],
        "options": {
            "encoder": encoder,
            "batch": 12,
            "minibatch": 12,
            "epochs": 1,
            "hidden": [8],
        },
        "iterations": 2,
        "runners": 0,
        "seed": 0,
        "ray": None,
        "lessons": (),
        "device": "cpu",
    }
    told = train("ppo", out, config=config, **arguments)
    assert told["left_out"] == {}
    assert math.isfinite(told["figures"]["return"])
    options = make_options(encoder, target_bitrate=400)
    log = encode(clip, options, Rllib(out))
    assert abs(log.overshoot) < 0.5
    assert log.options.decode(log.stream, log.clip).shape == clip.frames.shape
    with pytest.raises(InputError, match="predicts no picture"):
        other = dataclasses.replace(config, base="dependency")
        train("ppo", tmp_path / "other.safetensors", config=other, **arguments)
