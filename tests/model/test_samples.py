"""Sums over samples, against NumPy on the samples themselves."""

import numpy as np
import pytest

from bncli.model import samples
from bncli.model.samples import SampleSums, moved, pooled, power_sums

RNG = np.random.default_rng(0)
MEAN, VAR = RNG.normal(size=(9, 3)), RNG.random((9, 3))


def by_hand(d, v):
    return np.stack([f.sum(0) for f in (d, d**2, d**3, d**4, v, v**2, d * v, d**2 * v)])


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_powers_and_products(chunk, monkeypatch):
    monkeypatch.setattr(samples, "_CHUNK", chunk)
    np.testing.assert_allclose(power_sums(MEAN, VAR), by_hand(MEAN, VAR), rtol=1e-12)
    np.testing.assert_allclose(power_sums(MEAN, None), by_hand(MEAN, 0 * VAR), rtol=1e-12)


def test_sums_about_another_mean():
    by = np.array([0.5, -2.0, 10.0])
    found = moved(power_sums(MEAN, VAR), 9, by)
    np.testing.assert_allclose(found, by_hand(MEAN + by, VAR), rtol=1e-9)


def test_variances_between_and_within():
    sums = SampleSums(9, 9.0, power_sums(MEAN, VAR))
    np.testing.assert_allclose(sums.mean_variance, MEAN.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(sums.mean_squares, MEAN.var(0) * 9, rtol=1e-12)
    np.testing.assert_allclose(sums.inner_variance, VAR.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(sums.square_variance, (VAR + MEAN**2).var(0, ddof=1), rtol=1e-12)


def test_one_sample_has_no_variance_and_rounding_leaves_none_below_0():
    one = SampleSums(1, 1.0, power_sums(MEAN[:1], VAR[:1]))
    assert np.isnan(one.mean_variance).all()
    two = SampleSums(2, 2.0, power_sums(MEAN[:2], VAR[:2]))
    np.testing.assert_allclose(two.mean_variance, MEAN[:2].var(0, ddof=1), rtol=1e-9)
    alike = SampleSums(3, 3.0, power_sums(np.full((3, 1), 0.1), None))
    assert 0 <= alike.mean_variance[0] < 1e-17
    assert 0 <= alike.mean_squares[0] < 1e-17


def test_tensors_whose_samples_differ_in_size_are_pooled():
    """Five samples of 10 values and four of 30: effective by the squares of their sizes."""
    parts = [
        (50, SampleSums(5, 5.0, power_sums(MEAN[:5], VAR[:5]))),
        (120, SampleSums(4, 4.0, power_sums(MEAN[5:], VAR[5:]))),
    ]
    deltas = [np.array([1.0, 0.0, -1.0]), np.array([2.0, 3.0, 0.5])]
    found = pooled(parts, deltas)
    d = np.concatenate([MEAN[:5] + deltas[0], MEAN[5:] + deltas[1]])
    np.testing.assert_allclose(found.sums, by_hand(d, VAR), rtol=1e-12)
    assert found.number == 9
    assert found.effective == pytest.approx(170**2 / (5 * 10**2 + 4 * 30**2))
