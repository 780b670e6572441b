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
