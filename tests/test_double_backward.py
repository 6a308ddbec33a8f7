"""The second backward pass: autograd's numbers, no false alarm, and every fault found."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest
import torch

from bncli.backends import BackendName, backend
from bncli.backends.interface import DOUBLE_QUANTITIES
from bncli.batchnorm import gradient_sums
from bncli.double_backward import DoubleBackward, double_sums
from bncli.verify import Path, compare_channels
from tests.configurations import configuration

TORCH = backend(BackendName.TORCH)

SEEDS = [seed for seed in range(140) if configuration(seed, 5).dtype in ("float32", "float64")]


@pytest.mark.parametrize("seed", SEEDS[:40])
def test_it_is_what_autograd_says(seed):
    """In float64, on data without a constant channel, where autograd is exact enough itself."""
    config = configuration(seed, largest=200)
    rng = np.random.default_rng(seed)
    x = rng.normal(1, 2, config.x.shape)
    axis = config.channel_axis
    g, v = rng.normal(size=(2, *x.shape))
    features = x.shape[axis]
    weight = rng.normal(1, 0.5, features)
    mean, var = rng.normal(size=features), np.exp(rng.normal(size=features))
    training = seed % 2 == 0 and x.size // features > 1
    t = torch.from_numpy(x).requires_grad_(True)
    w = torch.from_numpy(weight).requires_grad_(True)
    up = torch.from_numpy(g).requires_grad_(True)
    y = torch.nn.functional.batch_norm(
        t.movedim(axis, 1), torch.from_numpy(mean), torch.from_numpy(var), w, None, training, 0.0
    )
    (first,) = torch.autograd.grad(y, t, up.movedim(axis, 1), create_graph=True)
    second = torch.autograd.grad(first, (t, w, up), torch.from_numpy(v), allow_unused=True)
    expected = [
        np.zeros(shape) if s is None else s.numpy()
        for s, shape in zip(second, (x.shape, weight.shape, x.shape), strict=True)
    ]

    from bncli.batchnorm import normalization
    from bncli.model import BatchNormSettings, RunningStats
    from bncli.moments import channel_stats

    stats = channel_stats(x, axis)
    norm = normalization(
        stats,
        RunningStats(mean, var, 0),
        weight,
        None,
        BatchNormSettings(training=training),
    )
    sums = gradient_sums(x, g, norm, axis)
    double = DoubleBackward(
        norm, double_sums(x, g, v, norm, sums, axis), stats.count, x.ndim, axis, training
    )
    everything = tuple(slice(0, size) for size in x.shape)
    found = (
        double.grad_input(x, g, v, everything),
        double.grad_weight(),
        double.grad_output(x, v, everything),
    )
    for mine, theirs in zip(found, expected, strict=True):
        scale = np.abs(theirs).max() + 1e-300
        np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-9 * scale)


def double(seed, largest=5_000, **path):
    config = configuration(seed, largest=largest)
    compared = compare_channels(
        config.done(),
        config.x,
        TORCH,
        seed=0,
        tolerance=None,
        path=Path(double_backward=True, **path),
    )
    return [i.whole for i in compared.quantities if i.whole.quantity in DOUBLE_QUANTITIES]


def test_no_false_alarm_and_tight():
    used = {quantity: [] for quantity in DOUBLE_QUANTITIES}
    for seed in SEEDS:
        for item in double(seed, threads=1 + seed % 2):
            assert item.passed, (seed, item)
            used[item.quantity].append(item.used)
    for quantity, shares in used.items():
        assert median(shares) > 0.005, quantity


def test_a_fault_is_found(monkeypatch):
    """A forgotten term of K: in every training configuration with more than a few values."""
    from bncli import double_backward

    monkeypatch.setattr(
        double_backward.DoubleSums, "k", property(lambda self: self.v_g - self.v * self.g)
    )
    caught = []
    for seed in SEEDS:
        config = configuration(seed, largest=300)
        if config.settings.normalizes_with_batch and config.done().stats.var.min() > 0.01:
            caught.append(any(not item.passed for item in double(seed, largest=300)))
    assert len(caught) > 10
    assert all(caught)
