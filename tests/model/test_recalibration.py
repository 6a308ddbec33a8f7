"""What the numbers of a layer's new statistics come to."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.model import BatchNormModule, BatchNormState
from bncli.model.recalibration import LayerChange, Recalibration


def change(*, eps=0.25, error=(0.5, 0.25), mean=(1.0, 4.0), var=(3.75, 0.75), **state):
    given = {"running_mean": np.float32([0, 6]), "running_var": np.float32([0.75, 3.75])} | state
    module = None if eps is None else BatchNormModule("BatchNorm2d", eps, 0.1, True, True, False)
    return LayerChange(
        "bn",
        BatchNormState("bn", **given, module=module),
        np.array(mean),
        np.array(var),
        100,
        10,
        2,
        np.array(error),
    )


def test_z_is_how_far_the_mean_moves_in_new_standard_deviations():
    assert change().z.tolist() == [0.5, -2.0]


def test_the_ratio_of_variances_is_new_over_old():
    assert change().var_ratio.tolist() == [4.0, 0.25]


def test_a_layer_moves_by_both_and_doubling_is_halving():
    moved = change(mean=(0.0, 4.0), var=(3.75, 3.75), running_var=np.float32([0.75, 0.75])).moved
    np.testing.assert_allclose(moved, [np.log(2), np.hypot(1, np.log(2))])
    halved = change(mean=(0.0, 6.0), var=(0.75, 0.75), running_var=np.float32([3.75, 3.75])).moved
    np.testing.assert_allclose(halved, np.log(2))


def test_the_standard_error_is_that_of_the_worst_channel():
    assert change().standard_error == 0.5
    assert change(error=(np.nan, 0.25)).standard_error == 0.25
    assert np.isnan(change(error=(np.nan, np.inf)).standard_error)


def test_old_statistics_that_are_missing_or_not_finite_give_nan():
    missing = change(running_mean=None, running_var=None)
    assert np.isnan(missing.z).all()
    assert np.isnan(missing.var_ratio).all()
    spoilt = change(running_mean=np.float32([np.nan, 6]), running_var=np.float32([np.inf, 3.75]))
    assert np.isnan(spoilt.z[0])
    assert spoilt.z[1] == -2
    assert spoilt.var_ratio.tolist() == [0.0, 0.25]


def test_half_precision_is_widened_before_it_is_compared():
    old = change(running_mean=np.float16([0.1, 6]), eps=0.0, mean=(60000.0, 4.0))
    assert old.z[0] == pytest.approx((60000 - float(np.float16(0.1))) / np.sqrt(3.75), rel=1e-15)


def test_an_eps_that_is_not_known_is_the_default():
    assert change(eps=None).eps == 1e-5
    assert change(eps=0.001).eps == 0.001


def test_nothing_is_measured_until_it_is():
    bare = Recalibration((), {})
    assert (bare.gap_before, bare.gap_after, bare.gap_floor, bare.checked) == (*[None] * 3, False)
