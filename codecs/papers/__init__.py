"""One file for each paper, and the codecs by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from vpxrc.codecs.model import Model, run_counting
from vpxrc.codecs.papers import baselines
from vpxrc.codecs.papers.ablation import ARMS
from vpxrc.codecs.papers.asymmetric import asymmetric
from vpxrc.codecs.papers.gained import Gained
from vpxrc.codecs.papers.gained_octave import GainedOctave
from vpxrc.codecs.papers.gllmm import gllmm
from vpxrc.codecs.papers.improved_checkerboard import improved_checkerboard
from vpxrc.codecs.papers.multirate import multirate, patch_multirate
from vpxrc.codecs.papers.octave import octave
from vpxrc.codecs.papers.swin_roi import SwinRoi
from vpxrc.errors import InputError


@dataclass(frozen=True)
class Paper:
    """A codec of the literature.

    Attributes:
        title: What it is, in one line.
        widths: Makes the networks, by the name of a width.
    """

    title: str
    widths: Mapping[str, Callable[[], Model]]


def _classic(make: Callable[[int, int], Model]) -> dict[str, Callable[[], Model]]:
    """Return the widths of Ballé et al. (ICLR 2018), and a small one."""
    return {
        "small": partial(make, 64, 96),
        "medium": partial(make, 96, 144),
        "low": partial(make, 128, 192),
        "high": partial(make, 192, 320),
    }


def _multirate(rate_term: bool) -> dict[str, Callable[[], Model]]:
    """Return the width that is recalled of the paper, and a small one."""
    return {
        "slim": partial(multirate, (32, 64, 96, 96), 128, rate_term, slim=True),
        "small": partial(multirate, (48, 64, 96, 96), 128, rate_term),
        "paper": partial(multirate, (120, 240, 480, 960), 8, rate_term),
    }


PAPERS: Mapping[str, Paper] = {
    "factorized": Paper("one distribution for each channel", _classic(baselines.factorized)),
    "mean-scale": Paper("hyperprior with means and scales", _classic(baselines.mean_scale)),
    "checkerboard": Paper("hyperprior, context in two passes", _classic(baselines.checkerboard)),
    "raster": Paper("hyperprior, context row by row", _classic(baselines.raster)),
    "mixture": Paper(
        "residual blocks, attention, Gaussian mixtures, context row by row",
        {
            "small": partial(baselines.mixture, 64),
            "low": partial(baselines.mixture, 128),
            "high": partial(baselines.mixture, 192),
        },
    ),
    "gllmm": Paper(
        "concatenated residual blocks, mixtures of three families, context row by row",
        {
            "small": partial(gllmm, 48, slim=True),
            "128": partial(gllmm, 128),
            "256": partial(gllmm, 256),
        },
    ),
    "asymmetric": Paper(
        "heavy encoder with an importance map, light decoder with a filter, context row by row",
        {
            "small": partial(asymmetric, 48, slim=True),
            "128": partial(asymmetric, 128),
            "256": partial(asymmetric, 256),
        },
    ),
    "improved-checkerboard": Paper(
        "two passes with a network and a family each, deformable convolutions",
        {
            "small": partial(improved_checkerboard, 48, slim=True),
            "small-teacher": partial(improved_checkerboard, 48, slim=True, teacher=True),
            **{
                f"{n}{role}": partial(improved_checkerboard, n, teacher=bool(role))
                for n in (128, 256)
                for role in ("", "-teacher")
            },
        },
    ),
    "octave": Paper("latents at two resolutions, context row by row", _classic(octave)),
    "octave-mean-scale": Paper(
        "latents at two resolutions, no context", _classic(partial(octave, context=False))
    ),
    "gained": Paper(
        "one model for all rates, a gain for each channel",
        {
            "small": partial(Gained, 64, 96, 320),
            "medium": partial(Gained, 96, 160, 384),
        },
    ),
    "gained-checkerboard": Paper(
        "the same, context in two passes",
        {
            "small": partial(Gained, 64, 96, 320, context=True),
            "small-ms-ssim": partial(Gained, 64, 96, 320, context=True, structural=True),
            "medium": partial(Gained, 96, 160, 384, context=True),
        },
    ),
    "gained-octave": Paper(
        "octave convolutions, latents at two resolutions, all rates, context in two passes",
        {"small": partial(GainedOctave, 96, 144, 320, 64, 192)},
    ),
    "swin-roi": Paper(
        "Swin blocks, a region of interest that the encoder alone is told",
        {
            "small": partial(SwinRoi, 64, 96, 320),
            "small-sent": partial(SwinRoi, 64, 96, 320, sent=True),
        },
    ),
    "multirate": Paper(
        "one model for all rates, octave residual blocks",
        {"patches": partial(patch_multirate, 96, 144, 320, 64, 192), **_multirate(True)},
    ),
    "multirate-distortion": Paper(
        "the same, trained with the paper's objective, which has no term of rate",
        _multirate(False),
    ),
}


#: The other arms of the papers' claims; benchmarks/codec_claims.py compares them.
ABLATION = Paper("a codec with one part changed, for comparisons", ARMS)


@dataclass(frozen=True)
class Description:
    """The size and the cost of a codec.

    Attributes:
        codec: Name and width.
        title: What it is, in one line.
        megabytes: Weights in float32.
        encoder_kmac: Thousands of multiplications of the analysis transform for each pixel.
        decoder_kmac: Those of the synthesis transform.
    """

    codec: str
    title: str
    megabytes: float
    encoder_kmac: float
    decoder_kmac: float


def describe(spec: str) -> Description:
    """Return the description of a codec; ``spec`` is as :func:`build` takes it."""
    # No values: the shapes alone are needed.
    with torch.device("meta"):
        model = build(spec)
        side = 2 * model.multiple
        x = torch.zeros(1, 3, side, side)
    latent, encoding = run_counting(model.analysis, x)
    _, decoding = run_counting(model.synthesis, latent)
    return Description(
        spec,
        _paper(spec.partition("/")[0]).title,
        sum(4 * one.numel() for one in model.state_dict().values()) / 1e6,
        encoding / side**2 / 1000,
        decoding / side**2 / 1000,
    )


def build(spec: str) -> Model:
    """Return the networks of a codec with random weights.

    Args:
        spec: ``NAME/WIDTH``, for instance ``mean-scale/small``.

    Raises:
        InputError: There is no such codec.
    """
    name, _, width = spec.partition("/")
    widths = _paper(name).widths
    if width not in widths:
        choices = ", ".join(f"{name}/{one}" for one in widths)
        raise InputError(f"unknown width of {name}, {width!r}: choose from {choices}")
    return widths[width]()


def _paper(name: str) -> Paper:
    if name == "ablation":
        return ABLATION
    if name not in PAPERS:
        raise InputError(f"unknown codec {name!r}: choose from {', '.join(PAPERS)}")
    return PAPERS[name]
