"""An answer in words."""

from __future__ import annotations

import pytest

from bncli.verify.identify.said import Said


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
