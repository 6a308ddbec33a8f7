"""Few rows, the troubled ones first, and ranges in one cell."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncli.report import ANSWER_ROWS
from bncli.sections.answer import counted, known, listed, scope_of, share, span, troubled_first


@given(st.lists(st.booleans(), max_size=60))
def test_no_trouble_is_left_out_for_a_healthy_row(rows):
    numbered = list(enumerate(rows))
    shown, left = troubled_first(numbered, lambda row: row[1])
    assert sorted(shown + left) == numbered
    few = len(rows) <= 8 or not any(rows)
    assert len(shown) == min(len(rows) if few else sum(rows), ANSWER_ROWS)
    assert all(sick for _, sick in shown) or not any(sick for _, sick in left)
    for sick in (False, True):  # the order stays among their like
        assert [row for row in shown + left if row[1] == sick] == [
            row for row in numbered if row[1] == sick
        ]


def test_an_answer_has_at_most_twenty_rows():
    shown, left = troubled_first(range(100), lambda row: row == 70)
    assert shown == [70]
    assert left == [row for row in range(100) if row != 70]
    assert troubled_first(range(100), lambda row: False)[0] == list(range(20))
    assert troubled_first(range(100), lambda row: row >= 30)[0] == list(range(30, 50))
    assert troubled_first(range(8), lambda row: row == 7)[0] == [7, *range(7)]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.36, 0.35, "-0.36 .. 0.35"),
        (1.0, 1.0, "1"),
        (1.00001, 1.00002, "1"),
        (None, 1.0, None),
        (0.0, float("nan"), "0 .. nan"),
    ],
)
def test_a_range_is_one_cell(low, high, text):
    assert span(low, high) == text


def test_things_are_counted():
    assert [counted(n, "layer") for n in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
    assert counted(2, "axis", "axes") == "2 axes"


def test_names_are_listed_up_to_four():
    assert listed(["mean"]) == "mean"
    assert listed([*"abcd"]) == "a, b, c, d"
    assert listed([*"abcdef"]) == "a, b, c, d and 2 more"
    assert listed([*"abc"], 1) == "a and 2 more"


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0.0, "0%"),
        (0.004, "less than 1%"),
        (0.374, "37%"),
        (1.5, "150%"),
        (9.35, "935%"),
        (21.53, "21.5 times"),
        (123456.0, "1.23e+05 times"),
        (float("inf"), "-"),
    ],
)
def test_a_share_is_in_percent(part, text):
    assert share(part) == text


def test_a_scope_is_channels_and_their_values():
    assert scope_of(1, 1) == "1 channel of 1 value"
    assert scope_of(48, 784) == "48 channels of 784 values"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_known(value):
    assert known(value) is None


def test_a_count_stays_a_whole_number():
    assert [type(known(value)) for value in (0, 0.0)] == [int, float]
