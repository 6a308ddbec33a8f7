"""Candidates are measured on every value, and all that explain all of them are told."""

from __future__ import annotations

import numpy as np

from bncli.batchnorm import BLOCK_ELEMENTS
from bncli.verify.closeness import Tolerance
from bncli.verify.departures.cause import (
    Cause,
    agreed,
    all_of_channels,
    all_that_fit,
    in_doubt,
)

ONE, TWO, THREE = (Cause(words, "Do so.") for words in ("one", "two", "three"))


def tolerance(rtol, atol, channels=2):
    return Tolerance(np.full(channels, rtol), np.full(channels, atol))


def test_all_that_explain_every_channel():
    theirs = np.array([1.0, np.nan])
    candidates = {ONE: np.array([1.0, 2.0]), TWO: np.array([1.001, np.nan]), THREE: theirs}
    assert all_of_channels(candidates, theirs, tolerance(0, 1e-2)) == [TWO, THREE]
    assert all_of_channels(candidates, theirs, tolerance(0, 1e-4)) == [THREE]
    assert all_of_channels({ONE: candidates[ONE]}, theirs, tolerance(0, 1.0)) == []


def test_one_value_in_the_last_block_decides():
    theirs = np.zeros((2, BLOCK_ELEMENTS // 2 + 7), np.float32)
    theirs[1, -1] = 1
    shape = theirs.shape

    def zeros(block):
        return np.zeros(shape)[block]

    def exact(block):
        return theirs[block].astype(np.float64)

    found = all_that_fit([(ONE, zeros), (TWO, exact)], theirs, tolerance(0, 1e-3), 0)
    assert found == [TWO]
    assert all_that_fit([(ONE, zeros)], theirs, tolerance(0, 1e-3), 0) == []
    assert all_that_fit([], theirs, tolerance(0, 1e-3), 0) == []


def test_what_fits_as_well_is_said_with_what_would_decide():
    assert in_doubt([], "more") is None
    assert in_doubt([ONE, Cause("one", "Do otherwise.")], "more") is ONE
    both = in_doubt([ONE, TWO], "another input")
    assert both.said == "one, or two"
    assert both.advice == (
        "Both fit this comparison: compare with another input to tell which it is."
    )
    many = in_doubt([ONE, TWO, THREE, Cause("four", "Do so.")], "another input")
    assert many.said == "one, or two, or three, or 1 more"
    assert many.advice.startswith("All of these fit")
    assert (ONE.said, ONE.advice) == ("one", "Do so.")


def test_the_one_cause_that_fits_in_every_mode_is_said_alone():
    first, second = in_doubt([ONE, TWO], "a"), in_doubt([THREE, TWO], "b")
    for cause in agreed([first, second]):
        assert (cause.said, cause.advice) == ("two", "Do so.")
        assert len(cause.others) == 1
    assert [cause.said for cause in agreed([first, TWO])] == ["two", "two"]
    assert agreed([first, first]) == [first, first]  # two fit in both
    assert agreed([first, THREE]) == [first, THREE]
    assert agreed([first]) == [first]
