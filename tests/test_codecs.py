"""Learned codecs: pictures to bytes and back, in another process, and with damage."""

import copy
import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.fft import dctn

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from vpxrc.codecs.bitstream import CodedPicture, pack, unpack
from vpxrc.codecs.channel_mask import ChannelMask
from vpxrc.codecs.codec import (
    Codec,
    compress_to_size,
    load_codec,
    read_checkpoint,
    save_checkpoint,
)
from vpxrc.codecs.entropy import bits
from vpxrc.codecs.model import Moment, from_pixels, to_pixels
from vpxrc.codecs.octave import Octave
from vpxrc.codecs.papers import PAPERS, baselines, build, describe
from vpxrc.codecs.papers.asymmetric import asymmetric
from vpxrc.codecs.papers.gained import KNOTS, LAMBDAS, Gained, Gains
from vpxrc.codecs.papers.gained_octave import GainedOctave
from vpxrc.codecs.papers.gllmm import gllmm
from vpxrc.codecs.papers.improved_checkerboard import improved_checkerboard
from vpxrc.codecs.papers.multirate import multirate, patch_multirate
from vpxrc.codecs.papers.octave import octave
from vpxrc.codecs.papers.swin_roi import SwinRoi
from vpxrc.codecs.picture_quality import ms_ssim
from vpxrc.codecs.transforms import UNIT, PatchAnalysis, PatchSynthesis
from vpxrc.errors import InputError, VpxrcError

# Every kind of codec, in a width that takes milliseconds.
TINY = {
    "factorized": lambda: baselines.factorized(8, 12),
    "mean-scale": lambda: baselines.mean_scale(8, 12),
    "checkerboard": lambda: baselines.checkerboard(8, 12),
    "raster": lambda: baselines.raster(8, 12),
    "mixture": lambda: baselines.mixture(8),
    "gllmm": lambda: gllmm(8),
    "asymmetric": lambda: asymmetric(8),
    "improved-checkerboard": lambda: improved_checkerboard(8),
    "octave": lambda: octave(8, 12),
    "multirate": lambda: multirate((8, 8, 12, 12), 8),
    "multirate-patches": lambda: patch_multirate(8, 12, 32, 8, 16),
    "gained": lambda: Gained(8, 8, 12),
    "gained-checkerboard": lambda: Gained(8, 8, 12, context=True),
    "gained-octave": lambda: GainedOctave(8, 12, 32, 8, 16),
    "swin-roi": lambda: SwinRoi(8, 8, 12),
}
# How much larger the latents are made, so that many values are not 0.
GAINS = {
    "multirate": 4.0,
    "mixture": 3.0,
    "gllmm": 1.0,
    "asymmetric": 10.0,
    "improved-checkerboard": 2.0,
}
SIZES = [(1, 1), (17, 33), (64, 64), (127, 65)]


@cache
def tiny(name):
    """A codec with random weights and latents of many sizes, some of them beyond the tables."""
    torch.manual_seed(1)
    model = TINY[name]()
    with torch.no_grad():
        convolutions = [one for one in model.analysis.modules() if isinstance(one, torch.nn.Conv2d)]
        last = [one for one in convolutions if one.stride == (2, 2)][-1]
        last.weight.mul_(GAINS.get(name, 25.0))
        for name_, weight in model.named_parameters():
            if "latent" in name_ and name_.endswith("weight"):
                weight.mul_(2.0)  # else all distributions are nearly the same
                if not weight.any():
                    weight.normal_(0, 0.1)
    return Codec(model, name)


def picture(height, width, seed=0):
    """Smooth shapes with some noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / a + columns / b) for a, b in ((9, 14), (30, -22), (-11, 40))]
    made = 128 + 60 * np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3))
    return made.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_comes_back_as_the_encoder_had_it(name, size):
    codec = tiny(name)
    result = codec.compress(picture(*size))
    decoded = codec.decompress(result.data)
    assert decoded.shape == (*size, 3)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, result.picture)


DECODE = """
import sys
import numpy as np, torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
from test_codecs import TINY, tiny
folder = sys.argv[3]
for name in TINY:
    data = open(f"{folder}/{name}.vlc", "rb").read()
    np.save(f"{folder}/{name}.npy", tiny(name).decompress(data))
"""


def test_another_process_with_other_threads_decodes_the_same(tmp_path):
    results = {name: tiny(name).compress(picture(80, 144)) for name in TINY}
    for name, result in results.items():
        (tmp_path / f"{name}.vlc").write_bytes(result.data)
    here = torch.get_num_threads()
    arguments = [str(here + 2), __file__.rpartition("/")[0], str(tmp_path)]
    subprocess.run([sys.executable, "-c", DECODE, *arguments], check=True)
    for name, result in results.items():
        assert np.array_equal(np.load(tmp_path / f"{name}.npy"), result.picture), name


@torch.no_grad()
def test_octaves_rounded_by_rate_and_distortion_cost_less():
    model, quality = tiny("gained-octave").model, 0.3
    pixels = torch.from_numpy(picture(128, 256).transpose(2, 0, 1).copy())
    weight = model.trade_off(quality)

    def cost(streams, decoded):
        error = (decoded.double() - pixels).square().mean()
        return weight * float(error) + 8 * sum(map(len, streams)) / (128 * 256)

    at, x = torch.tensor([quality]), from_pixels(pixels)
    streams, y_hat = model.latent.coder().encode(model.gain(model.analysis(x), at))
    nearest = Octave(y_hat.high.float(), y_hat.low.float())
    decoded = to_pixels(model.synthesis(model.inverse_gain(nearest, at)))
    best = model.coder().encode(pixels, quality, torch.ones(128, 256))
    assert cost(*best) < 0.99 * cost(streams, decoded)


@pytest.mark.parametrize(
    "name",
    [name for name in TINY if name != "factorized" and not re.search("octave|multirate", name)],
)
@torch.no_grad()
def test_bytes_are_those_that_the_likelihoods_promise(name):
    codec = tiny(name)
    pixels = picture(384, 512)
    quality, size, is_dct = None, 4_000, name.startswith(("gained", "swin"))
    if is_dct:  # larger latents would be far from random means
        quality, size, pixels = 0.0, 400, (112 + pixels // 8).astype(np.uint8)
    _, z_stream, y_stream = _streams(codec.compress(pixels, quality).data)
    model = codec.model
    y = model.analysis(from_pixels(torch.from_numpy(pixels.transpose(2, 0, 1).copy())))
    if is_dct:
        y = y * model.gain(torch.tensor([0.0]))
    z = model.latent.analysis(y).round()
    side = model.latent.synthesis(z)
    latent = model.latent.y
    y_hat = model.latent.coder().decode([z_stream, y_stream], *y.shape[-2:]).float()
    features = [side] if latent.context is None else [latent.context(y_hat), side]
    likelihood = latent.family.likelihood(y_hat, latent.network(torch.cat(features, 1)))
    if latent.first_network is not None:
        rows, columns = latent.context.passes(*y.shape[-2:])[0]
        first = latent.first_family.likelihood(y_hat, latent.first_network(side))
        likelihood[..., rows, columns] = first[..., rows, columns]
    if latent.skip_zeros:
        mask, y_stream = ChannelMask.unpack(y_stream, y.shape[1])
        likelihood = likelihood[:, mask.kept]
    promised = float(bits(likelihood))
    assert promised > size
    assert 8 * len(y_stream) == pytest.approx(promised, rel=0.01)
    expected_z = float(bits(model.latent.z.prior.likelihood(z)))
    assert 8 * len(z_stream) == pytest.approx(expected_z, rel=0.01, abs=40)


@pytest.mark.parametrize(
    ("name", "least", "most"), [("multirate", 2, 8), ("multirate-patches", 6.6, 9.9)]
)
@torch.no_grad()
def test_bytes_of_levels_are_those_that_the_likelihoods_promise(name, least, most):
    model = tiny(name).model
    coder, pixels = model.coder(), picture(192, 256)
    v = model.latent(from_pixels(torch.from_numpy(pixels.transpose(2, 0, 1).copy())))
    if name != "multirate":  # a transform of blocks has values far beyond an untrained density
        v = Octave(0.1 * v.high, 0.1 * v.low)
    for quality in (0.3, 0.613, 1.0):
        streams, _ = coder.encode_base(v, round(quality * 65535))
        bits_each = least + (most - least) * round(quality * 65535) / 65535
        steps = torch.tensor([2 ** (bits_each - 1) - 1])
        high, low = (
            (part * steps).round().clamp(-steps.floor(), steps.floor()) for part in (v.high, v.low)
        )
        if name == "multirate":
            likelihoods = [
                model.levels.low.likelihood(low, steps),
                model.levels.high.likelihood(high, steps),
            ]
        else:
            likelihoods = context_likelihoods(model.levels, high, low, steps)
        for stream, likelihood in zip(streams, likelihoods, strict=True):
            assert 8 * len(stream) == pytest.approx(float(bits(likelihood)), rel=0.01, abs=40)


def context_likelihoods(levels, high, low, steps):
    """The low part from its neighbours and the number of levels, the high part from both parts."""
    which = (steps.log2() / 4 - 1).view(1, 1, 1, 1)
    sides = [which.expand(1, 1, *low.shape[-2:])]
    sides.append(torch.cat([levels.up(low), which.expand(1, 1, *high.shape[-2:])], 1))
    found = []
    for latent, part, side in zip((levels.low, levels.high), (low, high), sides, strict=True):
        parameters = latent.network(torch.cat([latent.context(part), side], 1))
        found.append(latent.family.likelihood(part, parameters))
    return found


def _streams(data):
    coded = unpack(data)
    assert len(coded.streams) == 2
    return coded, *coded.streams


@pytest.mark.parametrize("name", ["multirate", "gained"])
def test_quality_is_continuous_and_buys_what_it_costs(name):
    codec = tiny(name)
    pixels = picture(96, 96)
    assert codec.compress(pixels, 0.5).data == codec.compress(pixels).data
    sizes = [len(codec.compress(pixels, quality).data) for quality in (0.0, 0.35, 0.37, 0.7, 1.0)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)


@torch.no_grad()
def test_the_gained_codec_starts_from_a_dct():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 96)
    down, up = PatchAnalysis(8, 8, 768), PatchSynthesis(8, 8, 768)
    assert torch.allclose(up(down(x)), x, atol=1e-5)  # all 768 frequencies: nothing is lost
    few = PatchAnalysis(8, 8, 40)(x)[0]
    brightness = (x[0].sum(0) / 3**0.5 - 0.5 * 3**0.5)[16:32, 32:48]
    expected = dctn(brightness.double().numpy(), norm="ortho")
    found = sorted(float(value) * UNIT for value in few[:, 1, 2])
    for u, v in ((0, 0), (0, 1), (1, 0), (2, 3)):
        assert min(abs(value - expected[u, v]) for value in found) < 1e-5


@torch.no_grad()
def test_a_structural_codec_is_trained_for_ms_ssim():
    torch.manual_seed(0)
    codec = Gained(8, 8, 12, structural=True)
    x, moment = torch.rand(2, 3, 192, 192), Moment(0, 1)
    x = torch.nn.functional.avg_pool2d(x, 3, 1, 1)  # something to code
    torch.manual_seed(1)
    loss, found = codec.objective(x, 0.0, moment)
    torch.manual_seed(1)
    quality = torch.rand(2)
    output = codec(x, quality)
    error = 1300 * (1 - ms_ssim(output.x_hat, x))
    low, high = LAMBDAS
    weight = low * (high / low) ** quality
    bpp = sum(output.bits.values()) / 192**2
    scaled = (weight * error + bpp) * ((low * high) ** 0.5 / weight).sqrt()
    assert float(loss) == pytest.approx(float(scaled.mean()), rel=1e-4)
    assert found["mse"] == pytest.approx(255**2 * float((output.x_hat - x).square().mean()))


@torch.no_grad()
def test_gains_are_learned_at_some_qualities_and_interpolated_between_them():
    gains = Gains(3, 0.5)
    start = gains(torch.tensor([0.0, 0.2, 1.0]))[..., 0, 0]
    ratio = LAMBDAS[1] / LAMBDAS[0]
    assert torch.allclose(start, torch.tensor([1.0, ratio**0.1, ratio**0.5])[:, None].repeat(1, 3))
    gains.logs.copy_(torch.randn(KNOTS, 3))
    for place in (0, 2, KNOTS - 2):
        pair = gains(torch.tensor([place, place + 1.0]) / (KNOTS - 1))
        middle = gains(torch.tensor([(place + 0.5) / (KNOTS - 1)]))
        assert torch.allclose(middle[0], pair.prod(0).sqrt())


def test_a_size_is_met_from_below():
    codec = tiny("multirate")
    pixels = picture(64, 96)
    low, high = (len(codec.compress(pixels, quality).data) for quality in (0.0, 1.0))
    for most in (low, (low + high) // 2, high, 10 * high):
        found = len(compress_to_size(codec, pixels, most, lambda done, total: None).data)
        assert 0.9 * min(most, high) <= found <= most
    with pytest.raises(InputError, match="lowest quality takes"):
        compress_to_size(codec, pixels, low - 1, lambda done, total: None)
    with pytest.raises(InputError, match="has one quality"):
        compress_to_size(tiny("raster"), pixels, 10_000, lambda done, total: None)


# Damage


def test_every_flipped_lost_or_added_byte_is_an_error():
    codec = tiny("mean-scale")
    data = codec.compress(picture(17, 33)).data
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        kind, place = rng.integers(4), rng.integers(len(data))
        if kind == 0:
            changed[place] ^= 1 << rng.integers(8)
        elif kind == 1:
            del changed[place:]
        elif kind == 2:
            changed[place:place] = bytes(rng.integers(0, 256, rng.integers(1, 9), dtype=np.uint8))
        else:
            del changed[place : place + rng.integers(1, 9)]
        with pytest.raises(VpxrcError):
            codec.decompress(bytes(changed))


@pytest.mark.parametrize("data", [b"", b"VLC", b"VLC\x01", b"VLC\x02" + bytes(60), b"\x89PNG" * 9])
def test_a_foreign_file_is_an_error(data):
    with pytest.raises(InputError):
        unpack(data)


@pytest.mark.parametrize("name", TINY)
def test_a_damaged_stream_with_a_right_checksum_decodes_or_is_an_error(name):
    codec = tiny(name)
    coded = unpack(codec.compress(picture(17, 33)).data)
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(20):
        streams = [bytearray(stream) for stream in coded.streams]
        stream = streams[rng.integers(len(streams))]
        for _ in range(rng.integers(1, 5)):
            if stream:
                stream[rng.integers(len(stream))] = rng.integers(256)
        if rng.random() < 0.3:
            del stream[rng.integers(len(stream) + 1) :]
        damaged = replace(coded, streams=[bytes(stream) for stream in streams])
        try:
            decoded = codec.decompress(pack(damaged))
        except VpxrcError:
            failed += 1
        else:
            assert decoded.shape == (17, 33, 3)
    for number in ([], coded.streams[:-1], [*coded.streams, b""]):
        with pytest.raises(InputError, match="stream"):
            codec.decompress(pack(replace(coded, streams=number)))
    assert failed > 0


def test_an_impossible_size_is_an_error():
    for width, height in ((0, 5), (5, 0), (65535, 65535)):
        with pytest.raises(InputError, match="impossible size"):
            unpack(pack(CodedPicture(bytes(8), width, height, 0, [])))


def test_the_container_is_what_its_table_says():
    data = pack(CodedPicture(b"identity", 300, 2, 65535, [b"abc", b""]))
    assert data[:12] == b"VLC\x01identity"
    assert data[12:19] == bytes([44, 1, 2, 0, 255, 255, 2])
    assert data[19:27] == (3).to_bytes(4, "little") + zlib.crc32(b"abc").to_bytes(4, "little")
    assert data[35:39] == zlib.crc32(data[:35]).to_bytes(4, "little")
    assert data[39:] == b"abc"


# Checkpoints


def test_a_checkpoint_has_the_weights_alone_and_codes_the_same(tmp_path):
    torch.manual_seed(0)
    model = build("checkerboard/small")
    path = tmp_path / "one.safetensors"
    save_checkpoint(path, model, "checkerboard/small", {"note": "random"})
    first = Codec(model, "checkerboard/small").compress(picture(30, 20))
    again = load_codec(path)
    assert again.compress(picture(30, 20)).data == first.data
    assert np.array_equal(again.decompress(first.data), first.picture)
    assert read_checkpoint(path)[1]["note"] == "random"
    assert path.stat().st_size < 4 * sum(one.numel() for one in model.parameters()) + 20_000


def test_other_weights_do_not_decode(tmp_path):
    data = tiny("raster").compress(picture(8, 8)).data
    other = copy.deepcopy(tiny("raster").model)
    other.synthesis[0].bias.data[0] += 1e-4
    with pytest.raises(InputError, match="other weights"):
        Codec(other, "raster").decompress(data)


def test_what_is_no_checkpoint_is_an_error(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="cannot read"):
        read_checkpoint(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a file"):
        read_checkpoint(tmp_path / "pipe")
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a checkpoint"):
        read_checkpoint(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not a checkpoint"):
        read_checkpoint(path)
    about = {"format": "vpxrc.codec 1", "codec": "raster/small"}
    save_file({"a": torch.zeros(2)}, path, about)
    with pytest.raises(InputError, match="not the weights of"):
        read_checkpoint(path)
    save_file({"a": torch.full((2,), torch.nan)}, path, about)
    with pytest.raises(InputError, match="not finite"):
        read_checkpoint(path)
    save_file({"a": torch.zeros(2)}, path, {**about, "codec": "raster/huge"})
    with pytest.raises(InputError, match="unknown width"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 65536, 3), np.uint8),
    ],
)
def test_a_picture_that_cannot_be_coded_is_an_error(bad):
    with pytest.raises(InputError, match="picture"):
        tiny("factorized").compress(bad)


# The widths of the papers

# Thousands of multiplications per pixel, both transforms together, from the layer lists of the
# papers: four 5x5 convolutions each way, and residual blocks with attention.
PUBLISHED = {
    "mean-scale/small": 22.3,
    "mean-scale/low": 84.4,
    "mixture/small": 47 + 59,
    "mixture/low": 187 + 231,
    "gllmm/128": 284 + 329,
    "gllmm/256": 1134 + 1310,
    "asymmetric/128": 248 + 163,
    "asymmetric/256": 988 + 645,
}


@pytest.mark.parametrize("spec", PUBLISHED)
def test_cost_per_pixel(spec):
    cost = describe(spec)
    assert cost.encoder_kmac + cost.decoder_kmac == pytest.approx(PUBLISHED[spec], rel=0.01)


WEIGHTS = {"gllmm/128": 71, "gllmm/256": 233, "asymmetric/128": 45, "asymmetric/256": 168}


@pytest.mark.parametrize(("spec", "megabytes"), WEIGHTS.items())
def test_size_of_the_weights(spec, megabytes):
    assert describe(spec).megabytes == pytest.approx(megabytes, rel=0.02)


@pytest.mark.parametrize("width", ["small", "low", "high"])
def test_octave_costs_less_than_half(width):
    whole, octaves = describe(f"mean-scale/{width}"), describe(f"octave-mean-scale/{width}")
    assert 0.4 < octaves.encoder_kmac / whole.encoder_kmac < 0.44
    # The exchange is between outputs, which are larger in the decoder.
    assert 0.5 < octaves.decoder_kmac / whole.decoder_kmac < 0.53


@pytest.mark.parametrize(
    "spec", [f"{name}/{width}" for name in PAPERS for width in PAPERS[name].widths]
)
def test_shapes_of_all_widths(spec):
    with torch.device("meta"):
        model = build(spec)
        side = 2 * model.multiple
        y = model.analysis(torch.zeros(1, 3, side, side))
        x_hat = model.synthesis(y)
    assert x_hat.shape == (1, 3, side, side)
    high = y if isinstance(y, torch.Tensor) else y.high
    assert high.shape[2:] == (side // 16, side // 16)
    if high is not y:
        assert y.low.shape[2:] == (side // 32, side // 32)
        total = high[0].numel() + y.low[0].numel()
        assert total == 0.625 * (high.shape[1] + y.low.shape[1]) * high[0, 0].numel()


def test_an_unknown_codec_is_an_error():
    for spec in ("", "raster", "nothing/small", "raster/"):
        with pytest.raises(InputError, match="unknown"):
            build(spec)


PAPER_WIDTHS = ["octave/low", "mixture/low", "multirate/paper"]
PAPER_WIDTHS += [
    f"{name}/{width}"
    for name in ("gllmm", "asymmetric", "improved-checkerboard")
    for width in (128, 256)
]


@pytest.mark.parametrize("spec", PAPER_WIDTHS)
def test_a_paper_width_codes_a_picture(spec):
    torch.manual_seed(0)
    codec = Codec(build(spec), spec)
    result = codec.compress(picture(20, 30))
    assert np.array_equal(codec.decompress(result.data), result.picture)
