"""Half-precision batch statistics and updates: what PyTorch leaves in its buffers, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.backends.torch.tensors import repeats
from bncli.pytorch_cpu.float32 import sums_by_rows
from bncli.pytorch_cpu.half import batch_statistics, rounded
from bncli.running_stats.batch_table import BatchTable
from bncli.running_stats.frameworks import convention
from bncli.running_stats.simulation import Course, Walk

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SHAPES = [(6, 3), (300, 7), (4, 3, 5), (8, 5, 16), (5, 3, 9, 7), (3, 2, 4, 5, 6), (2, 3, 1, 1)]
"""The rows and images of each rank, short and long."""

pytestmark = pytest.mark.skipif(
    not repeats(), reason="the additions of this release or processor are not repeated"
)


def module_for(x: torch.Tensor, momentum) -> torch.nn.Module:
    kind = getattr(torch.nn, f"BatchNorm{max(x.ndim - 2, 1)}d")
    return kind(x.shape[1], momentum=momentum, dtype=x.dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("momentum", "mean"), [(0.1, 0.0), (0.013, 7.0), (1.0, 100.0)])
def test_three_updates(dtype, shape, momentum, mean):
    """The first begins at 0 and 1, which hide a rounding; the others do not."""
    torch.manual_seed(len(shape))
    threads = torch.get_num_threads()
    x = (torch.randn(shape) * 2 + mean).to(HALVES[dtype])
    module = module_for(x, momentum)
    wide = x.float().numpy()
    held = batch_statistics(wide, dtype=dtype, rows=sums_by_rows(wide), threads=threads)
    table = BatchTable(
        np.array([held.count]),
        held.mean[np.newaxis].astype(float),
        held.var[np.newaxis].astype(float),
        dtype,
        held.mean[np.newaxis],
        held.var_sum[np.newaxis],
    )
    course = Course(lambda: iter([np.zeros(3, np.int64)]), 3, momentum)
    (piece,) = Walk(table, convention("pytorch"), course).pieces()
    for step in range(3):
        module(x)
        np.testing.assert_array_equal(piece.running_mean[step], module.running_mean.double())
        np.testing.assert_array_equal(piece.running_var[step], module.running_var.double())


def test_the_two_dtypes_round_differently_so_that_the_bits_prove_something():
    x = np.random.default_rng(0).normal(7, 2, (64, 3, 5)).astype(np.float32)
    wide = batch_statistics(x, dtype="float16", rows=False, threads=1)
    narrow = batch_statistics(x, dtype="bfloat16", rows=False, threads=1)
    assert (wide.mean != rounded(wide.mean, "float16")).any()
    np.testing.assert_array_equal(narrow.mean, rounded(narrow.mean, "bfloat16"))
    np.testing.assert_array_equal(narrow.var_sum, rounded(narrow.var_sum, "bfloat16"))
    assert (narrow.mean != wide.mean).any()


@pytest.mark.parametrize("dtype", HALVES)
def test_rounded_is_torchs_cast(dtype):
    values = np.random.default_rng(1).normal(0, 100, 1000).astype(np.float32)
    expected = torch.from_numpy(values).to(HALVES[dtype]).float()
    np.testing.assert_array_equal(rounded(values, dtype), expected)
