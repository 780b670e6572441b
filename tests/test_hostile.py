"""Inputs of somebody who means harm: nothing is read, written or run that was not named.

Each line of SECURITY.md names its test; many of them are here.
"""

import json
import os
import pickle
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av.logging
import numpy as np
import pandas as pd
import pytest
from conftest import make_video
from numpy.typing import NDArray
from safetensors.numpy import load_file
from typer.testing import CliRunner

from vpxrc import cli, make_policy
from vpxrc.agents.checkpoints import checkpoint_metadata, named_in_file
from vpxrc.agents.imitation.policy import CHECKPOINT
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.network import Network, Trained, shapes
from vpxrc.agents.rllib.policy import Rllib
from vpxrc.agents.teacher.lessons import results
from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.cli.train.options import settings_of
from vpxrc.datasets import load_clips
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import InputError
from vpxrc.evaluation.comparison import read_study
from vpxrc.evaluation.leaderboard import check_submission
from vpxrc.media import decoder, messages, open_video
from vpxrc.media.decoding import decode
from vpxrc.media.ffmpeg import NOT_READ, ffmpeg_program
from vpxrc.media.frames import write_y4m
from vpxrc.media.probing import probe
from vpxrc.storage import parse_json
from vpxrc.tensors import read_tensors, tensor_bytes

SMALL = MuZeroConfig(hidden=8, width=8)


def complaint(*arguments) -> str:
    """Run a command that is to refuse its input; return its one line."""
    result = CliRunner().invoke(cli.app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    write_y4m(make_video(num_frames=6), path)
    return path


# Checkpoints


def muzero(path: Path, base: object, **tensors: NDArray[np.float32]) -> Path:
    """Write a checkpoint that is in order but for its base policy and the given tensors."""
    config = ResidualConfig("layered", "frame", ((0, 0), (0.4, 0)))
    rng = np.random.default_rng(0)
    parameters = {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in shapes(len(OBSERVATION), 2, SMALL.hidden, SMALL.width).items()
    }
    Trained(Network(parameters), config, SMALL, frozenset(), {}).save(path)
    loaded, settings = read_tensors(path)
    settings["config"] = json.dumps({**json.loads(settings["config"]), "base": base})
    path.write_bytes(tensor_bytes({**loaded, **tensors}, settings))
    return path


class Ran:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_weights_file_runs_no_code(tmp_path, clip, monkeypatch):
    """Its base policy may not be an RLlib folder, whose pickles run."""
    mark = tmp_path / "ran"
    folder = tmp_path / "120"
    folder.mkdir()
    for name in ("class_and_ctor_args.pkl", "module_state.pkl", "rllib_checkpoint.json"):
        (folder / name).write_bytes(pickle.dumps(Ran(mark)))
    monkeypatch.chdir(tmp_path)
    for base in (f"rllib:{folder}", "rllib:120", "rllib:./120", "rllib: 120"):
        path = muzero(tmp_path / "model.safetensors", base)
        line = complaint(
            "encode", clip, "-b", 60, "-o", tmp_path / "out.ivf", "--policy", f"muzero:{path}"
        )
        assert "names the policy 'rllib:" in line
    assert not mark.exists() and not (tmp_path / "out.ivf").exists()


def test_saved_trainings_are_read_as_weights_only():
    """PyTorch then runs no pickles, https://pytorch.org/docs/stable/generated/torch.load.html."""
    found = 0
    for folder in ("vpxrc", "agents", "codecs", "envs", "datasets"):
        for path in (Path(__file__).parents[1] / folder).rglob("*.py"):
            for call in re.findall(r"torch\.load\((.*?)\)\n", path.read_text(), re.DOTALL):
                found += 1
                assert "weights_only=True" in call, path
    assert found >= 3


@pytest.mark.parametrize(
    "base",
    [
        {},
        None,
        7,
        [],
        "",
        ":",
        "nothing",
        "rllib",
        "muzero",
        "muzero:/dev/zero",
        "muzero:model.safetensors",
        "muzero:model.safetensors@8",
        "imitation:/etc/passwd",
        "imitation:/dev/zero",
        "imitation:../secret.safetensors",
        "imitation:/dev/zero.safetensors",
        "imitation:folder.safetensors",
        "imitation:pipe.safetensors",
        "constant-q:/etc/passwd",
        "constant-q:999",
        "constant-q:-1",
        "libvpx-vbr",
        "x" * 100_000,
    ],
)
def test_a_base_policy_that_a_file_must_not_name(tmp_path, base):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "folder.safetensors").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe.safetensors")
    shutil.copy(CHECKPOINT, tmp_path / "secret.safetensors")
    path = muzero(tmp_path / "in" / "model.safetensors", base)
    with pytest.raises(InputError) as refusal:
        make_policy(f"muzero:{path}")
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500


def test_base_policies_that_a_file_may_name(tmp_path):
    shutil.copy(CHECKPOINT, tmp_path / "base.safetensors")
    for base in ("layered", "imitation", "constant-q:120", "imitation:base.safetensors"):
        make_policy(f"muzero:{muzero(tmp_path / 'model.safetensors', base)}")
    # Of a path only the name counts: a folder of checkpoints can be moved, and leads nowhere else.
    spec = named_in_file("imitation:/elsewhere/base.safetensors", tmp_path / "model.safetensors")
    assert spec == f"imitation:{tmp_path / 'base.safetensors'}"


def test_settings_that_are_nested_deeply(tmp_path):
    path = muzero(tmp_path / "model.safetensors", "layered")
    tensors, settings = read_tensors(path)
    for name in ("config", "muzero", "options"):
        path.write_bytes(tensor_bytes(tensors, {**settings, name: "[" * 100_000}))
        with pytest.raises(InputError):
            make_policy(f"muzero:{path}")
    submission = tmp_path / "mine.json"
    submission.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is no submission"):
        check_submission(submission)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json('{"a":' * 100_000)
    assert settings_of(["options=" + "[" * 100_000]) == {"options": "[" * 100_000}


def test_arrays_that_do_not_lie_row_by_row_are_written_as_they_are(tmp_path):
    rows = np.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "rows": rows,
        "columns": np.asfortranarray(rows),
        "turned": rows.transpose(2, 0, 1),
        "every second": rows[:, ::-2],
        "one": np.array(3.0),
    }
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensor_bytes(tensors, {}))
    for found in (load_file(path), read_tensors(path)[0]):
        assert found.keys() == tensors.keys()
        for name, values in tensors.items():
            np.testing.assert_array_equal(found[name], values, strict=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    def spoil(source: Path, target: Path, name: str) -> Path:
        tensors, settings = read_tensors(source)
        tensors[name] = tensors[name].copy()
        tensors[name].flat[0] = value
        target.write_bytes(tensor_bytes(tensors, settings))
        return target

    good = muzero(tmp_path / "model.safetensors", "layered")
    for name in load_file(good):
        with pytest.raises(InputError, match=f"{name} has values that are not finite"):
            make_policy(f"muzero:{spoil(good, tmp_path / 'bad.safetensors', name)}")
    for name in list(load_file(CHECKPOINT))[::7]:
        with pytest.raises(InputError, match=f"{name} has values that are not finite"):
            make_policy(f"imitation:{spoil(CHECKPOINT, tmp_path / 'bad2.safetensors', name)}")
    linear = {"mean": np.zeros(len(OBSERVATION)), "gain": np.ones(len(OBSERVATION))}
    linear |= {"layers.0.weight": np.zeros((9, len(OBSERVATION))), "layers.0.bias": np.zeros(9)}
    about = checkpoint_metadata(
        "rllib 1", ResidualConfig("layered"), (), algorithm="ppo", activation="tanh", reach="0.5"
    )
    path = tmp_path / "rllib.safetensors"
    for spoiled in (None, *linear):
        tensors = {key: array.astype(np.float32) for key, array in linear.items()}
        if spoiled is None:
            path.write_bytes(tensor_bytes(tensors, about))
            Rllib(path)
            continue
        tensors[spoiled].flat[0] = value
        bad = tmp_path / f"rllib-{spoiled}.safetensors"
        bad.write_bytes(tensor_bytes(tensors, about))
        with pytest.raises(InputError, match=f"{spoiled} has values that are not finite"):
            Rllib(bad)


def test_checkpoints_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2 << 30)
    for name, words in (("pipe", "not a file"), ("endless", "not a file"), ("large", "1024 MiB")):
        for policy in ("imitation", "muzero", "rllib"):
            with pytest.raises(InputError, match=words):
                make_policy(f"{policy}:{tmp_path / name}")


# Catalogues


@pytest.mark.parametrize(
    "name",
    ["../escaped", "/tmp/escaped", "a/b", "..", ".", "a\\b", "a\nb", "a\0b", "x" * 300, "a b"],
)
def test_clips_whose_names_are_no_names(tmp_path, clip, name):
    shutil.copy(clip, tmp_path / "clip.y4m")
    catalogue = tmp_path / "clips.toml"
    catalogue.write_text(f"[[clips]]\nname = {json.dumps(name)}\nsource = 'clip.y4m'\n")
    line = complaint("teach", catalogue, "--bitrates", 60, "--out", tmp_path / "in" / "out")
    assert "is not a name" in line or "clips.toml" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.y4m", "clips.toml"]


@pytest.mark.parametrize("kind", ["source", "recipe"])
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "file:///dev/zero",
        "file://{folder}/../secret",
        "file://{folder}/%2e%2e/secret",
        "file://{folder}/link",
        "file://elsewhere{folder}/clip.y4m",
        "https://[::1",
        "package:///x",
        "ftp://example.org/clip.y4m",
        "gopher://example.org/",
    ],
)
def test_urls_that_lead_elsewhere(tmp_path, clip, url, kind):
    folder = tmp_path / "catalogue"
    folder.mkdir()
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    shutil.copy(clip, folder / "clip.y4m")
    source = url.replace("{folder}", str(folder))
    text = f"[[clips]]\nname = 'a'\nsha256 = '{'0' * 64}'\n"
    if kind == "source":
        text += f"source = '{source}'\n"
    else:
        text += (
            f"[clips.origin]\nname = 'a'\nsize = 1\ncontent_hash = '{'0' * 64}'\n"
            f"[clips.origin.recipe]\nsource = '{source}'\nwidth = 64\nheight = 48\ncrop = true\n"
            "fps = 30\nstart = 0.5\nnum_frames = 5\npreset = 'fast'\ncrf = 20\nthreads = 1\n"
            f"sha256 = '{'0' * 64}'\ntried = '5.1'\n"
        )
    (folder / "clips.toml").write_text(text)
    with pytest.raises(InputError) as refusal:
        load_clips(str(folder / "clips.toml"))
    assert "SHA-256" not in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "[[clips]]\nname = 1", "clips = [1]", "\0"])
def test_catalogues_that_are_none(tmp_path, text):
    (tmp_path / "clips.toml").write_text(text)
    with pytest.raises(InputError):
        load_clips(str(tmp_path / "clips.toml"))


# Videos


def hostile_lists(folder: Path, clip: Path) -> dict[str, bytes]:
    """Lists of other files by name, in every form that ffmpeg knows; none may be read."""
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n"
    concat = f"ffconcat version 1.0\nfile '{clip}'\n"
    dash = f"<?xml version='1.0'?><MPD><Period><BaseURL>{clip}</BaseURL></Period></MPD>"
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
    texts = {"hls": hls, "concat": concat, "dash": dash, "sdp": sdp}
    names = ("mp4", "webm", "m3u8", "ffconcat", "mpd", "txt", "y4m")
    return {f"{kind}.{suffix}": text.encode() for kind, text in texts.items() for suffix in names}


def test_playlists_and_lists_are_not_read(tmp_path, clip):
    for name, data in hostile_lists(tmp_path, clip).items():
        path = tmp_path / name
        path.write_bytes(data)
        for read in (probe, open_video):
            with pytest.raises(InputError, match=r"not a video|a playlist"):
                read(path)
    line = complaint("encode", tmp_path / "concat.mp4", "-b", 60, "-o", tmp_path / "out.ivf")
    assert NOT_READ in line


def test_image_sequences_are_not_read(tmp_path, clip):
    command = [ffmpeg_program(), "-v", "error", "-i", clip, tmp_path / "pic%03d.png"]
    subprocess.run(command, check=True)
    for name in ("pic%03d.png", "pic*.png", "pic00[12].png"):
        shutil.copy(tmp_path / "pic001.png", tmp_path / name)
        with pytest.raises(InputError):
            open_video(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["concealing.y4m", "it ended prematurely.y4m", "[error] corrupt.y4m", "Stream #0:0.y4m"]
)
def test_names_are_not_taken_for_ffmpegs_words(tmp_path, clip, name):
    shutil.copy(clip, tmp_path / name)
    assert open_video(tmp_path / name).num_frames == 6


def test_titles_are_not_taken_for_ffmpegs_words(tmp_path, clip):
    titles = ["concealing", "[error] corrupt", "Stream #0:0: Video: h264, yuv420p, "]
    for number, title in enumerate(titles):
        made = tmp_path / f"{number}.mkv"
        command = [ffmpeg_program(), "-v", "error", "-i", clip, "-metadata", f"title={title}"]
        subprocess.run([*command, "-c:v", "ffv1", made], check=True)
        assert open_video(made).num_frames == 6
        deep = tmp_path / f"{number}-10.mkv"
        subprocess.run([*command, "-c:v", "ffv1", "-pix_fmt", "yuv420p10", deep], check=True)
        assert open_video(deep).bit_depth == 10


@pytest.mark.parametrize("suffix", ["mkv", "webm", "gif"])
def test_damage_that_ffmpeg_passes_over_is_refused(tmp_path, clip, suffix):
    """ffmpeg ends with 0, and the frames in the damaged part are missing."""
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    codec = {"mkv": ["-c:v", "ffv1"], "webm": ["-c:v", "libvpx-vp9"], "gif": []}[suffix]
    command = [ffmpeg_program(), "-v", "error", "-i", clip, *codec, whole]
    subprocess.run(command, check=True)
    data = whole.read_bytes()
    middle = len(data) // 2
    cut.write_bytes(data[:middle] + data[middle + len(data) // 5 :])
    assert open_video(whole).num_frames == 6
    with pytest.raises(InputError, match="truncated or corrupt"):
        open_video(cut)


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_a_stream_that_begins_between_key_frames_is_refused(tmp_path, clip, codec):
    """ffmpeg shows what is left, from a picture that is not there."""
    whole, cut, repaired = (tmp_path / f"{name}.ts" for name in ("whole", "cut", "repaired"))
    command = [ffmpeg_program(), "-v", "error", "-i", clip, "-c:v", codec, "-g", "3", "-bf", "0"]
    command += ["-sc_threshold", "0" if codec == "libx264" else "1000000000"]
    subprocess.run([*command, whole], check=True)
    assert open_video(whole).num_frames == 6
    for first in (4, 12):  # packets of 188 bytes; the first frame begins in packet 3
        cut.write_bytes(whole.read_bytes()[188 * first :])
        with pytest.raises(InputError, match="the beginning is missing"):
            open_video(cut)
    copy = [ffmpeg_program(), "-v", "error", "-i", cut, "-map", "0", "-c", "copy", repaired]
    subprocess.run(copy, check=True)
    assert open_video(repaired).num_frames == 3


@pytest.mark.parametrize("rest", [0.1, 0.5, 0.9, 0.99])
def test_a_gif_that_zeros_end_early_is_refused(tmp_path, clip, rest):
    whole, cut = tmp_path / "whole.gif", tmp_path / "cut.gif"
    subprocess.run([ffmpeg_program(), "-v", "error", "-i", clip, whole], check=True)
    data = whole.read_bytes()
    assert open_video(whole).num_frames == 6
    kept = int(len(data) * rest)
    cut.write_bytes(data[:kept] + bytes(len(data) - kept))
    with pytest.raises(InputError, match="truncated"):
        open_video(cut)


# Lessons and studies

LESSON = {
    "clip": "a",
    "content_hash": "0",
    "width": 64,
    "height": 48,
    "start": "layered",
    "options": {"target_bitrate": 60},
    "search": {},
    "encodes": 3,
    "saved": {"psnr": {"start": 1.0, "found": None}},
    "source": {"name": "a", "source": "a.y4m", "start": 0.0, "fps": "30"},
}


def test_facts_of_a_lesson_have_their_types(tmp_path):
    path = tmp_path / "a-64x48-60.json"
    path.write_text(json.dumps(LESSON))
    assert [lesson["clip"] for lesson in results(tmp_path)] == ["a"]
    wrong: dict[str, object] = {"null": None, "text": "text", "list": [], "map": {"a": None}}
    allowed = {("source", "null"), ("search", "map"), ("options", "map")}
    allowed |= {(name, "text") for name, value in LESSON.items() if isinstance(value, str)}
    for name in LESSON:
        for kind, other in wrong.items():
            if (name, kind) in allowed:
                continue
            path.write_text(json.dumps({**LESSON, name: other}))
            with pytest.raises(InputError, match="not a lesson"):
                list(results(tmp_path))
    options: dict[str, object] = {"target_bitrate": None}
    path.write_text(json.dumps({**LESSON, "options": options}))
    with pytest.raises(InputError, match="not a lesson"):
        list(results(tmp_path))
    for text in ("null", "[" * 5000, json.dumps({**LESSON, "saved": {"psnr": {"found": "x"}}})):
        path.write_text(text)
        with pytest.raises(InputError, match="not a lesson"):
            list(results(tmp_path))


@pytest.mark.parametrize("value", [None, "text", np.nan, np.inf, 1e30])
def test_trajectories_have_finite_numbers(value):
    names = ("show_index", "group_index", "group_position", "update_type", "layer_depth")
    columns: dict[str, list[object]] = {name: [0, 1] for name in names}
    columns |= {"step": [1.0, 2.0], "lambda_scale": [1.0, 1.0]}
    columns |= {"superblock_scale": [None, None], "superblock_rows": [0, 0]}
    Trajectory.from_pandas(pd.DataFrame(columns))
    for name in columns:
        if name == "superblock_scale" or (name in ("step", "lambda_scale") and value == 1e30):
            continue
        spoiled = {**columns, name: [columns[name][0], value]}
        with pytest.raises(InputError, match="not a table of a trajectory"):
            Trajectory.from_pandas(pd.DataFrame(spoiled))


def test_studies_without_columns_or_with_text_for_numbers(tmp_path):
    summary = {
        "clips": [{"clip": "a", "content_hash": "0"}],
        "agent": "x",
        "baselines": {"y": {}},
        "libvpx": "1",
        "bitrates": [1, 2, 3, 4],
        "cpu_used": 2,
    }
    numbers = ("target_bitrate", "bitrate", "overshoot", "encodes", "encode_seconds", "cpu_seconds")
    texts = ("clip", "policy", "content_hash", "stream_sha256")
    row: dict[str, object] = {**dict.fromkeys(numbers, 1.0), **dict.fromkeys(texts, "0")}
    row["cpu_used"] = 2
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    whole = [{**row, "policy": policy} for policy in "xy"]
    pd.DataFrame(whole).to_parquet(tmp_path / "encodes.parquet")
    read_study(tmp_path)
    for name, other in (("agent", 1), ("baselines", []), ("clips", [{"content_hash": "0"}])):
        (tmp_path / "summary.json").write_text(json.dumps({**summary, name: other}))
        with pytest.raises(InputError, match="cannot be read"):
            read_study(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    pd.DataFrame(whole[:1]).to_parquet(tmp_path / "encodes.parquet")
    with pytest.raises(InputError, match="lacks encodes"):
        read_study(tmp_path)
    for name in row:
        rest = {key: value for key, value in row.items() if key != name}
        pd.DataFrame([rest]).to_parquet(tmp_path / "encodes.parquet")
        with pytest.raises(InputError, match="cannot be read"):
            read_study(tmp_path)
    for name in numbers:
        pd.DataFrame([{**row, name: "text"}]).to_parquet(tmp_path / "encodes.parquet")
        with pytest.raises(InputError, match="something else than numbers"):
            read_study(tmp_path)
    (tmp_path / "summary.json").write_text("[" * 5000)
    with pytest.raises(InputError, match="cannot be read"):
        read_study(tmp_path)


# What the pages promise


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/reliability.md"])
def test_every_test_that_a_page_names_is_there(page):
    root = Path(__file__).parents[1]
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (root / page).read_text())
    assert len(named) > 10
    for file, test in named:
        assert f"def {test}(" in (root / "tests" / file).read_text(), (file, test)


# Frames that are lost, and of which the libraries say so in their log alone


def made(source: Path, target: Path, *options: str) -> Path:
    """Encode a clip with ffmpeg's program."""
    files = str(source), *options, str(target)
    subprocess.run([ffmpeg_program(), "-v", "error", "-y", "-i", *files], check=True)
    return target


def assert_refused(path: Path, tmp_path: Path, words: str, num_frames: int) -> None:
    """A damaged file is refused; what can be decoded of it has a note in front."""
    with pytest.raises(InputError, match=f"truncated or corrupt: .*{words}"):
        open_video(path)
    decoded = decode(path, cache=tmp_path / "cache", strict=False)
    assert decoded.video.num_frames == num_frames
    assert re.search(f"the file is damaged .*{words}", decoded.notes[0])


def test_a_page_of_ogg_that_is_dropped_is_told(tmp_path, clip):
    """RFC 3533, 6: a page has a checksum; its reader leaves out a page where that is wrong."""
    # A page for each frame: the duration is in microseconds.
    whole = made(clip, tmp_path / "whole.ogv", "-c:v", "libtheora", "-page_duration", "1")
    data = bytearray(whole.read_bytes())
    assert open_video(whole).num_frames == 6
    assert data.count(b"OggS") >= 6
    data[data.rindex(b"OggS") + 60] ^= 1
    cut = tmp_path / "cut.ogv"
    cut.write_bytes(data)
    assert_refused(cut, tmp_path, "a part cannot be read", 5)


def test_a_frame_that_a_wrong_time_hides_is_told(tmp_path, clip):
    """ISO/IEC 14496-12, 8.6.1.3: ctts has for each sample when it is shown after its decoding."""
    options = ("-c:v", "libx264", "-bf", "2", "-x264-params", "b-adapt=0:scenecut=0")
    whole = made(clip, tmp_path / "whole.mp4", *options)
    assert open_video(whole).num_frames == 6
    data = bytearray(whole.read_bytes())
    last = data.index(b"ctts") - 4
    last += int.from_bytes(data[last : last + 4]) - 4
    data[last : last + 4] = (830_000_000).to_bytes(4)
    hidden = tmp_path / "hidden.mp4"
    hidden.write_bytes(data)
    assert_refused(hidden, tmp_path, "is to be shown .* s away", 6)  # one is repeated


def test_frames_outside_an_edit_list_are_told(tmp_path, clip):
    """ISO/IEC 14496-12, 8.6.6: elst has the duration of what is shown, and where that begins.

    The reader gives what is decoded before it from the last key frame on, and skips the rest.
    """
    whole = made(clip, tmp_path / "whole.mp4", "-c:v", "libx264", "-bf", "0", "-g", "2")
    data = bytearray(whole.read_bytes())
    assert decode(whole, cache=tmp_path / "cache").notes == ()
    place = data.index(b"elst") + 12  # behind version, flags and the number of edits
    data[place : place + 4] = (100).to_bytes(4)  # milliseconds
    data[place + 4 : place + 8] = (3 * 512).to_bytes(4)  # frames of 1/15360 s
    part = tmp_path / "part.mp4"
    part.write_bytes(data)
    decoded = decode(part, cache=tmp_path / "cache")
    assert decoded.video.num_frames == 3
    assert decoded.notes == ("3 frame(s) are left out: the file says not to show them",)


def test_frames_that_a_file_names_and_has_not_are_told(tmp_path, clip):
    """An IVF file that ends behind a frame is whole but for the number in its header."""
    whole = made(clip, tmp_path / "whole.ivf", "-c:v", "libvpx")
    data = whole.read_bytes()
    place = 32  # the header, then 12 bytes and a packet for each frame
    for _ in range(4):
        place += 12 + int.from_bytes(data[place : place + 4], "little")
    cut = tmp_path / "cut.ivf"
    cut.write_bytes(data[:place])
    assert_refused(cut, tmp_path, "it names 6 frames, and 4 are there", 4)
    assert open_video(cut, num_frames=3).num_frames == 3  # these are whole


@pytest.fixture
def wrong_slice(tmp_path, clip) -> Path:
    """A file of FFV1 with a changed bit in its last frame; RFC 9043, 4.9.3: slices have CRCs."""
    options = ("-c:v", "ffv1", "-level", "3", "-slices", "4", "-slicecrc", "1")
    whole = made(clip, tmp_path / "whole.mkv", *options)
    data = bytearray(whole.read_bytes())
    data[-1000] ^= 1
    damaged = Path(tmp_path, "damaged.mkv")
    damaged.write_bytes(data)
    return damaged


def test_checksums_that_threads_of_a_decoder_find_wrong_are_told(tmp_path, wrong_slice):
    assert_refused(wrong_slice, tmp_path, "at 0.17 s cannot be decoded as a whole", 6)


def test_other_errors_of_a_decoder_are_a_note(tmp_path, wrong_slice, monkeypatch):
    monkeypatch.setattr(decoder, "_SILENT_DECODERS", ())
    decoded = decode(wrong_slice, cache=tmp_path / "cache")
    assert decoded.video.num_frames == 6
    assert decoded.notes == ("the decoder reports errors: frames may not look as they should",)


def noted(path: Path, cache: Path) -> str:
    """Return the first damage that a strict reader finds, or nothing."""
    try:
        decode(path, cache=cache)
    except InputError as error:
        return str(error)
    return ""


def test_readers_in_several_threads_hear_their_own_errors(tmp_path, clip, wrong_slice):
    good = tmp_path / "whole.mkv"
    with ThreadPoolExecutor(4) as pool:
        paths = [good, wrong_slice] * 12
        caches = [tmp_path / f"cache{number}" for number in range(len(paths))]
        found = list(pool.map(lambda *given: noted(*given), paths, caches))
    assert found[::2] == [""] * 12
    assert all("at 0.17 s cannot be decoded as a whole" in words for words in found[1::2])
    assert av.logging.get_level() is None
    assert not messages._switch._listeners


def test_a_forked_process_does_not_listen_for_its_parent():
    with messages.listening():
        assert av.logging.get_level() == av.logging.ERROR
        child = os.fork()
        if child == 0:
            has_ended = av.logging.get_level() is None
            with messages.listening():
                av.logging.log(av.logging.ERROR, "part", "words")  # nobody hears in this thread
                counts = messages._switch.elsewhere("part"), messages._switch.elsewhere("other")
            os._exit(0 if has_ended and counts == (1, 0) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert messages._switch.elsewhere("part") == 0
    assert av.logging.get_level() is None
