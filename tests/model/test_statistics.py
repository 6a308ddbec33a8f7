"""What follows from the moments of a channel, against NumPy on the values."""

import numpy as np
import pytest

from bncli.model import ChannelStats


def stats(count=4, var=(1.25, 0.0), **more):
    zeros = np.zeros(2)
    numbers = {
        "shift": np.array([1e9, 0.0]), "offset": np.array([0.5, 2.0]), "var": np.array(var),
        "min": zeros, "max": zeros, "nan": zeros.astype(int), "posinf": np.array([1, 2]),
        "neginf": np.array([3, 0]), "first_nonfinite": (None, None),
    }  # fmt: skip
    return ChannelStats(count=count, **numbers | more)


def test_sums_of_two_parts():
    assert stats().mean.tolist() == [1e9 + 0.5, 2.0]
    assert stats().inf.tolist() == [4, 2]
    assert stats().num_features == 2


def test_the_unbiased_variance():
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert stats(4, (x.var(), 0.0)).unbiased_var.tolist() == [x.var(ddof=1), 0.0]
    assert np.isnan(stats(1, (0.0, 0.0)).unbiased_var).all()


def test_a_sum_of_squares_that_overflows():
    largest = np.finfo(float).max
    unbiased = stats(1000, (largest / 2, np.inf)).unbiased_var
    assert unbiased[0] == pytest.approx(largest / 2 * (1000 / 999), rel=1e-15)
    assert unbiased[1] == np.inf
