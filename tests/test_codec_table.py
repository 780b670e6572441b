"""The table of `vpxrc codec table`: real files, in worker processes."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from conftest import in_this_process
from test_cli import run

from vpxrc.codecs import rate_distortion
from vpxrc.codecs.classical import CLASSICAL
from vpxrc.codecs.codec import save_checkpoint
from vpxrc.codecs.papers import build
from vpxrc.errors import InputError


def test_table(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (9, 10, 3), dtype=np.uint8)
    Image.fromarray(small).resize((176, 168), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "one.safetensors", build("factorized/small"), "factorized/small", {})
    command = ["codec", "table", tmp_path / "a.png", "--codec", tmp_path / "one.safetensors"]
    command += ["--classical", "jpeg,webp", "--out", tmp_path / "out", "--jobs", 1, "--json"]
    result = run(*command)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    assert len(rows) == 1 + 2 * 8
    jpeg = rows[rows["codec"] == "JPEG 4:2:0"].iloc[3]
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    data = CLASSICAL["jpeg"].encode(picture, jpeg["setting"])
    assert jpeg["bytes"] == len(data)
    error = np.square(CLASSICAL["jpeg"].decode(data).astype(float) - picture).mean()
    assert jpeg["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    assert 0 < jpeg["ms_ssim"] <= 1
    assert {row["status"] for row in found["bd_rates"]} == {"too-few-rates"}
    assert (tmp_path / "out" / "rd.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out" / "trade_off.png").read_bytes()[:4] == b"\x89PNG"
    speeds = {row["codec"]: row for row in found["trade_offs"]}
    assert speeds["JPEG 4:2:0"]["percent"] == pytest.approx(0)
    webp = rows[rows["codec"] == "WebP"]["decode_seconds"].median() / (168 * 176) * 1e6
    assert speeds["WebP"]["decode_seconds"] == pytest.approx(webp)
    monkeypatch.setattr(rate_distortion, "open_workers", in_this_process)
    # The second time nothing is coded again, and only what is missing is decoded.
    lost, *others = sorted((tmp_path / "out" / "rows").iterdir())
    row = json.loads(lost.read_text())
    lost.unlink()
    kept = {
        path: path.stat().st_mtime_ns for path in [*others, *(tmp_path / "out/files").iterdir()]
    }
    assert run(*command).exit_code == 0
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert json.loads(lost.read_text()) == {
        **row,
        "decode_seconds": json.loads(lost.read_text())["decode_seconds"],
    }


def curve(name, picture, bpp, psnr):
    """Rows of a codec whose MS-SSIM has the decibels of a third of its PSNR."""
    quality = 1 - 10 ** (-np.array(psnr) / 30)
    return pd.DataFrame(
        {"codec": name, "setting": range(len(bpp)), "picture": picture, "bpp": bpp, "psnr": psnr}
    ).assign(ms_ssim=quality, encode_seconds=0.0, decode_seconds=0.0)


def test_differences_in_both_measures_with_the_worst_picture():
    bpp, psnr = np.array([0.1, 0.2, 0.4, 0.8, 1.6]), [28.0, 31, 34, 37, 40]
    rows = pd.concat(
        [
            *(curve("old", name, bpp, psnr) for name in "ab"),
            curve("new", "a", 0.5 * bpp, psnr),
            curve("new", "b", 1.1 * bpp, psnr),
        ]
    )
    table = rate_distortion.curves(rows)
    points = pd.DataFrame({"codec": "far, published", "bpp": 2 * bpp, "psnr": psnr})
    found = rate_distortion.bd_rates(rows, rate_distortion.joined(table, points), ["new"])
    old = found[found["anchor"] == "old"]
    assert list(old["measure"]) == ["psnr", "ms_ssim"]
    # Both measures differ by a factor, so the rates at equal quality do not.
    assert list(old["percent"]) == pytest.approx([-20, -20])
    assert list(old["worst"]) == pytest.approx([10, 10])
    assert list(old["worst_picture"]) == ["b", "b"]
    far = found[found["anchor"] == "far, published"].set_index("measure")
    assert far.loc["psnr", "percent"] == pytest.approx(-60)
    assert far.loc["psnr", "worst_picture"] == ""
    assert far.loc["ms_ssim", "status"] == "too-few-rates"


def test_bits_and_time():
    bpp, psnr = np.array([0.1, 0.2, 0.4, 0.8, 1.6]), [28.0, 31, 34, 37, 40]
    rows = pd.concat([curve("JPEG 4:4:4", "a", bpp, psnr), curve("new", "a", 0.5 * bpp, psnr)])
    rows = rows.assign(pixels=2_000_000, encode_seconds=6.0, decode_seconds=3.0)
    found = rate_distortion.trade_offs(rows, rate_distortion.curves(rows)).set_index("codec")
    assert list(found["percent"]) == pytest.approx([0, -50])
    assert list(found["encode_seconds"]) == [3, 3]
    assert list(found["decode_seconds"]) == [1.5, 1.5]
    assert set(found["anchor"]) == {"JPEG 4:4:4"}


def test_published_points(tmp_path):
    path = tmp_path / "points.tsv"
    head = "codec\tdataset\tmetric_set\tbpp\tpsnr\tms_ssim\n"
    lines = ["vtm\tkodak\tclassical\t0.5\t34.4\t0.98", "vtm\tother\tclassical\t0.5\t30\t0.9"]
    lines.append("vtm\tkodak\tmsssim-opt\t0.5\t31\t0.99")
    path.write_text(head + "\n".join(lines) + "\n")
    [point] = rate_distortion.published_points(path, ["vtm"], "kodak").to_dict("records")
    assert point == {"codec": "vtm, published", "bpp": 0.5, "psnr": 34.4, "ms_ssim": 0.98}
    with pytest.raises(InputError, match="there is no av1 on kodak"):
        rate_distortion.published_points(path, ["vtm", "av1"], "kodak")
    path.write_text("codec\tbpp\nvtm\t0.5\n")
    with pytest.raises(InputError, match="not a table"):
        rate_distortion.published_points(path, ["vtm"], "kodak")
    with pytest.raises(InputError, match="cannot read"):
        rate_distortion.published_points(tmp_path / "none.tsv", ["vtm"], "kodak")
    result = run("codec", "table", tmp_path, "--anchors", "vtm", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "belong together" in result.output
