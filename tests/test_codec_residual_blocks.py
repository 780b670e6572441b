"""Block codecs for AV1's residuals, against scipy, formulas by hand, and other processes."""

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.stats

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from PIL import Image
from test_residuals import needs_tool, packed, picture

from benchmarks import av1_closed_loop, av1_pictures, av1_residuals
from benchmarks.av1_records import downscaled, large, spread
from benchmarks.av1_residuals import Curve, against, percent, sum_of
from vpxrc.codecs import block_training, selected_coder
from vpxrc.codecs.block_coder import (
    BlockCoder,
    IdealBits,
    block_operations,
    laplace_tables,
    scale_at,
    scale_index,
    steps_around,
)
from vpxrc.codecs.block_training import BlockTraining, model_of, read_block_model, train_blocks
from vpxrc.codecs.closed_loop import ClosedLoop, plain
from vpxrc.codecs.papers.adaptive_transform import (
    ENTROPY_MODELS,
    SLOPE,
    TRANSFORMS,
    BlockModel,
    Design,
    best_round,
    coefficient_groups,
    level_of,
    step_of,
)
from vpxrc.codecs.papers.selected_transform import TRANSFORMS as TRANSFORMS_OF_A_MODE
from vpxrc.codecs.papers.selected_transform import SelectedDesign, SelectedModel, dst
from vpxrc.codecs.residual_blocks import (
    DIRECTIONS,
    FEATURES,
    MODES,
    Blocks,
    blocks_of,
    modes_of,
    read_blocks,
    surroundings_of,
)
from vpxrc.codecs.residual_tool import record
from vpxrc.codecs.residuals import unpack_records
from vpxrc.codecs.selected_coder import PRICES, SelectedCoder, coder_of, operations
from vpxrc.errors import InputError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def blocks(side: int = 8, count: int = 60) -> Blocks:
    """Return smooth residuals whose strength differs from block to block."""
    rng = np.random.default_rng(side)
    strength = rng.choice([2.0, 10.0, 40.0], (count, 1, 1))
    falling = 1 / (1 + np.add.outer(np.arange(side), np.arange(side)))
    coefficients = rng.laplace(0, 1, (count, side, side)) * strength * falling
    residuals = scipy.fft.idctn(coefficients, axes=(1, 2), norm="ortho").round()
    context = np.zeros((count, FEATURES))
    context[:, 0] = np.rint(np.log1p(strength[:, 0, 0]) * 1024) / 1024
    context[np.arange(count), 7 + rng.integers(0, MODES, count)] = 1
    context[::5, -1] = 1
    around = rng.normal(0, 5, (count, surroundings_of(side))).round()
    around[:, : DIRECTIONS + 2 * side] = np.abs(around[:, : DIRECTIONS + 2 * side])
    q_indices = torch.tensor([80, 172]).repeat(count)[:count]
    return Blocks(
        side,
        torch.from_numpy(residuals.reshape(count, -1)).float(),
        torch.from_numpy(context).float(),
        torch.from_numpy(around).float(),
        torch.arange(count) // 20,
        q_indices,
        torch.where(q_indices == 80, 10.0, 47.0),
        torch.full((count,), 30.0, dtype=torch.float64),
        torch.full((count,), 500.0, dtype=torch.float64),
    )


def shaken(design: Design | SelectedDesign) -> Any:
    """Return a model whose weights are a little away from their start."""
    model = model_of(design)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


# Transforms


@pytest.mark.parametrize("side", [4, 8, 16, 32])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_start_as_scipys_dct(side, name):
    some, level = blocks(side, 5), torch.tensor([0.0, 0.3, 0.5, 0.77, 1.0])
    transform = BlockModel(Design(side, name, "static")).transform
    y = transform(some.residuals, some.context, level)
    plain = scipy.fft.dctn(some.residuals.reshape(-1, side, side), axes=(1, 2), norm="ortho")
    # 2..256 in equal ratios
    steps = 2.0 * 128.0 ** level.numpy()
    np.testing.assert_allclose(
        y.detach().reshape(-1, side, side), plain / steps[:, None, None], rtol=1e-3, atol=1e-4
    )
    back = transform.inverse(y, some.context, level).detach()
    np.testing.assert_allclose(back, some.residuals, atol=2e-3)
    np.testing.assert_allclose(step_of(level), steps, rtol=1e-5)
    np.testing.assert_allclose(level_of(step_of(level)), level, atol=1e-6)


def test_matrices_of_the_modes_are_orthonormal_and_each_modes_own():
    some = blocks(8, 40)
    transform: Any = shaken(Design(8, "modes", "static")).transform
    rows, columns = transform.matrices(some.context)
    eye = torch.eye(8).expand(40, 8, 8)
    for matrices in (rows, columns):
        torch.testing.assert_close(matrices @ matrices.transpose(1, 2), eye, atol=1e-5, rtol=0)
    mode = torch.where(some.context[:, -1] > 0, MODES, some.context[:, 7:-1].argmax(1))
    for one in range(40):
        same = mode == mode[one]
        assert (rows[same] == rows[one]).all()
        assert not (~same).any() or (rows[~same] != rows[one]).flatten(1).any(1).all()
    coefficients = transform.analysis(some.residuals, some.context, torch.zeros(40))
    by_hand = columns[3] @ some.residuals[3].view(8, 8) @ rows[3].T
    torch.testing.assert_close(coefficients[3].view(8, 8), by_hand)


def test_the_sine_transform_is_that_of_hevc():
    # Of the standard: whole numbers of 1/128.
    hevc = [[29, 55, 74, 84], [74, 74, 0, -74], [84, -29, -74, 55], [55, -84, 74, -29]]
    np.testing.assert_allclose(128 * dst(4).numpy(), hevc, atol=0.6)
    for side in (8, 16, 32):
        torch.testing.assert_close(dst(side) @ dst(side).T, torch.eye(side).double())


def test_selected_transforms_start_as_cosines_and_sines():
    some, level = blocks(8, 5), torch.zeros(5)
    transform = SelectedModel(SelectedDesign(8)).transform
    residuals = some.residuals.reshape(-1, 8, 8).double()
    cosine = torch.from_numpy(scipy.fft.dct(np.eye(8), axis=0, norm="ortho"))
    sine = dst(8)
    # Rows of the block are transformed by the first, its columns by the second.
    pairs = ((cosine, cosine), (sine, sine), (cosine, sine), (sine, cosine))
    for matrices, (rows, columns) in zip(transform.matrices(), pairs, strict=True):
        y = transform(some.residuals, matrices[:, modes_of(some.context)].transpose(0, 1), level)
        expected = (columns @ residuals @ rows.T / 2.0).flatten(1)  # in steps of 2
        torch.testing.assert_close(y.double(), expected, atol=1e-3, rtol=1e-4)
        back = transform.inverse(y, matrices[:, modes_of(some.context)].transpose(0, 1), level)
        torch.testing.assert_close(back, some.residuals, atol=2e-3, rtol=1e-4)


def test_gains_lie_on_lines_between_knots():
    model = shaken(Design(4, "matrix", "static"))
    gain = model.transform.gain
    found = gain(torch.tensor([0.0, 0.1, 0.2, 1.0])).detach()
    values = gain.values.detach()
    torch.testing.assert_close(found[0], values[0])
    torch.testing.assert_close(found[1], (values[0] + values[1]) / 2)
    torch.testing.assert_close(found[2], values[1])
    torch.testing.assert_close(found[3], values[5])


# Rounding and rates


def test_rounding_is_the_best_of_all_whole_numbers():
    y = torch.randn(400, dtype=torch.float64) * 3
    scale = torch.rand(400, dtype=torch.float64) * 3 + 0.2  # below it a step down may pay twice
    candidates = np.arange(-20, 21)
    upper, lower = (
        scipy.stats.laplace.cdf(candidates + side, scale=scale.numpy()[:, None])
        for side in (0.5, -0.5)
    )
    # In the upper tail the difference of two numbers near 1 has no digits left.
    probability = np.where(candidates > 0, (upper - lower)[:, ::-1], upper - lower)
    cost = SLOPE * (y.numpy()[:, None] - candidates) ** 2 - np.log2(probability)
    np.testing.assert_array_equal(best_round(y, scale), candidates[cost.argmin(1)])


def test_tables_are_scipys_laplace():
    for index in (0, 20, 40, 63):
        scale, table = float(scale_at(torch.tensor(index))), laplace_tables()[index]
        numbers = torch.arange(-2, 3)
        upper, lower = (
            scipy.stats.laplace.cdf(numbers.numpy() + side, scale=scale) for side in (0.5, -0.5)
        )
        found = IdealBits(laplace_tables())(numbers, torch.full((5,), index))
        expected = -np.log2(np.maximum(upper - lower, 2.0**-22))
        np.testing.assert_allclose(found, expected, atol=0.02 if index else 1.1)
        assert int(table.frequencies.sum()) == 1 << 22
    assert scale_index(scale_at(torch.arange(64)).log()).tolist() == list(range(64))


def test_costs_far_from_zero_are_those_of_the_coder():
    from vpxrc.codecs.coder import Encoder, Indexed

    symbols = torch.tensor([-900, -40, 33, 700, 5000])
    for index in (3, 30, 60):
        which = torch.full((5,), index)
        many = symbols.repeat(400)
        encoder = Encoder()
        encoder.add(many, Indexed(which.repeat(400), laplace_tables()))
        real = 8 * len(encoder.finish())
        ideal = float(IdealBits(laplace_tables())(many, which.repeat(400)).sum())
        assert real == pytest.approx(ideal, rel=0.01)


def test_groups_are_all_coefficients():
    groups = coefficient_groups(8)
    assert sorted(torch.cat(groups).tolist()) == list(range(64))
    assert [len(group) for group in groups] == [16] * 4
    assert 0 in groups[0].tolist()
    assert len({(int(one) // 8 % 2, int(one) % 2) for one in groups[0]}) == 1


# The coder


@pytest.mark.parametrize("entropy", ENTROPY_MODELS)
@pytest.mark.parametrize(("side", "transform"), [(4, "scalar"), (8, "modes"), (16, "network")])
def test_streams_are_decoded(side, transform, entropy):
    some = blocks(side)
    coder = BlockCoder(shaken(Design(side, transform, entropy)))
    level = level_of(some.steps)
    stream, coded = coder.encode(some, level)
    assert torch.equal(coder.decode(stream, some.known, level), coded.decoded)
    assert 8 * len(stream) == pytest.approx(float(coded.bits.sum()), rel=0.01, abs=64)
    assert coded.z.shape[1] == (0 if entropy == "static" else {4: 2, 8: 4, 16: 8}[side])
    with pytest.raises(InputError, match="damaged"):
        coder.decode(stream + b"1234" * 8, some.known, level)
    with pytest.raises(InputError, match="damaged"):
        coder.decode(stream[:-1], some.known, level)


DECODE = """
import hashlib, sys, torch
torch.set_num_threads(3)
sys.path.insert(0, sys.argv[2])
from test_codec_residual_blocks import blocks
from vpxrc.codecs.block_training import read_block_model
from vpxrc.codecs.papers.adaptive_transform import level_of
from vpxrc.codecs.selected_coder import coder_of
from pathlib import Path
some, folder = blocks(), Path(sys.argv[1])
coder = coder_of(read_block_model(folder / "model.safetensors")[0])
decoded = coder.decode((folder / "stream").read_bytes(), some.known, level_of(some.steps))
print(hashlib.sha256(decoded.mul(16).round().numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("design", [Design(8, "matrix", "groups"), SelectedDesign(8)], ids=str)
def test_another_process_decodes(tmp_path, design):
    some = blocks()
    training = BlockTraining(design, steps=3)
    model = train_blocks(some, tmp_path / "model.safetensors", training)
    coder = coder_of(model)
    stream, coded = coder.encode(some, level_of(some.steps))
    (tmp_path / "stream").write_bytes(stream)
    here = hashlib.sha256(coded.decoded.mul(16).round().numpy().tobytes()).hexdigest()
    folder = str(__file__).rpartition("/")[0]
    found = subprocess.run(
        [sys.executable, "-c", DECODE, tmp_path, folder], capture_output=True, text=True
    )
    assert found.stdout.strip() == here, found.stderr


@pytest.mark.parametrize("side", [4, 8, 16])
def test_streams_with_selected_transforms_are_decoded(side):
    some = blocks(side)
    coder = SelectedCoder(shaken(SelectedDesign(side, hidden=16)))
    level = level_of(some.steps)
    stream, coded = coder.encode(some, level)
    assert len(coded.choice.unique()) == TRANSFORMS_OF_A_MODE
    assert torch.equal(coder.decode(stream, some.known, level), coded.decoded)
    assert 8 * len(stream) == pytest.approx(float(coded.bits.sum()), rel=0.01, abs=64)
    for damaged in (stream + b"1234" * 8, stream[:-1]):
        with pytest.raises(InputError, match="damaged"):
            coder.decode(damaged, some.known, level)
    # Alone, a block is coded as among others.
    one = coder.quantize(some.take(torch.tensor([7])), level[7:8])
    assert torch.equal(one.y[0], coded.y[7])
    assert len(coder.quantize(some.take(torch.tensor([], dtype=torch.int64)), level[:0]).y) == 0


def test_more_ways_to_code_a_block_cost_no_more(monkeypatch):
    some = blocks(8)
    coder, level = SelectedCoder(shaken(SelectedDesign(8, hidden=16))), level_of(some.steps)
    weight = SLOPE / some.steps.double().square()

    def cost():
        coded = coder.quantize(some, level)
        return coded.bits + weight * (coded.decoded - some.residuals).double().square().sum(1)

    every = cost()
    alone = []
    for price in PRICES:
        monkeypatch.setattr(selected_coder, "PRICES", (price,))
        alone.append(cost())
    torch.testing.assert_close(every, torch.stack(alone).amin(0))
    assert (every < alone[0] - 0.1).any()


def test_operations_are_counted_by_hand():
    selected = operations(model_of(SelectedDesign(4, hidden=16)))
    seen, signed, known = 22 + 7 + 4 * 4 + 15, 4 * 4 + 15, 2 + 64 + 4
    once = 16 * (seen + 64) + 64 * 64 + 64 * 4 + 16 * (seen + signed + 16 + 16) + 16 * (64 + 4)
    scales = sum(16 * (known + 4 * group + 16 + 4) for group in range(4))
    transform, analysis = 2 * 4**3, 16 * (16 + 2)
    assert selected["decoder"] == (once + transform + scales) / 16
    tries = 4 * (transform + analysis + 4 * (transform + scales))
    assert selected["encoder"] == (once + tries) / 16
    assert operations(BlockModel(Design(4, "scalar", "static")))["encoder"] == 8
    assert block_operations(BlockModel(Design(16, "matrix", "static"))) == {
        "encoder": 32,
        "decoder": 32,
    }
    small = block_operations(BlockModel(Design(16, "scalar", "hyperprior")))
    synthesis, analysis = 8 * 64 + 64 * 256, 256 * 64 + 64 * 8
    assert small["decoder"] == 32 + synthesis / 256
    assert small["encoder"] == 32 + (synthesis + analysis) / 256
    network = block_operations(BlockModel(Design(16, "network", "static")))
    assert network["decoder"] == 32 + 512 * (256 + 512 + 256) / 256
    assert block_operations(BlockModel(Design(4, "linear", "static")))["encoder"] == 16


# Training


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_checkpoint_is_the_trained_model(tmp_path, transform):
    config = BlockTraining(Design(8, transform, "static"), steps=2)
    trained = train_blocks(blocks(), tmp_path / "a.safetensors", config).state_dict()
    for name, values in read_block_model(tmp_path / "a.safetensors")[0].state_dict().items():
        assert torch.equal(values, trained[name]), name


@pytest.mark.parametrize("design", [Design(8, "modes", "groups"), SelectedDesign(8)], ids=str)
def test_training_lowers_the_loss_and_goes_on_after_a_kill(tmp_path, monkeypatch, design):
    some = blocks()
    config = BlockTraining(design, steps=60)
    monkeypatch.setattr(block_training, "CURVE_EVERY", 20)
    whole = train_blocks(some, tmp_path / "a.safetensors", config)
    curve = json.loads(read_block_model(tmp_path / "a.safetensors")[1]["curve"])
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]

    class KilledError(Exception):
        pass

    def kill(done, total):
        if done == 31:
            raise KilledError

    monkeypatch.setattr(block_training, "STATE_EVERY", 0.0)
    with pytest.raises(KilledError):
        train_blocks(some, tmp_path / "b.safetensors", config, kill)
    assert not (tmp_path / "b.safetensors").exists()
    with pytest.raises(InputError, match="another training"):
        train_blocks(some, tmp_path / "b.safetensors", BlockTraining(design, steps=61))
    again = train_blocks(some, tmp_path / "b.safetensors", config)
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not (tmp_path / "b.safetensors.state").exists()
    with pytest.raises(InputError, match="another training"):
        train_blocks(some, tmp_path / "b.safetensors", BlockTraining(design, steps=61))


def test_foreign_checkpoints_and_wrong_designs_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a checkpoint"):
        read_block_model(path)
    state = tmp_path / "b.safetensors.state"
    state.write_bytes(b"nothing")
    config = BlockTraining(Design(8, "scalar", "static"), steps=1)
    with pytest.raises(InputError, match="not a state"):
        train_blocks(blocks(), tmp_path / "b.safetensors", config)
    state.unlink()
    with pytest.raises(InputError, match="no blocks of q index 4"):
        train_blocks(blocks(), tmp_path / "b.safetensors", BlockTraining(config.design, q_index=4))
    for wrong in ((5, "scalar", "static"), (8, "dst", "static"), (8, "scalar", "none")):
        with pytest.raises(InputError):
            Design(*wrong)
    for side, hidden in ((5, 128), (8, 0)):
        with pytest.raises(InputError):
            SelectedDesign(side, hidden)


# Blocks of records


def test_blocks_of_records_are_those_by_hand(tmp_path):
    data = packed()
    some = blocks_of(unpack_records(data), 4)
    assert len(some) == 1
    assert some.residuals.tolist() == [[0.0] * 16]  # source and prediction are 100 everywhere
    assert float(some.errors[0]) == 16 * 155.0**2
    assert some.context[0, :7].tolist() == [0.0] * 7  # nothing is left or above, all is flat
    assert int(some.context[0, 7:].argmax()) == 0
    path = tmp_path / "a.q032.residuals"
    path.write_bytes(data)
    assert [len(part) for part in read_blocks([path], (4, 16)).values()] == [1, 0]
    with pytest.raises(InputError, match="no records"):
        read_blocks([], (4,))


# The closed loop


def test_the_plain_transform_is_scipys():
    residual = np.random.default_rng(0).normal(0, 30, (4, 8)).round()
    y = scipy.fft.dctn(residual, norm="ortho") / 12
    quantized = np.sign(y) * np.floor(np.abs(y) + 0.33)
    expected = scipy.fft.idctn(quantized * 12, norm="ortho").round()
    np.testing.assert_array_equal(plain(residual, 12.0), expected)


@needs_tool
@pytest.mark.parametrize("in_encoder", [False, True])
def test_offline_figures_of_a_closed_loop_are_those_of_the_loop(tmp_path, in_encoder):
    """What is coded of its records afterwards is what the loop put into the picture."""
    pixels, coders = picture(128, 70), {}
    for design in (Design(4, "modes", "groups"), SelectedDesign(8)):
        training, side = BlockTraining(design, steps=3), design.side
        model = train_blocks(blocks(side), tmp_path / f"{side}.safetensors", training)
        coders[side] = coder_of(model)
    loop = ClosedLoop(coders, 128, 70, factor=0.8, in_encoder=in_encoder)
    records = record(pixels, 32, tmp_path / "a.residuals", loop)
    assert sum(len(blocks_of(records, side)) for side in coders) > 3
    for side, coder in coders.items():
        some = blocks_of(records, side)
        coded = coder.quantize(some, level_of(steps_around(some, 0.8)))
        rows = records.blocks[records.squares(0, side)]
        inside = (rows["x"] + side <= 128) & (rows["y"] + side <= 70)
        places = records.squares(0, side)[inside]
        predictions, found = (
            records.take(samples, places).reshape(len(places), -1).astype(float)
            for samples in (records.predictions, records.reconstructions)
        )
        np.testing.assert_array_equal((predictions + coded.decoded.numpy()).clip(0, 255), found)


@needs_tool
def test_the_benchmarks_run_and_go_on(tmp_path, capsys):
    for number in range(3):
        Image.fromarray(picture(96 + 8 * number, 80)).save(tmp_path / f"{number}.png")
    given = [str(tmp_path), "--test", str(tmp_path), "--work", str(tmp_path / "kept")]
    given += ["--train-pictures", "2", "--test-pictures", "2", "--sides", "8", "--steps", "2"]
    assert av1_residuals.main([*given, "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result["records"]["files"] == result["records"]["equal_to_dav1d"] == 12
    assert result["real_bytes"]["8"]["different"] == 0
    arms = [row["arm"] for row in result["against_av1"]]
    assert arms == [av1_residuals.BEST, *av1_residuals.AT_8_AND_16]
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert len(tables.splitlines()) > 10
    capsys.readouterr()
    assert av1_residuals.main([*given, "--out", str(tmp_path / "out")]) == 0
    assert "training" not in capsys.readouterr().out
    assert (tmp_path / "out" / "tables.md").read_text() == tables
    given = [str(tmp_path), "--checkpoints", str(tmp_path / "kept" / "checkpoints"), "--count", "1"]
    given += ["--sides", "8", "--qindex", "32,80", "--size", "64x48"]
    given += ["--arms", "scalar hyperprior;scalar static"]
    assert av1_closed_loop.main([*given, "--out", str(tmp_path / "loop.json")]) == 0
    loop = json.loads((tmp_path / "loop.json").read_text())
    ways = [(row["arm"], row["way"], row["side"]) for row in loop["against_av1"]]
    assert ways == [
        (arm, way, "8")
        for arm in ("scalar hyperprior", "scalar static")
        for way in ("closed loop", "offline")
    ]
    assert {"32", "80", "mean"} < set(loop["against_av1"][0])
    assert all(abs(one) < 40 for one in loop["error_of_other_blocks"]["scalar static"].values())
    assert [row["claim"] for row in loop["claims"]] == ["S6-a", "S6-a"]
    given = [str(tmp_path), "--checkpoints", str(tmp_path / "kept" / "checkpoints"), "--count", "2"]
    given += ["--sides", "8", "--qindex", "80", "--size", "64x48", "--arm", "scalar static"]
    assert av1_pictures.main([*given, "--out", str(tmp_path / "pictures.json")]) == 0
    found = json.loads((tmp_path / "pictures.json").read_text())
    assert 0 < found["share_of_bits"]["80"]["8"] < 100
    assert list(found["pictures"]) == ["0", "1"]


# The benchmark's figures


def curve(factor: float) -> Curve:
    """Return twice AV1's bits where ``factor`` is 2: bits go with the inverse of the error."""
    errors = np.array([[50.0, 100.0, 200.0], [100.0, 200.0, 400.0]])
    return Curve(factor * 1e4 / errors, errors, np.array([80.0, 40.0]), np.array([125.0, 250.0]))


def test_bits_at_equal_distortion():
    both = np.arange(2)
    assert curve(1.0).log_ratio(np.array([0])) == pytest.approx(0.0, abs=1e-3)
    assert curve(2.0).log_ratio(both) == pytest.approx(math.log(2), abs=1e-2)
    assert percent(math.log(1.25)) == 25.0
    found, low, high = against({32: curve(2.0)}, {32: curve(1.0)})
    assert (found, low, high) == pytest.approx((100.0, 100.0, 100.0), abs=0.1)
    # At another q index there are no such blocks.
    none = Curve(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2), np.zeros(2))
    assert against({32: curve(2.0), 255: none}, None)[0] == pytest.approx(100.0, abs=1)
    assert against({255: none}, None) == [None, None, None]
    # Both means are over the q indices at which both have a figure.
    both_have = against({32: curve(2.0), 255: curve(9.0)}, {32: curve(1.0), 255: none})
    assert both_have[0] == pytest.approx(100.0, abs=1)
    whole = sum_of([curve(1.0), curve(1.0)])
    assert whole.log_ratio(both) == pytest.approx(curve(1.0).log_ratio(both))


def test_large_pictures_are_downscaled(tmp_path):
    for width in (90, 150):
        Image.fromarray(picture(width, 64)).save(tmp_path / f"{width}.png")
    paths = sorted(tmp_path.iterdir())
    assert large(paths, None) == paths
    assert [path.name for path in large(paths, 96)] == ["150.png"]
    assert downscaled(picture(150, 64), 75).shape == (32, 75, 3)
    assert downscaled(picture(64, 150), None).shape == (150, 64, 3)
    flat = np.full((64, 150, 3), 77, np.uint8)
    assert (downscaled(flat, 75) == 77).all()


def test_pictures_are_spread():
    paths = [Path(name) for name in "abcdefgh"]
    assert [path.name for path in spread(paths, 3)] == ["a", "c", "e"]
    assert spread(paths[:2], 3) == paths[:2]


def test_steps_stay_within_the_levels():
    some = blocks()
    assert steps_around(some, 0.01).unique().tolist() == [2.0]
    assert steps_around(some, 2.0)[0] == 20.0
