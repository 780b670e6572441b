"""The report's contents against the data, the page in a browser, and studies side by side."""

import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chromium import PROGRAM, Chromium
from conftest import in_this_process
from PIL import Image
from plotly.offline import get_plotlyjs
from test_cli import complaint, write_video
from test_cli import run as run_cli

from vpxrc.datasets import load_clips
from vpxrc.encoder.log import psnr
from vpxrc.errors import InputError
from vpxrc.evaluation import study as studies
from vpxrc.evaluation.bd_rate import bd_rate
from vpxrc.evaluation.comparison import compare, read_study
from vpxrc.evaluation.result import Evaluation
from vpxrc.evaluation.tables import compare_curves
from vpxrc.media.decoding import decode_vp9
from vpxrc.reports import viewer, write_figures, write_html
from vpxrc.reports.html import Page, Plot, ViewedClip, ViewedStream, code, details, picture
from vpxrc.reports.html import table as html_table

pytestmark = pytest.mark.xdist_group("report")  # one study for all of them

AGENT, BASELINE = "libvpx-vbr-mlarf", "libvpx-vbr"
RATES = (20, 40, 80, 160)
MIDDLE = 80
SIZE = (96, 80)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, source in (("test", "testsrc2"), ("mandel", "mandelbrot")):
        write_video(folder / f"{name}.y4m", "-pix_fmt", "yuv420p", source=f"{source}=s=96x80:r=25")
    return folder


def command(clips, out):
    return [
        "evaluate",
        "--agent",
        AGENT,
        "--baseline",
        BASELINE,
        "--clips",
        str(clips),
        "--bitrates",
        ",".join(map(str, RATES)),
        "--cpu-used",
        "5",
        "--metrics",
        "psnr",
        "--jobs",
        "1",
        "--figures",
        "--out",
        str(out),
    ]


@pytest.fixture(scope="module")
def study(clips, tmp_path_factory):
    """A folder that the command has filled."""
    out = tmp_path_factory.mktemp("a study") / "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "open_workers", in_this_process)
        patch.setattr(sys, "argv", ["/somewhere/bin/vpxrc", *command(clips, out)])
        result = run_cli(*command(clips, out))
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def copy(study, tmp_path):
    return shutil.copytree(study, tmp_path / "second")


def read(folder):
    encodes = pd.read_parquet(folder / "encodes.parquet")
    comparisons = compare_curves(encodes, [(AGENT, BASELINE)], ["psnr", "psnr_overall"])
    summary = json.loads((folder / "summary.json").read_text())
    frames = pd.read_parquet(folder / "frames.parquet")
    return Evaluation(folder, summary, encodes, frames, comparisons)


def change(folder, encodes=lambda table: table, **summary):
    """Make another study of one."""
    table = encodes(pd.read_parquet(folder / "encodes.parquet"))
    table.to_parquet(folder / "encodes.parquet")
    path = folder / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **summary}))


def data_of(path):
    page = path.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def traces(data, number, choice="", plot=0):
    section = data["plots"][f"plots-{number}"]["choices"][choice]
    return section[plot]["traces"]


# An evaluation's page


def test_the_plots_are_the_data(study):
    evaluation, data = read(study), data_of(study / "report.html")
    assert list(data["plots"]["plots-0"]["choices"]) == ["mandel", "test"]
    for (clip, policy), rows in evaluation.encodes.groupby(["clip", "policy"]):
        rows = rows.sort_values("bitrate")
        for plot, metric in enumerate(("psnr", "psnr_overall")):
            (curve,) = (one for one in traces(data, 0, clip, plot) if one["name"] == policy)
            assert (curve["x"], curve["y"]) == (rows["bitrate"].tolist(), rows[metric].tolist())

    bars, dots, means = traces(data, 1)
    figures = evaluation.summary["baselines"][BASELINE]["bd_rate"]
    assert bars["y"] == pytest.approx([figures[name]["mean"] for name in ("psnr", "psnr_overall")])
    assert means["y"] == bars["y"]
    tops = np.add(bars["y"], means["error_y"]["array"])
    assert tops == pytest.approx([figures[name]["ci95"][1] for name in ("psnr", "psnr_overall")])
    assert sorted(dots["y"]) == pytest.approx(sorted(evaluation.comparisons["percent"]))

    for box in traces(data, 2):
        mine = evaluation.encodes.query(f"policy == '{box['name']}'")
        assert sorted(box["y"]) == sorted(1 + mine["overshoot"])


def test_every_clip_is_listed_with_its_kind(study):
    evaluation = read(study)
    page = (study / "report.html").read_text()
    listed = page.partition("<summary>Table</summary>")[2].partition("</details>")[0]
    rows = re.findall(r"<tr><td>(.*?)</td></tr>", listed)
    cells = {row[0]: row[1:] for row in (row.split("</td><td>") for row in rows)}
    psnr_only = evaluation.comparisons.query("metric == 'psnr'").set_index("clip")["percent"]
    assert {clip: row[-1] for clip, row in cells.items()} == {
        clip: f"{percent:+.1f}" for clip, percent in psnr_only.items()
    }
    assert all(row[:3] == [str(96 * 80), "25", "12"] for row in cells.values())
    text = (study / "table.md").read_text()
    assert "BD-rate in percent (PSNR) by the kind of clip: mean (worst clip)." in text
    line = next(line for line in text.splitlines() if line.startswith("| luma samples per frame "))
    mean, worst = psnr_only.mean(), psnr_only.max()
    assert f"below 50000 | 2     | {mean:+.1f} ({worst:+.1f})" in line


def test_every_coded_frame_is_drawn(study):
    evaluation, data = read(study), data_of(study / "report.html")
    for clip in ("mandel", "test"):
        for plot, policy in enumerate((AGENT, BASELINE)):
            which = f"clip == '{clip}' and policy == '{policy}' and target_bitrate == {MIDDLE}"
            coded = evaluation.frames.query(f"{which} and not is_shown_again")
            drawn = traces(data, 3, clip, plot)
            for axis, name in (("y", "q_index"), ("y2", "bits")):
                points = [
                    point
                    for trace in drawn
                    if trace["yaxis"] == axis
                    for point in zip(trace["x"], trace["y"], strict=True)
                ]
                expected = zip(coded["show_index"], coded[name], strict=True)
                assert sorted(points) == sorted(expected)
            quality = [value for one in drawn if one["yaxis"] == "y3" for value in one["y"]]
            errors = coded["sse_y"] / (SIZE[0] * SIZE[1])
            assert sorted(quality) == pytest.approx(sorted(psnr(errors)), abs=1e-3)


def test_the_viewer_shows_the_streams(clips, study):
    evaluation, data = read(study), data_of(study / "report.html")
    rows = evaluation.encodes.set_index(["clip", "policy", "target_bitrate"])
    assert len(data["viewer"]) == 2
    for viewed in data["viewer"]:
        clip = viewed["clip"].partition(" ")[0]
        assert viewed["frames"][0] == 0 and viewed["frames"][-1] == 11
        video = load_clips(clips / f"{clip}.y4m")[0].open()
        source, *coded = viewed["streams"]
        assert [stream["name"] for stream in coded] == [AGENT, BASELINE]
        check_pictures(source["pictures"], video.frames[viewed["frames"]])
        for stream in coded:
            row = rows.loc[clip, stream["name"], MIDDLE]
            frames = decode_vp9(study / "encodes" / f"{row['key']}.ivf", *SIZE)[viewed["frames"]]
            check_pictures(stream["pictures"], frames)
            luma = slice(SIZE[0] * SIZE[1])
            errors = frames[:, luma].astype(float) - video.frames[viewed["frames"], luma]
            by_hand = psnr(np.square(errors).mean(axis=1))
            assert stream["notes"] == [f"{value:.2f} dB in this frame" for value in by_hand]
            assert f"{row['bitrate']:.1f} kbit/s" in stream["caption"]


def check_pictures(pictures, frames):
    assert len(pictures) == len(frames)
    for address, frame in zip(pictures, frames, strict=True):
        image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
        assert image.size == SIZE
        image.draft("YCbCr", SIZE)
        luma = 16 + np.asarray(image.convert("YCbCr"))[..., 0] * (219 / 255)
        error = luma - np.clip(frame[: SIZE[0] * SIZE[1]].reshape(luma.shape), 16, 235)
        assert psnr(np.square(error).mean()) > 33


def test_large_pictures_are_scaled_down():
    planes = [np.full((360, 1280), 81, np.uint8)]
    planes += [np.full((180, 640), value, np.uint8) for value in (90, 240)]
    image = Image.open(io.BytesIO(base64.b64decode(picture(planes).partition(",")[2])))
    assert image.size == (640, 180)
    assert image.getpixel((99, 99)) == pytest.approx((254, 0, 0), abs=4)  # studio range's red


def test_the_page_stands_alone(clips, study):
    page = (study / "report.html").read_text()
    ours = page.replace(get_plotlyjs(), "")
    assert len(ours) < len(page) - 1_000_000
    assert not re.search(r"https?://|url\(|@import|<script[^>]*src=|/somewhere", ours)
    assert f"vpxrc evaluate --agent {AGENT} --baseline {BASELINE} --clips " in ours
    for row in read(study).encodes.to_dict("records"):
        assert row["content_hash"] in ours and row["stream_sha256"] in ours
    write_html(read(study), load_clips(clips))
    assert (study / "report.html").read_text() == page


def test_a_study_without_streams_is_finished(clips, copy, monkeypatch):
    monkeypatch.setattr(studies, "open_workers", in_this_process)
    """What an older vpxrc left behind is not encoded again."""
    for stream in (copy / "encodes").glob("*.ivf"):
        stream.unlink()
    before = {path: path.stat().st_mtime_ns for path in (copy / "encodes").iterdir()}
    assert run_cli(*command(clips, copy)).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (copy / "encodes").iterdir()} == before
    page = (copy / "report.html").read_text()
    assert data_of(copy / "report.html")["viewer"] == []
    assert "The viewer has no frames" in page and "did not keep them" in page

    change(copy, lambda table: table.drop(columns="key"))
    summary = json.loads((copy / "summary.json").read_text())
    del summary["command"], summary["versions"]
    (copy / "summary.json").write_text(json.dumps(summary))
    write_html(read(copy))
    assert "The command was not recorded." in (copy / "report.html").read_text()


def test_a_viewer_without_sources(copy):
    write_html(read(copy))
    (viewed, _) = data_of(copy / "report.html")["viewer"]
    assert [stream["name"] for stream in viewed["streams"]] == [AGENT, BASELINE]
    assert "the source clips were not given" in (copy / "report.html").read_text()


def test_few_clips_are_viewed(copy, monkeypatch):
    monkeypatch.setattr(viewer, "MAX_BYTES", 1)
    write_html(read(copy))
    assert len(data_of(copy / "report.html")["viewer"]) == 1
    assert "The menu has 1 of 2 clips, chosen by" in (copy / "report.html").read_text()


def test_figures_for_papers(study):
    names = ["bd-rate", "constraint", "rd-psnr", "rd-psnr_overall"]
    files = sorted((study / "figures").iterdir())
    assert [file.name for file in files] == [f"{n}.{s}" for n in names for s in ("pdf", "png")]
    for file in files:
        data = file.read_bytes()
        if file.suffix == ".pdf":
            assert b"/FontFile2" in data and b"/Type3" not in data
        else:
            assert data.startswith(b"\x89PNG")
    before = [file.read_bytes() for file in files]
    write_figures(read(study))
    assert [file.read_bytes() for file in files] == before


def test_names_are_no_markup(tmp_path):
    name = "</script><b onclick='x'>&"
    page = Page(name)
    page.plots(name, name, {name: [Plot(name, [{"name": name}], {})]}, name)
    page.write(tmp_path / "page.html")
    assert list(data_of(tmp_path / "page.html")["plots"]["plots-0"]["choices"]) == [name]
    assert "<b onclick" not in (tmp_path / "page.html").read_text().replace(get_plotlyjs(), "")


def page_of_names(path, name):
    """Write a page in which every text is one name."""
    page = Page(name)
    page.section(name, html_table([[name], [name]], name), code(name), details(name, code(name)))
    traces = [{"type": "scatter", "name": name, "x": [1, 2], "y": [1, 2], "text": [name, name]}]
    plots = [Plot(name, traces, {"xaxis": {"title": {"text": name}}}, name)]
    page.plots(name, name, {name: plots, f"{name} 2": plots}, name)
    planes = [np.full(shape, 128, np.uint8) for shape in ((4, 4), (2, 2), (2, 2))]
    page.viewer(
        name, [ViewedClip(name, [0], [ViewedStream(name, name, [picture(planes)], [name])])], name
    )
    page.write(path)


# Studies side by side


def better(table):
    """Another agent, which takes 10 % less."""
    agents = table["policy"] == AGENT
    return table.assign(
        policy=table["policy"].where(~agents, "dependency"),
        bitrate=table["bitrate"].where(~agents, 0.9 * table["bitrate"]),
        stream_sha256=table["stream_sha256"].where(~agents, "other"),
    )


def test_studies_side_by_side(study, copy, tmp_path):
    change(copy, better, agent="dependency")
    found = compare([study, copy])
    pairs = found.comparisons[["test", "anchor"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [[AGENT, BASELINE], ["dependency", BASELINE], [AGENT, "dependency"]]
    between = found.comparisons.query("anchor == 'dependency'")
    assert between["percent"].tolist() == pytest.approx([100 / 0.9 - 100] * 4)
    own = read(study).encodes.query("clip == 'test'").groupby("policy")[["bitrate", "psnr"]]
    curves = {policy: rows.to_numpy().T for policy, rows in own}
    (rates, qualities), (base_rates, base_qualities) = curves[AGENT], curves[BASELINE]
    row = found.comparisons.query("test == 'dependency' and clip == 'test' and metric == 'psnr'")
    expected = bd_rate(base_rates, base_qualities, 0.9 * rates, qualities).percent
    assert row["percent"].item() == pytest.approx(expected)
    assert found.notes == []

    out = tmp_path / "new" / "page.html"
    result = run_cli("compare", study, copy, "--out", out)
    assert result.exit_code == 0, result.output
    assert re.search(rf"\| dependency +\| {BASELINE} ", result.stdout)
    data = data_of(out)
    assert [one["name"] for one in traces(data, 0, "test")] == [AGENT, BASELINE, "dependency"]
    assert list(data["plots"]["plots-1"]["choices"]) == [BASELINE, "dependency"]
    words = json.loads(run_cli("compare", study, copy, "--json").stdout)
    assert words["clips"] == ["mandel", "test"] and words["baselines"] == [BASELINE]
    assert words["bd_rate"][2]["psnr"]["mean"] == pytest.approx(100 / 0.9 - 100)
    assert words["constraint"]["dependency"]["encodes"] == 1


def test_what_differs_is_said(study, copy):
    """Policies of one name at different speeds are told apart by the study."""
    rates = [2 * rate for rate in RATES]
    change(
        copy,
        lambda t: better(t).assign(cpu_used=4).query("clip == 'test'"),
        agent="dependency",
        cpu_used=4,
        bitrates=rates,
        clips=[json.loads((copy / "summary.json").read_text())["clips"][1]],
    )
    found = compare([study, copy])
    assert found.clips == ["test"]
    assert found.agents == {"first": AGENT, "second": "dependency"}
    assert f"{BASELINE} (first)" in set(found.encodes["policy"])
    pairs = found.comparisons[["test", "anchor"]].to_numpy().tolist()
    assert ["dependency", f"{BASELINE} (second)"] in pairs
    assert "the studies differ in cpu-used: 5 in first; 4 in second" in found.notes
    assert any("targets in kbit/s: 20, 40, 80, 160 in first" in note for note in found.notes)
    assert "1 clip(s) of first are not in all studies, and left out" in found.notes


def test_another_encoder_is_said(study, copy):
    change(copy, lambda table: table.assign(stream_sha256="other"), libvpx="2.0")
    notes = " ".join(compare([study, copy]).notes)
    assert "libvpx: 1.17.0 in first; 2.0 in second" in notes
    assert "differ in the encoder" not in notes
    assert f"{BASELINE} gave other streams" in notes


def test_a_study_of_a_learned_codec_beside_one_of_libvpx(study, copy):
    change(copy, lambda table: table.assign(encoder="learned:x.safetensors", stream_sha256="other"))
    found = compare([study, copy])
    words = "the studies differ in the encoder: vp9 in first; learned:x.safetensors in second"
    assert words in found.notes


def test_the_studies_of_the_repository_can_be_compared():
    results = Path(__file__).parents[1] / "docs" / "results"
    folders = sorted(path.parent for path in results.glob("**/summary.json"))
    assert len(folders) > 8
    for folder in folders:
        assert read_study(folder).summary["clips"]
    found = compare([results / "imitation-eval", results / "layered-eval"])
    assert len(found.clips) == 9
    assert found.agents["imitation-eval"] == "imitation"


def test_bad_studies(study, copy, tmp_path):
    def fails(*folders):
        return complaint("compare", *folders)

    assert "at least two" in fails(study)
    assert "is given twice" in fails(study, study)
    assert f"{tmp_path / 'none'}: no such folder" in fails(study, tmp_path / "none")
    assert "no finished study in it: summary.json is missing" in fails(study, tmp_path)
    assert "cannot write" in complaint("compare", study, copy, "--out", study / "table.md" / "x")
    (copy / "encodes.parquet").write_text("nothing")
    assert "its study cannot be read" in fails(study, copy)


@pytest.mark.parametrize(
    ("encodes", "summary", "words"),
    [
        (
            lambda t: t.replace({"policy": {BASELINE: "dependency"}}),
            {"baselines": {"dependency": {}}},
            f"share no baseline: first has {BASELINE}; sec",
        ),
        (
            lambda t: t.assign(content_hash="0"),
            {"clips": [{"clip": "test", "content_hash": "0"}]},
            "share no clip .*by their frames.*: first has mandel, test; second has test",
        ),
        (lambda t: t.drop(columns=["psnr", "psnr_overall"]), {}, "share no metric"),
    ],
)
def test_studies_that_share_nothing(study, copy, encodes, summary, words):
    change(copy, encodes, **summary)
    with pytest.raises(InputError, match=words):
        compare([study, copy])


def test_help_of_compare():
    assert "\n    vpxrc compare " in run_cli("compare", "--help").stdout


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_in_a_browser(study, browser, width, dark):
    browser.open((study / "report.html").as_uri(), width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("document.querySelectorAll('.js-plotly-plot').length") == 2 + 1 + 1 + 2
    ink = browser.run("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert ink == ("rgb(228, 231, 234)" if dark else "rgb(28, 31, 35)")
    browser.run("document.querySelector('.plots select').value = 'test'")
    browser.run("document.querySelector('.plots select').dispatchEvent(new Event('change'))")
    drawn = browser.run("document.querySelector('.js-plotly-plot').data[0].y")
    assert drawn == traces(data_of(study / "report.html"), 0, "test")[0]["y"]
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


def test_names_do_not_run(tmp_path, browser):
    """A clip may be named by someone else."""
    name = "</script><script>window.ran = 1</script><img src=none onerror='window.ran = 1'>&"
    page_of_names(tmp_path / "page.html", name)
    browser.open((tmp_path / "page.html").as_uri())
    assert browser.run("document.querySelector('h1').textContent") == name
    assert browser.run("document.querySelector('option').textContent") == name
    assert browser.run("document.querySelector('.stage strong').textContent") == name
    assert browser.run("window.ran === undefined")
    assert browser.run("document.querySelectorAll('img[onerror]').length") == 0
    assert browser.problems == []


def test_the_viewer_goes_by_keyboard(study, browser):
    browser.open((study / "report.html").as_uri())
    data = data_of(study / "report.html")["viewer"][0]
    browser.run("document.getElementById('viewer').focus()")

    def shown():
        images = "[...document.querySelectorAll('.stage figure:not([hidden]) img')]"
        return browser.run(f"{images}.map((image) => image.src)")

    def pictures(frame):
        return [stream["pictures"][frame] for stream in data["streams"]]

    assert shown() == pictures(0)
    for key, expected in (
        ("ArrowRight", pictures(1)),
        ("ArrowRight", pictures(2)),
        ("ArrowLeft", pictures(1)),
        ("t", pictures(1)[:1]),
        ("t", pictures(1)[1:2]),
        ("End", pictures(-1)[1:2]),
        ("ArrowRight", pictures(-1)[1:2]),
        ("3", pictures(-1)[2:]),
        ("s", pictures(-1)),
        ("Home", pictures(0)),
    ):
        browser.press(key)
        assert shown() == expected, key
    status = browser.run("document.querySelector('.viewer [role=status]').textContent")
    assert status.startswith("frame 0 (1 of 8)")
    labels = browser.run("[...document.querySelectorAll('.stage img')].map((image) => image.alt)")
    assert len(labels) == 3 and all("frame 0" in label for label in labels)
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert browser.problems == []
