"""Batches become a table: against NumPy and PyTorch on the values themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.running_stats import collect
from bncli.running_stats.collect import KURTOSIS_BATCHES

from .test_scatter import collected, flat


@pytest.mark.parametrize("shape", [(), (5,), (4, 6)])
def test_each_batch_has_its_row(shape):
    rng = np.random.default_rng(1)
    batches = [rng.normal(i, 1 + i, (n, 3, *shape)) for i, n in enumerate((9, 2, 30))]
    table = collected(batches).table()
    assert table.count.tolist() == [flat(x).shape[1] for x in batches]
    np.testing.assert_allclose(table.mean, [flat(x).mean(1) for x in batches], rtol=1e-12)
    np.testing.assert_allclose(table.var, [flat(x).var(1) for x in batches], rtol=1e-12)
    assert (table.dtype, table.held_mean, table.held_var_sum) == ("float64", None, None)
    assert table.num_features == 3


@pytest.mark.parametrize("values_at_a_time", [1, 1 << 22])
def test_the_samples_of_a_batch_scatter_about_its_mean(values_at_a_time, monkeypatch):
    monkeypatch.setattr(collect, "SAMPLES_VALUES", values_at_a_time)
    rng = np.random.default_rng(2)
    batches = [rng.normal(size=(n, 2, 3, 4)) for n in (7, 5)]
    samples = collected(batches).samples()
    means = [x.mean((2, 3)) for x in batches]
    assert samples.number.tolist() == [7, 5]
    expected = sum(((m - m.mean(0)) ** 2).sum(0) for m in means)
    np.testing.assert_allclose(samples.squares, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_held_is_what_pytorch_held(dtype):
    """A module of momentum 1 keeps the batch's mean as its arithmetic had it."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(3, 2, (40, 3, 4))).to(getattr(torch, dtype))
    module = torch.nn.BatchNorm1d(3, momentum=1.0).to(getattr(torch, dtype))
    module(x)
    table = collected([x.float().numpy()], dtype).table()
    held = torch.from_numpy(table.held_mean[0]).to(getattr(torch, dtype))
    assert torch.equal(held, module.running_mean)


DRAWS = {"normal": 0.0, "uniform": -1.2, "exponential": 6.0}
"""The excess kurtosis of what a generator's method of this name draws."""


def drawn(kind, *size):
    return getattr(np.random.default_rng(4), kind)(size=size)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 16, 128])
@pytest.mark.parametrize("kind", DRAWS)
def test_kurtosis_is_right_however_small_the_batches_are(kind, count, monkeypatch):
    """The mean over 200 channels, which are so many independent estimates.

    A ratio of unbiased estimates is still a little too small where large values are rare.
    """
    monkeypatch.setattr(collect, "KURTOSIS_VALUES", 2048)
    found = collected(drawn(kind, 2048 // count, count, 200)).kurtosis()
    assert found.shape == (200,)
    error = found.std() / 200**0.5
    assert error < (0.05 if DRAWS[kind] <= 0 else 0.2)
    assert abs(found.mean() - DRAWS[kind]) < 4 * error + 0.1 * max(DRAWS[kind], 0.0)


def test_kurtosis_of_one_batch_is_g2():
    """By its definition from sums of powers, as in Joanes and Gill (1998)."""
    x = drawn("exponential", 9, 3)
    n = len(x)
    m2, m4 = (((x - x.mean(0)) ** p).mean(0) for p in (2, 4))
    g2 = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6)
    np.testing.assert_allclose(collected([x]).kurtosis(), g2, rtol=1e-12)


def test_kurtosis_of_batches_of_two_is_that_of_all_their_values():
    pairs = drawn("exponential", 8, 2, 3)
    whole = collected([pairs.reshape(16, 3)]).kurtosis()
    np.testing.assert_allclose(collected(pairs).kurtosis(), whole, rtol=1e-10)
    larger = drawn("uniform", 6, 3)
    alone = collected([larger]).kurtosis()
    np.testing.assert_array_equal(collected([*pairs, larger]).kurtosis(), alone)


def test_kurtosis_is_unknown_of_too_few_values_and_never_below_its_least():
    assert np.isnan(collected([np.zeros((4, 1))]).kurtosis()).all()
    assert np.isnan(collected(drawn("normal", 9, 1, 2)).kurtosis()).all()
    assert np.isnan(collected(drawn("normal", 1, 3, 2)).kurtosis()).all()
    halves = np.array([[0.0], [0.0], [1.0], [1.0]])
    assert collected([halves]).kurtosis().tolist() == [-2.0]


def test_kurtosis_is_measured_on_the_first_batches(monkeypatch):
    wild = drawn("normal", KURTOSIS_BATCHES, 50, 1)
    cauchy = np.random.default_rng(0).standard_cauchy((50, 1))
    before = collected(wild).kurtosis()
    assert collected([*wild, cauchy]).kurtosis() != before
    monkeypatch.setattr(collect, "KURTOSIS_VALUES", 50 * KURTOSIS_BATCHES)
    np.testing.assert_array_equal(collected([*wild, cauchy]).kurtosis(), before)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_is_held_is_near_what_is_exact(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (40, 3, 4)).astype(np.float16).astype(np.float32)
    table = collected([x], dtype).table()
    mean, var = table.shown
    near = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(mean, table.mean, rtol=near)
    np.testing.assert_allclose(var, table.var, rtol=near)
