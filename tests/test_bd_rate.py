"""BD-rate and means over clips: hand-made curves, numeric integration, the normal interval."""

import json
import warnings
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from vpxrc.errors import InputError
from vpxrc.evaluation.bd_rate import BdRate, bd_rate, mean_bd_rate, mean_ci95

RATES = [100.0, 200.0, 400.0, 800.0]
QUALITY = [30.0, 33.0, 36.0, 38.0]


def test_a_constant_saving_is_the_bd_rate():
    result = bd_rate(RATES, QUALITY, np.array(RATES) * 0.9, QUALITY)
    assert (result.status, result.overlap) == ("ok", 1.0)
    assert result.percent == pytest.approx(-10)
    back = bd_rate(np.array(RATES) * 0.9, QUALITY, RATES, QUALITY)
    assert back.percent == pytest.approx(100 / 0.9 - 100)


def test_bd_rate_is_the_integral_of_the_splines_whatever_the_order():
    rates, quality = [80.0, 190.0, 420.0, 700.0, 900.0], [29.5, 33.2, 36.9, 38.8, 39.0]
    low, high = 30.0, 38.0
    grid = np.linspace(low, high, 20001)
    anchor = PchipInterpolator(QUALITY, np.log10(RATES))(grid)
    test = PchipInterpolator(quality, np.log10(rates))(grid)
    expected = 100 * (10 ** (np.trapezoid(test - anchor, grid) / (high - low)) - 1)
    order = [3, 0, 4, 2, 1]
    result = bd_rate(RATES[::-1], QUALITY[::-1], np.array(rates)[order], np.array(quality)[order])
    assert result.percent == pytest.approx(expected, abs=1e-4)
    assert result.overlap == pytest.approx(8 / 9.5)


@pytest.mark.parametrize(
    ("rate", "quality", "status", "overlap"),
    [
        (RATES, [40.0, 41.0, 42.0, 43.0], "no-overlap", 0.0),
        (RATES, [38.0, 39.0, 40.0, 41.0], "no-overlap", 0.0),  # they only touch
        (RATES, [30.0, 33.0, 32.9, 38.0], "not-monotonic", 1.0),
        (RATES, [30.0, 33.0, 33.0, 38.0], "not-monotonic", 1.0),
        ([100.0, 200.0, 200.0, 800.0], QUALITY, "not-monotonic", 1.0),
        (RATES[:3], QUALITY[:3], "too-few-rates", 0.75),
        ([], [], "too-few-rates", 0.0),
    ],
)
def test_curves_without_a_bd_rate_say_why(rate, quality, status, overlap):
    for swap in (False, True):
        curves = (rate, quality, RATES, QUALITY) if swap else (RATES, QUALITY, rate, quality)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = bd_rate(*curves)
        assert (result.percent, result.status) == (None, status)
        assert result.overlap == pytest.approx(overlap)


def test_a_small_overlap_is_reported_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = bd_rate(RATES, QUALITY, RATES, [37.0, 39.0, 41.0, 43.0])
    assert result.status == "ok"
    assert result.percent is not None and result.percent < -50
    assert result.overlap == pytest.approx(1 / 13)


@pytest.mark.parametrize(
    ("rate", "quality", "message"),
    [
        (RATES, QUALITY[:3], "the test has 4 rates and 3 qualities"),
        ([0.0, *RATES[1:]], QUALITY, "rates must be above 0"),
        (RATES, [float("nan"), *QUALITY[1:]], "all its values finite"),
        (RATES, [*QUALITY[:3], float("inf")], "all its values finite"),
    ],
)
def test_bad_curves_are_refused(rate, quality, message):
    with pytest.raises(InputError, match=message):
        bd_rate(RATES, QUALITY, rate, quality)


@given(st.floats(0.2, 5), st.floats(0.001, 1000))
def test_bd_rate_does_not_depend_on_the_unit(factor, unit):
    rates = np.array(RATES)
    result = bd_rate(rates * unit, QUALITY, rates * factor * unit, QUALITY)
    assert result.percent == pytest.approx(100 * (factor - 1), abs=1e-6)


def test_the_mean_of_bd_rates_needs_all_of_them():
    found = [BdRate(-10.0, "ok", 0.9), BdRate(4.0, "ok", 0.5), BdRate(-3.0, "ok", 1.0)]
    assert mean_bd_rate(found) == BdRate(-3.0, "ok", 0.5)
    missing = BdRate(None, "not-monotonic", 0.3)
    assert mean_bd_rate([*found, missing]) == missing
    assert mean_bd_rate([missing, BdRate(None, "no-overlap", 0.0)]).status == "not-monotonic"


# Means over clips


def test_mean_ci95_is_seeded_and_near_the_normal_interval():
    values = np.random.default_rng(1).normal(-4, 2, 200)
    result = mean_ci95(values)
    assert result == mean_ci95(values)
    assert result.ci95 != mean_ci95(values, seed=1).ci95
    assert (result.mean, result.median) == (values.mean(), np.median(values))
    half = 1.96 * values.std() / np.sqrt(200)
    assert result.ci95 is not None
    np.testing.assert_allclose(result.ci95, values.mean() + np.array([-half, half]), atol=0.02)
    assert json.loads(json.dumps(asdict(result)))["n"] == 200


def test_means_of_one_value_and_of_none():
    one = mean_ci95([3.5])
    assert (one.mean, one.median, one.ci95, one.n) == (3.5, 3.5, (3.5, 3.5), 1)
    none = mean_ci95([])
    assert (none.mean, none.median, none.ci95, none.n) == (None, None, None, 0)
    with pytest.raises(InputError, match="finite"):
        mean_ci95([1.0, float("nan")])
