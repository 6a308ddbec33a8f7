"""Variance within and between batches, against NumPy on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.moments import channel_stats, merge
from bncli.moments.batches import BatchSums
from bncli.running_stats.chance import f_quantile
from bncli.running_stats.collect import Collector
from bncli.running_stats.scatter import CHANCE, MOST_APART, FRatio, f_ratio_of_parts, population


def collected(batches, dtype="float64"):
    collector = Collector(len(batches), batches[0].shape[1], dtype)
    for x in batches:
        collector.add(x)
    return collector


def scatter_of(batches):
    collector = collected(batches)
    return population(collector.table(), collector.samples(), collector.kurtosis())


def beyond(found):
    return found.f_ratio.beyond_chance(found.between, found.var, found.mean)


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
    np.testing.assert_allclose(found.f_ratio.ratio, between / within, rtol=1e-12)
    assert found.f_ratio.freedom == (3, 20)
    assert found.by_samples


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
    assert not beyond(found).any()
    assert (found.f_ratio.ratio < 2.5).all()
    assert (found.between > 5 * found.within / 160).all()  # as independent values never would be


def test_one_batch_and_one_sample_tell_nothing():
    x = np.random.default_rng(0).normal(size=(8, 2, 3))
    assert np.isnan(scatter_of([x]).f_ratio.ratio).all()
    alone = scatter_of([x[:1], x[1:2], x[2:3]])
    assert np.isnan(alone.f_ratio.ratio).all()
    assert alone.f_ratio.border == np.inf
    assert not beyond(alone).any()


@pytest.mark.parametrize(("batches", "size"), [(2, 3), (2, 20), (6, 4), (100, 32)])
def test_shuffled_batches_are_within_chance(batches, size):
    """As many of 40,000 channels are beyond a quantile as its name says; none beyond the border."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batches, size, 40_000 if batches < 50 else 2000))
    found = scatter_of(list(x))
    ratio = found.f_ratio
    assert not beyond(found).any()
    assert (ratio.ratio > f_quantile(1e-2, *ratio.freedom)).mean() == pytest.approx(0.01, rel=0.5)
    assert ratio.border == max(MOST_APART, f_quantile(CHANCE, *ratio.freedom))


@pytest.mark.parametrize(("batches", "size", "apart"), [(2, 8, 6.0), (6, 16, 1.5), (6, 4, 8.0)])
def test_sorted_batches_are_beyond_it_at_any_number(batches, size, apart):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batches, size, 3, 5)) / 2 + rng.normal(size=(batches, size, 3, 1))
    x[batches // 2 :, :, 1] += 2 * apart
    assert beyond(scatter_of(list(x))).tolist() == [False, True, False]


def test_smooth_images_that_are_shuffled_are_within_chance():
    """Where values would be thousands of times beyond it."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.linspace(0, 1, 64))
    x = rng.normal(size=(4, 16, 6, 1)) * 5 + rng.normal(size=(4, 16, 6, 1)) * waves
    found = scatter_of(list(x))
    assert not beyond(found).any()
    by_value = population(collected(list(x)).table(), None, np.zeros(6))
    assert not by_value.by_samples
    assert beyond(by_value).any()
    assert by_value.f_ratio.ratio.max() > 100


def test_a_few_samples_of_two_values_may_fall_into_place():
    """Six coins in two batches show one side each once in ten times, and 40 coins never."""
    few = [np.zeros((3, 1)), np.ones((3, 1))]
    assert scatter_of(few).f_ratio.ratio == [np.inf]
    assert not beyond(scatter_of(few)).any()
    assert beyond(scatter_of([np.repeat(x, 7, axis=0) for x in few])).all()
    one_of_five = [np.zeros((4, 1))] * 4 + [np.ones((4, 1))]
    assert not beyond(scatter_of(one_of_five)).any()


def test_samples_whose_means_agree_scatter_as_values_do():
    """Standardised samples: their means are 0 but for rounding, which is nothing to go by."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6, 2, 50))
    x -= x.mean(3, keepdims=True)
    x[2:] += 1e-9
    found = scatter_of(list(x))
    assert (found.f_ratio.ratio > 1e6).all()
    assert not beyond(found).any()


def test_the_ratio_of_no_spread_at_all():
    ratio = FRatio.of(np.zeros((3, 2)), np.full(3, 4.0), np.zeros(2), np.zeros(2))
    assert np.isnan(ratio.ratio).all()
    assert not ratio.beyond_chance(np.zeros(2), np.zeros(2), np.ones(2)).any()


def by_sums(batches):
    """The F ratio of batches (samples, channels, values), from sums and from their means."""
    sums = BatchSums(batches[0].shape[1])
    for x in batches:
        sums.add(x)
    parts = [channel_stats(x, sample_axis=0) for x in batches]
    return FRatio.of_sums(sums.result()), f_ratio_of_parts(parts, merge(parts))


@pytest.mark.parametrize("seed", range(10))
def test_sums_tell_the_ratio_that_the_batches_have(seed):
    """Though their samples are of different sizes, and some batches far from the others."""
    rng = np.random.default_rng(seed)
    batches = [
        rng.standard_normal((rng.integers(1, 9), 3, rng.integers(1, 40))) + 10.0 ** rng.integers(4)
        for _ in range(rng.integers(2, 9))
    ]
    found, wanted = by_sums(batches)
    assert found.freedom == wanted.freedom
    np.testing.assert_allclose(found.ratio, wanted.ratio, rtol=1e-9)
    np.testing.assert_allclose(found.sure, wanted.sure, rtol=1e-9)


def test_images_of_other_sizes_that_are_shuffled_are_within_chance():
    """A single large one weighs as much as many small ones, but it is one sample."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        sizes = [(64, 4)] * 4 + [(1, 256)] * 4
        batches = [
            rng.standard_normal((n, 8, 1)) + 0.1 * rng.standard_normal((n, 8, values))
            for n, values in sizes
        ]
        found, _ = by_sums(batches)
        assert (found.sure <= found.border).all()


@pytest.mark.parametrize(
    ("values", "samples"),
    [([0, 1], 3), ([0, 1], 30), ([0, 1, 0, 0, 1], 6), ([0, 0, 0, 7], 2), ([5, 5, 5], 9)],
)
def test_sums_tell_whether_two_values_may_have_fallen_into_place(values, samples):
    batches = [np.full((samples, 1, 2), float(value)) for value in values]
    found, wanted = by_sums(batches)
    np.testing.assert_array_equal(found.sure, wanted.sure)


def test_more_values_fall_into_place_less_often_than_sums_tell():
    few, many = ([np.full((n, 1, 1), float(i)) for i in range(4)] for n in (2, 9))
    assert np.isnan(by_sums(few)[0].sure).all()
    assert np.isinf(by_sums(many)[0].sure).all()
