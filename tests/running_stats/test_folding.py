"""The sums of inputs that are not kept, beside the inputs themselves."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.model.samples import power_sums
from bncli.moments import channel_stats, merge
from bncli.running_stats.folding import Folding
from bncli.running_stats.scatter import f_ratio_of_parts
from bncli.sections.tables import spread


def folded(parts, size):
    folding = Folding(parts[0])
    for begin in range(0, len(parts), size):
        folding.add(parts[begin : begin + size])
    return folding.result()


def check(batches, size):
    """Against all inputs at once; what a channel with a NaN has is NaN in both."""
    parts = [channel_stats(x, sample_axis=0) for x in batches]
    whole, found = merge(parts), folded(parts, size)
    wanted = spread(parts, whole)
    np.testing.assert_allclose(found.within, wanted.within, rtol=1e-12)
    np.testing.assert_allclose(found.between, wanted.between, rtol=1e-12, atol=1e-300)
    ratio = f_ratio_of_parts(parts, whole)
    np.testing.assert_allclose(found.f_ratio.ratio, ratio.ratio, rtol=1e-12)
    np.testing.assert_allclose(found.f_ratio.sure, ratio.sure, rtol=1e-12)
    assert found.f_ratio.freedom == ratio.freedom
    counts = np.array([part.count for part in parts], np.float64)
    assert found.units.number == len(parts)
    assert found.units.effective == pytest.approx(counts.sum() ** 2 / (counts**2).sum(), rel=1e-14)
    means = np.array([(p.shift - whole.shift) + (p.offset - whole.offset) for p in parts])
    sums = power_sums(means, np.array([part.var for part in parts]))
    scale = np.abs(sums).max(0)  # a sum of odd powers may come to nothing
    np.testing.assert_allclose(found.units.sums / scale, sums / scale, rtol=1e-11, atol=1e-12)
    return found


@pytest.mark.parametrize("size", [1, 3, 64, 200])
@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_groups_of_any_size_come_to_the_same(size, mean):
    rng = np.random.default_rng(0)
    batches = [rng.normal(mean + i % 5, 1 + i % 3, (2 + i % 7, 3, 4)) for i in range(150)]
    check(batches, size)


def test_a_first_input_that_lies_apart_takes_no_digits():
    rng = np.random.default_rng(0)
    batches = [rng.normal(1e4 * (i == 0), 1.0, (8, 2)) for i in range(100)]
    check(batches, 16)


@pytest.mark.parametrize("first", [True, False])
def test_a_channel_with_a_nan_spoils_no_other(first):
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, 3)) for _ in range(80)]
    batches[0 if first else 70][1, 2] = np.nan
    found = check(batches, 16)
    assert np.isnan(found.within).tolist() == [False, False, True]


@pytest.mark.parametrize(("size", "sure"), [(1, False), (2, True)])
def test_inputs_of_one_value_each_are_told_from_chance(size, sure):
    """Four odd samples of 81, each alone in its input, are chance; four odd pairs are not."""
    sizes = [2, *[size] * 79]
    batches = [np.full((n, 2), 7.0 * (i in {10, 30, 50, 70})) for i, n in enumerate(sizes)]
    for x in batches:
        x[:, 1] = np.random.default_rng(len(x)).normal(size=len(x))
    found = check(batches, 16)
    assert bool(found.f_ratio.sure[0] == np.inf) is sure


def test_means_are_kept_of_channels_of_one_value_alone():
    rng = np.random.default_rng(0)
    folding = Folding(channel_stats(np.zeros((2, 4))))
    for _ in range(5):
        x = rng.normal(size=(2, 4))
        x[:, 3] = 0.1
        folding.add([channel_stats(x, sample_axis=0)] * 10)
    assert folding._means.shape == (50, 1)


def test_without_samples_there_is_no_ratio_by_them():
    rng = np.random.default_rng(0)
    parts = [channel_stats(rng.normal(size=(4, 2))) for _ in range(4)]
    assert folded(parts, 2).f_ratio is None
