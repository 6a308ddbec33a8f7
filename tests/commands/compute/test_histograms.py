"""Histograms of normalised values, beside NumPy's of an output that NumPy or PyTorch makes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from bncli.arguments.input import open_input
from bncli.batchnorm import normalization
from bncli.commands.compute import histograms
from bncli.commands.compute.histograms import BINS, Bins, count_values
from bncli.dtypes import ComputeDtype
from bncli.errors import TensorError
from bncli.model import BatchNormSettings
from bncli.moments import merge
from tests.commands.samples import random

WHOLE = Bins(-4.0, 4.0)


def settings(**given):
    return BatchNormSettings(
        eps=given.get("eps", 1e-5),
        momentum=0.1,
        affine=True,
        track_running_stats=True,
        training=True,
    )


def counted(files, channels, axis=1, dtype=None, bins=WHOLE):
    """The histograms of the files' channels, normalised by their own statistics."""
    given = open_input([*files], axis, dtype)
    stats = merge(given.statistics())
    norm = normalization(stats, None, None, None, settings())
    return count_values(given, norm, stats, channels, [bins] * len(channels))


def expected(x, channel, axis=1, bins=WHOLE):
    """NumPy's histogram of NumPy's output."""
    own = np.moveaxis(np.asarray(x, np.float64), axis, 0)[channel].reshape(-1)
    y = (own - own.mean()) / np.sqrt(own.var() + 1e-5)
    return np.histogram(y, BINS, (bins.low, bins.high))[0]


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((50, 4), 1),
        ((8, 4, 300), 1),
        ((8, 4, 6), 1),
        ((8, 6, 5, 4), 3),
        ((4, 50), 0),
        ((4, 9, 400), 0),
    ],
)
def test_they_are_numpys(save, shape, axis):
    x = random(*shape)
    found = counted([save("x.npy", x)], [0, 3, 1], axis)
    count = x.size // 4
    assert (found.read, [each.finite for each in found.histograms]) == (count, [count] * 3)
    for each, channel in zip(found.histograms, (0, 3, 1), strict=True):
        wanted = expected(x, channel, axis)
        np.testing.assert_array_equal(each.counts, wanted)
        assert each.outside == count - wanted.sum()
        np.testing.assert_allclose(each.density, wanted / count / 0.25, rtol=1e-12)
    assert WHOLE.centres[:2] == [-3.875, -3.625]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_of_torchs_output_in_each_dtype(save, dtype):
    x = torch.from_numpy(random(64, 3)).to(dtype)
    found = counted([save("x.pt", x)], [2])
    y = torch.nn.BatchNorm1d(3, dtype=torch.float64)(x.double())[:, 2].detach().numpy()
    np.testing.assert_array_equal(found.histograms[0].counts, np.histogram(y, BINS, (-4, 4))[0])


def test_inputs_are_one_population_and_a_cast_counts(save):
    a, b = random(9, 3, 4), random(7, 3, 4, seed=1).astype(">f8")
    found = counted([save("a.npy", a), save("b.npy", b)], [1], dtype=ComputeDtype.FLOAT32)
    whole = np.concatenate([a, b.astype(np.float32)])
    assert found.read == 64
    np.testing.assert_array_equal(found.histograms[0].counts, expected(whole, 1))


def test_what_is_not_finite_is_in_no_bin(save):
    x = random(40, 2)
    x[3, 0], x[4, 0] = np.nan, np.inf
    stats = merge(open_input([save("x.npy", x)], 1, None).statistics())
    found = counted(["x.npy"], [0, 1])
    assert [each.finite for each in found.histograms] == [0, 40]  # NaN has spoilt the mean
    assert found.histograms[0].density == []
    assert (found.histograms[0].least, found.histograms[0].greatest) == (
        stats.min[0], stats.max[0]
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 3, 400), (40_000, 3)])
def test_of_large_inputs_pieces_are_read(save, monkeypatch, shape):
    monkeypatch.setattr(histograms, "MOST_READ", 20_000)
    monkeypatch.setattr(histograms, "PIECE", 3_000)
    x = random(*shape)
    found = counted([save("x.npy", x)], [0, 2])
    count = x.size // 3
    assert 3_000 <= found.read < count
    assert found.read * (2 if len(shape) == 3 else 3) <= 20_000 + 3_000
    assert 2 <= found.pieces <= 10
    for each, channel in zip(found.histograms, (0, 2), strict=True):
        assert each.finite == found.read
        share = expected(x, channel) / count / 0.25
        assert np.abs(each.density - share).max() < 0.1  # a sample of thousands


def test_memory_does_not_grow_with_the_input(save):
    def peak(samples: int) -> int:
        name = save("x.npy", np.zeros((samples, 8, 256), np.float32) + np.arange(256))
        given = open_input([name], 1, None)
        stats = merge(given.statistics(threads=1))
        norm = normalization(stats, None, None, None, settings())
        tracemalloc.start()
        try:
            count_values(given, norm, stats, [*range(8)], [WHOLE] * 8)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(400), peak(2000)  # 3 MB and 16 MB
    assert many < 1.5 * few + 1e6


@pytest.mark.parametrize("value", [-50.0, 0.0])
def test_values_that_have_changed_are_noticed(save, value):
    """One is beyond all that there were; the others change what is the least."""
    x = random(40, 2)
    given = open_input([save("x.npy", x)], 1, None)
    stats = merge(given.statistics())
    norm = normalization(stats, None, None, None, settings())
    x[x.argmin(0), [0, 1]] = value
    save("x.npy", x)
    with pytest.raises(TensorError, match=r"x\.npy: the values of channel 0 are no longer those"):
        count_values(given, norm, stats, [0], [WHOLE])
