"""What becomes of each value, by the formula in NumPy; the first and the last of many."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.verify.trace import elements
from tests.verify.trace.channels import plain, views


def made(x, positions):
    given = plain(x)
    done = given.done()
    return elements(done.norm, views(given, x, 1)[0], positions)


def assert_values(found, values, mean, var):
    np.testing.assert_array_equal(found.x, values)
    np.testing.assert_allclose(found.deviation, values - mean, atol=1e-12)
    np.testing.assert_allclose(found.squared, (values - mean) ** 2, atol=1e-12)
    x_hat = (values - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(found.x_hat, x_hat, atol=1e-12)
    np.testing.assert_allclose(found.output, x_hat, atol=1e-12)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(20, range(12)), (12, range(12)), (11, [*range(6), *range(7, 12)]), (4, [0, 1, 10, 11])],
)
def test_all_values_or_the_first_half_and_the_last(most, expected):
    x = np.random.default_rng(0).normal(3, 2, (3, 2, 4))
    own = x[:, 1].reshape(-1)
    found = made(x, most)
    assert found.positions == list(expected)
    assert_values(found, own[list(expected)], own.mean(), own.var())


def test_those_that_are_named():
    x = np.random.default_rng(0).normal(3, 2, (3, 2, 4))
    own = x[:, 1].reshape(-1)
    found = made(x, [7, 0])
    assert found.positions == [7, 0]
    assert_values(found, own[[7, 0]], own.mean(), own.var())
    assert made(x, []).x.shape == (0,)


def test_a_square_beyond_float64_is_an_infinity():
    x = np.array([[0.0, 1e200], [0.0, -1e200]])
    with np.errstate(all="raise"):
        assert made(x, 2).squared.tolist() == [np.inf, np.inf]
