"""The parts of learned codecs against formulas, plain convolutions and scipy."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.signal
import scipy.special
import scipy.stats

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from torch.nn import functional

from vpxrc.codecs.channel_mask import ChannelMask
from vpxrc.codecs.coder import Decoder, Encoder, Indexed, information
from vpxrc.codecs.contexts import Checkerboard, Raster, all_cells, padded
from vpxrc.codecs.enhancement import (
    Enhancement,
    coefficients,
    quantize,
    residual_of,
    step_index,
    step_of,
)
from vpxrc.codecs.entropy import (
    LAPLACE,
    LOGISTIC,
    NORMAL,
    FactorizedPrior,
    Gaussian,
    Mixture,
)
from vpxrc.codecs.exact import STEP, exact, exact_pointwise, snap
from vpxrc.codecs.frequencies import (
    CDF_BITS,
    TOTAL,
    Mixtures,
    Table,
    frequencies,
    laplace_cdf,
    logistic_cdf,
    normal_cdf,
    scale_index,
    scale_of,
    scale_tables,
)
from vpxrc.codecs.latents import ConditionalLatent, pointwise
from vpxrc.codecs.layers import (
    GDN,
    Correction,
    EverySecond,
    concatenated_residual_block,
    lower_bound,
)
from vpxrc.codecs.octave import (
    GoConv,
    GoConvFirst,
    GoTransposedConv,
    GoTransposedConvLast,
    Octave,
    Width,
)
from vpxrc.codecs.octave_transforms import (
    OctavePatchAnalysis,
    OctavePatchSynthesis,
    haar,
    inverse_haar,
    leaky_block,
    patch_width,
)
from vpxrc.codecs.picture_quality import ms_ssim, psnr
from vpxrc.codecs.quantizers import (
    Distortion,
    add_noise,
    distortion,
    stochastic_round,
    straight_through,
)
from vpxrc.codecs.transforms import dct_analysis, hyper_synthesis
from vpxrc.errors import EncoderError, InputError


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Layers


def test_gdn_is_its_formula():
    layer, inverse = GDN(3), GDN(3, inverse=True)
    with torch.no_grad():
        layer.gamma_root.copy_(torch.rand(3, 3))
        layer.beta_root.copy_(torch.rand(3) + 0.5)
        inverse.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 4, 5)
    gamma = (layer.gamma_root**2 - 2.0**-36).detach().numpy()
    beta = (layer.beta_root**2 - 2.0**-36).detach().numpy()
    norm = np.sqrt(beta[None, :, None, None] + np.einsum("ij,bjhw->bihw", gamma, x.numpy() ** 2))
    np.testing.assert_allclose(layer(x).detach(), x.numpy() / norm, rtol=1e-5)
    np.testing.assert_allclose(inverse(x).detach(), x.numpy() * norm, rtol=1e-5)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_of_gdn_are_those_of_finite_differences_and_of_autograd(inverse):
    torch.manual_seed(0)
    gdn = GDN(3, inverse).double()
    with torch.no_grad():
        gdn.gamma_root.add_(0.1 * torch.rand(3, 3))
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)

    def whole(x, beta_root, gamma_root):
        weights = {"beta_root": beta_root, "gamma_root": gamma_root}
        return torch.func.functional_call(gdn, weights, (x,))

    weights = gdn.beta_root, gdn.gamma_root
    assert torch.autograd.gradcheck(whole, (x, *weights))

    def plain(x):
        beta, gamma = (one.square() for one in weights)
        norm = torch.einsum("ij,bjhw->bihw", gamma, x * x) + beta[:, None, None]
        return x * norm.sqrt() if inverse else x / norm.sqrt()

    grad = torch.randn_like(x)
    ours, theirs = (torch.autograd.grad(f(x), (x, *weights), grad) for f in (gdn, plain))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-9)


def test_a_bound_lets_gradients_back_in():
    x = torch.tensor([0.0, 0.0, 2.0], requires_grad=True)
    (lower_bound(x, 1.0) * torch.tensor([-1.0, 1.0, 1.0])).sum().backward()
    assert x.grad.tolist() == [-1.0, 0.0, 1.0]


def test_octave_convolution_is_four_plain_convolutions():
    layer = GoConv(Width(3, 2), Width(4, 5), 5, 2, lambda channels: torch.nn.LeakyReLU(0.2))
    x = Octave(torch.randn(2, 3, 16, 24), torch.randn(2, 2, 8, 12))

    def act(t):
        return torch.where(t < 0, 0.2 * t, t)

    def plain(part, t, padding=2):
        return act(functional.conv2d(t, part[0].weight, part[0].bias, 2, padding))

    high, low = plain(layer.high, x.high), plain(layer.low, x.low)
    up: Any = layer.up[0]
    raised = act(functional.conv_transpose2d(low, up.weight, up.bias, 2, 1, 1))
    made = layer(x)
    assert torch.equal(made.high, high + raised)
    assert torch.equal(made.low, low + plain(layer.down, high, 1))
    assert made.high.shape == (2, 4, 8, 12)
    assert made.low.shape == (2, 5, 4, 6)
    first = GoConvFirst(3, Width(4, 5), 5, 2, lambda channels: torch.nn.LeakyReLU(0.2))
    start = first(x.high)
    assert torch.equal(start.high, plain(first.high, x.high))
    assert torch.equal(start.low, plain(first.down, start.high, 1))


def test_transposed_octave_convolution_is_four_plain_convolutions():
    def make(kind, out):
        return kind(Width(3, 2), out, 5, 2, lambda channels: torch.nn.LeakyReLU(0.2))

    def act(t):
        return torch.where(t < 0, 0.2 * t, t)

    def raised(one, t):
        padding = one.weight.shape[-1] // 2
        return functional.conv_transpose2d(t, one.weight, one.bias, 2, padding, 1)

    x = Octave(torch.randn(2, 3, 8, 12), torch.randn(2, 2, 4, 6))
    layer = make(GoTransposedConv, Width(4, 5))
    high, low = raised(layer.high[1], act(x.high)), raised(layer.low[1], act(x.low))
    lower: Any = layer.down[1]
    down = functional.conv2d(act(high), lower.weight, lower.bias, 2, 1)
    made = layer(x)
    assert torch.equal(made.high, high + raised(layer.up[1], act(low)))
    assert torch.equal(made.low, low + down)
    last = make(GoTransposedConvLast, 3)
    whole = raised(last.high[1], act(x.high))
    whole = whole + raised(last.low[2], raised(last.low[1], act(x.low)))
    assert torch.equal(last(x), whole)
    assert last(x).shape == (2, 3, 16, 24)


def test_haar_is_a_hadamard_matrix_of_each_square():
    y = torch.randn(2, 3, 4, 6)
    squares = functional.pixel_unshuffle(y, 2).view(2, 3, 4, 2, 3)
    matrix = torch.from_numpy(scipy.linalg.hadamard(4)).float() / 2
    by_hand = torch.einsum("ij,bcjhw->bichw", matrix, squares).flatten(1, 2)
    assert torch.allclose(haar(y), by_hand, atol=1e-6)
    assert torch.allclose(inverse_haar(haar(y)), y, atol=1e-6)


def test_octave_patch_transforms_start_as_a_transform_of_blocks_and_its_inverse():
    analysis = OctavePatchAnalysis(Width(4, 4), Width(6, 6), 768, 60, leaky_block)
    synthesis = OctavePatchSynthesis(Width(4, 4), Width(6, 6), 768, 60, leaky_block)
    x = torch.rand(1, 3, 64, 96)
    y = analysis(x)
    assert y.high.shape == (1, 708, 4, 6)
    assert y.low.shape == (1, 240, 2, 3)
    assert patch_width(768, 60) == (708, 240)
    assert torch.allclose(synthesis(y), x, atol=1e-5)
    # The sums of brightness over 32x32 samples, which no DCT of ours is needed for.
    luma = dct_analysis(768)(x)[:, 0]
    sums = functional.avg_pool2d(luma, 2)[0] * 2
    assert torch.allclose(y.low[0, 0], sums, atol=1e-4)


def test_concatenated_residual_block_is_that_of_the_authors_code():
    block: Any = concatenated_residual_block(3)
    x = torch.randn(1, 3, 5, 6)

    def pair(part, t):
        for layer in (part.body[0], part.body[2]):
            t = functional.conv2d(t, layer.weight, layer.bias, 1, 1)
            t = torch.where(t < 0, 0.2 * t, t)
        return t

    first, second = block.body
    once = x + pair(first, x)
    twice = once + pair(second, once)
    assert torch.allclose(block(x), x + twice, atol=1e-6)


# Quantisers


@pytest.mark.parametrize("size", [128, 127])
def test_a_convolution_of_every_second_cell_is_one_of_stride_two(size):
    torch.manual_seed(0)
    layer, x = EverySecond(3, 48), torch.randn(4, 3, size, size)
    assert layer.weight.grad is None
    layer(x).square().mean().backward()
    assert layer.weight.grad is not None
    single = layer.weight.grad.clone()
    plain = layer.weight.detach().clone().requires_grad_(True)
    functional.conv2d(x, plain, layer.bias, 2).square().mean().backward()
    assert plain.grad is not None
    torch.testing.assert_close(single, plain.grad)
    # PyTorch's own wrote beyond its memory at this size in half precision, with channels last.
    half = EverySecond(3, 48)
    half.load_state_dict(layer.state_dict())
    half.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = half(x.to(memory_format=torch.channels_last))
    y.float().square().mean().backward()
    assert half.weight.grad is not None
    torch.testing.assert_close(half.weight.grad, single, rtol=0.05, atol=0.01)


def test_quantisers():
    y = torch.full((200_000,), 1.3, requires_grad=True)
    noisy = add_noise(y)
    assert noisy.detach().min() >= 0.8
    assert noisy.detach().max() <= 1.8
    rounded = stochastic_round(y)
    assert set(rounded.detach().unique().tolist()) == {1.0, 2.0}
    assert float(rounded.detach().mean()) == pytest.approx(1.3, abs=0.005)
    assert straight_through(y).detach().unique().tolist() == [1.0]
    (rounded.sum() + 2 * straight_through(y).sum()).backward()
    assert y.grad.unique().tolist() == [3.0]


# Entropy models


def test_gaussian_likelihood_is_scipys():
    y, mean = torch.randn(2, 3, 4, 4) * 3, torch.randn(2, 3, 4, 4)
    raw = torch.randn(2, 3, 4, 4)
    found = Gaussian().likelihood(y, torch.cat([mean, raw], 1))
    scale = np.maximum(raw.exp().numpy(), 0.11)
    upper, lower = (
        scipy.stats.norm.cdf(y.numpy() + side, mean.numpy(), scale) for side in (0.5, -0.5)
    )
    np.testing.assert_allclose(found, upper - lower, atol=2e-6)


SCIPY = {NORMAL: scipy.stats.norm, LAPLACE: scipy.stats.laplace, LOGISTIC: scipy.stats.logistic}
ALL_FAMILIES = (NORMAL, LAPLACE, LOGISTIC)


@pytest.mark.parametrize("families", [(NORMAL,), ALL_FAMILIES])
def test_mixture_likelihood_is_scipys(families):
    family = Mixture(families, 3)
    assert family.parameters == (9 if len(families) == 1 else 30)
    y, parameters = torch.randn(2, 4, 3, 3) * 3, torch.randn(2, 4 * family.parameters, 3, 3)
    parts = parameters.unflatten(1, (family.parameters, 4)).numpy()
    outer = np.exp(parts[:, 27:]) if len(families) > 1 else np.ones((2, 1, 4, 3, 3))
    outer = outer / outer.sum(1, keepdims=True)
    expected = 0.0
    for f, shape in enumerate(families):
        logits, means, raw = (
            parts[:, start : start + 3] for start in (9 * f, 9 * f + 3, 9 * f + 6)
        )
        weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        scales = np.maximum(np.exp(raw), 0.11)
        upper, lower = (
            SCIPY[shape].cdf(y.numpy()[:, None] + side, means, scales) for side in (0.5, -0.5)
        )
        expected = expected + outer[:, f] * (weights * (upper - lower)).sum(1)
    np.testing.assert_allclose(family.likelihood(y, parameters), expected, atol=2e-6)


def test_mixture_of_three_families_is_the_integral_of_its_density():
    """10,000 random distributions, many of them far in a tail, by Gauss-Legendre quadrature."""
    family, rng = Mixture(ALL_FAMILIES, 3), np.random.default_rng(0)
    parameters = torch.from_numpy(rng.normal(0, 2, (10_000, 30, 1, 1)))
    spread = torch.from_numpy(rng.choice([1.0, 5.0, 30.0], (10_000, 1, 1, 1)))
    y = torch.from_numpy(rng.normal(0, 1, (10_000, 1, 1, 1))) * spread
    # Runs whose density bends at a mean of Laplace are cut there.
    parts = parameters[:, :, 0, 0].numpy()
    centre = y[:, 0, 0, 0].numpy()
    bends = parts[:, 9 + 3 : 9 + 6]
    cuts = np.concatenate([bends, np.linspace(-0.5, 0.5, 9) + centre[:, None]], 1)
    cuts = np.sort(cuts.clip(centre[:, None] - 0.5, centre[:, None] + 0.5), 1)
    nodes, shares = np.polynomial.legendre.leggauss(12)
    half = np.diff(cuts, axis=1)[..., None] / 2
    at = (cuts[:, :-1, None] + half) + half * nodes  # [10000, 11, 12]
    outer = scipy.special.softmax(parts[:, 27:], 1)
    density = np.zeros_like(at)
    for f, shape in enumerate(ALL_FAMILIES):
        logits, means, raw = (
            parts[:, start : start + 3] for start in (9 * f, 9 * f + 3, 9 * f + 6)
        )
        weights = outer[:, f, None] * scipy.special.softmax(logits, 1)
        scales = np.exp(raw).clip(0.11, 256)
        for k in range(3):
            place = (at - means[:, k, None, None]) / scales[:, k, None, None]
            part = SCIPY[shape].pdf(place) / scales[:, k, None, None]
            density += weights[:, k, None, None] * part
    integral = (density * half * shares).sum((1, 2))
    found = family.likelihood(y, parameters).flatten()
    assert ((integral < 1e-6).sum(), (integral > 0.1).sum()) > (100, 100)
    np.testing.assert_allclose(found, integral, rtol=1e-6, atol=1e-13)
    # Single precision is what a training has.
    single = family.likelihood(y.float(), parameters.float()).flatten()
    np.testing.assert_allclose(single, integral, rtol=1e-3, atol=1e-6)


def test_factorized_prior_is_a_distribution():
    prior = FactorizedPrior(4).double()
    with torch.no_grad():
        for factor in prior.factors:
            factor.copy_(torch.randn_like(factor))
    x = torch.linspace(-60, 60, 24_001, dtype=torch.float64).expand(4, -1)
    cdf = prior.logits(x).detach().sigmoid()
    assert (cdf.diff(dim=1) > 0).all()
    # The likelihood of a cell is the integral of the density over it.
    density = torch.gradient(cdf, spacing=0.005, dim=1)[0]
    found = prior.likelihood(torch.zeros(1, 4, 1, 1, dtype=torch.float64))
    middle = density[:, 11_900:12_101]
    integral = torch.trapezoid(middle, dx=0.005, dim=1)
    np.testing.assert_allclose(found.detach().flatten(), integral, rtol=1e-4)
    whole = torch.arange(-200.0, 201).double().expand(1, 4, 1, -1)
    np.testing.assert_allclose(prior.likelihood(whole).sum(-1).detach(), 1, atol=1e-3)
    for row, table in enumerate(prior.tables()):
        numbers = torch.arange(table.lowest, table.lowest + table.count).double()
        expected = prior.likelihood(numbers.expand(1, 4, 1, -1))[0, row, 0].detach()
        np.testing.assert_allclose(table.frequencies[:-1] / TOTAL, expected, atol=1e-4)


# Frequencies


def test_frequencies_are_positive_and_complete():
    rng = np.random.default_rng(0)
    for cells in (1, 2, 7, 300):
        cdf = torch.from_numpy(np.sort(rng.integers(0, 2**CDF_BITS + 1, (50, cells + 1)), axis=1))
        found = frequencies(cdf)
        assert (found >= 1).all()
        assert (found.sum(1) == TOTAL).all()
        outside = 1 - (cdf[:, -1] - cdf[:, 0]) / 2**CDF_BITS
        np.testing.assert_allclose(found[:, -1] / TOTAL, outside, atol=1e-4)
    assert frequencies(torch.tensor([0, 0, 1 << CDF_BITS])).tolist() == [1, TOTAL - 2, 1]


@pytest.mark.parametrize(
    ("cdf", "reference"),
    [
        (normal_cdf, scipy.stats.norm),
        (laplace_cdf, scipy.stats.laplace),
        (logistic_cdf, scipy.stats.logistic),
    ],
)
def test_scale_tables_are_scipys(cdf, reference):
    for index in (0, 1, 30, 63):
        table, scale = scale_tables(cdf)[index], scale_of(index)
        numbers = np.arange(table.lowest, table.lowest + table.count)
        expected = reference.cdf((numbers + 0.5) / scale) - reference.cdf((numbers - 0.5) / scale)
        np.testing.assert_allclose(table.frequencies[:-1] / TOTAL, expected, atol=1e-6, rtol=1e-3)
    assert scale_of(0) == 0.11
    assert scale_of(63) == pytest.approx(256)
    indices = torch.arange(64)
    logs = torch.tensor([math.log(scale_of(int(index))) for index in indices])
    assert torch.equal(scale_index(logs), indices)


@pytest.mark.parametrize("families", [(NORMAL,), ALL_FAMILIES])
def test_mixture_tables_are_scipys(families):
    count, n = len(families), 60
    outer, logits = torch.randn(count, n), torch.randn(count, 3, n)
    log_scales = torch.randn(count, 3, n)
    means = (torch.randn(count, 3, n) * 48).round() / 16
    means[:, 0, :5] = 300.0  # so far away that nothing is left in the table
    means[:, 1, 5:10] = -90.0
    mixtures = Mixtures([one.cdf for one in families], outer, logits, means, log_scales)
    table, centre = mixtures.tables(torch.arange(n), 32), mixtures.centre.numpy()

    def softmax(logits, axis):
        # On the grid of the logits.
        return scipy.special.softmax((logits - logits.amax(axis, True)).mul(16).round() / 16, axis)

    weights = (softmax(outer, 0)[:, None] * softmax(logits, 1))[..., None]
    scales = np.vectorize(scale_of)(scale_index(log_scales).numpy())[..., None]
    numbers = np.arange(-32, 33) + centre[:, None]
    expected = np.zeros(numbers.shape)
    for f, shape in enumerate(families):
        upper, lower = (
            SCIPY[shape].cdf(numbers + side, means[f].numpy()[..., None], scales[f])
            for side in (0.5, -0.5)
        )
        expected += (weights[f] * (upper - lower)).sum(0)
    np.testing.assert_allclose(table.frequencies[10:, :-1] / TOTAL, expected[10:], atol=1e-3)
    # Beyond 66 from a mean the distribution function stands still.
    far = np.abs(expected[:10] - table.frequencies[:10, :-1].numpy() / TOTAL)
    assert far.max() < 0.01
    whole = (weights[..., 0] * means.numpy()).sum((0, 1))
    assert np.abs(centre - whole)[10:].max() < 0.51
    places = []
    for which, some in mixtures.groups():
        places += which.tolist()
        # The same cells; what a smaller table leaves out is rare.
        middle = table.frequencies[which, 32 + some.lowest : 33 - some.lowest]
        assert (some.frequencies[:, :-1] - middle).abs().max() < 64
        if some.lowest > -32:
            assert some.frequencies[:, -1].max() < 2 * 10 * 2**-12 * TOTAL
    assert sorted(places) == list(range(n))


# The coder


class Rows:
    """Distributions of symbols that have one each."""

    def __init__(self, table):
        self.table = table

    def groups(self):
        yield torch.arange(len(self.table.frequencies)), self.table


def test_coder_returns_what_it_was_given_tails_included():
    tables = scale_tables(normal_cdf)
    index = torch.randint(64, (5000,))
    symbols = (torch.randn(5000) * torch.tensor([scale_of(int(i)) for i in index])).round().long()
    symbols[::100] = torch.randint(-2_000_000, 2_000_000, (50,))
    symbols[7], symbols[8] = tables[index[7]].count + tables[index[7]].lowest, 0
    rows = torch.randint(1, 100, (3, 9))
    rows[:, -1] += TOTAL - rows.sum(1)
    more = torch.tensor([-4, 3, 900])
    encoder = Encoder()
    encoder.add(symbols, Indexed(index, tables))
    encoder.add(more, Rows(Table(-4, rows)))
    decoder = Decoder(encoder.finish())
    assert torch.equal(decoder.take(5000, Indexed(index, tables)), symbols)
    assert torch.equal(decoder.take(3, Rows(Table(-4, rows))), more)
    decoder.finish()


def test_coder_has_bounds():
    table = Indexed(torch.zeros(1, dtype=torch.int64), scale_tables(normal_cdf))
    with pytest.raises(EncoderError, match="too large"):
        Encoder().add(torch.tensor([1 << 23]), table)
    with pytest.raises(InputError, match="length"):
        Decoder(b"abc")
    decoder = Decoder(bytes(range(1, 101)))
    with pytest.raises(InputError, match="goes on"):
        decoder.finish()


def test_entropy_is_reached():
    table = scale_tables(normal_cdf)[40]
    shares = table.frequencies[:-1].double() / table.frequencies[:-1].sum()
    symbols = torch.multinomial(shares, 20_000, replacement=True) + table.lowest
    encoder = Encoder()
    encoder.add(symbols, Indexed(torch.full((20_000,), 40), scale_tables(normal_cdf)))
    ideal = -(table.frequencies[symbols - table.lowest] / TOTAL).log2().sum()
    assert 8 * len(encoder.finish()) == pytest.approx(float(ideal), rel=1e-3)


# Exact networks


def test_exact_results_do_not_depend_on_the_order_of_sums():
    network = hyper_synthesis(16, 24)
    precise = exact(network)
    z = snap(torch.randn(1, 16, 3, 5) * 5)
    result = precise(z)
    np.testing.assert_allclose(result, network(z.float()).detach(), atol=0.02)
    assert torch.equal((result / STEP).round() * STEP, result)
    first: Any = precise[0]
    order = torch.randperm(16)
    with torch.no_grad():
        first.weight.copy_(first.weight[order])
    assert torch.equal(precise(z[:, order]), result)
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        assert torch.equal(precise(z[:, order]), result)
    torch.set_num_threads(threads)


def test_exact_networks_of_single_cells_are_the_exact_convolutions():
    network = pointwise(12, (20, 30), 8)
    x = snap(torch.randn(1, 12, 7, 1) * 5)
    whole = exact(network)(x)[0, :, :, 0]
    fast = exact_pointwise(network)
    assert torch.equal(fast(x[0, :, :, 0]), whole)
    few = torch.tensor([1, 6])
    assert torch.equal(fast.only(few)(x[0, :, :, 0]), whole[few])
    corrected = Correction(network, 12, 8)
    fast = exact_pointwise(corrected)
    assert torch.equal(fast(x[0, :, :, 0]), whole + x[0, 4:, :, 0])
    assert torch.equal(fast.only(few)(x[0, :, :, 0]), whole[few] + x[0, 4 + few, :, 0])
    assert torch.equal(exact(corrected)(x)[0, :, :, 0], whole + x[0, 4:, :, 0])
    with pytest.raises(ValueError, match="one cell"):
        exact_pointwise(torch.nn.Conv2d(1, 1, 3))


def test_what_cannot_be_exact_is_refused():
    with pytest.raises(ValueError, match="products"):
        exact(torch.nn.Conv2d(400, 1, 5))
    with pytest.raises(ValueError, match="GDN"):
        exact(GDN(3))


# Contexts


@pytest.mark.parametrize("kind", [Checkerboard, Raster])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (5, 8)])
def test_a_pass_sees_only_the_passes_before_it(kind, size):
    context = exact(kind(3))
    read, y = context.reader(), snap(torch.randn(3, *size))
    passes = context.passes(*size)
    rows, columns = (torch.cat(parts) for parts in zip(*passes, strict=True))
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [
        (row, column) for row in range(size[0]) for column in range(size[1])
    ]
    whole = context(y[None])[0]
    known = torch.zeros_like(y)
    for cells in passes:
        if len(cells[0]):
            # All that is not coded yet is zero here, and the features are the same.
            features = snap(read(padded(known), cells))
            assert torch.equal(features, whole[:, cells[0], cells[1]])
        known[:, cells[0], cells[1]] = y[:, cells[0], cells[1]]


def test_number_of_passes():
    assert len(Raster(1).passes(32, 48)) == 48 + 3 * 31
    assert [len(rows) for rows, _ in Checkerboard(1).passes(5, 7)] == [17, 18]
    first = Checkerboard(1).passes(3, 3)[0]
    assert list(zip(*(part.tolist() for part in first), strict=True)) == [
        (0, 1),
        (1, 0),
        (1, 2),
        (2, 1),
    ]
    assert len(all_cells(3, 4)[0]) == 12


def test_taps():
    assert Checkerboard(1).conv.taps.sum() == 12
    assert Raster(1).conv.taps.flatten().tolist() == [1.0] * 12 + [0.0] * 13
    context = Checkerboard(2)
    assert (context(torch.zeros(1, 2, 4, 4))[0, :, 0, 1] == 0).all()  # no bias at anchors
    assert (context(torch.zeros(1, 2, 4, 4))[0, :, 0, 0] == context.conv.bias).all()


# Channels that are zero


def test_flags_of_channels():
    mask = ChannelMask(torch.tensor([True, False, False, False, False, False, False, True, True]))
    assert mask.kept.tolist() == [0, 7, 8]
    assert mask.pack() == bytes([0b10000001, 0b10000000])
    again, rest = ChannelMask.unpack(mask.pack() + b"abc", 9)
    assert again.kept.tolist() == [0, 7, 8]
    assert again.channels == 9
    assert rest == b"abc"
    with pytest.raises(InputError, match="ends in the flags"):
        ChannelMask.unpack(b"a", 9)
    with pytest.raises(InputError, match="do not exist"):
        ChannelMask.unpack(bytes([255, 0b11000000]), 9)


@pytest.mark.parametrize("context", [None, Raster, Checkerboard])
@torch.no_grad()
def test_channels_that_are_zero_cost_a_bit_each(context):
    family = Mixture([NORMAL, LAPLACE], 2)
    features = 16 if context is None else 32
    network = pointwise(features, (20,), 8 * family.parameters, bias=False)
    latent = ConditionalLatent(family, context and context(8), network, skip_zeros=True)
    y, side = torch.randn(8, 6, 9) * 4, snap(torch.randn(16, 6, 9))
    y[[1, 2, 6]] *= 0.01
    coder = latent.coder()
    stream, decoded = coder.encode(y, side)
    assert torch.equal(decoded, y.double().round())
    assert torch.equal(coder.decode(stream, side, 8), decoded)
    assert stream[0] == 0b10011101
    latent.skip_zeros = False
    plain, same = latent.coder().encode(y, side)
    assert torch.equal(same, decoded)
    assert len(stream) < len(plain)
    latent.skip_zeros = True
    nothing, zeros = coder.encode(y * 0.01, side)
    assert nothing == b"\0"
    assert torch.equal(coder.decode(nothing, side, 8), zeros)


# Rate-distortion optimised quantisation


def test_information_is_what_the_coder_writes():
    torch.manual_seed(0)
    tables = scale_tables(normal_cdf)
    index = torch.randint(0, len(tables), (20_000,))
    scales = torch.tensor([scale_of(one) for one in index.tolist()])
    symbols = (torch.randn(20_000) * scales).round().long()
    symbols[::50] += torch.randint(-5_000, 5_000, (400,))  # escapes
    encoder = Encoder()
    encoder.add(symbols, Indexed(index, tables))
    told = information(symbols, Indexed(index, tables))
    assert float(told.min()) > 0
    assert 8 * len(encoder.finish()) == pytest.approx(float(told.sum()), abs=64, rel=1e-3)


@torch.no_grad()
def test_distortion_is_the_squared_error_of_a_linear_synthesis():
    torch.manual_seed(0)
    synthesis = torch.nn.ConvTranspose2d(5, 3, 4, 4)
    x, y = torch.rand(1, 3, 8, 12), torch.randn(1, 5, 2, 3)
    weight = torch.zeros(8, 12)
    weight[:5, :9] = 7.0
    norms = synthesis.weight.square().sum((1, 2, 3))[:, None, None]
    found = distortion(synthesis, x, y, weight, norms)
    everything = torch.arange(5), *all_cells(2, 3)
    none = found.cost(y[0].flatten(1), *everything)
    assert not none.any()

    def error(latent):
        return float((weight * (synthesis(latent) - x).square()).sum())

    # A cell that is wholly in the picture: the exact change of the error.
    moved = y.clone()
    moved[0, 3, 0, 1] += 2.0
    cost = found.cost(moved[0].flatten(1), *everything)
    assert float(cost.sum()) == pytest.approx(error(moved) - error(y), rel=1e-4)
    # A cell of which the picture has nothing: nothing.
    weight[:, 8:] = 0
    free = distortion(synthesis, x, y, weight, norms)
    assert not free.cost(y[0].flatten(1) + 3, *everything).view(5, 2, 3)[:, :, 2].any()


def test_optimised_quantisation_is_better_in_rate_and_distortion_together():
    torch.manual_seed(0)
    latent = ConditionalLatent(Gaussian(), None, torch.nn.Identity())
    y, side = torch.randn(8, 12, 12) * 2, torch.zeros(16, 12, 12).double()
    side[8:] = 0.3
    coder = latent.coder()
    plain, rounded = coder.encode(y, side)
    # One bit for a squared error of 1 / weight, as for an orthonormal synthesis.
    for weight in (0.5, 2.0, 1e6):
        at = Distortion(
            rounded, 2 * weight * (rounded - y.double()), torch.full(y.shape, 2 * weight)
        )
        stream, chosen = coder.encode(y, side, at)
        assert torch.equal(coder.decode(stream, side, 8), chosen)
        costs = [
            8 * len(data) + weight * float((values - y.double()).square().sum())
            for data, values in ((plain, rounded), (stream, chosen))
        ]
        assert costs[1] < costs[0] or torch.equal(chosen, rounded)
        assert (weight == 1e6) == torch.equal(chosen, rounded)


# The enhancement layer


def test_blocks_are_scipys_dct_of_orthonormal_colours():
    residual = torch.randn(3, 32, 48) * 20
    blocks = coefficients(residual)
    brightness = residual.double().numpy().sum(0) / math.sqrt(3)
    expected = scipy.fft.dctn(brightness[16:32, 32:48], norm="ortho")
    np.testing.assert_allclose(blocks[1, 2, 0], expected, atol=1e-5)
    np.testing.assert_allclose(residual_of(blocks), residual, atol=1e-5)
    assert float(blocks.square().sum()) == pytest.approx(float(residual.square().sum()), rel=1e-6)


def test_enhancement_comes_back_and_its_statistics_help():
    rng = np.random.default_rng(0)
    smooth = scipy.signal.fftconvolve(
        rng.normal(0, 30, (3, 64, 96)), np.ones((1, 4, 4)) / 4, "same"
    )
    residual = torch.from_numpy(smooth)
    model = Enhancement()
    before, _ = model.coder().encode(residual, 12.0)
    model.fit([quantize(coefficients(residual), 12.0)])
    coder = model.coder()
    after, coded = coder.encode(residual, 12.0)
    assert len(after) < 0.95 * len(before)
    assert torch.equal(coder.decode(after, 64, 96, 12.0), coded)
    # A step of 12 with a dead zone: an error between that of a uniform step and of its square.
    assert 144 / 12 < float((coded - residual).square().mean()) < 144 / 3
    none, nothing = coder.encode(residual * 1e-3, 12.0)
    assert len(none) < 30
    assert not nothing.any()


def test_the_step_is_the_best_at_high_rate():
    for trade_off in (0.01, 0.1):
        steps = 2.0 ** (np.arange(80) / 8)
        cost = trade_off * steps**2 / 12 - 3 * np.log2(steps)
        assert step_of(step_index(trade_off)) == pytest.approx(steps[cost.argmin()])


# Quality


def reference_ms_ssim(x, y):
    """Wang et al., one channel at a time, in NumPy."""
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    line = np.exp(-(np.arange(-5.0, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def blurred(image):
        return scipy.signal.convolve2d(image, window, "valid")

    values = []
    for a, b in zip(x, y, strict=True):
        value = 1.0
        for scale, weight in enumerate(weights):
            mean_a, mean_b = blurred(a), blurred(b)
            var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
            both = blurred(a * b) - mean_a * mean_b
            part = (2 * both + 0.03**2) / (var_a + var_b + 0.03**2)
            if scale == 4:
                part *= (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
            value *= part.mean() ** weight
            a, b = (one.reshape(one.shape[0] // 2, 2, -1, 2).mean((1, 3)) for one in (a, b))
        values.append(value)
    return np.mean(values)


def test_ms_ssim_is_the_papers():
    rng = np.random.default_rng(0)
    x = scipy.signal.fftconvolve(rng.random((3, 192, 224)), np.ones((1, 9, 9)) / 81, "same")
    y = (x + rng.normal(0, 0.02, x.shape)).clip(0, 1)
    found = ms_ssim(torch.from_numpy(x)[None], torch.from_numpy(y)[None])
    assert float(found) == pytest.approx(reference_ms_ssim(x, y), abs=1e-9)
    assert float(ms_ssim(torch.from_numpy(x)[None], torch.from_numpy(x)[None])) == pytest.approx(1)
    with pytest.raises(InputError, match="161"):
        ms_ssim(torch.zeros(1, 3, 160, 300), torch.zeros(1, 3, 160, 300))


def test_psnr():
    x = torch.zeros(2, 3, 4, 4)
    assert psnr(x, x + torch.tensor([0.1, 0.0])[:, None, None, None]).tolist() == [
        pytest.approx(20, abs=1e-5),
        100.0,
    ]
