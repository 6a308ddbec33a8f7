"""Small arrays, summed without tasks: as exact as others, and left to the tasks where not clean."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.moments import channel_moments, channel_stats, small
from bncli.moments.kernels import ENGINE
from bncli.moments.small import few_power_sums, small_stats

from .exact import check, same_bits

SHAPES = [
    (1, 1), (1, 7), (8, 4), (64, 64), (4096, 2), (4097, 2), (4096, 1), (8192, 1), (8193, 1),
    (31, 4096), (32, 4096), (33, 3900), (256, 512), (255, 512), (70, 96, 4), (900, 48),
    (20_000, 6), (5, 3, 23), (5, 3, 24), (16, 3, 24), (9, 11, 83), (40, 16, 200), (3, 4, 5, 6),
]  # fmt: skip
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@every_shape
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_whole_numbers_are_exact(shape, dtype):
    whole = np.random.default_rng(sum(shape)).integers(-99, 100, shape).reshape(*shape[:2], -1)
    x = whole.astype(dtype)
    total, square = few_power_sums(x)
    assert total.dtype == square.dtype == np.float64
    assert total.tolist() == whole.sum(axis=(0, 2)).tolist()
    assert square.tolist() == (whole**2).sum(axis=(0, 2)).tolist()
    assert np.array_equal(x, whole)


@every_shape
@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_either_side_of_where_the_sums_go_another_way(shape, mean, dtype):
    x = (np.random.default_rng(12).standard_normal(shape) + mean).astype(dtype)
    before = x.copy()
    check(channel_stats(x), x)
    assert np.array_equal(x, before)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -4])
def test_any_channel_axis(axis):
    x = np.random.default_rng(1).standard_normal((4, 3, 6, 5)).astype(np.float32)
    stats = small_stats(x, axis, extremes=True)
    assert stats is not None
    check(stats, x, axis)


@pytest.mark.parametrize("shape", [(4096, 32), (4096, 1), (2, 65536), (1, 1, 1 << 17)], ids=str)
def test_terms_that_round_alike_do_not_drift(shape):
    """0.1 squared is rounded the same way each time."""
    x = np.full(shape, 0.1)
    _, square = few_power_sums(x.reshape(*shape[:2], -1))
    assert square == pytest.approx(x.size // shape[1] * 0.1**2, rel=2e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(4096, 32), (8192, 1)], ids=str)
def test_variances_of_terms_that_round_alike_far_from_zero(shape, dtype):
    """Two values, whose mean is 3.8 standard deviations: just near enough to 0."""
    x = np.full(shape, 0.28, dtype)
    x[::2] = 0.48
    stats = small_stats(x, 1, extremes=True)
    assert stats is not None
    check(stats, x)


@pytest.mark.parametrize("extremes", [True, False])
@pytest.mark.parametrize("shape", [(40, 6), (40, 6, 30), (2000, 6)], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_clean_is_left_to_the_tasks(value, shape, extremes):
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    x[:, 3] *= 0.25
    assert small_stats(x, 1, extremes=extremes) is not None
    x[5, 3] = value
    with np.errstate(all="raise"):
        stats = small_stats(x, 1, extremes=extremes)
    assert (stats is None) == (not np.isfinite(value))
    assert channel_stats(x).nan.sum() + channel_stats(x).inf.sum() == (~np.isfinite(x)).sum()


@pytest.mark.parametrize(("away", "clean"), [(3.5, True), (4.5, False), (1e6, False)])
def test_a_mean_far_from_zero_is_left_to_the_tasks(away, clean):
    x = np.random.default_rng(3).standard_normal((1000, 5))
    x = (x - x.mean(0)) / x.std(0)
    x[:, 2] += away
    assert (small_stats(x, 1, extremes=True) is not None) == clean
    check(channel_stats(x), x)


OTHERS = {
    "half": lambda x: x.astype(np.float16),
    "big-endian": lambda x: x.astype(">f4"),
    "Fortran": np.asfortranarray,
    "every second": lambda x: x[:, ::2],
    "no values": lambda x: x[:0],
    "one axis": lambda x: x[:, 0].copy(),
    "too large": lambda x: np.resize(x, ((1 << 17) // 8 + 1, 8)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_other_arrays_are_not_taken(other):
    x = np.random.default_rng(6).standard_normal((64, 8)).astype(np.float32)
    assert small_stats(x, 1, extremes=True) is not None
    assert small_stats(other(x), 1, extremes=True) is None


def test_what_small_arrays_have_in_common():
    """What the channels of all clean arrays share cannot be changed in one of them."""
    x = np.random.default_rng(4).standard_normal((8, 4)).astype(np.float32)
    stats = channel_moments(x)
    for shared in (stats.shift, stats.nan, stats.posinf, stats.neginf, stats.min, stats.max):
        assert shared.shape == (4,)
        assert not shared.flags.writeable
    assert stats.nan.dtype == np.int64
    assert stats.shift.tolist() == [0.0] * 4
    assert stats.engines == (ENGINE,)
    full = channel_stats(x)
    assert full.var.tolist() == stats.var.tolist()
    for own in (full.offset, full.var, full.min, full.max):
        assert own.flags.writeable


def test_the_tasks_say_the_same(monkeypatch):
    x = np.random.default_rng(5).integers(-99, 100, (64, 4, 16)).astype(np.float32)
    ours = channel_stats(x)
    monkeypatch.setattr(small, "_SMALL_VALUES", 0)
    theirs = channel_stats(x)
    assert same_bits(ours, theirs)
    assert (ours.third, ours.fourth, ours.samples) == (None, None, None)
    assert ours.engines == (ENGINE,)
