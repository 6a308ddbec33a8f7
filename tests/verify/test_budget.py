"""The budget of a float32 difference: bncli is exact, and PyTorch is repeated bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.model import BatchNormLayer, BatchNormSettings
from bncli.moments import channel_stats
from bncli.verify.batch_norm_pass import Path, batch_norm_pass
from bncli.verify.budget import error_budget
from bncli.verify.comparison import compare_channels
from tests.configurations import configuration

TORCH = backend(BackendName.TORCH)


def budget(seed, largest=3_000):
    config = configuration(seed, largest=largest)
    done = config.done()
    compared = compare_channels(done, config.x, TORCH, seed=0, tolerance=None, path=Path())
    return (
        config,
        compared,
        {line.quantity: line for line in error_budget(done, config.x, compared)},
    )


FLOATS = [seed for seed in range(120) if configuration(seed, 5).dtype == "float32"]


def has_fma() -> bool:
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@pytest.mark.parametrize("seed", FLOATS)
def test_bncli_is_exact_and_torch_is_repeated(seed):
    config, compared, lines = budget(seed)
    assert {"output", "grad_input"} <= set(lines)
    spread = config.done().stats.var.min() > 1e-6
    for line in lines.values():
        if spread:  # the last digits of a constant channel's gradients are anybody's
            assert line.bncli_ulp < 1e-3
        whole = next(i.whole for i in compared.quantities if i.whole.quantity == line.quantity)
        assert line.torch_error <= whole.max_abs_diff + line.bncli_error + 1e-300
    if has_fma():
        repeated = [line.repeated_ulp for line in lines.values() if line.repeated_ulp is not None]
        assert repeated
        assert max(repeated) == 0


def test_lost_digits_are_torchs():
    """Many rows with a mean far from 0: PyTorch's float32 sums lose what bncli keeps."""
    x = (np.random.default_rng(0).normal(size=(20_000, 1)) + 1000).astype(np.float32)
    settings = BatchNormSettings(track_running_stats=False)
    stats = channel_stats(x, 1)
    layer = BatchNormLayer(settings, "float32", np.ones(1), np.zeros(1), None)
    done = batch_norm_pass(layer, stats, dtype="float32", channel_axis=1)
    compared = compare_channels(done, x, TORCH, seed=0, tolerance=None, path=Path())
    lines = {line.quantity: line for line in error_budget(done, x, compared)}
    assert lines["mean"].torch_ulp > 1
    assert lines["output"].torch_ulp > 100
    assert lines["output"].bncli_ulp < 1e-3
    exact = math.fsum(x[:, 0].tolist()) / len(x)
    torch_mean = float(compared.run.quantities["mean"][0])
    assert lines["mean"].torch_error == pytest.approx(abs(torch_mean - exact), rel=1e-9)
