"""Tolerances follow from the dtypes, are narrow, and are wider where digits are lost."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.testing import batchnorm_configurations
from bncli.testing.allowed import ONE_PASS, arithmetic_of, tolerances, widened
from bncli.verify.closeness import Tolerance
from tests.testing.test_prediction import step_of


@pytest.mark.parametrize(
    ("name", "most"),
    [("train-4d", 5e-5), ("float64-train", 1e-13), ("float16-train", 2e-3), ("eval-4d", 2e-6)],
)
def test_they_are_narrow(name, most):
    """Of an output about 1, in units that a change of a formula is far above."""
    found = tolerances(step_of(name))
    assert 0 < float((found["output"].rtol + found["output"].atol).max()) < most
    assert found["output"].rtol.shape == (1, 3, 1, 1)


def test_every_step_with_values_has_them():
    for each in batchnorm_configurations():
        if each.kind != "empty":
            for tolerance in tolerances(step_of(each.name)).values():
                assert (tolerance.rtol >= 0).all()
                assert (tolerance.atol >= 0).all()


def test_a_loss_widens_them_where_it_shows():
    near, far = step_of("train-4d"), step_of("mean-1000")
    for step, more in ((near, 1), (far, 30)):
        plain, lost = tolerances(step), tolerances(step, ONE_PASS)
        ratio = lost["running_var"].atol / plain["running_var"].atol
        assert (ratio >= more).all() if more > 1 else (ratio < 3).all()
    coarse = tolerances(near, "float16")["output"].atol / tolerances(near)["output"].atol
    assert (coarse > 100).all()
    assert arithmetic_of(near, "float32") == arithmetic_of(near)
    assert arithmetic_of(step_of("float64-train"), "float32").parameter_dtype == "float32"


def test_another_formula_has_more_room():
    tolerance = Tolerance(np.full((1, 3, 1, 1), 1e-6), np.full((1, 3, 1, 1), 1e-6))
    other = np.full((5, 3, 4, 6), 1000.0)
    plain = widened(tolerance, other, step_of("train-4d"))
    assert (plain.atol > 1e-3).all()
    assert (plain.atol < 1e-2).all()
    assert (widened(tolerance, other, step_of("mean-1000")).atol > plain.atol).all()
