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
