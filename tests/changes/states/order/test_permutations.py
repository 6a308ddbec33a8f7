"""Permutations of rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bncli.changes.states.order.permutations import (
    equal_values,
    permutation_of,
    round_numbers,
    sorting_order,
)

VALUES = st.sampled_from([0.5, 1.25, 2.75, np.nan, np.inf])


@given(st.data())
def test_the_order_leads_from_the_one_to_the_other(data):
    count, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
    rows = [[data.draw(VALUES) for _ in range(columns)] for _ in range(count)]
    a = np.array(rows)
    b = a[np.array(data.draw(st.permutations(range(count))))]
    order = sorting_order(a, b)
    assert sorted(order.tolist()) == list(range(count))
    assert equal_values(a[order], b)
    b[0, 0] = 7
    assert sorting_order(a, b) is None


def test_shapes_that_differ_are_no_permutation():
    assert sorting_order(np.ones((3, 2)), np.ones((4, 2))) is None


def test_rows_in_place_are_no_permutation():
    rows = np.random.default_rng(0).normal(size=(8, 4))
    assert permutation_of(rows, rows) is None
    assert permutation_of(np.ones((8, 4)), np.ones((8, 4))) is None


def test_twice_the_same_rows_do_not_hide_the_name():
    rows = np.random.default_rng(0).normal(size=(8, 4))
    rows[[1, 4]] = rows[0]
    found = permutation_of(rows, np.roll(rows, 2, axis=0))
    assert (found.says, found.shift) == ("shifted by 2", 2)
    assert permutation_of(rows, rows[::-1]).says == "reversed"


def test_two_of_two_are_swapped():
    rows = np.array([[0.5, 1.5], [2.5, 3.5]])
    assert permutation_of(rows, rows[::-1]).swapped == (0, 1)


def test_whole_numbers_tell_nothing():
    rows = np.array([[0, 1.0], [1, 1], [0.5, 1], [np.nan, 1]])
    assert round_numbers(rows).tolist() == [True, True, False, True]
    assert round_numbers(np.full((3, 2), 0.5)).all()
    assert permutation_of(rows[:2], rows[1::-1]) is None


def test_the_order_of_a_named_permutation_leads_to_the_other_rows():
    rows = np.random.default_rng(1).normal(size=(12, 3))
    for other in (np.roll(rows, 3, 0), rows[::-1], rows[np.random.default_rng(2).permutation(12)]):
        found = permutation_of(rows, other)
        assert found is not None
        assert equal_values(rows[found.order], other)
