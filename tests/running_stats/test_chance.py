"""The F distribution's tail and quantiles, against mpmath, closed forms and published tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bncli.running_stats.chance import MOST_FREEDOM, f_quantile, f_tail, t_quantile

FREEDOMS = (1, 2, 3, 4, 7, 20, 60, 1000)
RATIOS = (0.1, 0.9, 1.5, 3.0, 10.0, 100.0, 1e5)


def exact_tail(mpmath, ratio, first, second):
    """The regularised incomplete beta function to 40 digits."""
    with mpmath.workdps(40):
        f, a, b = map(mpmath.mpf, (ratio, first, second))
        return float(mpmath.betainc(b / 2, a / 2, 0, b / (b + a * f), regularized=True))


@pytest.mark.parametrize("first", FREEDOMS)
def test_the_tail_is_the_incomplete_beta_function(first):
    mpmath = pytest.importorskip("mpmath")
    for second in FREEDOMS:
        for ratio in RATIOS:
            wanted = exact_tail(mpmath, ratio, first, second)
            if wanted > 1e-200:
                assert f_tail(ratio, first, second) == pytest.approx(wanted, rel=1e-10, abs=0)


@pytest.mark.parametrize("ratio", RATIOS)
def test_closed_forms(ratio):
    """Two degrees of freedom above, and one on each side, as textbooks have them."""
    for second in FREEDOMS:
        wanted = (1 + 2 * ratio / second) ** (-second / 2)
        assert f_tail(ratio, 2, second) == pytest.approx(wanted, rel=1e-11, abs=1e-300)
    assert f_tail(ratio, 1, 1) == pytest.approx(1 - 2 / math.pi * math.atan(math.sqrt(ratio)))


@pytest.mark.parametrize(
    ("tail", "first", "second", "table"),
    [
        (0.05, 1, 10, 4.965),
        (0.05, 5, 10, 3.326),
        (0.05, 10, 120, 1.910),
        (0.01, 3, 20, 4.938),
        (0.01, 8, 60, 2.823),
        (0.001, 2, 12, 12.97),
        (0.001, 6, 30, 5.122),
    ],
)
def test_published_tables_of_f(tail, first, second, table):
    assert f_quantile(tail, first, second) == pytest.approx(table, rel=5e-4)


@pytest.mark.parametrize(
    ("tail", "freedom", "table"),
    [(0.05, 1, 12.706), (0.05, 9, 2.262), (0.01, 5, 4.032), (0.001, 30, 3.646), (0.05, 1e6, 1.960)],
)
def test_published_tables_of_t(tail, freedom, table):
    assert t_quantile(tail, freedom) == pytest.approx(table, rel=5e-4)


@pytest.mark.parametrize("tail", [1e-6, 1e-9, 0.01, 0.5])
@pytest.mark.parametrize("first", FREEDOMS)
def test_the_quantile_is_the_tails_inverse(tail, first):
    for second in FREEDOMS:
        assert f_tail(f_quantile(tail, first, second), first, second) == pytest.approx(tail)


def test_chance_itself():
    """How often ratios of chi-squares lie beyond the quantile of one in a thousand."""
    rng = np.random.default_rng(0)
    for first, second in ((1, 4), (5, 12), (99, 400)):
        top, bottom = rng.chisquare(first, 400_000), rng.chisquare(second, 400_000)
        beyond = (top / first) / (bottom / second) > f_quantile(1e-3, first, second)
        assert beyond.mean() == pytest.approx(1e-3, abs=2.5e-4)


def test_the_ends():
    assert f_tail(0, 3, 4) == 1
    assert f_tail(math.inf, 3, 4) == 0
    assert f_quantile(1e-6, 5, 10 * MOST_FREEDOM) == f_quantile(1e-6, 5, MOST_FREEDOM)
    assert f_quantile(1e-6, 5, MOST_FREEDOM) < f_quantile(1e-6, 5, 1000)
    assert f_quantile(1e-300, 1, 1e-3) == math.inf
    for first, second in ((0, 1), (1, 0), (-1, 1), (math.nan, 1)):
        with pytest.raises(ValueError, match="positive"):
            f_tail(1, first, second)
