"""Variance within and between batches, against NumPy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.running_stats.collect import KURTOSIS_BATCHES, Collector
from bncli.running_stats.scatter import beyond_chance, population


def collected(batches, dtype="float64"):
    collector = Collector(len(batches), batches[0].shape[1], dtype)
    for x in batches:
        collector.add(x)
    return collector


def scatter_of(batches):
    collector = collected(batches)
    return population(collector.table(), collector.samples(), collector.kurtosis())


def flat(x):
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)


@pytest.mark.parametrize("sizes", [(8, 8, 8), (8, 3, 1, 20), (5,)])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_the_population_is_that_of_all_values(sizes, shape):
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, 1 + i, (n, 3, *shape)) for i, n in enumerate(sizes)]
    found = scatter_of(batches)
    values = np.concatenate([flat(x) for x in batches], axis=1)
    np.testing.assert_allclose(found.mean, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.var, values.var(1), rtol=1e-12)
    within = sum(flat(x).var(1) * flat(x).shape[1] for x in batches) / values.shape[1]
    np.testing.assert_allclose(found.within, within, rtol=1e-12)
    np.testing.assert_allclose(found.within + found.between, found.var, rtol=1e-14)
    assert found.count == values.shape[1]
    assert found.batches == len(sizes)


def test_far_from_zero_no_digits_are_lost():
    rng = np.random.default_rng(0)
    batches = [rng.normal(0, 1, (10, 2)) + 1e9 for _ in range(20)]
    found = scatter_of(batches)
    values = np.concatenate([flat(x) for x in batches], axis=1) - 1e9
    np.testing.assert_allclose(found.var, values.var(1), rtol=1e-6)


def test_the_f_ratio_is_that_of_the_samples_means():
    """An analysis of variance of the samples' means, as textbooks have it."""
    rng = np.random.default_rng(0)
    batches = [rng.normal(i, 1, (6, 2, 5)) for i in range(4)]
    found = scatter_of(batches)
    means = np.stack([x.mean(2) for x in batches])  # (batch, sample, channel)
    between = 6 * ((means.mean(1) - means.mean((0, 1))) ** 2).sum(0) / 3
    within = ((means - means.mean(1, keepdims=True)) ** 2).sum((0, 1)) / (24 - 4)
    np.testing.assert_allclose(found.f_ratio, between / within, rtol=1e-12)
    assert found.freedom == (3, 20)


def test_what_shuffling_would_leave():
    """The mean over many shuffles of the variance between batches."""
    rng = np.random.default_rng(0)
    samples = np.sort(rng.normal(size=(64, 1, 3)), axis=0)
    sorted_batches = scatter_of(list(samples.reshape(8, 8, 1, 3)))
    shuffled = [
        scatter_of(list(rng.permutation(samples).reshape(8, 8, 1, 3))).between[0]
        for _ in range(400)
    ]
    assert sorted_batches.between[0] > 5 * np.mean(shuffled)
    expected = np.mean(
        [
            scatter_of(list(rng.permutation(samples).reshape(8, 8, 1, 3))).shuffled_between[0]
            for _ in range(50)
        ]
    )
    assert expected == pytest.approx(np.mean(shuffled), rel=0.1)


def test_images_that_differ_are_no_sorted_batches():
    """Each sample has a mean of its own: pixels go together, but the batches are shuffled."""
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(16, 4, 10)) + 3 * rng.normal(size=(16, 4, 1)) for _ in range(40)]
    found = scatter_of(batches)
    assert (beyond_chance(found.f_ratio, found.freedom) < 4).all()
    assert (found.between > 5 * found.within / 160).all()  # as independent values never would be


def test_one_batch_and_one_sample_tell_nothing():
    x = np.random.default_rng(0).normal(size=(8, 2, 3))
    assert np.isnan(scatter_of([x]).f_ratio).all()
    alone = scatter_of([x[:1], x[1:2], x[2:3]])
    assert np.isnan(alone.f_ratio).all()
    assert (beyond_chance(alone.f_ratio, alone.freedom) == -np.inf).all()


@pytest.mark.parametrize(("first", "second"), [(1, 20), (3, 60), (99, 3100), (9, 10)])
def test_beyond_chance_is_about_normal(first, second):
    """The F ratio of normal batches, scored: the tail beyond 3 is about that of a normal one."""
    rng = np.random.default_rng(0)
    ratio = (rng.chisquare(first, 200_000) / first) / (rng.chisquare(second, 200_000) / second)
    scores = beyond_chance(ratio, (first, second))
    assert (scores > 3).mean() < 3e-3
    assert (scores > 2).mean() == pytest.approx(0.0228, abs=0.006)


def test_kurtosis_is_measured_on_the_first_batches():
    rng = np.random.default_rng(0)
    batches = [rng.exponential(size=(20_000, 2)) for _ in range(3)]
    found = collected(batches).kurtosis()
    values = [flat(x) - x.mean(0)[:, np.newaxis] for x in batches]
    exact = np.mean([(v**4).mean(1) for v in values], 0) / np.mean(
        [(v**2).mean(1) ** 2 for v in values], 0
    )
    np.testing.assert_allclose(found, exact - 3, rtol=1e-10)
    wild = [rng.normal(size=(50, 1)) for _ in range(KURTOSIS_BATCHES)]
    before = collected(wild).kurtosis()
    after = collected([*wild, rng.standard_cauchy((50, 1))]).kurtosis()
    np.testing.assert_array_equal(before, after)
    assert np.isnan(collected([np.zeros((4, 1))]).kurtosis()).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_held_is_near_what_is_exact(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (40, 3, 4)).astype(np.float16).astype(np.float32)
    table = collected([x], dtype).table()
    mean, var = table.shown
    near = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(mean, table.mean, rtol=near)
    np.testing.assert_allclose(var, table.var, rtol=near)
