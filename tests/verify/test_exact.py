"""Exact arithmetic against `fractions` value by value, and the budget that is made of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bncli.backends import BackendName, backend
from bncli.verify.exact import exact_channel, exact_sum, root

TORCH = backend(BackendName.TORCH)
finite = st.floats(-1e30, 1e30)


@given(st.lists(finite, max_size=20))
def test_a_sum_is_exact(values):
    assert exact_sum(np.array(values, np.float64)) == sum(map(Fraction, values))


def test_a_sum_that_float64_loses():
    values = np.array([1e300, 1.0, 2.0**-1000, -1e300])
    assert exact_sum(values) == 1 + Fraction(1, 2**1000)


@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False, allow_infinity=False),
                          st.floats(-8, 8, width=32)), min_size=1, max_size=8))  # fmt: skip
def test_a_channel_is_exact(pairs):
    x, g = (np.array(side, np.float32) for side in zip(*pairs, strict=True))
    found = exact_channel(x, g)
    exact_x, exact_g = ([Fraction(float(value)) for value in side] for side in (x, g))
    mean = sum(exact_x) / len(x)
    assert found.mean == mean
    assert found.var == sum((value - mean) ** 2 for value in exact_x) / len(x)
    assert found.g_x == sum(a * b for a, b in zip(exact_x, exact_g, strict=True))


@given(st.fractions(min_value=Fraction(1, 10**30), max_value=10**30))
def test_a_root_squares_to_its_value(value):
    assert abs(root(value) ** 2 / value - 1) < Fraction(1, 10**55)
