"""Regions of interest in learned codecs."""

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from test_codecs import picture, tiny

from vpxrc.codecs.attention import WINDOW, WindowAttention, swin_blocks
from vpxrc.codecs.bitstream import pack, unpack
from vpxrc.codecs.codec import Codec, Region, compress_to_size, load_codec
from vpxrc.codecs.model import Moment, run_counting
from vpxrc.codecs.papers import describe
from vpxrc.codecs.papers.gained import Gained
from vpxrc.codecs.papers.swin_roi import Modulation, SwinRoi, random_weights
from vpxrc.codecs.zoo import checkpoint
from vpxrc.errors import InputError


def square(height, width):
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    return mask


@pytest.mark.parametrize("size", [(17, 33), (127, 65)])
def test_a_region_has_the_quality_of_its_weight(size):
    codec = tiny("gained-checkerboard")
    pixels, region = picture(*size), Region(square(*size), 8.0)
    result = codec.compress(pixels, 0.3, region)
    assert np.array_equal(codec.decompress(result.data), result.picture)
    cells, *rest = unpack(result.data).streams
    assert len(rest) == 2
    rows, columns = (-(-side // 64) * 4 for side in size)
    levels = np.frombuffer(zlib.decompress(cells), np.uint8).reshape(rows, columns) / 255
    low, high = Gained.lambdas
    for row in range(rows):
        for column in range(columns):
            # The mean weight of the pixels that are in the picture.
            inside = region.mask[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            weight = 1 + 7 * inside.mean() if inside.size else 1
            expected = 0.3 + np.log(weight) / np.log(high / low)
            assert levels[row, column] == pytest.approx(expected, abs=0.5 / 255 + 1e-6)


def test_a_region_gets_better_and_the_rest_worse_at_equal_bytes():
    codec = load_codec(checkpoint("gained-checkerboard-small"))
    pixels = picture(128, 192)
    mask = square(128, 192)

    def errors(region, most):
        found = compress_to_size(codec, pixels, most, lambda *_: None, region)
        assert 0.93 * most < len(found.data) <= most
        squares = np.square(found.picture.astype(float) - pixels).mean(2)
        return squares[mask].mean(), squares[~mask].mean()

    plain, weighted = errors(None, 3000), errors(Region(mask, 8.0), 3000)
    assert weighted[0] < 0.9 * plain[0]
    assert weighted[1] > plain[1]


def test_a_region_fits_where_the_lowest_quality_of_the_rest_does_not():
    codec = load_codec(checkpoint("gained-checkerboard-small"))
    pixels, mask = picture(128, 192), square(128, 192)
    region = Region(mask, 16.0)
    least = len(codec.compress(pixels, 0.0).data) + 20
    assert len(codec.compress(pixels, 0.0, region).data) > least
    found = compress_to_size(codec, pixels, least, lambda *_: None, region)
    assert len(found.data) <= least
    assert np.array_equal(codec.decompress(found.data), found.picture)
    squares = [
        np.square(one.picture.astype(float) - pixels).mean(2)[mask].mean()
        for one in (found, codec.compress(pixels, 0.0))
    ]
    assert squares[0] < squares[1]


def test_a_region_that_cannot_be_is_an_error():
    pixels = picture(64, 64)
    with pytest.raises(InputError, match="one quality for all pixels"):
        tiny("raster").compress(pixels, None, Region(square(64, 64), 2.0))
    with pytest.raises(InputError, match="64x64 pixels"):
        tiny("gained").compress(pixels, 0.5, Region(square(64, 60), 2.0))
    codec = tiny("gained")
    coded = unpack(codec.compress(pixels, 0.3, Region(square(64, 64), 8.0)).data)
    for cells in (
        zlib.compress(bytes(15)),
        zlib.compress(bytes(1 << 20)),
        b"",
        coded.streams[0][:-1],
    ):
        with pytest.raises(InputError, match="a stream is damaged"):
            codec.decompress(pack(replace(coded, streams=[cells, *coded.streams[1:]])))


# Windows


@pytest.mark.parametrize("shift", [0, 3])
def test_window_attention_is_attention_with_a_mask(shift):
    """Against the attention of the whole map, where only cells of the same window are seen."""
    torch.manual_seed(0)
    height, width, channels, heads = 2 * WINDOW, 3 * WINDOW, 12, 3
    module = WindowAttention(channels, heads, shift).double()
    module.biases.data.normal_()
    x = torch.randn(2, height, width, channels, dtype=torch.float64)
    rows, columns = (
        one.flatten()
        for one in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    )
    # The borders of the windows lie `shift` cells further; cells before the first are apart.
    window = 100 * ((rows - shift) // WINDOW) + (columns - shift) // WINDOW
    down, right = rows[:, None] - rows, columns[:, None] - columns
    near = window[:, None] == window
    place = (down + WINDOW - 1) * (2 * WINDOW - 1) + right + WINDOW - 1
    bias = torch.where(
        near, module.biases[:, place.clamp(0, (2 * WINDOW - 1) ** 2 - 1)], -torch.inf
    )
    query, key, value = module.inputs(x.flatten(1, 2)).chunk(3, -1)
    found = []
    for head in range(heads):
        part = slice(head * channels // heads, (head + 1) * channels // heads)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / (channels // heads) ** 0.5
        found.append((scores + bias[head]).softmax(-1) @ value[..., part])
    expected = module.output(torch.cat(found, -1)).view(2, height, width, channels)
    torch.testing.assert_close(module(x), expected)


def test_multiplications_of_swin_blocks_are_counted():
    blocks = swin_blocks(16, 4)
    _, total = run_counting(blocks, torch.zeros(1, 16, 16, 24))
    # Query, key, value and output; twice 64 cells of a window; the network of 32 channels.
    assert total == 2 * 16 * 24 * (4 * 16 * 16 + 2 * 64 * 16 + 2 * 16 * 32)


def test_swin_blocks_cost_as_much_as_the_convolutions_that_they_are_compared_with():
    swin, plain = describe("swin-roi/small"), describe("ablation/swin-roi-convolutions")
    assert swin.encoder_kmac == pytest.approx(plain.encoder_kmac, rel=0.02)
    assert swin.decoder_kmac == pytest.approx(plain.decoder_kmac, rel=0.02)


# The codec whose decoder finds the region


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("size", [(17, 33), (64, 130)])
def test_a_region_that_the_encoder_is_told_comes_back(sent, size):
    torch.manual_seed(2)
    model = SwinRoi(8, 8, 12, sent=sent)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.02)
    codec = Codec(model, "swin-roi")
    pixels = picture(*size)
    for region in (None, Region(square(*size), 8.0)):
        result = codec.compress(pixels, 0.3, region)
        assert np.array_equal(codec.decompress(result.data), result.picture)
        assert len(unpack(result.data).streams) == 2 + sent
    plain = codec.compress(pixels, 0.3)
    assert len(result.data) > len(plain.data)


def test_layers_are_guided_by_the_weights_where_they_may_be():
    torch.manual_seed(0)
    x, quality = torch.rand(1, 3, 64, 64), torch.tensor([0.2])
    weights = torch.ones(1, 64, 64)
    weights[:, :32, :32] = 8.0
    for guided in (True, False):
        model = SwinRoi(8, 8, 12, guided=guided)
        model.analysis.last.weight.data.normal_()
        for part in (model.analysis.early, model.analysis.late):
            last: Any = part.network[-1]
            last.weight.data.normal_()
        plain, flat = model.latent_of(x, quality, torch.ones_like(weights))
        told, cells = model.latent_of(x, quality, weights)
        assert (cells - 0.2 > 0.1).any() == guided
        assert flat.unique().numel() == 1
        assert torch.equal(plain, told) != guided


def test_modulation_starts_as_nothing_and_multiplies_and_adds():
    module, x, guide = Modulation(5), torch.randn(2, 5, 3, 4), torch.rand(2, 1, 3, 4)
    assert torch.equal(module(x, guide), x)
    last: Any = module.network[-1]
    last.bias.data[:5] = 0.5
    last.bias.data[5:] = -2.0
    torch.testing.assert_close(module(x, guide), 1.5 * x - 2)


@torch.no_grad()
def test_the_loss_weighs_the_error_of_each_pixel():
    model = SwinRoi(8, 8, 12, sent=True)
    x = torch.rand(2, 3, 64, 64)
    torch.manual_seed(3)
    loss, figures = model.objective(x, 0.0, Moment(0, 1))
    torch.manual_seed(3)
    quality, weights = torch.rand(2), random_weights(2, 64, 64)
    output, _ = model.code(x, quality, weights)
    low, high = model.lambdas
    expected = 0.0
    for n in range(2):
        error = 255**2 * (output.x_hat[n] - x[n]).square().mean(0)
        bits = sum(float(stream[n]) for stream in output.bits.values()) / 64**2
        trade_off = low * (high / low) ** float(quality[n])
        cost = trade_off * float((weights[n] * error).mean()) + bits
        expected += cost * ((low * high) ** 0.5 / trade_off) ** 0.5 / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert figures["loss"] == pytest.approx(expected, rel=1e-4)


def test_random_weights_have_regions_of_many_kinds():
    torch.manual_seed(0)
    weights = random_weights(300, 64, 64)
    inside = (weights > 1).float().mean((1, 2))
    assert 0.05 < float((inside == 0).float().mean()) < 0.25
    assert 0.01 < float((inside == 1).float().mean()) < 0.1
    assert float(weights.min()) == 1
    assert 32 < float(weights.max()) <= 64


@torch.no_grad()
def test_the_encoder_takes_the_qualities_that_the_decoder_finds():
    """A finer quality found is a finer quantiser, not a latent of another size."""
    x = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    pixels = (255 * x[0]).round().to(torch.uint8)
    weights = torch.ones(64, 64)
    errors, in_training = [], []
    for offset in (0.0, 0.4):
        torch.manual_seed(0)
        model = SwinRoi(8, 8, 48)
        last: Any = model.guess[-1]
        last.bias.data[:] = offset
        coder = model.eval().coder()
        streams, decoded = coder.encode(pixels, 0.3, weights)
        assert torch.equal(coder.decode(streams, 64, 64, 0.3), decoded)
        errors.append(float((decoded.float() - pixels).square().mean()))
        output = model.code(x, torch.tensor([0.3]), weights[None])[0]
        in_training.append(float((output.x_hat - x).square().mean()))
    assert errors[1] < 1.05 * errors[0]
    assert in_training[1] < 1.05 * in_training[0]
