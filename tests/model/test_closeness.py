"""When a quantity passes."""

import math

import pytest

from bncli.model import Closeness


@pytest.mark.parametrize(
    ("mismatched", "total", "passed"), [(0, 3, True), (1, 3, False), (0, 0, False), (0, 1, True)]
)
def test_all_within_tolerance_and_at_least_one(mismatched, total, passed):
    numbers = [0.0, 0.0, (), 0.0, 0.0, mismatched, total, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert Closeness("mean", *numbers).passed is passed


def closeness(quantity, used, *, difference=1.0, atol=0.5, mismatched=1):
    return Closeness(
        quantity, difference, 0.0, (0,), 1.0, 2.0, mismatched, 10, 0.0, atol, used, 0.0, difference
    )


def test_the_worst_comes_first_and_counters_last():
    nan = closeness("nan", math.inf, difference=math.inf)
    far, near = closeness("far", 90.0), closeness("near", 2.0, difference=7.0)
    counter = closeness("counter", math.inf, difference=40.0, atol=0.0)
    equal = closeness("equal", 0.9, mismatched=0)
    found = sorted((equal, counter, near, far, nan), key=lambda item: item.badness)
    assert [item.quantity for item in found] == ["nan", "far", "near", "counter", "equal"]


def test_of_values_that_have_to_be_equal_the_furthest_comes_first():
    one, two = (
        closeness(name, math.inf, difference=by, atol=0.0) for name, by in (("a", 1.0), ("b", 2.0))
    )
    assert sorted((one, two), key=lambda item: item.badness) == [two, one]
