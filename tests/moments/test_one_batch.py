"""Channels that need more than one pass: far from 0, spoilt, near the ends of float64."""

from fractions import Fraction

import numpy as np
import pytest

from bncli.moments import one_batch
from bncli.moments.batches import BatchSums, batch_part

from .exact_batches import COUNTS, check


def summed(batches):
    sums = BatchSums(batches[0].shape[1])
    for x in batches:
        sums.add(x)
    return sums.result()


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("mean", [1.0, 4.0, 30.0, 1e6, 1e12, -1e15])
@pytest.mark.parametrize("shape", [(4, 3, 50), (30, 3), (2, 3, 5, 6)], ids=str)
def test_means_far_from_zero(mean, shape):
    batches = [normal(shape, i) + mean for i in range(3)]
    check(summed(batches), batches)


def test_far_channels_among_others():
    x = normal((4, 40, 30)).astype(np.float32)
    x[:, ::7] += 1000
    check(summed([x, x[::-1] * 2]), [x, x[::-1] * 2])


@pytest.mark.parametrize("guess", [0.0, 1e7, -3.0])
def test_a_bad_guess_costs_time_alone(guess, monkeypatch):
    monkeypatch.setattr(one_batch, "_guess", lambda blocks: np.full(3, guess))
    x = normal((4, 3, 50)) + 1e6
    x[:, 1] -= 1e6
    check(summed([x]), [x])


def test_values_unlike_those_that_the_guess_sees():
    x = np.full((8, 2, 90), 5.0)
    x[3, 0, 70] = -1e9
    x[5, 1] = normal((90,)) * 1e-3
    check(summed([x]), [x])


def test_constant_channels_have_no_variance():
    x = np.full((4, 3, 25), 0.1)
    x[:, 1] = 0
    x[:, 2] = -7e-310
    part = batch_part(x)
    np.testing.assert_array_equal(part.mean, x[0, :, 0])
    assert not part.squares.any()
    assert not part.sample_squares.any()
    np.testing.assert_array_equal(part.at_min, 100)
    np.testing.assert_array_equal(part.at_zero, [0, 100, 0])


@pytest.mark.parametrize("factor", [1e-30, 1e-120, 1e-140, 1e30, 1e120, 1e140, 1e150])
def test_tiny_and_huge_values(factor):
    batches = [normal((4, 2, 6), i) * factor for i in range(2)]
    check(summed(batches), batches)


def test_values_at_the_ends_of_float64():
    """Sums of squares overflow and vanish; means do not."""
    x = normal((4, 3, 6))
    x[:, 0] *= 1e-310
    x[:, 1] *= 1e307
    sums = summed([x])
    for c in range(3):
        values = [Fraction(v) for v in x[:, c].ravel().tolist()]
        mean = sum(values) / len(values)
        got = Fraction(float(sums.mean[c]))
        assert abs(got - mean) <= 1e-12 * abs(float(mean)) + 1e-323
    assert sums.within[0] == 0
    assert sums.within[1] == np.inf
    np.testing.assert_array_equal(sums.min, x.min(axis=(0, 2)))


def test_nan_and_infinities_spoil_their_channels_alone():
    x = normal((6, 6, 20)) + 3
    clean = summed([x, x])
    spoilt = x.copy()
    spoilt[0, 0, 3] = np.nan
    spoilt[2, 1, 5:7] = np.inf
    spoilt[3, 2, 0] = -np.inf
    spoilt[4, 3, :2] = np.inf, -np.inf
    spoilt[:, 4] = np.nan
    for batches in ([spoilt, x], [x, spoilt], [spoilt, spoilt[::-1]]):
        sums = summed(batches)
        times = 1 + (batches[0] is not x and batches[1] is not x)
        np.testing.assert_array_equal(sums.nan, np.array([1, 0, 0, 0, 120, 0]) * times)
        np.testing.assert_array_equal(sums.posinf, np.array([0, 2, 0, 1, 0, 0]) * times)
        np.testing.assert_array_equal(sums.neginf, np.array([0, 0, 1, 1, 0, 0]) * times)
        np.testing.assert_array_equal(sums.mean[:5], [np.nan, np.inf, -np.inf, np.nan, np.nan])
        assert np.isnan(sums.within[:5]).all()
        assert np.isnan(sums.between[:5]).all()
        assert np.isnan(sums.sample_squares[:5]).all()
        finite = np.where(np.isfinite(np.concatenate(batches)), np.concatenate(batches), np.nan)
        with np.errstate(all="ignore"):
            few = finite[:, :4]
            np.testing.assert_array_equal(sums.min[:4], np.nanmin(few, axis=(0, 2)))
            np.testing.assert_array_equal(sums.max[:4], np.nanmax(few, axis=(0, 2)))
            low = np.nanmin(few, axis=(0, 2))[:, None]
            np.testing.assert_array_equal(sums.at_min[:4], (few == low).sum(axis=(0, 2)))
        assert sums.mean[5] == pytest.approx(clean.mean[5], rel=1e-12)
        assert sums.within[5] == pytest.approx(clean.within[5], rel=1e-12)


def test_a_channel_of_infinities_and_one_without_finite_values():
    x = np.zeros((2, 3, 4))
    x[:, 0] = np.inf
    x[:, 1] = np.nan
    part = batch_part(x)
    np.testing.assert_array_equal(part.mean, [np.inf, np.nan, 0])
    assert np.isnan(part.min[:2]).all()
    assert np.isnan(part.max[:2]).all()
    np.testing.assert_array_equal(part.at_min, [0, 0, 8])
    np.testing.assert_array_equal(part.posinf, [8, 0, 0])
    np.testing.assert_array_equal(part.nan, [0, 8, 0])


def test_channels_larger_than_a_piece(monkeypatch):
    monkeypatch.setattr(one_batch, "PIECE_VALUES", 16)
    x = normal((3, 4, 5, 6)) + 1e9
    x[:, 2] *= 1e-200
    x[0, 3, 0, 0] = np.inf
    part = batch_part(x)
    whole = np.delete(x, 3, axis=1)
    check(summed([whole]), [whole])
    assert part.posinf.tolist() == [0, 0, 0, 1]
    monkeypatch.undo()
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(part, name), getattr(batch_part(x), name))
