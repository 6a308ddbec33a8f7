"""Sums over many batches against exact arithmetic, and the algebra of merging them."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from bncli.dtypes import encode
from bncli.errors import TensorError
from bncli.moments.batches import BatchSums, batch_part, joined

from .exact import moments

TOLERANCE = 1e-12
COUNTS = ("min", "max", "at_min", "at_max", "at_zero", "nan", "posinf", "neginf")


def summed(batches, **flags):
    """The sums of `batches`."""
    sums = BatchSums(batches[0].shape[1], **flags)
    for x in batches:
        sums.add(x)
    return sums.result()


def rows(x, channel):
    """The values of a channel, (samples, values)."""
    return np.asarray(x)[:, channel].reshape(len(x), -1).astype(np.float64)


def squares(numbers, weights):
    """Mean and sum of squared deviations of Fractions, exactly."""
    mean = sum(w * v for v, w in zip(numbers, weights, strict=True)) / sum(weights)
    return mean, sum(w * (v - mean) ** 2 for v, w in zip(numbers, weights, strict=True))


def exact_sums(batches, channel):
    """What `InputSums` says of a channel, as Fractions."""
    means, counts, within, by_samples, variances = [], [], [], [], []
    for x in batches:
        by_sample = rows(x, channel)
        (mean, var), n = moments(by_sample), by_sample.size
        means.append(mean)
        counts.append(n)
        within.append(Fraction(var) * n)
        sample_means = [moments(row)[0] for row in by_sample]
        by_samples.append(squares(sample_means, [1] * len(sample_means))[1])
        if n > 1:
            variances.append(Fraction(var) * n / (n - 1))
    mean, between = squares(means, counts)
    batch_mean, batch_mean_squares = squares(means, [1] * len(means))
    found = {
        "mean": mean,
        "within": sum(within),
        "between": between,
        "sample_squares": sum(by_samples),
        "mean_of_batches": batch_mean,
        "batch_mean_squares": batch_mean_squares,
    }
    if variances:
        found["batch_var"], found["batch_var_squares"] = squares(variances, [1] * len(variances))
    return found


def close(got, wanted, scale=0.0, tolerance=TOLERANCE):
    """Within the tolerance, relative to the number or to `scale`."""
    room = tolerance * max(abs(float(wanted)), scale) + 1e-300
    return abs(Fraction(float(got)) - wanted) <= room


def check(sums, batches):
    """Assert that `sums` are those of the finite `batches`."""
    assert sums.batches == len(batches)
    assert sums.samples == sum(len(x) for x in batches)
    for c in range(sums.num_features):
        wanted = exact_sums(batches, c)
        values = np.concatenate([rows(x, c).ravel() for x in batches])
        std = float(sums.var[c]) ** 0.5
        mean = Fraction(float(sums.shift[c])) + Fraction(float(sums.offset[c]))
        assert close(mean - wanted["mean"] + wanted["mean"], wanted["mean"], std)
        # Tighter than a float64: shift and offset together have the digits for it.
        assert abs(mean - wanted["mean"]) <= TOLERANCE * std + 2.0**-51 * abs(float(mean))
        by_batches = Fraction(float(sums.shift[c])) + Fraction(float(sums.batch_mean[c]))
        assert close(by_batches, wanted["mean_of_batches"], std)
        for name in ("within", "between", "sample_squares", "batch_mean_squares"):
            assert close(getattr(sums, name)[c], wanted[name], 1e-6 * std**2), name
        if "batch_var" in wanted:
            assert close(sums.batch_var[c], wanted["batch_var"])
            floor = 1e-4 * float(wanted["batch_var"]) ** 2
            assert close(sums.batch_var_squares[c], wanted["batch_var_squares"], floor)
        assert sums.values == len(values)
        assert sums.min[c] == values.min()
        assert sums.max[c] == values.max()
        assert sums.at_min[c] == (values == values.min()).sum()
        assert sums.at_max[c] == (values == values.max()).sum()
        assert sums.at_zero[c] == (values == 0).sum()


@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 9), (3, 2, 5, 7), (2, 3, 3, 4, 5), (1, 2, 8)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_batches_of_any_shape(shape, dtype):
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal(shape) + i).astype(dtype) for i in range(3)]
    check(summed(batches), batches)


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e30, 1e150])
def test_tiny_and_huge_values(factor):
    rng = np.random.default_rng(1)
    batches = [rng.standard_normal((4, 2, 6)) * factor for _ in range(2)]
    sums = summed(batches)
    unit = summed([x / factor for x in batches])
    np.testing.assert_allclose(sums.within, unit.within * factor * factor, rtol=1e-12)
    np.testing.assert_allclose(sums.mean, unit.mean * factor, rtol=1e-12)


def test_means_far_from_zero():
    rng = np.random.default_rng(2)
    batches = [rng.standard_normal((4, 2, 50)) + 1e6 for _ in range(4)]
    check(summed(batches), batches)


@pytest.mark.parametrize("cuts", [(), (1,), (2, 3), (1, 2, 3, 4)])
def test_pieces_of_a_batch_are_the_batch(cuts):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((5, 3, 4)) + 10
    x[3, 1, 2] = np.nan
    pieces = [batch_part(x[a:b]) for a, b in itertools.pairwise((0, *cuts, 5))]
    whole, found = batch_part(x), joined(pieces)
    assert (found.count, found.samples) == (whole.count, whole.samples)
    for name in ("mean", "squares", "sample_squares"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12)
    for name in ("min", "max", "at_min", "at_max", "at_zero", "nan", "posinf", "neginf"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_no_pieces_are_refused():
    with pytest.raises(TensorError, match="No batch has come yet"):
        joined([])


def test_bits_of_bfloat16():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 3, 5)).astype(np.float32)
    bits = encode(x, "bfloat16")
    sums = BatchSums(3)
    sums.add(bits, "bfloat16")
    check(sums.result(), [(bits.astype(np.uint32) << 16).view(np.float32)])
