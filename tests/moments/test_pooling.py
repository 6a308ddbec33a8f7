"""Splitting and merging, threads, and what the statistics do when the values are transformed."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bncli.dtypes import encode
from bncli.errors import TensorError
from bncli.moments import channel_stats, merge
from bncli.moments.pooling import Sum

from .exact import check, moments, same_bits

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
values = st.floats(-1e6, 1e6, width=32) | st.integers(-3, 3).map(float)
tensors = hnp.array_shapes(min_dims=2, max_dims=5, max_side=6).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=values)
)
cuts = st.tuples(st.integers(1, 200), st.integers(1, 60))


@FEW
@given(x=tensors, sizes=cuts, data=st.data())
def test_any_array_any_cut(x, sizes, data, cut):
    cut(max(sizes), min(sizes))
    x = x.transpose(data.draw(st.permutations(range(x.ndim))))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    stats = channel_stats(x, axis, threads=2, kurtosis=True)
    check(stats, x, axis)


@FEW
@given(x=tensors, data=st.data())
def test_merged_parts_are_the_whole(x, data):
    cutting = sorted(data.draw(st.sets(st.integers(1, max(1, len(x) - 1)), max_size=4)))
    parts = [part for part in np.split(x, cutting) if len(part)]
    parts = data.draw(st.permutations(parts))
    merged = merge([channel_stats(part, kurtosis=True) for part in parts])
    check(merged, x)
    whole = channel_stats(x, kurtosis=True)
    scale = np.maximum(np.abs(x).max(), 1.0)
    assert np.allclose(merged.third, whole.third, rtol=1e-9, atol=1e-13 * scale**3)
    assert np.allclose(merged.fourth, whole.fourth, rtol=1e-9, atol=1e-13 * scale**4)


@pytest.mark.parametrize("task", [4, 10, 21])
def test_tasks_of_unlike_means_and_spreads_have_the_moments_of_the_whole(cut, task):
    """Skewed values that drift and widen: no term of the third and fourth moment is 0."""
    x = np.random.default_rng(32).exponential(size=(50, 2)) * np.linspace(1, 4, 50)[:, None]
    x += np.linspace(0, 9, 50)[:, None] * [1, -1]
    cut(task, 2)
    check(channel_stats(x, threads=1, kurtosis=True), x, kurtosis=True)


@FEW
@given(x=tensors, seed=st.integers(0, 99))
def test_order_does_not_matter(x, seed):
    rows = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
    shuffled = np.random.default_rng(seed).permuted(rows, axis=1)
    check(channel_stats(shuffled, 0), x)


@FEW
@given(x=tensors, power=st.integers(-40, 40), shift=st.integers(-(2**20), 2**20))
def test_shift_and_scale(x, power, shift):
    """Powers of two scale exactly; whole numbers shift whole numbers exactly."""
    plain = channel_stats(x)
    scaled = channel_stats(x * 2.0**power)
    assert np.allclose(scaled.var, plain.var * 4.0**power, rtol=1e-12, atol=0)
    whole = np.rint(x)
    moved = channel_stats(whole + shift)
    still = channel_stats(whole)
    assert np.allclose(moved.var, still.var, rtol=1e-12, atol=0)
    assert np.allclose(
        moved.mean, still.mean + shift, rtol=1e-15, atol=1e-12 * np.sqrt(still.var).max()
    )


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e6])
def test_many_shards(mean):
    x = np.random.default_rng(30).standard_normal((1000, 3)) + mean
    merged = merge([channel_stats(part) for part in np.split(x, 250)])
    check(merged, x)
    twice = merge([merge([channel_stats(p) for p in np.split(h, 125)]) for h in np.split(x, 2)])
    check(twice, x)


def test_a_long_sum_keeps_what_additions_lose():
    total = Sum(2)
    total.add(slice(None), np.array([1e17, 0.1]))
    for _ in range(3000):
        total.add(slice(None), np.array([1.0, 0.1]))
    total.add(slice(0, 1), np.array([-1e17]))
    assert total.value().tolist() == [3000.0, float(3001 * Fraction(0.1))]


def test_merging_what_is_not_finite():
    x = np.random.default_rng(31).standard_normal((12, 3))
    x[7, 1], x[9, 1], x[11, 2] = np.inf, np.nan, -np.inf
    merged = merge([channel_stats(part) for part in np.split(x, 3)])
    whole = channel_stats(x)
    assert np.array_equal(merged.mean[1:], [np.nan, -np.inf], equal_nan=True)
    assert np.isnan(merged.var[1:]).all()
    assert merged.var[0] == pytest.approx(whole.var[0], rel=1e-12)
    assert merged.nan.tolist() == [0, 1, 0]
    assert merged.posinf.tolist() == [0, 1, 0]
    assert merged.neginf.tolist() == [0, 0, 1]
    assert np.array_equal(merged.min, whole.min)
    assert np.array_equal(merged.max, whole.max)
    assert merged.first_nonfinite == (None, (3, 1), (3, 2))  # each in its own part


def test_one_value_that_is_not_finite_is_enough():
    """As IEEE arithmetic has it: NumPy's own mean of the channel."""
    odd = [[np.inf], [-np.inf], [np.inf, -np.inf], [np.nan], [np.nan, np.inf], []]
    x = np.stack([np.array([*values, *range(4 - len(values))], float) for values in odd], axis=1)
    with np.errstate(invalid="ignore"):
        mean = x.mean(0)
    for stats in (channel_stats(x, kurtosis=True), merge([channel_stats(x, kurtosis=True)])):
        np.testing.assert_array_equal(stats.mean, mean)
        assert stats.offset[:5].tolist() == [0] * 5  # all of such a mean is in `shift`
        for moment in (stats.var, stats.third, stats.fourth):
            assert np.isnan(moment).tolist() == [True] * 5 + [False]


def test_merging_huge_values():
    x = np.concatenate([np.full((999, 1), 0.0), np.full((1, 1), 1.5e155)])
    merged = merge([channel_stats(x[:999]), channel_stats(x[999:])])
    assert merged.var[0] == pytest.approx(moments(x)[1], rel=1e-12)
    beyond = channel_stats(np.array([[1e308], [-1e308]]))
    assert merge([beyond, beyond]).var.tolist() == [np.inf]


def test_what_cannot_be_merged():
    with pytest.raises(TensorError, match="no statistics"):
        merge([])
    with pytest.raises(TensorError, match="3 and of 4 channels"):
        merge([channel_stats(np.ones((2, 3))), channel_stats(np.ones((2, 4)))])
    plain = channel_stats(np.ones((2, 3)))
    assert merge([plain, replace(plain, third=plain.var, fourth=plain.var)]).fourth is None


def test_bfloat16_and_float16_are_what_they_widen_to():
    x = np.random.default_rng(38).standard_normal((300, 70))
    half = encode(x, "float16")
    assert same_bits(channel_stats(half), channel_stats(half.astype(np.float32)))
