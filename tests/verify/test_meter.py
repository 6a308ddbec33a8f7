"""Each channel's closeness: what one meter a channel would say, and what assert_close does."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing._comparison import default_tolerances

from bncli.dtypes import DTYPES
from bncli.verify.closeness import ClosenessMeter, default_tolerance, spacing
from bncli.verify.meter import ChannelMeter, pooled_closeness

special = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e300, math.inf, -math.inf, math.nan])
numbers = st.one_of(special, st.floats(-4, 4))
tolerances = st.sampled_from([0.0, 1e-9, 0.1, 0.5, 1.0])


def measure(actual, expected, axis, rtol, atol, cuts=(), *, equal_nan=False):
    """A meter that was given the arrays in pieces along axis 0."""
    meter = ChannelMeter("y", actual.shape[axis], axis, equal_nan)
    ends = [0, *cuts, len(actual)]
    for begin, end in itertools.pairwise(ends):
        start = (begin, *[0] * (actual.ndim - 1))
        meter.add(actual[begin:end], expected[begin:end], np.float64(rtol), np.float64(atol), start)
    return meter


def close(actual, expected, rtol, atol, *, equal_nan) -> bool:
    try:
        torch.testing.assert_close(
            torch.from_numpy(actual), torch.from_numpy(expected), rtol=rtol, atol=atol,
            equal_nan=equal_nan,
        )  # fmt: skip
    except AssertionError:
        return False
    return True


@settings(max_examples=200, deadline=None)
@given(st.data(), tolerances, tolerances, st.booleans())
def test_each_channel_is_judged_as_assert_close_does(data, rtol, atol, equal_nan):
    shape = data.draw(st.sampled_from([(3,), (2, 3), (3, 2, 2)]))
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = math.prod(shape)
    actual, expected = (
        np.array(data.draw(st.lists(numbers, min_size=size, max_size=size))).reshape(shape)
        for _ in range(2)
    )
    same = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    expected = np.where(np.reshape(same, shape), actual, expected)
    cut = data.draw(st.integers(0, shape[0])) if axis else 0
    meter = measure(actual, expected, axis, rtol, atol, [cut] if cut else [], equal_nan=equal_nan)
    for channel, found in enumerate(meter.channels()):
        ours, theirs = (np.take(side, [channel], axis) for side in (actual, expected))
        assert found.passed == close(ours, theirs, rtol, atol, equal_nan=equal_nan)
        assert found.total == ours.size
        with np.errstate(all="ignore"):
            equal = (ours == theirs) | (equal_nan & np.isnan(ours) & np.isnan(theirs))
            diff = np.where(equal, 0.0, np.abs(ours - theirs))
        assert found.max_abs_diff == np.where(np.isnan(diff), np.inf, diff).max()
        assert found.index[axis] == channel
        np.testing.assert_equal(found.actual, actual[found.index])
        np.testing.assert_equal(found.expected, expected[found.index])


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_the_whole_is_what_the_plain_meter_says(axis):
    rng = np.random.default_rng(axis)
    expected = rng.normal(size=(4, 3, 5, 2))
    actual = expected + rng.normal(size=expected.shape) * 1e-3
    rtol, atol = 1e-4, 1e-4
    plain = ClosenessMeter("y")
    plain.add(actual, expected, np.float64(rtol), np.float64(atol), (0, 0, 0, 0))
    whole = measure(actual, expected, axis, rtol, atol, [1, 3] if axis else []).closeness()
    assert whole == plain.closeness()
    assert 0 < whole.mismatched < whole.total


def test_the_worst_of_equals_is_the_first():
    zeros = np.zeros((3, 4))
    assert measure(zeros, zeros, 1, 0, 0).closeness().index == (0, 0)
    apart = zeros.copy()
    apart[2, 0] = apart[1, 3] = 1.0
    assert measure(apart, zeros, 1, 0, 0.5).closeness().index == (1, 3)
    in_pieces = measure(zeros, zeros, 1, 0, 0, [1, 2]).channels()
    assert [channel.index for channel in in_pieces] == [(0, c) for c in range(4)]


def test_nothing_is_no_pass():
    empty = np.zeros((0, 3))
    meter = measure(empty, empty, 1, 1, 1)
    assert not any(channel.passed for channel in meter.channels())
    assert not meter.closeness().passed
    assert pooled_closeness("y", ()).total == 0


def test_integers_that_meet_in_float64_differ():
    actual, expected = np.array([2**60]), np.array([2**60 + 1])
    (found,) = measure(actual, expected, 0, 0, 0).channels()
    assert (found.passed, found.mismatched, found.max_abs_diff) == (False, 1, 1.0)


def test_shapes_that_would_broadcast_are_no_pair():
    with pytest.raises(ValueError, match="against"):
        measure(np.zeros((2, 3)), np.zeros((2, 1)), 0, 0, 0)


KNOWN = [name for name in DTYPES if hasattr(torch, name) and "complex" not in name]


@pytest.mark.parametrize("pair", list(itertools.product(KNOWN, repeat=2)), ids="-".join)
def test_the_default_tolerance_is_that_of_assert_close(pair):
    assert default_tolerance(*pair) == default_tolerances(*(getattr(torch, name) for name in pair))


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float64", "f8"), ("float32", "f4"), ("float16", "f2")]
)
def test_spacing_is_numpys(dtype, kind):
    rng = np.random.default_rng(0)
    largest = float(np.finfo(kind).max)
    values = np.exp(rng.uniform(np.log(np.finfo(kind).tiny), np.log(largest), 500)).astype(kind)
    values = np.concatenate([values, np.array([0, 1, 2, np.finfo(kind).smallest_subnormal], kind)])
    steps = np.spacing(np.abs(values)).astype(np.float64)
    np.testing.assert_array_equal(spacing(values.astype(np.float64), dtype), steps)


def test_spacing_of_what_has_none():
    assert np.isnan(spacing(np.array([np.inf, np.nan]), "float32")).all()
    assert np.isnan(spacing(np.array([1.0]), "int64")).all()
    assert spacing(np.array([1.0]), "bfloat16") == 2.0**-7
