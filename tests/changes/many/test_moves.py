"""The distance of two layers' statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.changes.many.moves import Move

numbers = st.floats(-100, 100)
variances = st.floats(0.01, 1000)
statistics = st.tuples(numbers, variances)


def move(*both):
    """From one mean and variance to another, in one channel."""
    mean, var = np.array(both, np.float64).T
    return Move(mean[:, None], var[:, None], 0.0)


@given(statistics, statistics, statistics)
def test_the_distance_is_a_metric(one, two, three):
    there, back = move(one, two).distance, move(two, one).distance
    assert there == pytest.approx(back, abs=1e-6)
    assert move(one, one).distance == 0
    assert move(one, three).distance <= there + move(two, three).distance + 1e-6


def test_small_moves_are_what_people_read():
    z, s = 1e-3, 1.002
    assert move((0, 1), (z, 1)).distance == pytest.approx(z, rel=1e-3)
    assert move((0, 1), (0, s**2)).distance == pytest.approx(2**0.5 * np.log(s), rel=1e-3)
    assert move((5, 4), (5, 4 * s**2)).distance == move((0, 1), (0, s**2)).distance


def test_numbers_in_standard_deviations_of_the_first():
    found = move((1, 4), (5, 16))
    assert found.z.tolist() == [2]
    assert found.var_ratio.tolist() == [4]
    assert found.furthest_ratio == 4
    assert move((0, 4), (0, 1)).furthest_ratio == 0.25


def test_the_ratio_furthest_from_1_either_way():
    def furthest(*ratios):
        var = np.array([np.ones(len(ratios)), ratios])
        return Move(np.zeros_like(var), var, 0.0).furthest_ratio

    assert furthest(0.5, 3.0) == pytest.approx(3.0)
    assert furthest(0.2, 3.0) == pytest.approx(0.2)


def test_channels_without_a_place_are_left_out():
    mean = np.array([[0, np.nan, 0, 0], [1, 0, np.inf, 0]])
    var = np.array([[1.0, 1, 1, 1], [1, 1, 1, -1]])
    assert Move(mean, var, 1e-5).known.tolist() == [True, False, False, False]
    nothing = Move(mean[:, 1:], var[:, 1:], 1e-5)
    assert (nothing.distance, nothing.furthest_ratio) == (0.0, 1.0)
