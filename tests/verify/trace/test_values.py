"""Steps and identities: how far apart two values are, and what float64 explains."""

from __future__ import annotations

import math

import pytest

from bncli.verify.trace import Identity, Step


def test_how_far_evaluation_is_from_training():
    assert Step("mean", "", "", 3.5, training=1.0).apart == 2.5
    assert Step("count", "", "", 4, training=4.0).apart == 0.0
    assert Step("mean", "", "", 3.5).apart is None
    assert Step("values", "", "", None, training=1.0).apart is None


@pytest.mark.parametrize(
    ("left", "right", "scale", "holds"),
    [
        (1.0, 1.0, 0.0, True),
        (0.0, 2.0**-40, 1.0, True),  # 9.1e-13
        (0.0, -(2.0**-39), 1.0, False),  # 1.8e-12
        (0.0, 2.0**-39, 2.0, True),
        (math.nan, 1.0, 1.0, None),
        (math.inf, math.inf, 1.0, None),
        (0.0, -math.inf, math.inf, None),
    ],
)
def test_an_identity_holds_to_rounding(left, right, scale, holds):
    assert Identity("sum", "0", left, right, scale).holds is holds
