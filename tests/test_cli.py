"""The command line: what it prints, its exit codes, and that bad input is one clear line."""

import json
import re
import subprocess
import sys

import imageio_ffmpeg
import pytest
from conftest import in_this_process
from typer.testing import CliRunner

from vpxrc import cli
from vpxrc.datasets import clip_sets, load_clips
from vpxrc.evaluation import study
from vpxrc.evaluation import verify as verification
from vpxrc.evaluation.verify import Check
from vpxrc.media.decoding import decode_vp9
from vpxrc.quality import METRICS

VPXRC = [sys.executable, "-m", "vpxrc"]
COMMANDS = [
    "encode",
    "evaluate",
    "inspect",
    "verify",
    "doctor",
    "datasets",
    "demo",
    "compare",
    "teach",
    "train",
    "codec",
]


def run(*arguments):
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def complaint(*arguments):
    """Run what must fail, and return its one line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vpxrc: ")
    return line


def write_video(path, *options, frames=12, source="testsrc2=s=96x80:r=25"):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source]
    subprocess.run([*command, "-frames:v", str(frames), *options, str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", "-pix_fmt", "yuv420p")


# What works


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert re.search(r"^  Examples?:$", result.stdout, re.MULTILINE)
    assert f"\n    vpxrc {command}" in result.stdout


def test_version_and_bare_call():
    assert re.fullmatch(r"vpxrc \d+\.\d+\.\d+\n", run("--version").stdout)
    bare = run()
    assert bare.exit_code == 0
    assert all(command in bare.stdout for command in COMMANDS)


@pytest.mark.parametrize("suffix", ["webm", "ivf"])
@pytest.mark.parametrize("policy", ["libvpx-vbr", "constant-q:100"])
def test_encode_gives_a_file_that_plays(clip, tmp_path, suffix, policy):
    output = tmp_path / f"new/out.{suffix}"
    result = run("encode", clip, "-b", 60, "-o", output, "--policy", policy, "--json")
    assert result.exit_code == 0, result.output
    assert len(decode_vp9(output, 96, 80)) == 12
    facts = json.loads(result.stdout)
    assert facts["num_frames"] == 12
    assert facts["overshoot"] == pytest.approx(facts["bitrate"] / 60 - 1)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_encode_replaces_a_file(clip, tmp_path):
    output = tmp_path / "out.webm"
    output.write_text("old")
    result = run("encode", clip, "-b", 60, "-o", output, "--policy", "libvpx-q")
    assert result.exit_code == 0, result.output
    assert "of the target" in result.stdout
    assert len(decode_vp9(output, 96, 80)) == 12


def test_evaluate(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "open_workers", in_this_process)
    policies = ("--agent", "libvpx-vbr-mlarf", "--baseline", "libvpx-vbr")
    settings = ("--bitrates", "20,40,80,160", "--cpu-used", 5, "--metrics", "psnr")
    other = write_video(tmp_path / "other.mp4", "-pix_fmt", "yuv420p", source="mandelbrot=s=96x80")
    where = ("--out", tmp_path / "out", "--clips", clip, other)
    result = run("evaluate", *policies, *settings, *where)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "table.md").read_text() in result.stdout
    assert result.stderr == ""
    again = run("evaluate", *policies, *settings, *where, "--json")
    assert json.loads(again.stdout) == json.loads((tmp_path / "out/summary.json").read_text())
    assert [row["clip"] for row in json.loads(again.stdout)["clips"]] == ["clip", "other"]


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_verify_says_it_by_exit_code(clip, monkeypatch, passed, code):
    checks = [Check("first", True, "identical"), Check("second", passed, "3 bytes")]
    monkeypatch.setattr(verification, "verify", lambda *_: iter(checks))
    result = run("verify", clip)
    assert result.exit_code == code
    assert f"{'pass' if passed else 'FAIL'}  second: 3 bytes" in result.stdout


def test_doctor():
    result = run("doctor", "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["libvpx"]["version"] == "1.17.0"
    assert facts["libvpx"]["linked"] == "v1.17.0"
    assert {"vpxrc", "python", "numpy", "gymnasium"} == set(facts["versions"])
    assert facts["ffmpeg"]["libvmaf"] is True
    assert facts["default_policy"] in facts["policies"]
    assert facts["cpu"]["cores"] >= 1
    words = run("doctor")
    assert words.exit_code == 0
    assert "1.17.0" in words.stdout


def test_doctor_without_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ffmpeg"] is None


def test_datasets(clip):
    rows = {row["set"]: row for row in json.loads(run("datasets", "--json").stdout)}
    assert list(rows) == clip_sets()
    assert rows["samples"]["here"] == rows["samples"]["clips"] == 3
    more = rows["train2"]
    assert more["here"] + more["to_download"] + more["missing"] == more["clips"] == 84
    assert sum(more["licences"].values()) == 84 and 29 < more["megabytes"] < 30
    listing = run("datasets").stdout
    assert re.search(r"^eval +9 +17\.9 ", listing, re.M) and "licences of train: MIT" in listing
    assert "needs the name of a set" in complaint("datasets", "--download")
    rows = json.loads(run("datasets", "samples", "--json").stdout)
    assert [row["name"] for row in rows] == [one.name for one in load_clips("samples")]
    assert "--axes needs the name of a set" in complaint("datasets", "--axes")
    result = run("datasets", clip.parent)
    assert result.exit_code == 0
    assert f"1 clip(s); the sets are: {', '.join(clip_sets())}" in result.stdout
    assert str(clip) in result.stdout


def test_the_kinds_of_clips(tmp_path):
    """Two frame rates, one still, and a file that is not there."""
    for name, source, rate in (("still", "color=c=gray:s", 10), ("moving", "testsrc2=s", 50)):
        source = f"{source}=64x48:r={rate}:d=0.4"
        write_video(tmp_path / f"{name}.y4m", "-pix_fmt", "yuv420p", source=source)
    names = ("still", "moving", "gone")
    clips = "".join(f'[[clips]]\nname = "{one}"\nsource = "{one}.y4m"\n' for one in names)
    (tmp_path / "set.toml").write_text(clips)
    result = run("datasets", tmp_path / "set.toml", "--axes", "--json")
    assert "1 of 3 clips are not on this machine and not counted: gone" in result.stderr
    rows = {row["clip"]: row for row in json.loads(result.stdout)}
    assert [rows[name]["num_frames"] for name in ("still", "moving")] == [4, 12]
    assert rows["still"]["still_share"] == 1
    assert rows["moving"]["complexity"] > rows["still"]["complexity"] == 0
    lines = run("datasets", tmp_path / "set.toml", "--axes").stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert ["frames per second", "below 20", "1"] in cells
    assert ["frames per second", "40 or more", "1"] in cells
    assert ["frames", "below 60", "2"] in cells
    (tmp_path / "set.toml").write_text('[[clips]]\nname = "gone"\nsource = "gone.y4m"\n')
    assert "none of its clips is on this machine" in complaint(
        "datasets", tmp_path / "set.toml", "--axes"
    )


# What does not


@pytest.fixture(scope="module")
def bad(clip, tmp_path_factory):
    """Videos that cannot be used, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    whole = write_video(folder / "whole.y4m", "-pix_fmt", "yuv420p").read_bytes()
    (folder / "whole.y4m").unlink()
    (folder / "truncated.y4m").write_bytes(whole[:-1000])
    (folder / "half.mp4").write_bytes(clip.read_bytes()[:400])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video")
    write_video(folder / "single.y4m", "-pix_fmt", "yuv420p", frames=1)
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.mp4", "no such file"),
        ("truncated.y4m", "truncated"),
        ("half.mp4", "truncated or corrupt"),
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "not a video"),
        ("single.y4m", "a clip has at least 2"),
    ],
)
def test_a_bad_video(bad, tmp_path, name, words):
    output = ("-o", tmp_path / "out.webm")
    assert words in complaint("encode", bad / name, "-b", 60, "--strict", *output)
    assert words in complaint("verify", bad / name)
    policies = ("--agent", "libvpx-vbr-mlarf", "--baseline", "libvpx-vbr")
    where = ("--clips", bad / name, "--bitrates", "20,40,80,160", "--out", tmp_path / "out")
    assert words in complaint("evaluate", *policies, *where)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"-b": 0}, "target_bitrate must be an integer in 1..2000000, not 0"),
        ({"-b": -1}, "not -1"),
        ({"-b": "many"}, "integer"),
        ({"-o": "out.mp4"}, "the output is one of .webm, .ivf"),
        ({"--policy": "magic"}, "unknown policy 'magic': choose from constant-q"),
        ({"--policy": "constant-q:300"}, "q_index must be in 0..255, not 300"),
        ({"--cpu-used": 9}, "cpu_used must be an integer in 0..8, not 9"),
        ({"--colour": "red"}, "--colour"),
    ],
)
def test_bad_options_of_encode(clip, tmp_path, monkeypatch, changes, words):
    monkeypatch.chdir(tmp_path)
    options = {"-b": 60, "-o": "out.webm", **changes}
    arguments = [part for pair in options.items() for part in pair]
    assert words in complaint("encode", clip, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--agent": "magic"}, "unknown policy 'magic': choose from constant-q"),
        ({"--baseline": "magic"}, "unknown policy 'magic': choose from constant-q"),
        ({"--metrics": "psnr,mos"}, f"unknown metric 'mos': choose from {', '.join(METRICS)}"),
        ({"--clips": "nowhere"}, "unknown set 'nowhere': choose from eval, medium-test"),
        ({"--clips": "no/where"}, "no such file or folder"),
        ({"--bitrates": "20,40,80"}, "at least 4"),
        ({"--bitrates": "20,40,80,0"}, "not 0"),
        ({"--bitrates": "20,40,80,x"}, "--bitrates takes integers"),
        ({"--jobs": 0}, "'--jobs'"),
    ],
)
def test_bad_options_of_evaluate(clip, tmp_path, changes, words):
    options = {
        "--agent": "libvpx-vbr-mlarf",
        "--baseline": "libvpx-vbr",
        "--clips": clip,
        "--bitrates": "20,40,80,160",
        "--out": tmp_path / "out",
        **changes,
    }
    assert words in complaint("evaluate", *(part for pair in options.items() for part in pair))
    assert not list(tmp_path.iterdir())


def test_output_that_cannot_be_written(clip, tmp_path):
    """Root may write anywhere but below a file, so that is what is tried."""
    (tmp_path / "file").touch()
    policies = ("--agent", "libvpx-vbr-mlarf", "--baseline", "libvpx-vbr")
    where = ("--clips", clip, "--bitrates", "20,40,80,160", "--out", tmp_path / "file" / "out")
    assert "cannot write" in complaint("evaluate", *policies, *where)
    output = tmp_path / "file" / "out.webm"
    assert "cannot write" in complaint("encode", clip, "-b", 60, "-o", output)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_and_unknown_commands():
    assert "IN" in complaint("encode")
    assert "No such command 'decode'" in complaint("decode")
    assert "--cpu-used takes integers" in complaint("verify", "samples", "--cpu-used", "fast")


def test_a_real_process_has_no_traceback(tmp_path):
    command = [*VPXRC, "encode", str(tmp_path / "none.mp4"), "-b", "60", "-o", "out.webm"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == f"vpxrc: {tmp_path / 'none.mp4'}: no such file\n"
    assert not list(tmp_path.iterdir())
