"""NaN and infinities: what IEEE arithmetic makes of them, how many, and where the first is."""

import numpy as np
import pytest

from bncli.moments import channel_stats, engine
from bncli.moments.worker import Worker

from .exact import check
from .summed import both, both_by_dtype
from .test_engine import CUTS, layouts

NAN, INF = np.nan, np.inf


def check_dirty(stats, x, axis=1):
    """Assert that `stats` are those of `x`, by NumPy and one channel at a time."""
    x = np.asarray(x)
    flat = np.arange(x.size).reshape(x.shape)
    for c in range(x.shape[axis]):
        values = np.take(x, c, axis).astype(np.float64)
        odd = ~np.isfinite(values)
        assert stats.nan[c] == np.isnan(values).sum()
        assert stats.posinf[c] == (values == INF).sum()
        assert stats.neginf[c] == (values == -INF).sum()
        finite = values[~odd]
        if finite.size:
            assert (stats.min[c], stats.max[c]) == (finite.min(), finite.max())
        else:
            assert np.isnan(stats.min[c])
            assert np.isnan(stats.max[c])
        if not odd.any():
            assert stats.first_nonfinite[c] is None
            assert stats.mean[c] == pytest.approx(values.mean(), rel=1e-12, abs=1e-12)
            assert stats.var[c] == pytest.approx(values.var(), rel=1e-12)
            continue
        first = np.take(flat, c, axis)[odd].min()
        assert stats.first_nonfinite[c] == tuple(np.unravel_index(first, x.shape))
        with np.errstate(invalid="ignore"):
            np.testing.assert_equal(stats.mean[c], values.sum())
        assert np.isnan(stats.var[c])


@both_by_dtype("float16", "float32")
@pytest.mark.parametrize("cuts", CUTS[:4], ids=str)
@pytest.mark.parametrize("share", [0.0005, 0.05, 1.0])
def test_every_layout(dtype, share, cuts, cut):
    cut(*cuts)
    rng = np.random.default_rng(11)
    for shape in [(90, 5), (6, 4, 5, 8)]:
        x = rng.standard_normal(shape).astype(dtype)
        bad = rng.random(shape) < share
        x[bad] = rng.choice([NAN, INF, -INF, -NAN], bad.sum())
        for _, view in layouts(x):
            check_dirty(channel_stats(view, threads=2), x)


@both_by_dtype("float16", "float32")
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_one_at_each_place(axis, dtype, whole, cut):
    """One of the three values at a place, or each of them."""
    cut(24, 6)
    x = np.random.default_rng(12).standard_normal((4, 3, 5)).astype(dtype)
    for place in np.ndindex(x.shape):
        turn = sum(place) % 3
        for value in (NAN, INF, -INF) if whole else ((NAN, INF, -INF)[turn],):
            y = x.copy()
            y[place] = value
            check_dirty(channel_stats(y, axis, threads=1), y, axis)
            check_dirty(channel_stats(np.asfortranarray(y), axis, threads=2), y, axis)


def test_the_sum_says_it():
    x = np.zeros((3, 5))
    x[1] = [NAN, INF, -INF, INF, 0]
    x[2] = [1, INF, -INF, -INF, 0]
    stats = channel_stats(x, kurtosis=True)
    assert np.array_equal(stats.mean, [NAN, INF, -INF, NAN, 0], equal_nan=True)
    assert np.array_equal(stats.var, [NAN, NAN, NAN, NAN, 0], equal_nan=True)
    assert np.array_equal(stats.third, [NAN, NAN, NAN, NAN, 0], equal_nan=True)
    assert np.array_equal(stats.fourth, [NAN, NAN, NAN, NAN, 0], equal_nan=True)
    assert stats.inf.tolist() == [0, 2, 2, 2, 0]


@both
def test_signalling_nan_and_other_payloads():
    bits = np.zeros((64, 3), np.uint32)
    bits[7, 0] = 0x7F800001
    bits[8, 1] = 0xFFFFFFFF
    half = np.zeros((64, 3), np.uint16)
    half[7, 0] = 0x7C01
    half[8, 1] = 0xFFFF
    for x in (bits.view(np.float32), half.view(np.float16)):
        stats = channel_stats(x)
        assert stats.nan.tolist() == [1, 1, 0]
        assert stats.first_nonfinite == ((7, 0), (8, 1), None)


@both
def test_all_halves():
    """Every float16 there is, through the fast conversion and through the careful one."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)].reshape(-1, 2)
    check(channel_stats(finite), finite)
    check(channel_stats(finite.astype(">f2")), finite)
    check_dirty(channel_stats(every.reshape(-1, 4)), every.reshape(-1, 4))


def test_neighbours_of_a_dirty_channel_stay_exact(cut):
    cut(3000, 800)
    means = np.array([[1e6], [0], [3], [-50]])
    x = np.random.default_rng(13).standard_normal((500, 4, 6)) + means
    x[250, 1, 3] = NAN
    clean = np.delete(x, 1, axis=1)
    stats = channel_stats(x, threads=2)
    alone = channel_stats(clean, threads=2)
    check(alone, clean)
    keep = [0, 2, 3]
    assert np.allclose(stats.var[keep], alone.var, rtol=1e-13, atol=0)
    assert np.allclose(stats.mean[keep], alone.mean, rtol=1e-14, atol=1e-14)
    assert stats.first_nonfinite == (None, (250, 1, 3), None, None)


def test_infinities_from_a_cast():
    x = np.array([[1e5, 1.0], [2.0, -7e4], [3.0, 3.0]])
    stats = channel_stats(x, dtype="float16")
    assert stats.posinf.tolist() == [1, 0]
    assert stats.neginf.tolist() == [0, 1]
    assert stats.first_nonfinite == ((0, 0), (1, 1))
    assert stats.max.tolist() == [3.0, 3.0]


def test_dirty_data_is_not_taken_for_overflow(monkeypatch):
    scans = []
    scan = engine._Pass.scan
    monkeypatch.setattr(engine._Pass, "scan", lambda *a: scans.append(a) or scan(*a))
    x = np.random.default_rng(14).standard_normal((50, 3))
    x[4, 1], x[5, 2] = NAN, INF
    check_dirty(channel_stats(x), x)
    assert len(scans) == 1


def test_later_tasks_begin_with_a_guess_of_the_mean(cut, monkeypatch):
    """Once a mean is known to lie far from 0, tasks are summed once, not twice."""
    cut(1000, 300)
    goes = []
    original = Worker._sums
    monkeypatch.setattr(Worker, "_sums", lambda *a, **k: goes.append(a) or original(*a, **k))
    x = np.random.default_rng(39).standard_normal((2500, 4)) + 100
    check(channel_stats(x, threads=2), x)
    assert len(goes) == 10 + 1
