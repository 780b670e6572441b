"""The evaluation on small synthetic clips, against figures worked out again by hand."""

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time

import bjontegaard
import imageio_ffmpeg
import numpy as np
import pandas as pd
import psutil
import pytest
from conftest import in_this_process

from vpxrc import EncoderOptions, Policy, encode, make_policy
from vpxrc.datasets import load_clips
from vpxrc.errors import EncoderError, InputError, OutputError, PolicyError
from vpxrc.evaluation import study as evaluation
from vpxrc.media.decoding import decode_vp9
from vpxrc.media.masks import RegionSpec
from vpxrc.quality import measure
from vpxrc.reports import write_html, write_pictures

pytestmark = pytest.mark.xdist_group("evaluation")  # one for all of them

AGENT, BASELINE = "libvpx-vbr-mlarf", "libvpx-vbr"
BITRATES = [20, 40, 80, 160]
TIMES = ["encode_seconds", "cpu_seconds"]
VPXRC = [sys.executable, "-m", "vpxrc"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips with motion in them, 96x80, 24 frames."""
    folder = tmp_path_factory.mktemp("clips")
    for name, source in (("test", "testsrc2=s=96x80:r=25"), ("mandel", "mandelbrot=s=96x80:r=25")):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i", source]
        options = ["-frames:v", "24", "-pix_fmt", "yuv420p", str(folder / f"{name}.y4m")]
        subprocess.run([*command, *options], check=True)
    return folder


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp("out"), jobs=2)


def run(folder, out, agent=AGENT, **options):
    options = {"metrics": ["psnr", "ssim"], "options": EncoderOptions(cpu_used=4), **options}
    return evaluation.evaluate(agent, [BASELINE], load_clips(folder), BITRATES, out, **options)


def command(folder, out, agent=AGENT, cpu_used=4):
    return [
        *VPXRC,
        "evaluate",
        "--agent",
        agent,
        "--baseline",
        BASELINE,
        "--clips",
        str(folder),
        "--bitrates",
        ",".join(map(str, BITRATES)),
        "--cpu-used",
        str(cpu_used),
        "--jobs",
        "2",
        "--metrics",
        "psnr,ssim",
        "--out",
        str(out),
    ]


def test_rows_are_what_an_encode_by_hand_gives(folder, result):
    assert len(result.encodes) == 2 * 2 * 4
    clip = load_clips(folder)[1]
    video = clip.open()
    rows = result.encodes.set_index(["clip", "policy", "target_bitrate"])
    for policy in (AGENT, BASELINE):
        options = EncoderOptions(target_bitrate=40, cpu_used=4)
        log = encode(video, options, make_policy(policy))
        row = rows.loc[clip.name, policy, 40]
        size = sum(len(packet) for packet, _ in log.packets)
        assert row["bitrate"] == pytest.approx(8 * size / (24 / 25) / 1000, rel=1e-12)
        assert row["overshoot"] == pytest.approx(row["bitrate"] / 40 - 1, rel=1e-12)
        decoded = decode_vp9(log.stream, video.width, video.height)
        luma = np.square(decoded[:, : 96 * 80].astype(float) - video.frames[:, : 96 * 80])
        by_hand = np.mean(10 * np.log10(255**2 / luma.mean(axis=1)))
        assert row["psnr"] == pytest.approx(by_hand, rel=1e-12)
        of_frames = sorted(measure(decoded, video, ["ssim"])["ssim"])
        assert row["ssim_std"] == pytest.approx(statistics.pstdev(of_frames), rel=1e-9)
        assert row["ssim_worst"] == pytest.approx(sum(of_frames[:2]) / 2, rel=1e-12)  # of 24
        assert row["content_hash"] == video.content_hash
        assert row["auto_alt_ref"] == (6 if policy == AGENT else 1)
        frames = result.frames.query(
            f"clip == '{clip.name}' and policy == '{policy}' and target_bitrate == 40"
        )
        assert frames["bits"].tolist() == log.records["bits"].tolist()


def test_bd_rates_are_the_bjontegaard_packages(result):
    figures = []
    for clip in result.summary["clips"]:
        mine, theirs = (
            result.encodes.query(f"clip == '{clip['clip']}' and policy == '{policy}'")
            for policy in (AGENT, BASELINE)
        )
        expected = bjontegaard.bd_rate(
            *(theirs[name].to_numpy() for name in ("bitrate", "ssim")),
            *(mine[name].to_numpy() for name in ("bitrate", "ssim")),
            method="pchip",
            require_matching_points=False,
            min_overlap=0,
        )
        found = clip["bd_rate"][BASELINE]["ssim"]
        assert found["status"] == "ok"
        assert found["percent"] == pytest.approx(expected, rel=1e-9)
        figures.append(expected)
    summary = result.summary["baselines"][BASELINE]["bd_rate"]["ssim"]
    assert summary["n"] == 2
    assert summary["mean"] == pytest.approx(np.mean(figures), rel=1e-9)
    assert summary["median"] == pytest.approx(np.median(figures), rel=1e-9)
    assert summary["worst"] == pytest.approx(max(figures), rel=1e-9)
    worst = result.summary["clips"][int(np.argmax(figures))]["clip"]
    assert summary["worst_clip"] == worst
    assert min(figures) - 1e-9 <= summary["ci95"][0] <= summary["ci95"][1] <= max(figures) + 1e-9


def test_summary_follows_the_contract(result):
    summary = json.loads((result.folder / "summary.json").read_text())
    assert list(summary) == [
        "agent",
        "libvpx",
        "cpu_used",
        "bitrates",
        "baselines",
        "constraint",
        "evenness",
        "encode_seconds",
        "encodes",
        "clips",
        "command",
        "versions",
    ]
    call = f"evaluate('{AGENT}', ['{BASELINE}'], ['mandel', 'test'], {BITRATES}, "
    assert summary["command"].startswith(call)
    assert list(summary["versions"]) == ["vpxrc", "libvpx", "ffmpeg", "python", "numpy"]
    assert summary["agent"] == AGENT
    assert (summary["libvpx"], summary["cpu_used"]) == ("1.17.0", 4)
    assert summary["bitrates"] == BITRATES
    figures = summary["baselines"][BASELINE]["bd_rate"]
    assert list(figures) == ["psnr", "psnr_overall", "ssim"]
    names = ["mean", "median", "ci95", "n", "worst", "worst_clip"]
    assert all(list(some) == names for some in figures.values())
    for policy in (AGENT, BASELINE):
        overshoot = result.encodes.loc[result.encodes["policy"] == policy, "overshoot"]
        assert summary["constraint"][policy] == {
            "overshoot_any": sum(value > 0 for value in overshoot) / 8,
            "overshoot_5pct": sum(value > 0.05 for value in overshoot) / 8,
            "within_5pct": sum(-0.05 <= value <= 0.05 for value in overshoot) / 8,
        }
        assert summary["encode_seconds"][policy] > 0
        assert summary["encodes"][policy] == 8
        mine = result.encodes[result.encodes["policy"] == policy]
        for name in ("ssim", "ssim_std", "ssim_worst"):
            assert summary["evenness"][policy][name] == pytest.approx(sum(mine[name]) / 8)
    assert [clip["clip"] for clip in summary["clips"]] == ["mandel", "test"]
    for clip in summary["clips"]:
        assert clip["axes"]["pixels"] == 96 * 80
        assert clip["axes"]["bits_per_pixel"] == pytest.approx(40 * 2**0.5 * 40 / (96 * 80))
        assert list(clip["axes"])[4:] == ["still_share", "cuts_per_minute", "complexity"]


def test_all_files_are_there_and_stand_alone(result):
    out = result.folder
    write_pictures(result)
    write_html(result)
    assert len(pd.read_parquet(out / "encodes.parquet")) == len(result.encodes)
    assert len(pd.read_parquet(out / "frames.parquet")) == len(result.frames)
    for row in result.encodes.to_dict("records"):
        stream = (out / "encodes" / f"{row['key']}.ivf").read_bytes()
        assert hashlib.sha256(stream).hexdigest() == row["stream_sha256"]
    for name in ("rd.png", "frames.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text()
    assert "<script src=" not in page
    assert AGENT in (out / "table.md").read_text()
    assert not list(out.rglob("*.tmp")) and not list(out.rglob(".writable*"))


def test_one_job_gives_what_two_give(folder, result, tmp_path):
    alone = run(folder, tmp_path, jobs=1)
    pd.testing.assert_frame_equal(
        alone.encodes.drop(columns=TIMES), result.encodes.drop(columns=TIMES)
    )
    pd.testing.assert_frame_equal(alone.frames, result.frames)
    assert evaluation.table(alone) == evaluation.table(result)


def test_goes_on_after_sigkill(folder, result, tmp_path):
    """Killed half-way it leaves no process; the same command then does only what is missing."""
    process = subprocess.Popen(command(folder, tmp_path), start_new_session=True)
    family = wait_for_encodes(process, tmp_path, 3)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(family, timeout=60)[1]
    assert not (tmp_path / "summary.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "encodes").glob("*.json")}
    assert 3 <= len(kept) < 16
    assert all(path.with_suffix(".ivf").is_file() for path in kept)

    subprocess.run(command(folder, tmp_path), check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert (tmp_path / "table.md").read_text() == (result.folder / "table.md").read_text()
    again = pd.read_parquet(tmp_path / "encodes.parquet")
    pd.testing.assert_frame_equal(again.drop(columns=TIMES), result.encodes.drop(columns=TIMES))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"]
)
def test_ends_cleanly_when_told(folder, tmp_path, number, code):
    """A Ctrl-C in a terminal reaches the whole process group."""
    # Slow encodes, so that on a busy machine too it is told before it is done.
    slowly = command(folder, tmp_path, cpu_used=0)
    process = subprocess.Popen(
        slowly,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        # A shell makes what it runs in the background ignore Ctrl-C, and its children with it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    family = wait_for_encodes(process, tmp_path, 1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.terminate()
    _, words = process.communicate(timeout=60)
    assert process.returncode == code
    assert words == ("vpxrc: interrupted\n" if code == 130 else "")
    assert not psutil.wait_procs(family, timeout=60)[1]
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "summary.json").exists()


def wait_for_encodes(process, out, count):
    """Return the program's processes once so many results are there."""
    end = time.monotonic() + 180
    while len(list((out / "encodes").glob("*.json"))) < count:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    return psutil.Process(process.pid).children(recursive=True)


def test_what_changes_a_result_is_in_its_key():
    """What code and files it depends on is in test_provenance.py."""

    def key(spec=AGENT, metrics=("psnr",), content="a", region=None, weight=None, **options):
        code = evaluation.causes(spec, metrics=metrics)
        roi = None if region is None else RegionSpec.parse([region])
        measured = evaluation._Measured(tuple(metrics), roi, weight)
        return evaluation._key(code, content, EncoderOptions(**options), measured)

    assert key() == key()
    different = {
        key(),
        key(content="b"),
        key(target_bitrate=100),
        key(cpu_used=1),
        key(auto_alt_ref=2),
        key(BASELINE),
        key("constant-q:100"),
        key("constant-q:101"),
        key(metrics=["psnr", "ssim"]),
        key(region="box:0,0,16,16"),
        key(region="box:0,0,16,32"),
        key(region="box:0,0,16,16", weight=4.0),
    }
    assert len(different) == 12


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(evaluation, "open_workers", in_this_process)


@pytest.mark.usefixtures("here")
def test_curves_without_a_bd_rate_are_listed(folder, tmp_path):
    """A constant q has one rate for all targets, which is no curve."""
    result = run(folder, tmp_path, "constant-q:100", metrics=["psnr"])
    figures = result.summary["baselines"][BASELINE]["bd_rate"]["psnr"]
    nothing = dict.fromkeys(("mean", "median", "ci95", "worst", "worst_clip"))
    assert figures == {**nothing, "n": 0}
    for clip in result.summary["clips"]:
        found = clip["bd_rate"][BASELINE]["psnr"]
        assert (found["percent"], found["status"]) == (None, "not-monotonic")
        words = f"- {clip['clip']}: constant-q:100 against libvpx-vbr, PSNR, overall PSNR: not-mono"
        assert words in evaluation.table(result)


@pytest.mark.usefixtures("here")
def test_every_baseline_is_compared_too(folder, tmp_path):
    result = evaluation.evaluate(
        "constant-q",
        [BASELINE, AGENT],
        load_clips(folder)[:1],
        BITRATES,
        tmp_path,
        metrics=["psnr"],
        options=EncoderOptions(cpu_used=4),
    )
    pairs = result.comparisons[["test", "anchor"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["constant-q", BASELINE], ["constant-q", AGENT], [AGENT, BASELINE]]
    assert f"| {AGENT} | {BASELINE} " in " ".join(evaluation.table(result).split())


class Trained(Policy):
    """Was trained on whatever it is told."""

    def __init__(self, content_hash):
        self.training_clips = frozenset({content_hash})


def test_training_clips_are_refused(folder, result, tmp_path, monkeypatch):
    clip = load_clips(folder)[1]
    trained = Trained(clip.open().content_hash)
    monkeypatch.setattr(evaluation, "make_policy", lambda spec: trained)
    with pytest.raises(InputError, match=f"{AGENT} was trained on .*: test$"):
        run(folder, tmp_path)
    assert not list(tmp_path.iterdir())

    told = run(folder, tmp_path, allow_training_clips=True, metrics=["psnr"], jobs=2)
    assert len(told.encodes) == 16


PLUGIN = """
import os, signal
from vpxrc import Decision, Policy

class Broken(Policy):
    def __init__(self, how="raise"):
        self.how = how

    def decide(self, frame):
        if frame.coding_index == 5:
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("out of ideas")
        return Decision(100)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A policy from another installed package."""
    site = tmp_path / "site"
    information = site / "someplugin-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "someplugin.py").write_text(PLUGIN)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: someplugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[vpxrc.policies]\nbroken = someplugin:Broken\n")
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("someplugin", None)


def test_an_error_names_policy_clip_and_target(plugin, folder, tmp_path):
    with pytest.raises(PolicyError, match=r"mandel, broken, \d+ kbit/s: .*coded frame 5.*ideas"):
        run(folder, tmp_path / "out", "broken")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_killed_worker_is_an_error(plugin, folder, tmp_path):
    with pytest.raises(EncoderError, match="worker process was killed"):
        run(folder, tmp_path / "out", "broken:die", jobs=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"agent": "nothing"}, "unknown policy 'nothing': choose from constant-q"),
        ({"baselines": []}, "at least one baseline"),
        ({"baselines": [AGENT]}, f"the policy {AGENT} is given twice"),
        ({"bitrates": [20, 40, 80]}, "at least 4"),
        ({"bitrates": [20, 40, 80, 80]}, "the bitrate 80 is given twice"),
        ({"bitrates": [0, 40, 80, 90]}, "target_bitrate must be .* not 0"),
        ({"clips": []}, "at least one clip"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"metrics": []}, "no metric"),
        ({"metrics": ["mos"]}, "unknown metric 'mos'"),
    ],
)
def test_bad_arguments(folder, tmp_path, changes, words):
    arguments = {
        "agent": AGENT,
        "baselines": [BASELINE],
        "clips": load_clips(folder),
        "bitrates": BITRATES,
        "out": tmp_path / "out",
        **changes,
    }
    with pytest.raises(InputError, match=words):
        evaluation.evaluate(**arguments)
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        run(folder, tmp_path / "file" / "out")
