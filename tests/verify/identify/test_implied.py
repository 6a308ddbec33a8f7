"""What an output says of its own normalisation: the numbers that made it come back."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.verify.identify.hypotheses import Known
from bncli.verify.identify.implied import Implied
from bncli.verify.identify.pair import ArraySource, View
from bncli.verify.identify.search import Seen

MEAN, VAR = np.array([1.0, -2.0, 3.0]), np.array([4.0, 0.25, 9.0])
WEIGHT, BIAS = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, -3.0])


def implied(x, y, known):
    view = View(ArraySource(x, "float64"), ArraySource(y, "float64"), 1)
    return Implied.of(Seen.of(view, known))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(2, 3, (50, 3))


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_mean_and_variance_come_back(x, eps):
    y = (x - MEAN) / np.sqrt(VAR + eps) * WEIGHT + BIAS
    found = implied(x, y, Known(WEIGHT, BIAS, eps=eps))
    np.testing.assert_allclose(found.mean, MEAN, rtol=1e-9)
    np.testing.assert_allclose(found.var, VAR, rtol=1e-9)
    np.testing.assert_allclose(found.scale, WEIGHT / np.sqrt(VAR + eps), rtol=1e-9)
    np.testing.assert_allclose(found.shift, BIAS - found.scale * MEAN, rtol=1e-9)
    assert found.affine.all()
    assert found.worst is None
    assert not found.tells_nothing


def test_without_weight_and_bias_they_are_those_of_1_and_0(x):
    y = (x - MEAN) / np.sqrt(VAR) + 1.0
    found = implied(x, y, Known(eps=0.0))
    np.testing.assert_allclose(found.mean, MEAN - np.sqrt(VAR), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.var, VAR, rtol=1e-9)


def test_a_scale_of_the_wrong_sign_has_no_variance(x):
    y = x * [1.0, -1.0, 1.0]
    found = implied(x, y, Known(eps=0.0))
    assert np.isnan(found.var).tolist() == [False, True, False]
    np.testing.assert_allclose(found.var[[0, 2]], 1.0)


def test_what_is_no_line_is_told_with_its_distance(x):
    y = x * 2.0
    y[7, 1] += 0.5
    y[9, 2] += 0.1
    found = implied(x, y, Known())
    assert found.affine.tolist() == [True, False, False]
    assert found.worst == 1
    slope, shift = np.polyfit(x[:, 1], y[:, 1], 1)
    assert found.off[1] == pytest.approx(np.abs(y[:, 1] - slope * x[:, 1] - shift).max())
    assert np.isnan(found.mean).tolist() == [False, True, True]


def test_what_tells_nothing(x):
    constant = np.broadcast_to([1.0, 2.0, 3.0], x.shape)
    found = implied(constant, constant * 2, Known())
    assert found.tells_nothing
    assert np.isnan(found.mean).all()
    x[0, 1] = np.nan
    found = implied(x, x * 2, Known())
    assert np.isnan(found.scale).tolist() == [False, True, False]
    assert np.isnan(found.off).tolist() == [False, True, False]
    assert found.worst is None
