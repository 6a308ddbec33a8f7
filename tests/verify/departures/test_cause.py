"""Candidates are measured on every value, and the first that explains all of them is taken."""

from __future__ import annotations

import numpy as np

from bncli.batchnorm import BLOCK_ELEMENTS
from bncli.verify.closeness import Tolerance
from bncli.verify.departures.cause import Cause, first_of_channels, first_that_fits

ONE, TWO, THREE = (Cause(words, "Do so.") for words in ("one", "two", "three"))


def tolerance(rtol, atol, channels=2):
    return Tolerance(np.full(channels, rtol), np.full(channels, atol))


def test_the_first_that_explains_every_channel():
    theirs = np.array([1.0, np.nan])
    candidates = {ONE: np.array([1.0, 2.0]), TWO: np.array([1.001, np.nan]), THREE: theirs}
    assert first_of_channels(candidates, theirs, tolerance(0, 1e-2)) is TWO
    assert first_of_channels(candidates, theirs, tolerance(0, 1e-4)) is THREE
    assert first_of_channels({ONE: candidates[ONE]}, theirs, tolerance(0, 1.0)) is None


def test_one_value_in_the_last_block_decides():
    theirs = np.zeros((2, BLOCK_ELEMENTS // 2 + 7), np.float32)
    theirs[1, -1] = 1
    shape = theirs.shape

    def zeros(block):
        return np.zeros(shape)[block]

    def exact(block):
        return theirs[block].astype(np.float64)

    found = first_that_fits([(ONE, zeros), (TWO, exact)], theirs, tolerance(0, 1e-3), 0)
    assert found is TWO
    assert first_that_fits([(ONE, zeros)], theirs, tolerance(0, 1e-3), 0) is None
    assert first_that_fits([], theirs, tolerance(0, 1e-3), 0) is None
