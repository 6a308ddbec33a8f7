"""PyTorch on a CUDA device: what its kernels round, repeated here; and the device, if any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.backends.torch.tensors import arithmetic_of
from bncli.batchnorm import gradient_sums
from bncli.model import BatchNormLayer, BatchNormSettings
from bncli.moments import channel_stats
from bncli.verify.batch_norm_pass import Path, batch_norm_pass
from bncli.verify.comparison import compare_channels
from bncli.verify.tolerance import Tolerances
from tests.configurations import configuration

TORCH = backend(BackendName("torch"))
CONFIGURATIONS = 200


def on_device(shape, dtype, memory_format=torch.contiguous_format):
    """A tensor that has a shape and strides, and no values: no device is needed for them."""
    made = torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
    return made.to(memory_format=memory_format)


def tolerances(x, dtype, *, training=True):
    """Those of a layer without weight and running statistics, as the CUDA kernels take `x`."""
    stats = channel_stats(x)
    settings = BatchNormSettings(affine=False, track_running_stats=False, training=training)
    layer = BatchNormLayer(settings, "float32", None, None, None)
    done = batch_norm_pass(layer, stats, dtype=dtype, channel_axis=1)
    arithmetic = arithmetic_of(on_device(x.shape, dtype), dtype, "float32")
    exact = type("Recomputed", (), {"mean": stats.mean, "var": stats.var, "fused_var": None})
    return done, Tolerances.of(arithmetic, stats, done.norm, settings, exact)


def welford(values):
    """The biased variance by running moments in float32, as one thread of the kernel has them."""
    mean = squares = np.float32(0)
    for n, value in enumerate(values.astype(np.float32), 1):
        delta = value - mean
        mean = mean + delta / np.float32(n)
        squares = squares + delta * (value - mean)
    return float(squares / np.float32(len(values)))


@pytest.mark.parametrize("far", [0, 10, 1000, 10_000])
@pytest.mark.parametrize("count", [3, 8, 300])
def test_a_mean_that_moves_far_from_0_costs_digits_of_the_variance(far, count):
    x = (np.random.default_rng(count).normal(size=(count, 20)) + far).astype(np.float32)
    done, allowed = tolerances(x, "float32")
    off = np.abs([welford(x[:, c]) for c in range(20)] - done.stats.var)
    assert (off <= allowed.var().atol).all()
    if far == 10_000:
        assert off.max() > 1e-5 * done.stats.var.max()  # more than any rounding of its own
    std = np.sqrt(done.stats.var)
    sizes = np.sqrt(count) * done.stats.var + np.abs(done.stats.mean) * std
    assert (allowed.var().atol < 20 * 2.0**-24 * sizes).all()  # and it is no loose one


def handed_on(partial, dtype):
    """The sum of the threads' parts, each rounded to `dtype` when it is handed to another."""
    while len(partial) > 1:
        half = len(partial) // 2
        moved = torch.from_numpy(partial[half:]).to(getattr(torch, dtype)).float().numpy()
        partial = partial[:half] + moved
    return float(partial[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_gradients_are_rounded_between_threads(dtype):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(64, 40, 8)).astype(np.float32))
    g = torch.from_numpy(rng.normal(size=(64, 40, 8)).astype(np.float32))
    x, g = (values.to(getattr(torch, dtype)).float().numpy() for values in (x, g))
    done, allowed = tolerances(x, dtype)
    sums = gradient_sums(x, g, done.norm, 1)
    moved = np.array([handed_on(g[:, c].reshape(-1), dtype) for c in range(40)])
    off = np.abs(moved - sums.g)
    bound = allowed.grad_bias(sums)
    assert (off <= bound.atol + bound.rtol * np.abs(moved)).all()
    assert off.max() > 0.05 * bound.atol.max()  # and it is no loose one
    kept = arithmetic_of(on_device(x.shape, "float32"), "float32", "float32")
    assert kept.backward_dtype == "float32"


def test_where_half_statistics_are_rounded():
    """var_mean gives the input's dtype, and serves what no kernel of BatchNorm's does."""
    volume = on_device((2, 3, 4, 4, 4), "float16", torch.channels_last_3d)
    assert arithmetic_of(volume, "float16", "float32").statistics_dtype == "float16"
    image = on_device((2, 3, 4, 4), "float16", torch.channels_last)
    assert arithmetic_of(image, "float16", "float32").statistics_dtype == ""
    wide = on_device((2, 3, 4, 4, 4), "float32", torch.channels_last_3d)
    assert arithmetic_of(wide, "float32", "float32").statistics_dtype == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("seed", range(CONFIGURATIONS))
def test_the_device_is_within_its_tolerances(seed):
    given = configuration(seed, largest=60_000)
    done = given.done()
    formats = (None, "channels_last") if given.x.ndim == 4 else (None,)
    for memory_format in formats:
        path = Path("cuda", memory_format)
        compared = compare_channels(done, given.x, TORCH, seed=seed, tolerance=None, path=path)
        failed = [item.whole for item in compared.quantities if not item.whole.passed]
        # A sum of half precision that passes 65504 on its way is NaN there, and is told.
        assert [item for item in failed if np.isfinite(item.expected)] == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_fault_on_the_device_is_told():
    given = configuration(1)
    done = given.done()
    wrong = replace(done, norm=replace(done.norm, invstd=done.norm.invstd * 1.01))
    path = Path("cuda")
    compared = compare_channels(wrong, given.x, TORCH, seed=1, tolerance=None, path=path)
    assert not all(item.whole.passed for item in compared.quantities)
