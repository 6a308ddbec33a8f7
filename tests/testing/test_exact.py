"""The exact statistics against `fractions`, value by value."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.testing.exact import exact_stats


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1, max_size=12))
def test_statistics_are_exact(dtype, values):
    if dtype == np.float64:
        values = [value / 3 for value in values]
    found = exact_stats(np.array(values, dtype).reshape(-1, 1))
    terms = [Fraction(value) for value in np.array(values, dtype).tolist()]
    mean = sum(terms) / len(terms)
    assert Fraction(found.shift[0]) + Fraction(found.offset[0]) == pytest.approx(mean, rel=2**-100)
    assert found.var[0] == float(sum((term - mean) ** 2 for term in terms) / len(terms))


def test_a_channel_with_nan_is_nan_and_leaves_the_others():
    x = np.ones((3, 3), np.float32)
    x[1] = [2.0, np.nan, np.inf]
    found = exact_stats(x)
    assert np.isnan(found.mean[1])
    assert found.mean[2] == np.inf
    assert np.isnan(found.var[1:]).all()
    assert found.mean[0] == float(Fraction(4, 3))
    assert found.count == 3


def test_an_empty_batch_has_none():
    with pytest.raises(ValueError, match="no statistics"):
        exact_stats(np.zeros((0, 3)))
