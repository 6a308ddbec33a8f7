"""What the tolerances take from an arithmetic: roundoffs of NumPy's dtypes, and bounds of sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.backends.arithmetic import Arithmetic, walk_of

PLAIN = Arithmetic.plain("float32", "float32", 400)
U = float(np.finfo(np.float32).eps) / 2


def test_a_plain_one_says_its_dtype_and_how_many_it_adds():
    half = Arithmetic.plain("float16", "float32", 9, computed_in="float64")
    assert (half.accumulate_dtype, half.backward_dtype) == ("float64", "float64")
    assert (half.additions, half.backward_additions) == (9, 9)
    assert (half.rows, half.order, half.order_known) == (False, "any", False)
    assert Arithmetic.plain("float16", "float32", 9).accumulate_dtype == "float32"


def test_roundoffs_are_numpys():
    assert PLAIN.u == U
    assert (PLAIN.as_precise, PLAIN.output_u) == (False, 0.0)
    wide = Arithmetic.plain("float64", "float64", 9)
    assert wide.as_precise is True
    assert wide.u == np.finfo(np.float64).eps  # twice its roundoff: bncli's own is as large
    half = Arithmetic.plain("float16", "float32", 9)
    assert (half.u, half.output_u) == (U, float(np.finfo(np.float16).eps) / 2)
    assert PLAIN.underflow == PLAIN.tiniest == float(np.finfo(np.float32).tiny)
    assert wide.underflow == float(np.finfo(np.float64).tiny)


def test_a_sum_in_any_order_may_lose_every_rounding_and_a_known_one_none():
    assert (PLAIN.walk, PLAIN.backward_walk) == (400 * U, 800 * U)
    assert (PLAIN.slack, PLAIN.own_steps) == (0.0, 2)
    similar, repeated = replace(PLAIN, order="similar"), replace(PLAIN, order="repeated")
    assert similar.walk == 4 * walk_of("float32", 400)
    assert similar.backward_walk == repeated.backward_walk == 2 * walk_of("float32", 400)
    assert (similar.slack, repeated.slack) == (8.0, 1.05)
    assert (repeated.walk, repeated.order_known, repeated.own_steps) == (0.0, True, 0)


@pytest.mark.parametrize("additions", [100, 10_000])
def test_a_walk_is_what_a_running_sum_strays(additions):
    """95 in 100 running sums in float32 stay within two deviations, and some use half of it."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 1.5, (additions, 300)).astype(np.float32)
    rounded = np.add.accumulate(values, axis=0)[-1].astype(np.float64)
    total = values.astype(np.float64).sum(0)
    share = np.abs(rounded / total - 1) / walk_of("float32", additions)
    assert 0.5 < np.quantile(share, 0.95) < 1.0


def test_what_moving_means_and_coarse_statistics_cost():
    assert PLAIN.centering_u == 4 * U
    assert replace(PLAIN, moving_mean=False).centering_u == 0.0
    assert PLAIN.statistics_u == 0.0
    coarse = replace(PLAIN, statistics_dtype="float16")
    assert coarse.statistics_u == float(np.finfo(np.float16).eps) / 2
