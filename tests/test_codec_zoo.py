"""The trained codecs that come with the package."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from test_cli import run

from vpxrc.codecs.classical import CLASSICAL
from vpxrc.codecs.codec import load_codec
from vpxrc.codecs.frames import picture_of
from vpxrc.codecs.picture_quality import ms_ssim
from vpxrc.codecs.pictures import to_unit
from vpxrc.codecs.zoo import checkpoint, describe_checkpoint, shipped
from vpxrc.datasets import load_clips


def decibels(picture, decoded):
    return 10 * np.log10(255**2 / np.square(decoded.astype(float) - picture).mean())


def structural(picture, decoded):
    return float(ms_ssim(to_unit(picture), to_unit(decoded))[0])


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_codec_needs_fewer_bytes_than_jpeg(name):
    codec = load_codec(checkpoint(name))
    assert describe_checkpoint(checkpoint(name))["steps"] > 1000
    measure = structural if "ms-ssim" in name else decibels
    (clip,) = (one for one in load_clips("samples") if one.name == "bigbuckbunny")
    video = clip.open()
    picture = picture_of(np.asarray(video.frames[0]), video.width, video.height)
    jpeg = CLASSICAL["jpeg444"]
    files = [jpeg.encode(picture, setting) for setting in range(5, 96, 5)]
    others = [(measure(picture, jpeg.decode(data)), len(data)) for data in files]
    for quality in (0.1, 0.5, 0.9):
        result = codec.compress(picture, quality)
        assert np.array_equal(codec.decompress(result.data), result.picture)
        reached = measure(picture, result.picture)
        assert len(result.data) < 0.9 * min(size for level, size in others if level >= reached)


def test_the_zoo_lists_what_is_shipped():
    trained = json.loads(run("codec", "zoo", "--json").stdout)["trained"]
    assert [one["name"] for one in trained] == list(shipped())
    assert list(shipped()) == [
        "gained-checkerboard-small",
        "gained-checkerboard-small-ms-ssim",
        "gained-octave-small",
        "multirate-patches",
    ]
