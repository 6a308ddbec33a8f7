"""By which formula a convolution was multiplied."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.states.folded.factors import Factors
from bncli.changes.states.folded.fits import fit_of, scale_of
from tests.changes.networks import known_eps
from tests.changes.pairs import random_layer, side

LAYER = random_layer()


def exact(scale, room=1e-7):
    """The factors of channels that were multiplied by a scale."""
    ends = np.sort([scale * (1 - room), scale * (1 + room)], axis=0)
    return Factors(*ends, np.ones(len(scale), bool), 9 * len(scale))


@pytest.mark.parametrize("fault", ["", "weight", "eps-outside-root", "root", "multiplied"])
def test_each_formula_is_told_from_the_others(fault):
    layer = known_eps(side(LAYER), 1e-3)
    fit = fit_of(layer, exact(scale_of(layer, fault, 1e-3)), "float32")
    assert (fit.fault, fit.eps, fit.weak) == (fault, (1e-3,), False)


def test_an_eps_that_nobody_lists_is_fitted():
    fit = fit_of(side(LAYER), exact(scale_of(side(LAYER), "", 0.0123)), "float32")
    assert fit.fitted
    assert fit.eps[0] == pytest.approx(0.0123, rel=1e-4)


def test_one_factor_for_all_channels_shows_little():
    fit = fit_of(side(LAYER), exact(np.full(8, 3.0)), "float32")
    assert fit is None or fit.weak
