"""The code and the files that results depend on: an edit of any of them is never missed."""

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import in_this_process, make_video
from safetensors.numpy import save_file

from vpxrc import EncoderOptions, _native, encode, make_policy, provenance
from vpxrc.agents.checkpoints import checkpoint_metadata
from vpxrc.agents.imitation.policy import CHECKPOINT
from vpxrc.agents.rllib.policy import FORMAT
from vpxrc.agents.teacher.trajectory import Record, Trajectory
from vpxrc.datasets import Clip
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import InputError
from vpxrc.evaluation import study as evaluation
from vpxrc.media.frames import write_y4m

REPOSITORY = Path(__file__).parents[1]
# Of every folder of the package, where it is in this repository.
FOLDERS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["scikit-build"][
    "wheel"
]["packages"]
# What shows results and makes none.
SHOWING = ("cli/", "reports/")
# One module that is in the key, and one that is not.
CODE, REPORT = "policies/layered.py", "reports/pages.py"
COMMON: dict[str, Any] = {"cpu_used": 8, "auto_alt_ref": 6}


def modules():
    """Return the names of all modules of the package, within it."""
    found = []
    for place, folder in FOLDERS.items():
        inside = Path(place).relative_to("vpxrc")
        for path in (REPOSITORY / folder).rglob("*.py"):
            found.append((inside / path.relative_to(REPOSITORY / folder)).as_posix())
    return sorted(found)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package in one folder, as a wheel has it."""
    folder = tmp_path_factory.mktemp("copy") / "vpxrc"
    for place, source in FOLDERS.items():
        target = folder / Path(place).relative_to("vpxrc")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / source, target, dirs_exist_ok=True, ignore=ignored)
    for extension in Path(_native.__file__).parent.glob("*.so"):
        shutil.copy(extension, folder)
    return folder


@pytest.fixture
def edit(copy, monkeypatch):
    """Have the package be the copy; return what edits a file of it. All edits are undone."""
    monkeypatch.setattr(provenance, "package_folders", lambda: [("", copy)])
    before: dict[Path, str] = {}

    def append(name):
        path = copy / name
        before.setdefault(path, path.read_bytes() if path.exists() else None)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((before[path] or b"") + b"\n# edited\n")

    yield append
    for path, data in before.items():
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)


# The package


def test_all_folders_of_the_package_are_known():
    beside = [Path(place).name for place in FOLDERS if place != "vpxrc"]
    assert sorted(provenance.BESIDE) == sorted(beside)
    assert {place for place, _ in provenance.package_folders()} == {"", *beside}


def test_an_editable_install_and_a_wheel_have_the_same_key(copy, monkeypatch):
    code = provenance.causes()
    here = provenance.package_files()
    monkeypatch.setattr(provenance, "package_folders", lambda: [("", copy)])
    assert provenance.package_files().keys() == here.keys()
    assert provenance.causes() == code
    assert {"__init__.py", "agents/imitation/imitation.safetensors"} < here.keys()
    assert sum(name.startswith(("_native.", "_native_high.", "_search.")) for name in here) == 3


@pytest.mark.parametrize("name", modules())
def test_a_module_is_in_the_key_unless_it_shows_results(edit, name):
    before = provenance.causes()
    edit(name)
    assert (provenance.causes() == before) == name.startswith(SHOWING)


def test_extensions_and_networks_and_new_modules_are_in_the_key(edit, copy):
    names = [path.relative_to(copy).as_posix() for path in copy.rglob("*.so")]
    assert len(names) == 3
    names += ["agents/imitation/imitation.safetensors", "new.py", "codecs/new.py", "envs/cli.py"]
    seen = [provenance.causes()]
    for name in names:
        edit(name)
        seen.append(provenance.causes())
        assert seen[-1] not in seen[:-1], name
    for name in ("cli/new.py", "reports/new.py", "reports/style.css", "page.js", "envs/README.md"):
        edit(name)
        assert provenance.causes() == seen[-1], name


def test_what_else_is_in_the_key(monkeypatch):
    plain, measured = provenance.causes(), provenance.causes(metrics=["ssim", "psnr"])
    assert json.loads(json.dumps(plain)) == plain
    assert measured != plain and measured == provenance.causes(metrics=["psnr", "ssim"])
    assert provenance.causes(metrics=["psnr"]) not in (plain, measured)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_version", lambda: "another")
    assert provenance.causes() == plain
    assert provenance.causes(metrics=["psnr", "ssim"]) != measured
    monkeypatch.setattr("vpxrc._native.LIBVPX_SHA256", "another")
    assert provenance.causes() != plain


# Policies


BASE = """
from vpxrc import Policy

class Base(Policy):
    pass
"""
PLUGIN = """
from thirdparty.base import Base
from vpxrc import Decision, make_policy

class Fixed(Base):
    def __init__(self, argument="constant-q"):
        if ":" in argument or "/" not in argument:
            self.other = [make_policy(argument)]

    def decide(self, frame):
        return Decision(100)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package with a policy, whose base class is another package's; return their folder."""
    site = tmp_path / "site"
    files = {
        "someplugin/__init__.py": "",
        "someplugin/policy.py": PLUGIN,
        "someplugin/parts/helper.py": "",
        "thirdparty/__init__.py": "",
        "thirdparty/base.py": BASE,
        "thirdparty/other.py": "",
        "someplugin-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: someplugin\nVersion: 1\n",
        "someplugin-1.dist-info/entry_points.txt": (
            "[vpxrc.policies]\nfixed = someplugin.policy:Fixed\n"
        ),
    }
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(site)
    yield site
    for name in [name for name in sys.modules if name.startswith(("someplugin", "thirdparty"))]:
        del sys.modules[name]


def test_another_packages_policy_is_in_the_key(plugin):
    seen, own = [provenance.causes("fixed")], provenance.causes("dependency")
    names = ("policy.py", "__init__.py", "parts/helper.py", "parts/new.py")
    for name in [*(f"someplugin/{name}" for name in names), "thirdparty/base.py"]:
        with (plugin / name).open("a") as file:
            file.write("# edited\n")
        seen.append(provenance.causes("fixed"))
        assert seen[-1] not in seen[:-1], name
    (plugin / "thirdparty/other.py").write_text("# no class of the policy is here\n")
    (plugin / "someplugin/words.txt").write_text("no module")
    assert provenance.causes("fixed") == seen[-1]
    assert provenance.causes("dependency") == own


@pytest.mark.parametrize("kind", ["fixed:{}", "fixed:{}@4"])
def test_files_that_a_spec_names_are_in_the_key(plugin, tmp_path, kind):
    path = tmp_path / "a@2.net"
    seen = []

    def changed(spec):
        seen.append(provenance.causes(spec))
        assert seen[-1] not in seen[:-1]

    for content in ("trained", "trained anew"):
        path.write_text(content)
        changed(kind.format(path))
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("one", "deep/two"):
        for content in ("trained", "trained anew"):
            (folder / name).write_text(content)
            changed(f"fixed:{folder}")
    (folder / "one").rename(folder / "three")
    changed(f"fixed:{folder}")
    with pytest.raises(InputError, match="unknown policy"):
        provenance.causes("none:1")


def network(path):
    """Copy the network of the package, with one bit changed where there is a copy already."""
    data = bytearray(CHECKPOINT.read_bytes())
    data[-1] ^= path.is_file()
    path.write_bytes(data)
    return f"imitation:{path}"


def test_policies_that_a_policy_makes_are_in_the_key(plugin, tmp_path):
    """The base policy that a checkpoint names, also under a policy of another package."""
    base = network(tmp_path / "base.safetensors")
    config = ResidualConfig(base)
    size, actions = len(OBSERVATION), len(config.actions)
    layer = {"layers.0.weight": (actions, size), "layers.0.bias": actions}
    shapes = {"mean": size, "gain": size, **layer}
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    settings = {"algorithm": "ppo", "activation": "tanh", "reach": "0.5"}
    about = checkpoint_metadata(FORMAT, config, [], **settings)
    save_file(tensors, tmp_path / "agent.safetensors", about)
    specs = [f"rllib:{tmp_path / 'agent.safetensors'}"]
    specs.append(f"fixed:{specs[0]}")
    before = [provenance.causes(spec) for spec in specs]
    assert [provenance.causes(spec) for spec in specs] == before
    network(tmp_path / "base.safetensors")
    after = [provenance.causes(spec) for spec in specs]
    assert after[0] != before[0] and after[1] != before[1]
    own = tmp_path / "agent.safetensors"
    save_file({**tensors, "mean": np.ones(size, np.float32)}, own, about)
    assert provenance.causes(specs[0]) != after[0] and provenance.causes(specs[1]) != after[1]


# What is kept is not used again


def kept(folder):
    """Return when each file was written."""
    entries = [
        path
        for path in folder.iterdir()
        if path.suffix != ".json" or not path.with_suffix("").exists()
    ]
    return {path: path.stat().st_mtime_ns for path in entries}  # a note is beside each


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "made.y4m"
    write_y4m(make_video(num_frames=24), path)
    return Clip("made", str(path))


def evaluated(out, clip, agent):
    return evaluation.evaluate(
        agent,
        ["libvpx-vbr"],
        [clip],
        [20, 40, 80, 160],
        out,
        metrics=["psnr"],
        options=EncoderOptions(cpu_used=8),
    )


def test_an_evaluation_of_edited_code(edit, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "open_workers", in_this_process)
    first = evaluated(tmp_path, clip, "constant-q:120")
    files = kept(tmp_path / "encodes")
    assert len(first.encodes) == 8
    edit(REPORT)
    edit("cli/evaluate.py")
    again = evaluated(tmp_path, clip, "constant-q:120")
    assert kept(tmp_path / "encodes") == files
    assert again.encodes["key"].tolist() == first.encodes["key"].tolist()
    edit(CODE)  # constant-q is not in it: what an encode does not reach today it may tomorrow
    anew = evaluated(tmp_path, clip, "constant-q:120")
    assert not set(anew.encodes["key"]) & set(first.encodes["key"])
    assert len(kept(tmp_path / "encodes")) == 2 * len(files)
    assert anew.encodes["stream_sha256"].tolist() == first.encodes["stream_sha256"].tolist()


def test_an_evaluation_of_an_edited_policy(plugin, clip, tmp_path):
    """In workers, which import it afresh."""
    first = evaluated(tmp_path / "out", clip, "fixed").encodes.set_index(["policy"])
    path = plugin / "someplugin/policy.py"
    path.write_text(PLUGIN.replace("Decision(100)", "Decision(160)"))
    anew = evaluated(tmp_path / "out", clip, "fixed").encodes.set_index(["policy"])
    assert (anew.loc["fixed", "bitrate"] < 0.8 * first.loc["fixed", "bitrate"]).all()
    assert (anew.loc["libvpx-vbr", "key"] == first.loc["libvpx-vbr", "key"]).all()


@pytest.fixture(scope="module")
def lesson(clip, tmp_path_factory):
    """What `vpxrc teach` leaves of a search that found nothing better than its start."""
    record = Record(make_policy("layered"))
    video = clip.open()
    log = encode(video, record.options(EncoderOptions(target_bitrate=60, **COMMON)), record)
    table = Trajectory.of(log, record.decisions).to_pandas()
    rows = log.records[log.records["is_shown_again"] == 0]
    for name in ("q_index", "is_shown", "bits", "sse_y", "sse_u", "sse_v"):
        table[name] = rows[name]
    path = tmp_path_factory.mktemp("lessons") / "made-64x48-60.json"
    table.to_parquet(path.with_suffix(".trajectory.parquet"))
    geometry = {"content_hash": video.content_hash, "width": 64, "height": 48}
    options = {"options": {"target_bitrate": 60, **COMMON}, "start": "layered"}
    source = {"source": {"name": "made", "source": clip.source, "fps": None}}
    result = {"clip": "made", **geometry, **options, **source}
    path.write_text(json.dumps({**result, "search": {}, "encodes": 1, "saved": {}}))
    return path


@pytest.fixture
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_lessons_of_imitation_under_edited_code(edit, lesson, cached, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'vpxrc[agents]'")
    from vpxrc.agents.imitation import training
    from vpxrc.agents.imitation.config import LearnerConfig

    monkeypatch.setattr(training, "open_workers", in_this_process)

    def train():
        training.train([lesson], tmp_path / "agent.safetensors", LearnerConfig(epochs=1))
        return kept(cached / "lessons")

    first = train()
    assert len(first) == 1
    edit(REPORT)
    edit("cli/train/__init__.py")
    assert train() == first
    edit(CODE)
    anew = train()
    assert len(anew) == 2 and first.items() < anew.items()


def test_a_state_of_muzero_under_edited_code(edit, clip, cached, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'vpxrc[agents]'")
    from vpxrc.agents.muzero import training
    from vpxrc.agents.muzero.actor import Task
    from vpxrc.agents.muzero.config import MuZeroConfig
    from vpxrc.agents.muzero.purpose import Purpose

    monkeypatch.setattr(training, "open_workers", in_this_process)
    task = Task(clip, EncoderOptions(target_bitrate=60, **COMMON))
    base = network(tmp_path / "base.safetensors")
    purpose = Purpose((task,), ResidualConfig(base), reference="layered")
    config = MuZeroConfig(hidden=8, width=16, simulations=2)

    def train(episodes):
        out = tmp_path / "agent.safetensors"
        return training.train(out, purpose, config, clips=frozenset(), episodes=episodes, envs=1)

    assert train(1)["episodes"] == 1
    edit(REPORT)
    edit("cli/train/__init__.py")
    rewards = json.loads((tmp_path / "agent.state/current/ema.json").read_text())
    assert train(2)["episodes"] == 2
    assert json.loads((tmp_path / "agent.state/current/ema.json").read_text()) == rewards
    refused = "agent.state is of another code: remove it or choose another --out$"
    edit(CODE)
    with pytest.raises(InputError, match=refused):
        train(3)
    shutil.rmtree(tmp_path / "agent.state")
    assert train(1)["episodes"] == 1
    network(tmp_path / "base.safetensors")
    with pytest.raises(InputError, match=refused):
        train(2)


@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # RLlib's own
@pytest.mark.filterwarnings("ignore:.*Overriding environment rllib:UserWarning")
@pytest.mark.usefixtures("local_ray")
def test_lessons_and_a_state_of_rllib_under_edited_code(
    edit, clip, lesson, cached, tmp_path, monkeypatch
):
    pytest.importorskip("ray.rllib.algorithms.bc", reason="no RLlib: pip install 'vpxrc[ray]'")
    from vpxrc.agents.rllib import training

    monkeypatch.setattr(training, "STATE_EVERY", 0.0)
    done = []

    def progress(number, total, words, figures):
        done.append(number)
        if number == stop:
            raise KeyboardInterrupt

    def train():
        training.train(
            "bc",
            tmp_path / "agent.safetensors",
            config=ResidualConfig("layered"),
            clips=[clip],
            target_bitrates=[],
            options={},
            iterations=6,
            runners=0,
            seed=0,
            ray="local",
            lessons=[lesson],
            device="cpu",
            progress=progress,
        )

    stop = 3
    with pytest.raises(KeyboardInterrupt):
        train()
    first = kept(cached / "demonstrations")
    assert len(first) == 1 and done == [1, 2, 3]
    stop = 4
    edit(REPORT)
    edit("cli/train/__init__.py")
    with pytest.raises(KeyboardInterrupt):
        train()
    assert kept(cached / "demonstrations") == first and done == [1, 2, 3, 3, 4]
    edit(CODE)
    with pytest.raises(InputError, match="a state of another training; remove it to start anew"):
        train()
    anew = kept(cached / "demonstrations")
    assert len(anew) == 2 and first.items() < anew.items()


def test_surveys_of_rllib_under_edited_code(edit, clip, cached):
    """What ppo and sac count gains from: without Ray, in this process."""
    from vpxrc.agents.rllib import training
    from vpxrc.agents.rllib.config import RllibConfig

    def prepare(**own):
        own = RllibConfig(**{"reference": "libvpx-vbr", **own})
        course = training._Course("ppo", ResidualConfig("layered"), own, 0, 0, "cpu")
        with in_this_process(1) as workers:
            course.learn_on([clip], [40, 80], COMMON, workers)
        return kept(cached / "surveys")

    first = prepare()
    assert len(first) == 1
    edit(REPORT)
    assert prepare() == first
    edit(CODE)
    anew = prepare()
    assert len(anew) == 2 and first.items() < anew.items()
