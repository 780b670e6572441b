"""The MuZero agent: its networks, replay and learner, and trainings through the command line."""

import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager, nullcontext

import numpy as np
import pandas as pd
import pytest
from conftest import in_this_process, make_video
from safetensors import safe_open
from typer.testing import CliRunner

from vpxrc import EncoderOptions, cli, encode, make_policy
from vpxrc.agents import clips as sizing
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.replay import PlayedEpisode, Replay
from vpxrc.datasets import Clip
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import SelfCompetition
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.frames import write_y4m

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'vpxrc[agents]'")

# These import torch.
from vpxrc.agents.muzero import actor, state, training
from vpxrc.agents.muzero.actor import Job, ReferenceJob, Task, play
from vpxrc.agents.muzero.learner import Learner, learn, reanalyse
from vpxrc.agents.muzero.network import Trained
from vpxrc.agents.muzero.policy import MuZero
from vpxrc.agents.muzero.purpose import Purpose
from vpxrc.agents.muzero.references import add_references
from vpxrc.agents.muzero.search import Root, Step, gumbel_muzero_search
from vpxrc.agents.muzero.training import train

SMALL = MuZeroConfig(hidden=8, width=16, warmup=30, batch=16, unroll=3, reuse=2.0, simulations=4)


def run(*arguments):
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def complaint(*arguments):
    """Run what must fail, and return its one line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vpxrc: ")
    return line


def random_network(actions=5, observations=6, config=SMALL, seed=0):
    """A learner whose parameters are all random, zero-initialised heads included."""
    learner = Learner(observations, actions, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner._network.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    rng = np.random.default_rng(seed)
    learner.standardise(rng.normal(1, 2, (50, observations)).astype(np.float32))
    return learner


def trajectory(rewards, values, observations=6, actions=5, seed=0):
    rng = np.random.default_rng(seed)
    count = len(rewards)
    return PlayedEpisode(
        observations=rng.normal(size=(count, observations)).astype(np.float32),
        actions=rng.integers(0, actions, count).astype(np.int32),
        policies=rng.dirichlet(np.ones(actions), count).astype(np.float32),
        values=np.array(values, np.float32),
        rewards=np.array(rewards, np.float32),
        log2_bits=rng.normal(size=count).astype(np.float32),
        log2_distortion=np.full(count, np.nan, np.float32),
    )


# Networks


def test_the_networks_agree():
    learner = random_network()
    network, torchs = learner.network(), learner._network.eval()
    rng = np.random.default_rng(1)
    seen = rng.normal(0, 3, (7, 6)).astype(np.float32)
    actions = rng.integers(0, 5, 7).astype(np.int32)
    states = network.represent(seen)
    with torch.no_grad():
        expected = torchs.represent(torch.from_numpy(seen))
        np.testing.assert_allclose(states, expected, atol=1e-5)
        for mine, theirs in zip(network.predict(states), torchs.predict(expected), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
        outcomes, after = torchs.step(torch.from_numpy(actions).long(), expected)
        logits, value = torchs.predict(after)
    step = network.step(actions, states)
    for mine, theirs in (
        (step.reward, outcomes[:, 0]),
        (step.embedding, after),
        (step.prior_logits, logits),
        (step.value, value),
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert (step.discount == 1).all()
    np.testing.assert_allclose(step.embedding.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(step.embedding.std(axis=1), 1, atol=1e-3)

    def step_in_torch(actions, states):
        taken, before = torch.from_numpy(actions).long(), torch.from_numpy(states)
        outcomes, after = torchs.step(taken, before)
        parts = outcomes[:, 0], torch.ones(len(seen)), *torchs.predict(after), after
        return Step(*(part.detach().numpy() for part in parts))

    with torch.no_grad():
        root = Root(*(part.numpy() for part in (*torchs.predict(expected), expected)))
    mine = network.search(seen, 4, config=SMALL)
    theirs = gumbel_muzero_search(
        root,
        step_in_torch,
        num_simulations=4,
        gumbel=np.zeros((7, 5), np.float32),
        max_considered=SMALL.max_considered,
        value_scale=SMALL.value_scale,
        rescale=False,
    )
    np.testing.assert_array_equal(mine.visits, theirs.visits)
    np.testing.assert_allclose(mine.action_weights, theirs.action_weights, atol=1e-4)


def test_an_untrained_network_prefers_the_base_policy():
    seen = np.ones((1, 6), np.float32)
    for share, expected in ((0.6, 0.6), (None, 0.2)):
        config = dataclasses.replace(SMALL, base_share=share)
        network = Learner(6, 5, config).network()
        logits, value = network.predict(network.represent(seen))
        policy = np.exp(logits[0]) / np.exp(logits[0]).sum()
        np.testing.assert_allclose(policy, [expected, *[(1 - expected) / 4] * 4], atol=1e-6)
        assert value == 0 and network.step(np.zeros(1, np.int32), np.ones((1, 8))).reward == 0


# Replay


def test_returns_by_hand():
    for trace, expected in (
        (0.5, [20.25, 18.5, 3.0, 0.0]),  # 1 + 20/2 + 18.5/2, 2 + 30/2 + 3/2, 3
        (1.0, [6.0, 5.0, 3.0, 0.0]),
        (0.0, [21.0, 32.0, 3.0, 0.0]),
    ):
        replay = Replay(10, 6, 5, trace=trace)
        replay.add(trajectory([9.0], [9.0]))  # another episode does not leak in
        replay.add(trajectory([1.0, 2.0, 3.0], [10.0, 20.0, 30.0]))
        replay.add(trajectory([9.0], [9.0]))
        found = replay.returns(np.array([1, 3]), 3)
        np.testing.assert_allclose(found, [expected, [3.0, 0, 0, 0]])


def test_draws_are_in_proportion_to_the_errors():
    replay = Replay(10, 6, 5, priority=0.5, correction=0.75)
    replay.add(trajectory([0.0, 0.0], [0.0, 0.0]))
    replay.add(trajectory([0.0, 0.0], [0.0, 0.0]))
    replay.update(np.arange(4), np.array([0.0, 1.0, -4.0, 9.0], np.float32) - 0.0)
    roots = np.sqrt(np.array([0.0, 1.0, 4.0, 9.0]) + 1e-3)
    rows = replay.draw(60_000, np.random.default_rng(0))
    shares = np.bincount(rows, minlength=10) / len(rows)
    np.testing.assert_allclose(shares[:4], roots / roots.sum(), atol=6e-3)
    assert shares[4:].sum() == 0
    batch = replay.batch(np.array([1, 2, 3]), 1)
    weights = (4 * roots[1:] / roots.sum()) ** -0.75
    np.testing.assert_allclose(batch.weights, weights / weights.max(), rtol=1e-5)
    # At first a step's error is the search's value less the return.
    replay = Replay(10, 6, 5, priority=1.0, trace=1.0)
    replay.add(trajectory([1.0, 3.0], [6.0, 2.0]))
    np.testing.assert_allclose(replay._chance[:2], [2 + 1e-3, 1 + 1e-3], rtol=1e-5)


def test_whole_episodes_are_kept_and_forgotten():
    replay = Replay(10, 6, 5)
    made = [trajectory([n] * n, [0.0] * n, seed=n) for n in (4, 3, 2, 5)]
    for one in made:
        replay.add(one)
    assert len(replay) == 10  # the first one is gone, the last one goes over the edge
    seen = {row.tobytes() for row in replay.observations}
    assert seen == {row.tobytes() for one in made[1:] for row in one.observations}
    (row,) = np.flatnonzero((replay._columns["rewards"] == 5) & (replay._left == 5))
    batch = replay.batch(np.array([row]), 5)
    np.testing.assert_array_equal(batch.actions[0], made[3].actions)
    np.testing.assert_array_equal(batch.policies[0, :5], made[3].policies)
    np.testing.assert_array_equal(batch.inside[0], [True] * 5 + [False])
    assert not batch.policies[0, 5].any() and batch.values[0, 5] == 0
    assert np.isnan(batch.log2_distortion).all()
    copy = Replay(10, 6, 5)
    copy.add(made[0])
    copy.load_state(replay.state())
    for one in (replay, copy):
        one.add(trajectory([7.0], [0.0]))
        assert len(one) == 8  # 2 + 5 + 1
    for name, values in replay.state().items():
        np.testing.assert_array_equal(values, copy.state()[name])
    drawn = [one.draw(50, np.random.default_rng(1)) for one in (replay, copy)]
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(InputError, match="11 steps in a replay of 10"):
        replay.add(trajectory([0.0] * 11, [0.0] * 11))
    with pytest.raises(InputError, match="another form"):
        Replay(5, 6, 5).load_state(replay.state())


# Learner


def test_a_small_batch_is_learned_by_heart():
    config = dataclasses.replace(SMALL, width=64, hidden=32, rate=5e-3, decay=0.0)
    learner, replay = Learner(6, 5, config), Replay(100, 6, 5, trace=1.0)
    for n in range(3):
        rng = np.random.default_rng(n)
        replay.add(trajectory(rng.normal(0, 3, 4), np.zeros(4), seed=n))
    learner.standardise(replay.observations)
    batch = replay.batch(np.arange(12), 3)
    first, errors = learner.update(batch)
    np.testing.assert_allclose(errors, -batch.values[:, 0], atol=1e-5)
    for _ in range(400):
        last, errors = learner.update(batch)
    for name in ("policy", "value", "reward", "bits"):
        assert last[name] < 0.05 * first[name], name
    assert last["distortion"] == 0  # nothing is known of it
    assert np.abs(errors).max() < 0.5
    # The states are those of the dynamics: nothing else was told of the second step.
    network = learner.network()
    states = network.represent(batch.observations)
    reward = network.step(batch.actions[:, 0], states).reward
    np.testing.assert_allclose(reward, batch.rewards[:, 0], atol=0.5)


def test_reanalysis_takes_the_latest_networks_word():
    learner, replay = random_network(), Replay(20, 6, 5)
    replay.add(trajectory([1.0] * 5, [50.0] * 5))
    before = replay.state()
    reanalyse(learner, replay, np.array([2, 2]))
    found = learner.network().search(before["observations"][2:], 4, config=SMALL)
    after = replay.state()
    np.testing.assert_array_equal(after["values"][:2], before["values"][:2])
    np.testing.assert_allclose(after["values"][2:], found.value, rtol=1e-4)
    np.testing.assert_array_equal(after["policies"][:2], before["policies"][:2])
    np.testing.assert_allclose(after["policies"][2:], found.action_weights, atol=1e-4)


def test_learner_and_search_find_what_pays():
    """Three actions; the observation tells which one pays, and only at the end of two steps."""
    config = dataclasses.replace(
        SMALL, hidden=16, width=32, batch=32, rate=5e-3, simulations=8, unroll=2, base_share=0.8
    )
    learner, replay = Learner(4, 3, config), Replay(2000, 4, 3)
    rng = np.random.default_rng(0)

    def episode(noise):
        network = learner.network()
        seen = np.repeat(rng.choice([-1, 1], (16, 1, 4)), 2, axis=1).astype(np.float32)
        wanted = np.where(seen[:, 0, 0] > 0, 2, 1)
        actions, policies, values = [], [], []
        for step in range(2):
            given = noise * rng.gumbel(size=(16, 3)).astype(np.float32)
            found = network.search(seen[:, step], 8, config=config, noise=given)
            actions.append(found.action)
            policies.append(found.action_weights)
            values.append(found.value)
        hits = np.stack(actions, 1) == wanted[:, None]
        for n in range(16):
            replay.add(
                PlayedEpisode(
                    seen[n],
                    np.array([a[n] for a in actions], np.int32),
                    np.stack([p[n] for p in policies]),
                    np.array([v[n] for v in values], np.float32),
                    np.array([0.0, hits[n].sum()], np.float32),
                    *np.full((2, 2), np.nan, np.float32),
                )
            )
        return hits.mean()

    assert episode(0.0) == 0  # no offset at all, which pays nothing
    for _ in range(30):
        episode(1.0)
        if learner.updates == 0:
            learner.standardise(replay.observations)
        for _ in range(20):
            learn(learner, replay, rng)
    assert episode(0.0) > 0.9


# Playing


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of two clips."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("one", "two")):
        write_y4m(make_video(num_frames=14, seed=seed), folder / f"{name}.y4m")
    return folder


@pytest.fixture(scope="module")
def tasks(clips):
    options = EncoderOptions(40, cpu_used=8)
    return tuple(Task(Clip(name, str(clips / f"{name}.y4m")), options) for name in ("one", "two"))


FRAMES = ResidualConfig("layered", "frame", ((0, 0), (0.4, 0), (-0.4, 0)))


@pytest.fixture(scope="module")
def network():
    return random_network(3, len(OBSERVATION)).network()


def test_episodes_do_not_depend_on_what_else_is_played(tasks, network):
    seeds = ((0, 1), (0, 2))
    both = play(Job(tasks, FRAMES, network, SMALL, seeds))
    assert len({tuple(one.actions) for one in both}) == 2
    for task, seed, together in zip(tasks, seeds, both, strict=True):
        (alone,) = play(Job((task,), FRAMES, network, SMALL, (seed,)))
        np.testing.assert_array_equal(alone.actions, together.actions)
        assert alone.log.stream == together.log.stream
        log, count = together.log, len(together.actions)
        assert together.observations.shape == (count, len(OBSERVATION))
        assert together.policies.shape == (count, 3) and together.values.shape == (count,)
        np.testing.assert_allclose(together.policies.sum(axis=1), 1, atol=1e-5)
        assert [first for first, _ in together.steps] == [0, *(r for _, r in together.steps[:-1])]
        assert together.steps[-1][1] == len(log.records)
        kept = training.played_episode(together, log, np.zeros(count, np.float32))
        bits = np.exp2(kept.log2_bits.astype(float)) * 64 * 48
        assert bits.sum() == pytest.approx(log.records["bits"].sum(), rel=1e-4)


def test_a_share_of_the_decisions_is_drawn(tasks, network):
    """Whatever the policy is sure of."""
    sure = dataclasses.replace(SMALL, noise=0.0, explore=0.0)
    (alone,) = play(Job(tasks[:1], FRAMES, network, sure, ((0,),)))
    (drawn,) = play(
        Job(tasks[:1], FRAMES, network, dataclasses.replace(sure, explore=1.0), ((0,),))
    )
    assert len(set(drawn.actions)) == 3
    assert (drawn.actions != alone.actions).any()
    np.testing.assert_allclose(drawn.policies[0], alone.policies[0], atol=1e-6)


def test_the_policy_plays_the_same_every_time(tasks, network, tmp_path):
    path = tmp_path / "x@2.safetensors"
    Trained(network, FRAMES, SMALL, frozenset({"abc"}), {}).save(path)
    (played,) = play(Job(tasks[:1], FRAMES, network, SMALL))
    options, video = tasks[0].options, actor.open_task(tasks[0])
    policy = MuZero(path)
    streams = [encode(video, options, policy).stream for _ in range(2)]
    assert streams == [played.log.stream] * 2
    assert policy.training_clips == {"abc"}
    searching = MuZero(f"{path}@4")
    streams = [encode(video, options, searching).stream for _ in range(2)]
    quiet = dataclasses.replace(SMALL, noise=0.0, explore=0.0)
    (played,) = play(Job(tasks[:1], FRAMES, network, quiet, ((0,),)))
    assert streams == [played.log.stream] * 2
    with pytest.raises(InputError, match="N simulations, above 0, not '0'"):
        MuZero(f"{path}@0")
    # What it saw in training is what it sees: the layers are the checkpoint's.
    constant = ResidualConfig("constant-q:120", "frame", FRAMES.offsets)
    Trained(network, constant, SMALL, frozenset(), {"auto_alt_ref": 6}).save(path)
    assert MuZero(path).options(options) == dataclasses.replace(options, auto_alt_ref=6)


def test_a_checkpoint_of_another_kind(network, tmp_path):
    path = tmp_path / "made.safetensors"
    made = Trained(network, FRAMES, SMALL, frozenset(), {})
    made.save(path)
    data = path.read_bytes()
    bias = network.parameters["policy.bias"]
    for old, new, words in (
        (b"muzero-1", b"muzero-0", "another agent or version"),
        (OBSERVATION[0].encode(), b"x" * len(OBSERVATION[0]), "another agent or version"),
        (b'\\"hidden\\": 8', b'\\"hidden\\": 9', "of another form"),
        (b'\\"hidden\\"', b'\\"hiddem\\"', "of another form"),
        (bias.tobytes(), (bias * np.nan).tobytes(), "policy.bias has values that are not finite"),
    ):
        assert old in data
        path.write_bytes(data.replace(old, new))
        with pytest.raises(InputError, match=words):
            Trained.load(path)
    path.write_bytes(data)
    assert Trained.load(path).config == SMALL
    with pytest.raises(InputError, match="cannot read"):
        MuZero(tmp_path / "none.safetensors")


def test_the_command_line_says_so_in_one_line(network, clips, tmp_path):
    path, out = tmp_path / "old.safetensors", tmp_path / "out.ivf"
    Trained(network, FRAMES, SMALL, frozenset(), {}).save(path)
    path.write_bytes(path.read_bytes().replace(b"muzero-1", b"muzero-0"))
    line = complaint("encode", clips / "one.y4m", "-b", 40, "-o", out, "--policy", f"muzero:{path}")
    assert "another agent or version" in line and not out.exists()


# Trainings


@pytest.fixture
def here(monkeypatch):
    for module in (training, sizing):
        monkeypatch.setattr(module, "open_workers", in_this_process)


def table(out):
    state = out.with_suffix(".state") / "current"
    return json.loads((state / "ema.json").read_text())


def test_a_training_and_one_in_two_parts(tasks, here, tmp_path, monkeypatch):
    purpose = Purpose(tasks, FRAMES, "strict")
    common = {"clips": frozenset({"abc"}), "envs": 2}
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    rows = []
    done = train(
        whole, purpose, SMALL, episodes=6, **common,
        progress=lambda done, total, words, row: rows.append((done, total, row)),
    )  # fmt: skip
    assert [row[:2] for row in rows] == [(2, 6), (4, 6), (6, 6)]
    curve = pd.read_parquet(whole.with_suffix(".curve.parquet"))
    assert curve.to_dict("records")[-1] == pytest.approx(rows[-1][2], nan_ok=True)
    assert (done["episodes"], done["updates"]) == (6, int(2 * done["decisions"] / 16))
    assert math.isnan(curve["policy_loss"][0]) and curve["policy_loss"][2] > 0
    assert curve["gain"].isna().all() and curve["kept"].between(0, 1).all()
    trained = Trained.load(whole)
    assert (trained.residual, trained.config, trained.clips) == (FRAMES, SMALL, {"abc"})
    assert trained.network.parameters["value.weight"].any()
    # The first encodes of a pair start its average; the others move it: nothing else does.
    averages = SelfCompetition()
    averages.load_state_dict(table(whole))
    hashes = {actor.open_task(task).content_hash for task in tasks}
    assert averages.table.keys() == {(content, 40) for content in hashes}
    last = curve[["average_quality", "average_overshoot"]].iloc[-1]
    assert np.allclose(last, np.mean([*averages.table.values()], axis=0))

    # Stopped between two results and gone on with, it has what the whole one had then.

    take = training.Run.take

    def stop(self, job, played):
        take(self, job, played)
        if self.memory.count["episodes"] == 4:
            raise EncoderError("stop")

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "take", stop)
        with pytest.raises(EncoderError, match="stop"):
            train(cut, purpose, SMALL, episodes=6, **common)
    assert not cut.exists()
    done = train(cut, purpose, SMALL, episodes=6, **common)
    columns = ["iteration", "episodes", "decisions", "updates", "psnr", "policy_loss", "win_rate"]
    again = pd.read_parquet(cut.with_suffix(".curve.parquet"))
    pd.testing.assert_frame_equal(again[columns], curve[columns])
    assert table(cut) == table(whole)
    one, other = (Trained.load(path).network.parameters for path in (cut, whole))
    assert all(np.array_equal(one[name], other[name]) for name in other)
    # Nothing is left to do; and another training is not gone on with.
    assert train(cut, purpose, SMALL, episodes=6, **common)["updates"] == done["updates"]
    with pytest.raises(InputError, match="is of another reward: remove it"):
        train(cut, Purpose(tasks, FRAMES, "augmented"), SMALL, episodes=6, **common)
    (cut.with_suffix(".state") / "current" / "weights.pt").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a state of a training"):
        train(cut, purpose, SMALL, episodes=6, **common)


def test_gains_are_counted_from_the_base_policy(tasks, here, tmp_path):
    out = tmp_path / "gain.safetensors"
    config = dataclasses.replace(SMALL, noise=0.0, explore=0.0, base_share=0.999, warmup=5000)
    done = train(out, Purpose(tasks, FRAMES), config, clips=frozenset(), episodes=2, envs=2)
    curve = pd.read_parquet(out.with_suffix(".curve.parquet"))
    (row,) = curve.to_dict("records")
    references = table(out)["references"]
    assert len(references) == 4  # at two targets each, for the slope
    assert row["kept"] == 1 and row["over_target"] in (0, 0.5, 1)
    # The base policy saves nothing over itself, but where it overshoots by more than is tolerated.
    logs = [encode(actor.open_task(t), t.options, make_policy("layered")) for t in tasks]
    over = [max(0.0, 100 * (log.overshoot - 0.02)) for log in logs]
    assert row["gain"] == pytest.approx(-np.mean(over), abs=1e-4)
    assert done["gain"] == pytest.approx(row["gain"])


def test_a_reference_whose_bits_do_not_follow_the_target(tasks, here):
    jobs = ReferenceJob(tasks[:1] * 2, "constant-q:120")
    reward = Purpose(tasks, FRAMES).make_reward()
    add_references(reward, [one.log for one in actor.encode_all(jobs)])
    assert {entry["slope"] for entry in reward.state_dict()["references"]} == {3.0}


def test_an_opponent_that_is_beaten_is_replaced(tasks, here, tmp_path, monkeypatch):
    monkeypatch.setattr(state, "WINDOW", 4)
    monkeypatch.setattr(training, "OUTDONE", -1.0)
    out = tmp_path / "opponent.safetensors"
    purpose = Purpose(tasks, FRAMES, "opponent")
    config = dataclasses.replace(SMALL, base_share=0.001)  # its decisions are not the base policy's
    train(out, purpose, config, clips=frozenset(), episodes=2, envs=2)
    base = [encode(actor.open_task(t), t.options, make_policy("layered")) for t in tasks]
    first = {(log.clip.content_hash, 40, log.psnr, log.overshoot) for log in base}
    assert {tuple(record) for record in table(out)["records"]} == first
    done = train(out, purpose, config, clips=frozenset(), episodes=8, envs=2)
    assert done["opponents"] == 2
    assert {tuple(record) for record in table(out)["records"]} != first


@contextmanager
def ahead(count, ray=None):
    """Workers in this process that draw jobs as early as one process does: two ahead."""

    class Here:
        def unordered(self, function, jobs):
            waiting = iter(jobs)
            drawn = deque(itertools.islice(waiting, count + 1))
            while drawn:
                job = drawn.popleft()
                result = function(job)
                drawn.extend(itertools.islice(waiting, 1))
                yield job, result

    yield Here()


@pytest.mark.parametrize("reward", ["strict", "opponent"])
def test_a_training_that_is_killed_anywhere_comes_to_the_same_bytes(
    tasks, tmp_path, monkeypatch, reward
):
    monkeypatch.setattr(training, "open_workers", ahead)
    monkeypatch.setattr(training, "STATE_EVERY", 0.0)
    monkeypatch.setattr(state, "WINDOW", 4)
    monkeypatch.setattr(training, "OUTDONE", -1.0)
    # The ring of the replay is full after a few episodes.
    config = dataclasses.replace(SMALL, capacity=60)
    purpose = Purpose(tasks, FRAMES, reward)
    take = training.Run.take

    def run(out, *kills):
        for kill in (*kills, None):

            def killed(self, job, played, kill=kill):
                if ("before", self.memory.count["episodes"]) == kill:
                    raise RuntimeError("killed")
                take(self, job, played)
                if ("after", self.memory.count["episodes"]) == kill:
                    raise RuntimeError("killed")

            monkeypatch.setattr(training.Run, "take", killed)
            with pytest.raises(RuntimeError, match="killed") if kill else nullcontext():
                train(out, purpose, config, clips=frozenset(), episodes=12, envs=2)

    def curve(out):
        table = pd.read_parquet(out.with_suffix(".curve.parquet"))
        return table.drop(columns=["seconds", "frames_per_second"])

    whole = tmp_path / "whole.safetensors"
    run(whole)
    for number, kills in enumerate(
        (
            [("after", 2)],
            [("before", 4), ("before", 4), ("after", 10)],
            [("before", 6), ("after", 8), ("before", 10)],
        )
    ):
        out = tmp_path / f"killed{number}.safetensors"
        run(out, *kills)
        pd.testing.assert_frame_equal(curve(out), curve(whole), check_exact=True)
        assert out.read_bytes() == whole.read_bytes()


def test_equal_checkpoints_have_equal_bytes_in_every_process(network, tmp_path):
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(4)]
    source = tmp_path / "source.safetensors"
    Trained(network, FRAMES, SMALL, frozenset({"a", "b"}), {}).save(source)
    program = (
        "import sys; from vpxrc.agents.muzero.network import Trained\n"
        "Trained.load(sys.argv[1]).save(sys.argv[2])"
    )
    for seed, path in enumerate(paths):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", program, source, path], check=True, env=environment)
    assert {path.read_bytes() for path in paths} == {source.read_bytes()}
    with safe_open(source, "numpy") as file:
        assert set(file.keys()) == network.parameters.keys()
        assert file.metadata()["clips"] == "a b"


def test_prices_of_overshoot(tasks):
    def price(target, **more):
        at = tuple(
            Task(task.clip, dataclasses.replace(task.options, target_bitrate=target))
            for task in tasks
        )
        return Purpose(at, FRAMES, "augmented", **more).make_reward().overshoot_price

    assert price(512) == pytest.approx(0.005)
    assert price(64) == pytest.approx(0.04)
    assert price(64, overshoot_price=0.01) == 0.01
    assert Purpose(tasks, FRAMES, "strict").make_reward().overshoot_price == 0


def test_a_signal_waits_for_the_end_of_what_is_kept():
    done = []
    # What a shell runs in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), training._undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("this")
        assert done == ["this"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


OFTEN = """
import sys
from vpxrc.agents.muzero import training
training.STATE_EVERY = 0.0
from vpxrc.cli import main
main()
"""


def arguments(clips, out, *more):
    common = ("--bitrates", "40", "--cpu-used", 8, "--base", "layered", "--decisions", "frame")
    small = ("--set", "warmup=30", "--set", "batch=16", "--set", "reuse=2", "--simulations", 4)
    where = ("--jobs", 1, "--envs", 2, "--reward", "strict", "--pixels", 48 * 36)
    return ["train", "--agent", "muzero", clips, "--out", out, *common, *small, *where, *more]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_same_command_goes_on(clips, tmp_path, number, here):
    out = tmp_path / "made.safetensors"
    state = out.with_suffix(".state")
    command = [*map(str, arguments(clips, out, "--minutes", 9))]
    process = subprocess.Popen([sys.executable, "-c", OFTEN, *command], stderr=subprocess.PIPE)
    end = time.monotonic() + 180
    while not (state / "current").exists() or os.readlink(state / "current") < "000003":
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    _, words = process.communicate(timeout=60)
    assert process.returncode == (cli.TERMINATED if number == signal.SIGTERM else -signal.SIGKILL)
    assert not out.exists()
    if number == signal.SIGTERM:
        assert words == b""
    then = table(out)
    told = json.loads((state / "current" / "state.json").read_text())
    count = told["count"]["episodes"]
    assert count >= 6 and len(then["averages"]) == 2
    # Killed there, it is what the training goes on from: here it has nothing more to do.
    command = arguments(clips, out, "--episodes", count)
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["episodes"], facts["win_rate"]) == (count, np.mean(told["wins"]))
    assert table(out) == then
    curve = pd.read_parquet(out.with_suffix(".curve.parquet"))
    assert curve["episodes"].tolist() == list(range(2, count + 1, 2))
    own = {Clip(name, str(clips / f"{name}.y4m")).open().content_hash for name in ("one", "two")}
    scaled = {entry[0] for entry in then["averages"]}
    assert Trained.load(out).clips == own | scaled and len(own | scaled) == 4
    assert {path.name for path in state.iterdir()} == {"current", os.readlink(state / "current")}
    if number == signal.SIGTERM:
        command = arguments(clips, out, "--episodes", count + 2)
        result = run(*command)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"{out}: {count + 2} episodes, ")
        assert table(out) != then


def test_what_train_refuses(clips, tmp_path, monkeypatch):
    def refused(*more, agent="muzero", bitrates=("--bitrates", 40)):
        out = ("--out", tmp_path / "out.safetensors")
        return complaint("train", "--agent", agent, clips, *out, *bitrates, *more)

    assert "choose from imitation, muzero, ppo" in refused(agent="none")
    assert "Missing option '--bitrates'" in refused(bitrates=())
    assert "unknown reward 'psnr': choose from gain, strict" in refused("--reward", "psnr")
    assert "unknown policy 'none'" in refused("--base", "none")
    assert "cannot be a base policy" in refused("--base", "libvpx-vbr")
    assert "--offsets takes LEVEL:REFERENCE pairs" in refused("--offsets", "0:0,1")
    assert "begin with (0, 0)" in refused("--offsets", "0.1:0,0:0")
    assert "must be 'group' or 'frame'" in refused("--decisions", "block")
    assert "--epochs is not for muzero, but for imitation" in refused("--epochs", 3)
    assert "--episodes is not for ppo, but for muzero" in refused("--episodes", 3, agent="ppo")
    assert "no 'speed'; there are hidden, " in refused("--set", "speed=3")
    assert "hidden takes an integer" in refused("--set", "hidden=3.5")
    assert "rate takes a number" in refused("--set", "rate=fast")
    assert "trace must be in 0..1, not 2" in refused("--set", "trace=2")
    assert "--set takes NAME=VALUE" in refused("--set", "trace")
    assert "2 targets per clip, of 1" in refused("--per-clip", 2)
    assert "no-such-clips" in refused(tmp_path / "no-such-clips")
    if not torch.cuda.is_available():
        assert "torch finds none here" in refused("--device", "cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "vpxrc.agents.muzero.training")
    monkeypatch.delattr("vpxrc.agents.muzero.training")
    assert "needs torch: pip install 'vpxrc[agents]'" in refused()
    assert not list(tmp_path.iterdir())
