"""The commands that judge learned codecs: round trips, speed, and the papers' claims."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from conftest import in_this_process

from benchmarks import (
    codec_claims,
    codec_contexts,
    codec_enhancement,
    codec_rdoq,
    codec_regions,
    codec_roundtrip,
    codec_speed,
)
from benchmarks.codec_arms import ARMS, CLAIMS, TRAINED, Claim, arm_of
from benchmarks.codec_claims import SHIPPED, compare, verdict
from vpxrc.codecs import training
from vpxrc.codecs.codec import load_codec, save_checkpoint
from vpxrc.codecs.contexts import Raster
from vpxrc.codecs.model import Moment
from vpxrc.codecs.papers import ABLATION, build, describe
from vpxrc.codecs.papers.gained import Gained
from vpxrc.codecs.zoo import checkpoint
from vpxrc.errors import InputError


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "a.png"
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    Image.fromarray(small).resize((160, 128), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="module")
def corner(photo, tmp_path_factory):
    """A part of it."""
    path = tmp_path_factory.mktemp("corner") / "corner.png"
    Image.open(photo).crop((0, 0, 64, 64)).save(path)
    return path


def test_round_trips_and_damage(photo, capsys):
    given = [str(photo), "--pictures", "0", "--sizes", "1x1,17x33", "--streams", "40"]
    assert codec_roundtrip.main([*given, "--codec", "checkerboard/small"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 2
    assert found["different"] == []
    assert found["errors"] + found["decoded_under_a_right_checksum"] == found["damaged"] == 40
    assert found["errors"] > 30


def test_a_wrong_round_trip_is_told(photo, capsys, monkeypatch):
    wrong = codec_roundtrip.DECODE.replace("read_bytes())", "read_bytes()) ^ 1")
    monkeypatch.setattr(codec_roundtrip, "DECODE", wrong)
    given = [str(photo), "--pictures", "0", "--sizes", "1x1", "--streams", "1"]
    assert codec_roundtrip.main([*given, "--codec", "factorized/small"]) == 1
    assert json.loads(capsys.readouterr().out)["different"] == ["1x1"]


def test_parts_of_the_time(photo):
    found = codec_speed.measure("mean-scale/small", str(photo), repeats=1)
    for name in ("encode", "decode"):
        parts = found[f"{name}_shares"]
        assert sum(parts.values()) == pytest.approx(1)
        assert all(0 < part < 1 for part in parts.values()), parts
        assert found[f"{name}_seconds_per_megapixel"] > 0
    assert found["peak_megabytes"] >= found["of_these_before_the_codec"] > 0


def test_contexts_are_timed_and_their_latents_compared(capsys):
    size = ["--channels", "4", "--height", "3", "--width", "5", "--repeats", "1"]
    assert codec_contexts.main(size) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["arm"] for row in rows] == list(codec_contexts.ARMS)
    assert all(row["same_in_other_processes"] for row in rows)
    assert min(row["times_the_fastest"] for row in rows) == 1
    for row in rows:
        assert all(0 < share < 1 for share in row["shares"].values())
        assert sum(row["shares"].values()) == pytest.approx(1)
    # The order of the cells is all that differs.
    sizes = [row["bytes"] for row in rows]
    assert abs(sizes[0] - sizes[1]) <= 4
    assert len(codec_contexts.CellByCell(1).passes(3, 5)) == 15
    assert len(Raster(1).passes(3, 5)) == 11


# The claims


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((-2.0, -3.0, -1.0, 0.5, 0.0), "holds"),
        ((2.0, 1.0, 3.0, 0.5, 0.0), "does not"),
        ((-2.0, -3.0, -1.0, 2.5, 0.0), "not resolved"),
        ((-2.0, -4.5, 0.5, 0.5, 0.0), "not resolved"),
        ((-2.0, -3.0, -1.0, float("nan"), 0.0), "not resolved"),
        ((0.1, 0.05, 0.15, 0.05, 0.3), "holds"),
        ((0.6, 0.5, 0.7, 0.05, 0.3), "does not"),
        ((0.4, 0.25, 0.5, 0.05, 0.3), "not resolved"),
    ],
)
def test_verdicts(figures, words):
    assert verdict(*figures) == words


def rows_of(factor):
    """Rows of three pictures, with a cost of 1, 2 and 3 times a factor at lambda 0.01."""
    return [
        {"setting": setting, "bpp": 0.5 * n * factor, "mse": 50.0 * n * factor, "streams": [1]}
        for setting in ("", "0.5")
        for n in (1, 2, 3)
    ]


def test_a_claim_is_judged_by_its_costs():
    claim = Claim("a is better than b", "a", "b")
    factors = {("a", 0): 0.95, ("a", 1): 0.94, ("b", 0): 1.0, ("b", 1): 1.0}
    rows = {(arm, 0.01, seed): rows_of(factor) for (arm, seed), factor in factors.items()}
    found = compare(claim, rows, [0.01], [0, 1])
    assert found["loss"] == pytest.approx(-5.5)
    assert found["by_seed"] == pytest.approx([-5.0, -6.0])
    assert found["interval"] == pytest.approx([-5.5, -5.5])
    assert found["noise_floor"] == pytest.approx(100 * (0.95 / 0.94 - 1))
    assert found["verdict"] == "holds"
    assert found["unit"] == "percent of J"
    turned = compare(Claim("b is better than a", "b", "a"), rows, [0.01], [0, 1])
    assert turned["verdict"] == "does not"
    # By PSNR: 5 and 6 % less squared error are 0.22 and 0.27 dB.
    rows = {(arm, 0.0, seed): one for (arm, _, seed), one in rows.items()}
    lost = compare(
        Claim("b loses little to a", "b", "a", (0.5,), 0.3, "PSNR"), rows, [0.01], [0, 1]
    )
    assert lost["loss"] == pytest.approx(-5 * np.log10(0.95 * 0.94))
    assert lost["verdict"] == "holds"
    # A codec of variable quality has its own lambda: 0.01 as in the rows, and 0.03.
    claim = Claim("a is better than b", "a", "b", (0.5,))
    for weight, expected in ((0.01, -5.5), (0.03, 100 * (0.5 * 0.945 + 1.5) / 2 - 100)):
        own = {key: [{**row, "trade_off": weight} for row in one] for key, one in rows.items()}
        if weight == 0.03:
            for one, (arm, _, _) in zip(own.values(), own, strict=True):
                for n, row in enumerate(one):
                    row["mse"] = 50.0 * (n % 3 + 1) if arm == "a" else row["mse"]
        assert compare(claim, own, [], [0, 1])["loss"] == pytest.approx(expected)


def test_every_arm_is_a_codec():
    names = {name for claim in CLAIMS.values() for name in (claim.test, claim.anchor)}
    assert set(ARMS) <= names
    arms = {arm_of(name) for name in names}
    arms |= {arm_of(name) for arm in arms for name in (arm.start, arm.teacher) if name}
    arms.remove(arm_of(TRAINED))
    # benchmarks.codec_regions compares the others, with masks.
    widths = {width for width in ABLATION.widths if not width.startswith("swin-roi")}
    assert {f"ablation/{width}" for width in widths} <= {arm.codec for arm in arms}
    with torch.device("meta"):
        for arm in arms:
            assert build(arm.codec).multiple in (32, 64, 128)


def test_plain_blocks_cost_as_much_as_concatenated_ones_at_the_larger_width():
    plain, ours = describe("ablation/gllmm-plain-wide"), describe("gllmm/small")
    total = plain.encoder_kmac + plain.decoder_kmac
    assert total == pytest.approx(ours.encoder_kmac + ours.decoder_kmac, rel=0.02)


def test_a_claim_about_bits_does_not_see_the_error():
    factors = {"a": 0.9, "b": 1.0}
    rows = {(arm, 0.01, 0): rows_of(factor) for arm, factor in factors.items()}
    for row in rows["b", 0.01, 0]:
        row["mse"] = 1.0
    claim = Claim("a takes fewer bits", "a", "b", of="bits")
    found = compare(claim, rows, [0.01], [0])
    assert found["loss"] == pytest.approx(-10)
    assert found["unit"] == "percent of bits"


@pytest.fixture
def here(monkeypatch):
    for module in (training, codec_claims):
        monkeypatch.setattr(module, "open_workers", in_this_process)


def test_claims_from_training_to_verdict(photo, corner, tmp_path, capsys):
    given = [str(photo), "--test", str(corner), "--out", str(tmp_path), "--steps", "2"]
    given += ["--batch", "1", "--lambdas", "0.01", "--jobs", "1", "--claims"]
    codec_claims.main([*given, "S10-b", "--seeds", "0", "1"])
    found = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert list(found) == ["S10-b"]
    assert found["S10-b"]["test"] == "octave-mean-scale/small"
    assert found["S10-b"]["noise_floor"] > 0
    assert found["S10-b"]["verdict"] in capsys.readouterr().out
    paths = sorted((tmp_path / "codecs").glob("*.safetensors"))
    assert len(paths) == 4
    times = [path.stat().st_mtime_ns for path in paths]
    rows = json.loads(next((tmp_path / "rows").iterdir()).read_text())
    assert rows[0]["bpp"] == 8 * sum(rows[0]["streams"]) / 64**2
    codec_claims.main([*given, "S10-b", "--seeds", "0", "1"])
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert load_codec(paths[0]).spec == "ablation/octave-plain"


@pytest.mark.usefixtures("here")
def test_claims_about_a_codec_of_many_rates(corner, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "FIT_BATCHES", 1)
    monkeypatch.setattr(codec_claims, "CLAIMS", {"S9-b, B=2": CLAIMS["S9-b, B=2"]})
    given = [str(photo), "--test", str(corner), "--out", str(tmp_path), "--steps", "1"]
    given += ["--batch", "1", "--lambdas", "0.01", "--seeds", "0", "--claims"]
    codec_claims.main([*given, "S9-b"])
    result = json.loads((tmp_path / "claims.json").read_text())
    assert len(result["enhancement"]) == len(codec_claims.ENHANCED)
    assert result["claims"]["S9-b, B=2"]["unit"] == "dB"


@pytest.mark.usefixtures("here")
def test_entropy_models_are_compared_on_the_latents_of_a_trained_codec(corner, photo, tmp_path):
    torch.manual_seed(0)
    gained: Any = build("gained/small")
    save_checkpoint(tmp_path / "gained.safetensors", gained, "gained/small", {})
    given = [str(photo), "--test", str(corner), "--out", str(tmp_path), "--steps", "1"]
    given += ["--batch", "1", "--lambdas", "0.01", "--seeds", "0", "--claims", "S4-a"]
    codec_claims.main([*given, "--trained", str(tmp_path / "gained.safetensors")])
    found = json.loads((tmp_path / "claims.json").read_text())["claims"]["S4-a"]
    assert found["unit"] == "percent of bits"
    (fixed,) = (tmp_path / "codecs").glob("latents-*")
    base: Any = load_codec(fixed).model
    arms = sorted((tmp_path / "codecs").glob("ablation-*.safetens*"))
    assert len(arms) == 2
    x, quality = torch.rand(1, 3, 64, 64), torch.tensor([gained.quality_of(0.01)])
    with torch.no_grad():
        expected = gained.analysis(x) * gained.gain(quality)
        decoded = gained.synthesis(expected * gained.inverse_gain(quality))
        for path in arms:
            model = load_codec(path).model
            torch.testing.assert_close(model.analysis(x), expected, atol=1e-3, rtol=1e-4)
            torch.testing.assert_close(model.synthesis(expected), decoded, atol=1e-5, rtol=1e-4)
    assert torch.equal(base.latent.z.prior.biases[0], gained.latent.z.prior.biases[0])
    save_checkpoint(tmp_path / "other.safetensors", build("raster/small"), "raster/small", {})
    given[given.index("0.01")] = "0.02"
    with pytest.raises(InputError, match="not of the codec gained"):
        codec_claims.main([*given, "--trained", str(tmp_path / "other.safetensors")])


@pytest.fixture(scope="module")
def trained() -> Any:
    torch.manual_seed(0)
    model = build("gained-checkerboard/small")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model


ADDED = {name for name in ABLATION.widths if name.startswith("added-")}
ANEW = {name for name in ADDED if "octave" in name} | {"added-anew"}
ALONE = ADDED - ANEW - {"added-student"}


def test_arms_of_the_trained_codec():
    assert (len(ADDED), len(ANEW), len(ALONE)) == (25, 5, 19)


@pytest.mark.parametrize("name", sorted(ALONE))
def test_an_added_part_does_nothing_before_it_is_trained(trained, name):
    x = torch.rand(1, 3, 64, 64)
    y = trained.analysis(x)
    arm: Any = build(f"ablation/{name}")
    missing, unexpected = arm.load_state_dict(trained.state_dict(), strict=False)
    assert not unexpected
    parts = ".added.", ".restoration.", ".importance."
    assert all(any(part in one for part in parts) for one in missing)
    changed = "none", "only", "l1", "noise", "straight", "stochastic"
    assert bool(missing) == (not any(word in name for word in changed))
    torch.testing.assert_close(arm.analysis(x), y)
    torch.testing.assert_close(arm.synthesis(y), trained.synthesis(y))
    part = [one for key, one in arm.named_parameters() if key in missing]
    loss, _ = arm.objective(x, 0.0, Moment(0, 1))
    torch.autograd.backward(loss)
    assert not part or any(one.grad.abs().max() > 0 for one in part)


@pytest.mark.parametrize("name", sorted(ANEW))
def test_networks_that_start_anew_do_nothing_before_they_are_trained(trained, name):
    x = torch.rand(1, 3, 64, 64)
    arm: Any = build(f"ablation/{name}")
    missing, unexpected = arm.load_state_dict(trained.state_dict(), strict=False)
    assert all(".main.anew." in one for one in missing)
    assert all("analysis.main." in one or "synthesis.main." in one for one in unexpected)
    y = arm.analysis(x)
    torch.testing.assert_close(y, trained.analysis.shortcut(x))
    torch.testing.assert_close(arm.synthesis(y), trained.synthesis.shortcut(y))
    loss, _ = arm.objective(x, 0.0, Moment(0, 1))
    torch.autograd.backward(loss)
    for network in (arm.analysis.main, arm.synthesis.main):
        assert sum(float(one.grad.abs().max()) > 0 for one in network.parameters()) >= 2


def test_the_student_is_the_trained_codec_without_residual_blocks_in_its_decoder(trained):
    x = torch.rand(1, 3, 64, 64)
    arm: Any = build("ablation/added-student")
    missing, unexpected = arm.load_state_dict(trained.state_dict(), strict=False)
    assert not missing
    assert {one.split(".")[2] for one in unexpected} == {"2", "3", "6"}
    y = trained.analysis(x)
    torch.testing.assert_close(arm.analysis(x), y)
    layers = trained.synthesis.main
    expected = trained.synthesis.shortcut(y)
    for number in (0, 1, 4, 5, 7, 8):
        y = layers[number](y)
    torch.testing.assert_close(arm.synthesis(trained.analysis(x)), expected + y)


def test_objectives_of_the_arms_are_the_trained_codecs(trained, monkeypatch):
    x, quality = torch.rand(2, 3, 64, 64), torch.tensor([0.2, 0.8])

    def output(name: str) -> Any:
        arm: Any = build(f"ablation/{name}")
        arm.load_state_dict(trained.state_dict())
        torch.manual_seed(3)
        with torch.no_grad():
            return arm(x, quality)

    plain, sparse = output("added-none"), output("added-l1-0.1")
    torch.testing.assert_close(plain.x_hat, sparse.x_hat)
    y = trained.analysis(x) * trained.gain(quality)
    torch.testing.assert_close(sparse.bits["norm"], 0.1 * y.abs().sum((1, 2, 3)))
    with torch.no_grad():
        expected = trained.synthesis(y.round() * trained.inverse_gain(quality))
    torch.testing.assert_close(output("added-straight-through").x_hat, expected)
    monkeypatch.setattr(torch, "rand_like", lambda y: torch.full_like(y, 0.7))
    with torch.no_grad():
        floors, shifted = (y + 0.7).floor(), y + 0.2
        for name, rounded in (("stochastic", floors), ("noise", shifted)):
            expected = trained.synthesis(rounded * trained.inverse_gain(quality))
            torch.testing.assert_close(output(f"added-{name}").x_hat, expected)


@pytest.mark.usefixtures("here")
def test_parts_are_added_to_a_trained_codec(corner, photo, tmp_path):
    given = [str(photo), "--test", str(corner), "--out", str(tmp_path), "--steps", "1"]
    given += ["--batch", "1", "--crop", "64", "--seeds", "0", "--claims"]
    codec_claims.main([*given, "added S7-c"])
    found = json.loads((tmp_path / "claims.json").read_text())["claims"]["added S7-c, alone"]
    assert found["unit"] == "percent of J"
    assert 0 < abs(found["loss"]) < 1
    (path,) = (tmp_path / "codecs").glob("added-filter-alone-*.safetensors")
    filtered: Any = load_codec(path).model
    trained: Any = load_codec(checkpoint(SHIPPED)).model
    assert torch.equal(filtered.latent.z.prior.biases[0], trained.latent.z.prior.biases[0])
    assert filtered.synthesis.restoration.body[0].weight.abs().max() > 0


@pytest.mark.usefixtures("here")
def test_arms_that_start_from_others_are_trained_after_them(photo, tmp_path):
    given = [str(photo), "--test", str(photo), "--out", str(tmp_path), "--steps", "1"]
    given += ["--batch", "1", "--crop", "64", "--lambdas", "0.01", "--seeds", "0", "--claims"]
    codec_claims.main([*given, "S7-c, alone"])
    result = json.loads((tmp_path / "claims.json").read_text())
    alone = result["claims"]["S7-c, alone"]
    assert alone["unit"] == "dB"
    assert set(result["zero_channels"]) == {alone["test"], alone["anchor"], "asymmetric/small"}
    assert all(0 <= share <= 1 for share in result["zero_channels"].values())
    # The filter alone is another one, so the files of both arms have the same sizes.
    rows = [json.loads(path.read_text())[0] for path in (tmp_path / "rows").iterdir()]
    codecs = {load_codec(path).spec: path for path in (tmp_path / "codecs").glob("*.safetensors")}
    assert len(codecs) == 2
    sizes = [row["streams"] for row in rows]
    assert max(sizes.count(one) for one in sizes) >= 2


def test_regions_are_compared_at_equal_bytes(photo, tmp_path, capsys):
    with Image.open(photo) as opened:
        width, height = opened.size
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 3, : width // 3] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / f"{photo.stem}.png")
    given = [str(photo), "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "out")]
    given += ["--qualities", "0.3", "--weights", "10"]
    codec_regions.main(given)
    plain, weighted = pd.read_csv(tmp_path / "out" / "pictures.csv").to_dict("records")
    assert weighted["bytes"] <= plain["bytes"]
    assert weighted["inside"] > plain["inside"]
    assert weighted["outside"] < plain["outside"]
    for row in (plain, weighted):  # the whole is the mean of the parts, in squared error
        parts = [10 ** (-row[part] / 10) for part in ("inside", "outside", "whole")]
        share = row["area"]
        assert parts[2] == pytest.approx(share * parts[0] + (1 - share) * parts[1], rel=1e-3)
    (means,) = pd.read_csv(tmp_path / "out" / "means.csv").query("weight == 10").to_dict("records")
    assert means["inside"] == pytest.approx(weighted["inside"] - plain["inside"], abs=1e-3)
    times = [path.stat().st_mtime_ns for path in (tmp_path / "out" / "rows").iterdir()]
    codec_regions.main(given)
    assert [path.stat().st_mtime_ns for path in (tmp_path / "out" / "rows").iterdir()] == times
    assert "worst_inside" in capsys.readouterr().out


def test_optimised_quantisation_is_compared_with_rounding(corner, tmp_path, capsys):
    codec_rdoq.main([str(corner), "--out", str(tmp_path)])
    rows = json.loads(next((tmp_path / "rows").iterdir()).read_text())
    assert [row["way"] for row in rows] == ["rounded", "optimised"] * 8
    trade_offs = [Gained.trade_off(row["quality"]) for row in rows]
    costs = [
        row["bpp"] + trade_off * 255**2 * 10 ** (-row["psnr"] / 10)
        for row, trade_off in zip(rows, trade_offs, strict=True)
    ]
    assert sum(costs[1::2]) < sum(costs[::2])
    assert "BD-rate -" in capsys.readouterr().out


def test_hulls_of_an_enhancement_layer():
    points = pd.DataFrame({"bpp": [1.0, 2, 3, 2.5, 2.2], "psnr": [30.0, 34, 35, 34.2, 33]})
    assert codec_enhancement.hull(points) == ([1, 2, 3], [30, 34, 35])
    layered = pd.DataFrame({"bpp": [1.5, 4.0], "psnr": [31.0, 41], "lambda": 1.0})
    table = codec_enhancement.compared(pd.concat([points.assign(**{"lambda": 0.0}), layered]))
    assert list(table["bpp"]) == [1, 1.5, 2, 3, 4]
    assert list(table["gain"][1:4]) == pytest.approx([-1, -1, 2])
    assert table["gain"].isna().tolist() == [True, False, False, False, True]


def test_an_enhancement_layer_makes_the_picture_better(photo, corner, tmp_path, monkeypatch):
    monkeypatch.setattr(codec_enhancement, "BASES", (0.0, 1.0))
    monkeypatch.setattr(codec_enhancement, "LAMBDAS", (0.02, 0.5))
    monkeypatch.setattr(codec_enhancement, "BATCHES", 1)
    monkeypatch.setattr(codec_enhancement, "CROP", 64)
    codec_enhancement.main([str(photo), "--test", str(corner), "--out", str(tmp_path)])
    means = pd.read_csv(tmp_path / "means.csv")
    assert len(means) == 2 * 3
    for _, rows in means.groupby("base"):
        assert (np.diff(rows["bpp"]) > 0).all()
        assert rows["psnr"].iloc[-1] > rows["psnr"].iloc[0] + 3
    table = pd.read_csv(tmp_path / "hulls.csv")
    alone = means[means["lambda"] == 0]
    assert list(table["base"].dropna())[:: len(table["base"].dropna()) - 1] == list(alone["psnr"])
