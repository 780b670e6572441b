"""The first pass's error per frame, against sums by hand."""

import numpy as np
import pytest

from vpxrc.encoder.complexity import (
    WINDOWS,
    coded_error,
    frames_inside,
    log_complexity,
    window_means,
)
from vpxrc.encoder.types import FIRST_PASS_FIELDS


def first_pass(errors, weights=None):
    table = np.zeros((len(errors), len(FIRST_PASS_FIELDS)))
    table[:, FIRST_PASS_FIELDS.index("coded_error")] = errors
    table[:, FIRST_PASS_FIELDS.index("weight")] = 1.0 if weights is None else weights
    return table


def test_the_first_frame_counts_as_an_average_one():
    table = first_pass([900.0, 2.0, 4.0, 6.0])
    assert coded_error(table).tolist() == [4.0, 2.0, 4.0, 6.0]
    assert table[0, FIRST_PASS_FIELDS.index("coded_error")] == 900.0
    assert coded_error(first_pass([900.0])).tolist() == [900.0]


def test_no_error_is_below_a_part_of_the_mean():
    table = first_pass([5.0, 0.0, 4.0, 8.0])  # the mean is 4, with the first frame at 4
    assert coded_error(table).tolist() == [4.0, 0.04, 4.0, 8.0]
    assert coded_error(table, floor=0.5).tolist() == [4.0, 2.0, 4.0, 8.0]
    assert coded_error(table, floor=0.0).tolist() == [4.0, 0.0, 4.0, 8.0]
    assert coded_error(first_pass(np.zeros(3))).tolist() == [1e-5] * 3


def test_weights_count_before_the_floor():
    table = first_pass([5.0, 0.0, 4.0, 8.0], [0.5, 1.0, 0.25, 1.0])  # 2, 0, 1, 8: a mean of 2.75
    assert coded_error(table, weighted=True) == pytest.approx([2.0, 0.0275, 1.0, 8.0])


def test_complexity_is_relative_to_the_geometric_mean():
    assert log_complexity(first_pass([0.0, 2.0, 8.0])) == pytest.approx(
        np.log2([5.0, 2.0, 8.0]) - np.log2(80.0) / 3
    )


def test_windows_lie_around_a_group():
    complexity = np.arange(100.0)
    assert complexity[frames_inside(40, 44)].tolist() == [41, 42, 43, 44]
    assert complexity[frames_inside(40, 40)].tolist() == [40]
    means = dict(zip(WINDOWS, window_means(complexity, 40, 44), strict=True))
    assert means[-16, 0] == np.mean(range(24, 40))
    assert means[-32, -16] == np.mean(range(8, 24))
    assert means[0, 16] == np.mean(range(45, 61))
    assert means[32, 64] == np.mean(range(77, 100))  # the clip ends there
    assert window_means(complexity, 0, 99) == [0.0] * len(WINDOWS)
