"""The blocks of the systems by Fu et al. against formulas and slow references."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from torch.nn import functional

from vpxrc.codecs.deformable import (
    OFFSET_RATE,
    DeformableConv2d,
    deformable_conv2d,
    deformable_residual,
)
from vpxrc.codecs.layers import bottleneck
from vpxrc.codecs.model import Moment, TransformModel, squared_error
from vpxrc.codecs.papers.asymmetric import (
    FilteredModel,
    ImportanceMap,
    MultiScaleResidual,
    PostQuantFilter,
    WeightedAnalysis,
    asymmetric,
)
from vpxrc.codecs.papers.improved_checkerboard import improved_checkerboard


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Deformable convolution


def slow_deformable(x, offsets, weight, bias):
    """One number at a time, as in the paper's equations 2 to 4."""
    channels, height, width = x.shape
    result = np.zeros((len(weight), height, width))

    def value(channel, row, column):
        total = 0.0
        for r, c in itertools.product(range(height), range(width)):
            share = max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c))
            total += share * x[channel, r, c]
        return total

    for row, column in itertools.product(range(height), range(width)):
        for tap in range(9):
            down, right = offsets[2 * tap : 2 * tap + 2, row, column]
            at = row + tap // 3 - 1 + down, column + tap % 3 - 1 + right
            for channel in range(channels):
                share = weight[:, channel, tap // 3, tap % 3]
                result[:, row, column] += share * value(channel, *at)
    return result + bias[:, None, None]


@pytest.mark.parametrize("size", [(4, 5), (1, 1), (1, 3)])
def test_deformable_convolution_is_the_slow_one(size):
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    offsets = torch.randn(2, 18, *size, dtype=torch.float64) * 2  # some of them lead outside
    weight, bias = torch.randn(3, 2, 3, 3).double(), torch.randn(3).double()
    found = deformable_conv2d(x, offsets, weight, bias)
    for one in range(2):
        parts = (part.numpy() for part in (x[one], offsets[one], weight, bias))
        np.testing.assert_allclose(found[one], slow_deformable(*parts), atol=1e-12)


def test_gradients_of_the_deformable_convolution_are_those_of_finite_differences():
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    # Off the whole numbers, where a bilinear mean has no derivative.
    offsets = (torch.rand(1, 18, 3, 4, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(deformable_conv2d, (x, offsets, weight, bias))


def test_a_deformable_layer_begins_as_a_plain_one_and_learns_its_offsets_slowly():
    layer: Any = DeformableConv2d(4)
    x = torch.randn(2, 4, 6, 5)
    plain = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    assert torch.allclose(layer(x), plain, atol=1e-4)
    layer.offset.bias.data.fill_(1 / OFFSET_RATE)  # one cell down and right
    shifted = functional.conv2d(functional.pad(x, (1, 2, 1, 2))[:, :, 1:, 1:], layer.weight)
    assert torch.allclose(layer(x), shifted + layer.bias[:, None, None], atol=1e-4)
    layer.offset.bias.data.fill_(3.0)
    layer(x).square().sum().backward()
    assert layer.offset.weight.grad.abs().sum() > 0
    block: Any = deformable_residual(4)
    inner = functional.leaky_relu(block.body[0](x), 0.2)
    inner = functional.leaky_relu(block.body[2](inner), 0.2)
    assert torch.equal(block(x), x + block.body[4](inner))


# The asymmetric codec


def test_multi_scale_block_is_its_figure():
    block: Any = MultiScaleResidual(4)
    v = torch.randn(1, 4, 6, 6)

    def branch(part, t):
        first, _, middle, _, last = part.body
        kernel = middle.weight.shape[-1]
        inner = functional.conv2d(
            functional.conv2d(t, first.weight, first.bias).relu(),
            middle.weight,
            middle.bias,
            padding=kernel // 2,
        )
        return t + functional.conv2d(inner.relu(), last.weight, last.bias)

    assert [one.body[2].weight.shape[-1] for one in block.first] == [3, 5]
    assert [one.body[2].weight.shape[-1] for one in block.second] == [3, 5]
    p1, p2 = (branch(part, v) for part in block.first)
    a = block.exchange[0](torch.cat([p1, p2], 1))
    b = block.exchange[1](torch.cat([p2, p1], 1))
    q = [branch(part, t) for part, t in zip(block.second, (a, b), strict=True)]
    assert torch.allclose(block(v), v + block.merge(torch.cat(q, 1)), atol=1e-6)
    assert not block.exchange[0][1].inverse
    assert bottleneck(8)(v.repeat(1, 2, 1, 1)).shape == (1, 8, 6, 6)


@torch.no_grad()
def test_importance_map_lies_within_a_half_and_scales_the_latent():
    maps = ImportanceMap(4)
    features = torch.randn(1, 4, 8, 8) * 30
    found = maps(features)
    assert found.shape == (1, 4, 4, 4)
    assert float(found.abs().max()) < 0.5
    t = math.tanh(float(maps.blocks(maps.start(features))[0, 1, 2, 3]))
    assert float(found[0, 1, 2, 3]) == pytest.approx(t / (1 + abs(t)), abs=1e-6)
    plain = asymmetric(8, importance=False).analysis
    weighted = asymmetric(8).analysis
    weighted.load_state_dict(plain.state_dict(), strict=False)
    assert isinstance(weighted, WeightedAnalysis)
    assert weighted.importance is not None
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(weighted(x), plain(x) * weighted.importance(weighted.body(x)))


def test_filter_starts_as_nothing_sees_its_channel_alone_and_has_a_loss_at_first():
    filter_: Any = PostQuantFilter(3)
    y = torch.randn(1, 3, 5, 5)
    assert torch.equal(filter_(y), y)
    torch.nn.init.normal_(filter_.body[0].weight)
    other = y.clone()
    other[:, 1] += 1
    changed = (filter_(other) != filter_(y)).flatten(2).any(2)[0]
    assert changed.tolist() == [False, True, False]
    model: Any = asymmetric(8)
    assert isinstance(model, FilteredModel)
    restoration: Any = next(model.synthesis.children())
    x = torch.rand(2, 3, 64, 64)

    def losses(step, steps):
        torch.manual_seed(3)
        return float(model.objective(x, 0.01, Moment(step, steps))[0].detach())

    assert losses(0, 10) == losses(1, 10) > losses(2, 10) == losses(9, 10)
    assert losses(19_999, 10**6) > losses(20_000, 10**6)
    coded = model.code(x)
    own = (restoration(coded.y_hat) - coded.y).square().mean().detach()
    assert losses(0, 10) - losses(9, 10) == pytest.approx(float(own), abs=1e-4)


def test_a_trained_filter_restores_what_rounding_took():
    """A smooth latent with small values: neighbours tell what rounding has hidden."""
    filter_ = PostQuantFilter(2)
    optimizer = torch.optim.Adam(filter_.parameters(), 0.05)
    kernel = torch.ones(2, 1, 5, 5) / 5

    def latents():
        return functional.conv2d(torch.randn(2, 2, 20, 20), kernel, groups=2) * 0.6

    for _ in range(60):
        y = latents()
        optimizer.zero_grad()
        (filter_(y.round()) - y).square().mean().backward()
        optimizer.step()
    y = latents()
    before = float((y.round() - y).square().mean())
    after = float((filter_(y.round()) - y).square().mean().detach())
    assert after < 0.8 * before


@pytest.mark.parametrize(("blocks", "kmac"), [(0, 133), (1, 163), (3, 289)])
def test_cost_of_the_decoder_by_its_blocks(blocks, kmac):
    from vpxrc.codecs.model import run_counting

    with torch.device("meta"):
        model = asymmetric(128, decoder_blocks=blocks)
        latent = torch.zeros(1, 128, 4, 4)
    _, found = run_counting(model.synthesis, latent)
    assert found / 64**2 / 1000 == pytest.approx(kmac, rel=0.02)


# The improved checkerboard


def test_the_norm_of_the_latent_is_in_the_loss():
    model = improved_checkerboard(8, sparsity=5.0)
    without = improved_checkerboard(8, sparsity=0.0)
    without.load_state_dict(model.state_dict())
    x = torch.rand(2, 3, 64, 64)
    losses = []
    for one in (model, without):
        torch.manual_seed(5)
        losses.append(float(one.objective(x, 0.01, Moment(0, 1))[0].detach()))
    norm = model.analysis(x).abs().sum().detach() / (2 * 64 * 64)
    assert losses[0] - losses[1] == pytest.approx(5 * float(norm), abs=1e-4)
    assert isinstance(model, TransformModel)
    assert float(squared_error(x, x).sum()) == 0


@torch.no_grad()
def test_the_first_pass_has_a_network_and_a_family_of_its_own():
    latent: Any = improved_checkerboard(8).latent
    y, side = torch.randn(1, 8, 4, 6), torch.randn(1, 16, 4, 6)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    blind = (rows + columns) % 2 == 1

    def likelihoods():
        """Return -log2 of each value, from bits of one value at a time."""
        torch.manual_seed(0)
        noisy = y + torch.rand_like(y) - 0.5
        first = latent.y.first_family.likelihood(noisy, latent.y.first_network(side))
        features = torch.cat([latent.y.context(noisy), side], 1)
        rest = latent.y.family.likelihood(noisy, latent.y.network(features))
        return torch.where(blind, first, rest)

    torch.manual_seed(0)
    y_hat, found = latent.y(y, side)
    assert float(found) == pytest.approx(float(-likelihoods().log2().sum()), rel=1e-5)
    assert torch.equal(y_hat, y.round())
    assert latent.y.first_family.parameters == 30
    assert latent.y.family.parameters == 9
