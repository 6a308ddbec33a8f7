"""PyTorch's own statistics, repeated: bit for bit where the order of additions is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.backends.torch.tensors import repeats
from bncli.pytorch_cpu import cpu_statistics

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
SHAPES = [(6, 3), (300, 7), (33, 1), (4, 3, 5), (8, 5, 16), (5, 3, 9, 7), (3, 2, 4, 5, 6)]

pytestmark = pytest.mark.skipif(
    not repeats(), reason="the additions of this release or processor are not repeated"
)


def torch_statistics(x: torch.Tensor, parameter_dtype: torch.dtype):
    zeros = torch.zeros(x.shape[1], dtype=parameter_dtype)
    mean, var = torch.batch_norm_update_stats(x, zeros, zeros + 1, 0.0)
    return mean.double().numpy(), var.double().numpy()


def batch(shape, dtype, mean, seed=0) -> torch.Tensor:
    torch.manual_seed(seed)
    return (torch.randn(shape, dtype=torch.float64) * 2 + mean).to(DTYPES[dtype])


def assert_repeated(x: torch.Tensor, dtype: str, *, rows: bool) -> None:
    """The mean bit for bit, and so the variance in half precision; the others to a last place.

    Rows' squares are added fused.
    """
    parameters = np.float64 if dtype == "float64" else np.float32
    found = cpu_statistics(
        x.double().numpy() if dtype == "float64" else x.float().numpy(),
        dtype=dtype,
        parameter_dtype=np.dtype(parameters).name,
        rows=rows,
        threads=torch.get_num_threads(),
    )
    mean, var = torch_statistics(x, DTYPES[np.dtype(parameters).name])
    np.testing.assert_array_equal(found.mean, mean)
    if found.fused_var is None:
        ours = found.var.astype(parameters)
    else:
        ours = found.fused_var.astype(parameters)
        np.testing.assert_allclose(found.var, var, rtol=2e-6)
    theirs = var.astype(parameters)
    places = {"float32": 1, "float64": 4}.get(dtype, 0)
    assert (np.abs(ours - theirs) <= places * np.spacing(theirs)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_contiguous_input_and_rows(shape, dtype, mean):
    assert_repeated(batch(shape, dtype, mean), dtype, rows=len(shape) == 2)


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_channels_last_is_rows(dtype):
    x = batch((5, 6, 7, 9), dtype, 3.0).contiguous(memory_format=torch.channels_last)
    assert_repeated(x, dtype, rows=True)


@pytest.mark.parametrize("channels", [16, 17])
def test_fewer_rows_than_threads(channels):
    """Threads then share the channels, if these are many, and sum them in float64."""
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    try:
        assert_repeated(batch((13, channels), "float32", 1000.0), "float32", rows=True)
    finally:
        torch.set_num_threads(before)


def test_the_order_matters_so_that_the_bits_prove_something():
    x = batch((300, 7), "float32", 1000.0).numpy()
    found = cpu_statistics(x, dtype="float32", parameter_dtype="float32", rows=True, threads=1)
    exact = x.astype(np.float64).mean(0).astype(np.float32)
    assert (found.mean != exact).any()


def test_what_is_not_finite_passes_through():
    x = batch((8, 3, 4), "float32", 0.0)
    x[1, 0, 2], x[2, 1, 1] = torch.nan, torch.inf
    found = cpu_statistics(
        x.numpy(), dtype="float32", parameter_dtype="float32", rows=False, threads=1
    )
    mean, var = torch_statistics(x, torch.float32)
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(np.isnan(found.var), np.isnan(var))
