"""The command ``teach``, ``train`` on its lessons, ``verify`` of them and ``encode --effort``."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from conftest import make_video
from safetensors.numpy import load_file
from typer.testing import CliRunner

from vpxrc import EncoderOptions, cli, encode, make_policy
from vpxrc.agents.teacher import objective
from vpxrc.agents.teacher.lessons import learn, pack, results, scaled, searches
from vpxrc.agents.teacher.search import SearchOptions
from vpxrc.agents.tensors import from_tensors, to_tensors
from vpxrc.cli.teach import ROUND, START
from vpxrc.datasets import Clip, load_clips
from vpxrc.media.decoding import decode_vp9
from vpxrc.media.frames import write_y4m
from vpxrc.reports.bounds import bounds_figures, bounds_page
from vpxrc.transcoding import chunks

VPXRC = [sys.executable, "-m", "vpxrc"]


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


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of two clips."""
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(("one", "two")):
        write_y4m(make_video(num_frames=24, seed=seed), folder / f"{name}.y4m")
    return folder


@pytest.fixture(scope="module")
def taught(clips, tmp_path_factory):
    """A folder with a lesson of either clip."""
    folder = tmp_path_factory.mktemp("taught")
    made = searches(
        [scaled(Clip(name, str(clips / f"{name}.y4m")), 48 * 36) for name in ("one", "two")],
        [40, 60],
        EncoderOptions(cpu_used=8),
        folder,
        start="layered",
        search_options=SearchOptions(directions=("arf",)),
        per_clip=1,
    )
    for lesson in made:
        learn(lesson)
    return folder


def copied(taught, folder):
    for file in taught.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("command", ["teach", "train", "verify", "encode"])
def test_help_has_examples(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"\n    vpxrc {command}" in result.stdout


# teach


def test_teach(clips, tmp_path):
    out = tmp_path / "lessons"
    command = ["teach", clips, "--bitrates", "40,60", "--per-clip", 1, "--pixels", 48 * 36]
    command += ["--start", "layered", "--directions", "arf,level", "--cpu-used", 8, "--jobs", 1]
    result = run(*command, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == (out / "bounds.md").read_text()
    lines = result.stdout.splitlines()
    rows = [re.split(r" *\| *", line.strip("| ")) for line in lines if line.startswith("|")]
    assert rows[0] == [
        "clip",
        "size",
        "kbit/s",
        "encodes",
        "psnr, start",
        "psnr, found",
        "psnr_overall, start",
        "psnr_overall, found",
        *(
            f"{quality}, {when}"
            for quality in ("ssim", "vmaf", "balanced")
            for when in ("start", "found")
        ),
    ]
    assert [row[:3] for row in rows[2:4]] == [["one", "48x36", "40"], ["two", "48x36", "60"]]
    assert [row[0] for row in rows[4:]] == ["mean", "median"]
    for row in rows[2:4]:
        (found,) = results(out / f"{row[0]}-48x36-{row[2]}.json")
        assert row[3] == str(found["encodes"])
        for at, quality, stage in ((4, "psnr", "start"), (7, "psnr_overall", "found")):
            assert float(row[at]) == pytest.approx(found["saved"][quality][stage], abs=0.05)
    assert float(rows[4][5]) == pytest.approx((float(rows[2][5]) + float(rows[3][5])) / 2, abs=0.1)
    words = " ".join(map(str, ["vpxrc", *command, "--out", out])).replace(" --jobs 1", "")
    assert set(words.split()) <= set(lines[-2].split())

    # Again: nothing is done, the same comes out, and what a kill before the end left is removed.
    left = (out / "one-48x36-40.json").with_suffix(".state")
    left.touch()
    own = [file for file in out.iterdir() if file.name not in ("bounds.md", ROUND, left.name)]
    before = [file.stat().st_mtime_ns for file in own]
    together = (out / ROUND).read_bytes()
    again = run(*command, "--out", out, "--json")
    assert again.exit_code == 0, again.output
    assert not left.exists()
    assert [file.stat().st_mtime_ns for file in own] == before and len(own) == 6
    assert (out / ROUND).read_bytes() == together
    facts = [[one["clip"], one["saved"]] for one in results(out / ROUND)]
    assert facts == [[one["clip"], one["saved"]] for one in results(out)]
    facts = json.loads(again.stdout)
    assert facts["command"] == lines[-2]
    assert [row["clip"] for row in facts["lessons"]] == ["one", "two"]
    saved = [row["psnr_found"] for row in facts["lessons"]]
    assert facts["mean"]["psnr_found"] == pytest.approx(sum(saved) / 2)
    assert result.stdout == (out / "bounds.md").read_text()
    command[command.index("layered")] = "dependency"
    assert "another start: choose another folder" in complaint(*command, "--out", out)


def test_a_clip_without_a_curve_is_in_no_mean():
    table = pd.DataFrame(
        {
            "clip": ["a", "b"],
            "size": "2x2",
            "target_bitrate": 10,
            "encodes": [30, 40],
            "psnr_start": [1.0, float("nan")],
            "psnr_found": [2.0, float("nan")],
        }
    )
    page = bounds_page(table, "dependency", 2, "vpxrc teach")
    assert "| b | 2x2 | 10 | 40 | - | - |" in page
    assert "| mean |  |  | 35.0 | +1.0 | +2.0 |" in page
    assert "quality does not rise" in page
    figures = bounds_figures(table, "vpxrc teach")
    assert [row["psnr_start"] for row in figures["lessons"]] == [1.0, None]
    assert (figures["mean"]["psnr_found"], figures["median"]["encodes"]) == (2.0, 35.0)


def test_a_terminated_teach_goes_on(clips, tmp_path):
    clip, cut, whole = clips / "one.y4m", tmp_path / "cut", tmp_path / "whole"
    command = ["teach", clip, "--bitrates", 60, "--jobs", 1, "--out", cut]
    process = subprocess.Popen([*VPXRC, *map(str, command)], stderr=subprocess.PIPE)
    end = time.monotonic() + 30
    while not list(cut.glob("*.state")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=20)
    assert (process.returncode, words) == (cli.TERMINATED, b"")
    assert [file.suffix for file in cut.iterdir()] == [".state"]
    assert run(*command).exit_code == 0
    given = scaled(Clip("one", str(clip)), None)
    (lesson,) = searches([given], [60], EncoderOptions(), whole, start=START)
    learn(lesson)
    names = {file.name for file in whole.iterdir()}
    assert {file.name for file in cut.iterdir()} == {*names, "bounds.md", ROUND}
    assert all((cut / name).read_bytes() == (whole / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--start": "nonsense"}, "unknown policy 'nonsense'"),
        ({"--start": "libvpx-vbr"}, "decides every frame itself"),
        ({"--directions": "level,up"}, "unknown direction 'up'"),
        ({"--quality": "xpsnr"}, "xpsnr"),
        ({"--bitrates": "fast"}, "--bitrates takes integers"),
        ({"--bitrates": "0"}, "target_bitrate"),
        ({"--per-clip": 2}, "2 targets per clip, of 1"),
        ({"--jobs": 0}, "--jobs"),
        ({"--cpu-used": 9}, "cpu_used"),
    ],
)
def test_what_teach_refuses(clips, tmp_path, changes, words):
    options = {"--bitrates": 60, "--out": tmp_path / "out", **changes}
    parts = [part for pair in options.items() for part in pair]
    assert words in complaint("teach", clips, *parts)
    assert not list(tmp_path.iterdir())


def test_a_clip_that_cannot_be_taught(tmp_path):
    (tmp_path / "bad.y4m").write_text("nonsense")
    line = complaint("teach", tmp_path, "--bitrates", 60, "--out", tmp_path / "out", "--jobs", 1)
    assert "bad.y4m" in line
    assert not (tmp_path / "out").exists()


# verify


def test_verify_of_lessons(taught, clips, tmp_path):
    (path,) = taught.glob("one-*.json")
    result = run("verify", path)
    assert result.exit_code == 0, result.output
    assert re.match(r"pass  a lesson's replay \[one, 48x36, 40 kbit/s\]: ", result.stdout)
    folder = copied(taught, tmp_path)
    assert run("verify", folder, "--clips", clips).stdout.count("pass  ") == 2
    trajectory = next(folder.glob("two-*.trajectory.parquet"))
    table = pd.read_parquet(trajectory)
    table.loc[0, "bits"] += 1
    table.to_parquet(trajectory)
    pack(tmp_path / "round.parquet", list(results(folder)))
    for place in (folder, trajectory, tmp_path / "round.parquet"):
        result = run("verify", place, "--clips", clips)
        assert result.exit_code == 1
        assert "FAIL  a lesson's replay [two, 48x36, 60 kbit/s]: 1 of" in result.stdout
    assert "is not among the clips" in complaint("verify", path, "--clips", clips / "two.y4m")
    assert "no lessons" in complaint("verify", clips, "--clips", clips)
    assert "cannot read" in complaint("verify", tmp_path / "none.json")
    assert "cannot read" in complaint("verify", tmp_path / "none.parquet")


# encode --effort


@pytest.mark.parametrize("effort", [1, 3, 20])
def test_effort_is_the_most_encodes(tmp_path, monkeypatch, effort):
    source = tmp_path / "carphone.y4m"
    sample = dataclasses.replace(load_clips("samples")[0], width=96, height=80, num_frames=50)
    write_y4m(sample.open(), source)
    made = []
    for place in (objective, chunks):
        monkeypatch.setattr(
            place, "encode", lambda *a, **named: made.append(a) or encode(*a, **named)
        )
    output = tmp_path / "out.ivf"
    common = ("-b", 30, "-o", output, "--cpu-used", 5, "--policy", "constant-q:150")
    result = run("encode", source, *common, "--effort", effort, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["encodes"] == len(made) <= effort
    assert len(decode_vp9(output, 96, 80)) == 50
    if effort == 1:
        plain = encode(made[0][0], EncoderOptions(30, cpu_used=5), make_policy("constant-q:150"))
        assert output.read_bytes() == plain.stream
    else:
        assert abs(facts["overshoot"]) <= 0.02
        assert facts["encodes"] > effort / 2


def test_what_effort_refuses(clips, tmp_path):
    common = ("encode", clips / "one.y4m", "-b", 60, "-o", tmp_path / "out.ivf", "--effort")
    line = complaint(*common, 2, "--policy", "libvpx-vbr")
    assert "a policy that decides every frame itself" in line
    assert "--effort" in complaint(*common, 0)
    assert not list(tmp_path.iterdir())


# train


@pytest.fixture
def trainable(tmp_path, monkeypatch):
    """An empty folder, and torch is there."""
    pytest.importorskip("torch", reason="torch is not installed: pip install 'vpxrc[agents]'")
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_train(taught, clips, trainable, monkeypatch):
    from vpxrc.agents.imitation import training
    from vpxrc.agents.imitation.learner import Learner

    out = trainable / "out" / "whole.safetensors"
    common = ("train", "--agent", "imitation", taught, "--epochs", 4, "--jobs", 1)
    result = run(*common, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["trajectories"], facts["clips"], facts["epochs"]) == (2, 2, 4)
    assert facts["losses"]["offset"] >= 0
    policy = make_policy(f"imitation:{out}")
    # Of the lessons' clips, and of the larger ones that they were made of.
    expected = {found["content_hash"] for found in results(taught)}
    expected |= {Clip(n, str(clips / f"{n}.y4m")).open().content_hash for n in ("one", "two")}
    assert policy.training_clips == expected and len(expected) == 4
    assert encode(make_video(), EncoderOptions(60, cpu_used=8), policy).psnr > 20

    # Killed after two epochs, the same command goes on.
    train = Learner.train

    def interrupted(self, progress):
        def stop(epoch, parts):
            progress(epoch, parts)
            if epoch == 2:
                raise KeyboardInterrupt

        train(self, stop)

    cut = trainable / "out" / "cut.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(training, "STATE_EVERY", 0.0)
        patch.setattr(Learner, "train", interrupted)
        assert run(*common, "--out", cut).exit_code == cli.INTERRUPTED
    (state,) = cut.parent.glob("cut.*.state")
    epochs = []
    monkeypatch.setattr(
        Learner, "train", lambda self, progress: epochs.append(self.epoch) or train(self, progress)
    )
    cache = [  # without the notes beside them, which are touched at each use
        path
        for path in (trainable / "cache" / "lessons").iterdir()
        if not path.with_suffix("").exists()
    ]
    before = [file.stat().st_mtime_ns for file in cache]
    result = run(*common, "--out", cut, "--clips", clips)
    assert result.exit_code == 0, result.output
    assert "2 trajectories of 2 clip(s)" in result.stdout
    assert epochs == [2]
    assert not state.exists()
    assert [file.stat().st_mtime_ns for file in cache] == before and len(cache) == 2
    # And from one file of the lessons, which are seen already.
    pack(trainable / "round.parquet", list(results(taught)))
    packed = trainable / "out" / "packed.safetensors"
    again = [trainable / "round.parquet" if part is taught else part for part in common]
    assert run(*again, "--out", packed).exit_code == 0
    assert set((trainable / "cache" / "lessons").glob("*.safetensors")) == set(cache)
    one, *others = (load_file(file) for file in (out, cut, packed))
    for other in others:
        assert one.keys() == other.keys()
        assert all((one[name] == other[name]).all() for name in one)


def test_train_on_parts_of_what_there_is(taught, trainable, monkeypatch):
    from vpxrc.agents.imitation.learner import Learner

    configs = []
    train = Learner.train
    monkeypatch.setattr(
        Learner,
        "train",
        lambda self, progress: configs.append(self.config) or train(self, progress),
    )
    out, board = trainable / "part.safetensors", trainable / "board"
    parts = ("--no-auxiliary", "--no-dependency-inputs", "--seed", 7, "--epochs", 2, "--jobs", 1)
    common = ("train", "--agent", "imitation", taught, "--out", out, *parts)
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    result = run(*common, "--tensorboard", board)
    assert result.exit_code == 0, result.output
    (config,) = configs
    assert (config.auxiliary, config.dependency_inputs, config.seed) == (0.0, False, 7)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(board)).Reload()
    assert [event.step for event in events.Scalars("loss/offset")] == [1, 2]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install tensorboard" in complaint(*common, "--tensorboard", board)


def test_what_is_seen_survives_the_cache(taught, tmp_path, monkeypatch):
    from vpxrc.agents.imitation import observations
    from vpxrc.agents.teacher import lessons as teacher

    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path))
    made = []
    observe = observations.observe
    monkeypatch.setattr(observations, "observe", lambda *a: made.append(observe(*a)) or made[-1])
    wanted, _ = observations.observations([taught], code="code")
    assert wanted.read() is None
    own = wanted.clip.open().content_hash
    assert observations.observe_once(wanted) == observations.observe_once(wanted) == own
    (seen,) = made
    read = wanted.read()
    assert isinstance(read[0].groups[0].excess, float)
    assert [lesson.name for lesson in read] == ["one"] * len(seen)
    for mine, yours in zip(read, seen, strict=True):
        a, b = (dict(to_tensors(lesson, "x")) for lesson in (mine, yours))
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            assert a[name].tobytes() == b[name].tobytes() and a[name].shape == b[name].shape
    wanted.path.write_text("nonsense")
    assert wanted.read() is None
    (other, _) = observations.observations([taught], code="other code")
    assert other.path != wanted.path
    (result, *_) = teacher.results(taught)
    result["options"]["cpu_used"] = 3
    monkeypatch.setattr(observations, "results", lambda place: [result])
    assert observations.observations([taught], code="code")[0].path != wanted.path


def test_a_value_of_many_kinds_comes_back():
    @dataclasses.dataclass(frozen=True)
    class Kinds:
        words: str
        number: float
        rows: tuple[np.ndarray, ...]

    made = Kinds("grün", 0.1, (np.zeros((0, 3), np.float32), np.arange(3)))
    tensors = dict(to_tensors((made, made), "x"))
    assert sorted(tensors)[:2] == ["x", "x.0.number"] and int(tensors["x"]) == 2
    (read, _) = from_tensors(tuple[Kinds, ...], tensors, "x")
    assert (read.words, read.number, len(read.rows)) == ("grün", 0.1, 2)
    assert all(
        (a == b).all() and a.dtype == b.dtype for a, b in zip(read.rows, made.rows, strict=True)
    )


def test_what_train_refuses(taught, clips, trainable, monkeypatch):
    out = trainable / "out.safetensors"

    def refused(*changes, agent="imitation", folder=taught, file=out):
        return complaint("train", "--agent", agent, folder, "--out", file, *changes)

    assert "unknown agent 'none': choose from imitation" in refused(agent="none")
    assert "ends in .safetensors" in refused(file=trainable / "out.pt")
    assert "no lessons" in refused(folder=clips)
    assert "not among the clips" in refused("--clips", clips / "one.y4m")
    assert "--epochs" in refused("--epochs", 0)
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("learner", "training"):
        monkeypatch.delitem(sys.modules, f"vpxrc.agents.imitation.{name}", raising=False)
    assert "needs torch: pip install 'vpxrc[agents]'" in refused()
    assert not list(trainable.iterdir())
