"""Closeness against `torch.testing.assert_close`: as a whole, and in each channel."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bncli.verify.closeness import Tolerance
from bncli.verify.meter import ClosenessMeter, closeness, pooled_closeness

special = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e300, math.inf, -math.inf, math.nan])
numbers = st.one_of(special, st.floats(-4, 4))
tolerances = st.sampled_from([0.0, 1e-9, 0.1, 0.5, 1.0])


def measure(actual, expected, axis, rtol, atol, cuts=(), *, equal_nan=False):
    """A meter that was given the arrays in pieces along axis 0."""
    meter = ClosenessMeter("y", actual.shape[axis], axis, equal_nan)
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


# ---------------------------------------------------------------------------- as a whole


def compare(actual, expected, rtol=0.0, atol=0.0):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    tolerance = Tolerance(np.full(len(actual), rtol), np.full(len(actual), atol))
    return closeness("mean", actual, expected, tolerance)


def torch_passes(actual, expected, rtol, atol) -> bool:
    try:
        torch.testing.assert_close(
            torch.tensor(actual, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64),
            rtol=rtol, atol=atol, equal_nan=True,
        )  # fmt: skip
    except AssertionError:
        return False
    return True


edges = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1.5, 2.0, 1e-300, 1e300, math.inf, -math.inf, math.nan, 1 + 2**-52]
)
near = st.one_of(edges, st.floats(-10, 10))
bounds = st.sampled_from([0.0, 1e-16, 1e-6, 0.1, 0.5, 1.0, 2.0])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(near, near), min_size=1, max_size=4), bounds, bounds)
def test_the_verdict_is_that_of_assert_close(pairs, rtol, atol):
    actual, expected = (list(side) for side in zip(*pairs, strict=True))
    assert compare(actual, expected, rtol, atol).passed == torch_passes(
        actual, expected, rtol, atol
    )


def test_verdicts_near_the_edge():
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(300):
        expected = rng.normal(size=3)
        rtol, atol = 10.0 ** rng.uniform(-6, -1, 2)
        actual = expected + rng.uniform(-1, 1, 3) * 1.3 * (atol + rtol * np.abs(expected))
        verdict = compare(actual, expected, rtol, atol).passed
        assert verdict == torch_passes(actual, expected, rtol, atol)
        passed += verdict
    assert 50 < passed < 250  # both sides of the edge were seen


def test_what_is_reported_of_the_worst():
    found = compare([1.0, 2.5, 30.0], [1.0, 2.0, 32.0], rtol=0.125, atol=0.25)
    # |diff| 0, 0.5, 2 against 0.375, 0.5, 4.25: the second uses most, the third is furthest.
    assert found.passed
    assert found.index == (1,)
    assert (found.actual, found.expected) == (2.5, 2.0)
    assert found.used == 1.0
    assert (found.max_abs_diff, found.max_rel_diff) == (2.0, 0.25)
    assert (found.mismatched, found.total) == (0, 3)
    assert found.passing_atol == 0.25
    assert (found.rtol, found.atol) == (0.125, 0.25)


def test_mismatches_are_counted():
    found = compare([1.0, 2.0, 3.0, math.nan], [1.0, 2.5, 4.0, 1.0], atol=0.5)
    assert not found.passed
    assert (found.mismatched, found.total) == (2, 4)
    assert found.index == (3,)
    assert found.used == math.inf


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=4), bounds)
def test_passing_atol_is_the_least_that_passes(pairs, rtol):
    actual, expected = (list(side) for side in zip(*pairs, strict=True))
    least = compare(actual, expected, rtol).passing_atol
    assert least >= 0
    slack = 1e-14 * (1 + max(map(abs, expected)))  # of rounding in rtol * |expected|
    assert compare(actual, expected, rtol, least + slack).passed
    if least > slack:
        assert not compare(actual, expected, rtol, least - slack).passed


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=4))
def test_passing_atol_is_exact_without_rtol(pairs):
    actual, expected = (list(side) for side in zip(*pairs, strict=True))
    least = compare(actual, expected).passing_atol
    assert compare(actual, expected, 0.0, least).passed
    if least > 0:
        assert not compare(actual, expected, 0.0, math.nextafter(least, 0)).passed


@pytest.mark.parametrize(
    ("actual", "expected", "close"),
    [
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (-math.inf, -math.inf, True),
        (math.inf, -math.inf, False),
        (math.nan, 1.0, False),
        (1.0, math.nan, False),
        (math.inf, 1e308, False),
        (1.0, math.inf, False),
        (1.0, -math.inf, False),
        (math.nan, math.inf, False),
    ],
)
def test_what_is_not_finite_is_close_to_itself_alone(actual, expected, close):
    for rtol, atol in ((0.0, 0.0), (0.5, 1e300), (1.0, 1.0)):
        found = compare([0.0, actual], [0.0, expected], rtol, atol)
        assert found.passed == close
        assert found.used == (0 if close else math.inf)
        assert found.mismatched == (0 if close else 1)
        assert found.index == ((0,) if close else (1,))
        assert found.max_abs_diff == (0 if close else math.inf)
        assert found.passing_atol == (0 if close else math.inf)


def test_nothing_compared_does_not_pass():
    assert not ClosenessMeter("output").closeness().passed
    assert not compare([], []).passed


def test_different_shapes_are_a_bug():
    with pytest.raises(ValueError, match="output"):
        ClosenessMeter("output").add(np.zeros(3), np.zeros((3, 1)), np.zeros(3), np.zeros(3), (0,))


def test_each_channel_has_its_own_tolerance():
    tolerance = Tolerance(np.array([0.0, 0.5]), np.array([0.5, 0.0]))
    assert closeness("mean", np.array([1.5, 1.5]), np.array([1.0, 1.0]), tolerance).passed
    found = closeness("mean", np.array([1.5, 1.75]), np.array([1.0, 1.0]), tolerance)
    assert (found.index, found.used, found.rtol, found.atol) == ((1,), 1.5, 0.5, 0.0)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_blocks_give_what_the_whole_gives(size):
    rng = np.random.default_rng(0)
    expected = rng.normal(size=(6, 4)).astype(np.float32)
    actual = expected + rng.normal(size=(6, 4)) * 1e-3
    rtol, atol = np.full((1, 4), 1e-4), rng.uniform(1e-4, 1e-2, (1, 4))
    whole = ClosenessMeter("output")
    whole.add(actual, expected, rtol, atol, (0, 0))
    meter = ClosenessMeter("output")
    for start in range(0, 6, size):
        part = slice(start, start + size)
        meter.add(actual[part], expected[part], rtol, atol, (start, 0))
    assert meter.closeness() == whole.closeness()
    used = np.abs(actual - expected) / (atol + rtol * np.abs(expected))
    assert whole.closeness().index == np.unravel_index(used.argmax(), used.shape)
    assert whole.closeness().used == used.max()
    assert whole.closeness().mismatched == (used > 1).sum()


def test_float32_is_compared_in_float64():
    third = np.array([1 / 3], np.float32)
    found = closeness("mean", np.array([1 / 3]), third, Tolerance(np.zeros(1), np.zeros(1)))
    assert found.max_abs_diff == abs(float(third[0]) - 1 / 3) > 0


@pytest.mark.parametrize("cuts", [(), (2,), (1, 3, 4)])
def test_the_difference_at_a_place_is_not_that_of_another(cuts):
    """NumPy says which element uses most of its tolerance, and which of those off is furthest."""
    rng = np.random.default_rng(5)
    expected = rng.normal(size=(6, 3, 4)) * 10.0 ** rng.integers(-3, 4, (6, 3, 4))
    actual = expected * (1 + rng.uniform(-1, 1, expected.shape) * 0.9e-3)
    actual += rng.normal(size=expected.shape) * 1e-3
    rtol, atol = 1e-3, 1e-4
    off = np.abs(actual - expected)
    used = off / (atol + rtol * np.abs(expected))
    assert off[used > 1].max() < off.max()  # the furthest of all has a wide tolerance
    whole = pooled_closeness("y", measure(actual, expected, 1, rtol, atol, cuts).channels())
    assert whole.index == np.unravel_index(used.argmax(), used.shape)
    assert whole.difference == off[whole.index] < whole.max_mismatch
    assert whole.max_mismatch == off[used > 1].max()
    assert whole.max_abs_diff == off.max()
    for c, channel in enumerate(measure(actual, expected, 1, rtol, atol, cuts).channels()):
        part, share = off[:, c], used[:, c]
        assert channel.difference == part.flat[share.argmax()]
        assert channel.max_mismatch == part[share > 1].max(initial=0.0)


@pytest.mark.parametrize(
    ("actual", "expected", "difference"),
    [(math.nan, math.nan, 0.0), (math.inf, math.inf, 0.0), (math.nan, 1.0, math.inf),
     (1.0, math.inf, math.inf), (1.5, 1.0, 0.5)],
)  # fmt: skip
def test_the_difference_of_what_is_not_finite(actual, expected, difference):
    allowed = Tolerance(np.zeros(1), np.full(1, 1e-3))
    found = closeness("mean", np.array([actual]), np.array([expected]), allowed)
    assert (found.difference, found.max_mismatch) == (difference, difference)


def test_integers_that_meet_in_float64_differ_by_one():
    meter = ClosenessMeter("counter")
    big = np.array([2**53 + 1])
    meter.add(big, big - 1, np.zeros(1), np.zeros(1), (0,))
    assert meter.closeness().difference == meter.closeness().max_mismatch == 1.0
