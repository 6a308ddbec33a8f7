"""Statistics that lose digits, and NaN that spreads."""

from __future__ import annotations

import numpy as np
import pytest

from tests.verify.departures.planted import case, named


@pytest.mark.parametrize("mean", [60.0, 2000.0])
def test_a_variance_in_one_pass(mean):
    causes, _ = named("one pass", case(mean=mean))
    assert causes["output"].startswith("one-pass variance, mean(x^2) - mean^2: it loses ")
    assert f"{mean / 0.2:.1g}"[:1] in causes["output"]


def test_an_offset_is_not_taken_for_lost_digits():
    causes, failed = named("offset", case(mean=60.0))
    assert "output" in failed
    assert "output" not in causes


def test_sums_in_half_precision():
    causes, _ = named("half sums", case(dtype="float16"))
    assert causes["output"] == "the statistics lose digits, as sums in float16 do"


def test_nan_of_one_channel_in_others():
    config = case()
    config.x[0, 2, 0] = np.nan
    causes, _ = named("nan spreads", config)
    assert causes["output"] == "NaN or Inf of one channel spreads to others"
    assert named("", config) == ({}, set())
