"""An answer in words."""

from __future__ import annotations

import math

import pytest

from bncli.verify.identify.said import Said, apart


@pytest.mark.parametrize(
    ("clauses", "text"),
    [
        (("y.npy is eval mode",), "y.npy is eval mode."),
        (("y.npy is it", "eps 1e-5 would be off"), "y.npy is it; eps 1e-5 would be off."),
        (("none of 3 explains it", "", "Look"), "None of 3 explains it. Look."),
        (("the update has momentum 1", "a", "b"), "The update has momentum 1; a. b."),
        (("noneOf.npy is it",), "noneOf.npy is it."),  # a file's name keeps its case
    ],
)
def test_the_clauses_are_sentences(clauses, text):
    assert Said(*clauses).text == text


@pytest.mark.parametrize("difference", [math.inf, math.nan])
def test_a_difference_that_is_no_number_is_said_in_words(difference):
    assert apart(difference) == "be NaN or infinite"
    assert apart(0.125) == "be off by 0.12"
