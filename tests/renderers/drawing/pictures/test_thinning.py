"""What thinning keeps: extremes, gaps, and how the points are spread."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.renderers.drawing.pictures.thinning import thin_line, thin_points, thin_spans

RNG = np.random.default_rng(0)


def test_few_are_left_alone():
    x = np.arange(5.0)
    assert thin_points(x, x, 5).tolist() == [0, 1, 2, 3, 4]
    assert thin_line(x, x, 5)[0] is x
    assert thin_spans(x, x, x, 5)[0] is x


def test_many_points_become_few_that_are_spread_alike():
    x, y = RNG.uniform(0, 1, (2, 50_000))
    x[7], y[7] = 0, 1
    kept = thin_points(x, y, 600)
    assert 200 < len(kept) <= 600
    assert (np.diff(kept) > 0).all()
    counts, _, _ = np.histogram2d(x[kept], y[kept], bins=3, range=((0, 1), (0, 1)))
    assert counts.min() > 10
    assert len(thin_points(np.zeros(50_000), np.zeros(50_000), 600)) == 1


def test_a_line_keeps_its_extremes_and_its_gap():
    y = np.sin(np.arange(100_000) / 900.0)
    y[54_321], y[77] = 9, -9
    y[30_000:40_000] = np.nan
    x, thin = thin_line(np.arange(100_000.0), y, 400)
    assert len(x) <= 800
    assert (np.diff(x) > 0).all()
    assert x[np.nanargmax(thin)] == 54_321
    assert x[np.nanargmin(thin)] == 77
    assert np.isnan(thin).sum() == pytest.approx(40, abs=1)


def test_spans_hold_all_that_was_there():
    x = RNG.permutation(10_000).astype(float)
    low, high = np.sin(x / 500) - 1, np.sin(x / 500) + 1
    low[x == 5_432] = -50
    places, least, greatest = thin_spans(x, low, high, 300)
    assert len(places) <= 300
    assert least.min() == -50
    for place, a, b in zip(places, least, greatest, strict=True):
        near = (x >= place) & (x < place + 10_000 / 300 - 1)
        assert a <= low[near].min()
        assert b >= high[near].max()
