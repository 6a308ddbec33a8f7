"""Tensors for arrays and back, memory formats, and how PyTorch's kernels take an input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.backends.torch import tensors
from bncli.backends.torch.tensors import (
    arithmetic_of,
    batch_statistics,
    laid_out,
    repeats,
    to_array,
    to_tensor,
    with_threads,
)
from bncli.dtypes import decode, encode
from bncli.errors import UsageError


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_values_go_to_a_tensor_and_back(dtype):
    x = decode(encode(np.random.default_rng(0).normal(size=(3, 4, 5)), dtype), dtype)
    turned = x.transpose(2, 0, 1)
    made = to_tensor(turned, getattr(torch, dtype))
    assert made.dtype == getattr(torch, dtype)
    assert made.stride() == tuple(n // turned.itemsize for n in turned.strides)
    np.testing.assert_array_equal(to_array(made), turned)
    made.zero_()
    assert turned.any()  # no memory is shared


@pytest.mark.parametrize("ndim", [4, 5])
def test_an_input_keeps_its_own_memory_format_or_takes_the_one_that_is_named(ndim):
    x = torch.arange(24.0 * 2 ** (ndim - 4)).reshape((2, 3, 2, 2, 2)[:ndim])
    last = torch.channels_last if ndim == 4 else torch.channels_last_3d
    stored_last = x.to(memory_format=last)
    for given, name, expected in (
        (x, None, torch.contiguous_format),
        (stored_last, None, last),
        (x, "channels_last", last),
        (stored_last, "contiguous", torch.contiguous_format),
        (x.transpose(0, 1).clone().transpose(0, 1), None, torch.contiguous_format),
    ):
        made = laid_out(given, name)
        fresh = torch.empty(x.shape).to(memory_format=expected)
        assert made.stride() == fresh.stride()
        assert torch.equal(made, x)


def test_channels_last_is_for_images_and_volumes():
    with pytest.raises(UsageError, match="it is for 4 or 5 axes, but this input has 3"):
        laid_out(torch.zeros(2, 3, 4), "channels_last")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("shape", "dtype", "forward", "backward"),
    [
        # (dtype of the sums, the longest of them)
        ((12, 2, 5), "float32", ("float64", 60), ("float32", 5)),
        ((12, 2), "float32", ("float32", None), ("float32", None)),
        ((12, 2, 5), "float16", ("float32", 60), ("float32", 60)),
        ((12, 2, 5), "float64", ("float64", 60), ("float64", 60)),
    ],
)
def test_how_the_kernels_sum(shape, dtype, forward, backward, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = arithmetic_of(torch.zeros(shape, dtype=getattr(torch, dtype)), dtype, "float32")
    finally:
        torch.set_num_threads(before)
    share = 12 // threads  # of rows, each thread has its own
    assert (found.accumulate_dtype, found.additions) == (forward[0], forward[1] or share)
    assert (found.backward_dtype, found.backward_additions) == (backward[0], backward[1] or share)
    assert found.rows == (len(shape) == 2)
    assert found.order == ("repeated" if repeats() else "similar")


@pytest.mark.parametrize("other", ["version", "kernels", "machine"])
def test_another_build_is_not_repeated(monkeypatch, other):
    monkeypatch.setattr(tensors.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch, "__version__", f"{tensors.REPEATED_VERSION}1")
    assert repeats()
    if other == "version":
        monkeypatch.setattr(torch, "__version__", "2.14.0")
    elif other == "kernels":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    else:
        monkeypatch.setattr(tensors.platform, "machine", lambda: "arm64")
    assert not repeats()


def test_the_statistics_of_a_batch():
    x = np.random.default_rng(0).normal(3, 2, (8, 3, 5))
    found = batch_statistics(torch.from_numpy(x), torch.float64, 1e-3)
    mean, var = x.mean((0, 2)), x.var((0, 2))
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(found["var"], var, rtol=1e-12)
    np.testing.assert_allclose(found["invstd"], 1 / np.sqrt(var + 1e-3), rtol=1e-12)


def test_threads_are_as_before_in_whatever_order_blocks_end():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        one, other = with_threads(1), with_threads(2)
        one.__enter__()
        assert torch.get_num_threads() == 1
        other.__enter__()
        assert torch.get_num_threads() == 2
        one.__exit__(None, None, None)  # as that of another thread does
        other.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
        with with_threads(None):
            assert torch.get_num_threads() == 3
            torch.set_num_threads(1)  # which a user's own code may do
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
