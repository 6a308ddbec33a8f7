"""The pass over some channels is PyTorch's module, bit for bit where its order is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.backends.torch.tensors import repeats
from bncli.model import BatchNormSettings, RunningStats
from bncli.verify.trace import float32_pass
from tests.configurations import Configuration

CHANNELS = [0, 2]

pytestmark = pytest.mark.skipif(not repeats(), reason="another order of additions")


def module_of(given):
    settings = given.settings
    module = torch.nn.BatchNorm1d(
        4, eps=settings.eps, momentum=settings.momentum, affine=settings.affine,
        track_running_stats=settings.track_running_stats,
    )  # fmt: skip
    with torch.no_grad():
        if settings.affine:
            module.weight.copy_(torch.from_numpy(given.weight))
            module.bias.copy_(torch.from_numpy(given.bias))
        if given.running is not None:
            module.running_mean.copy_(torch.from_numpy(given.running.running_mean))
            module.running_var.copy_(torch.from_numpy(given.running.running_var))
            module.num_batches_tracked.fill_(given.running.num_batches_tracked)
    return module.train(settings.training)


@pytest.mark.parametrize("shape", [(40, 4), (6, 4, 9)])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_it_is_the_module_bit_for_bit(shape, momentum, training, track, affine):
    rng = np.random.default_rng(0)

    def kept(values):
        return values.astype(np.float32).astype(np.float64)

    given = Configuration(
        rng.normal(50, 3, shape).astype(np.float32), "float32", 1,
        BatchNormSettings(1e-3, momentum, affine, track, training),
        kept(rng.normal(size=4)) if affine else None, kept(rng.normal(size=4)) if affine else None,
        RunningStats(kept(rng.normal(size=4)), kept(rng.uniform(1, 2, 4)), 6) if track else None,
    )  # fmt: skip
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        module = module_of(given)
        with torch.no_grad():
            expected = module(torch.from_numpy(given.x)).numpy()
    finally:
        torch.set_num_threads(before)
    rows = len(shape) == 2
    found = float32_pass(given.done(), given.x[:, CHANNELS], CHANNELS, rows=rows, threads=1)
    for place, channel in enumerate(CHANNELS):
        values = given.x[:, channel].reshape(-1).astype(np.float64)
        np.testing.assert_array_equal(found.output(place, values), expected[:, channel].reshape(-1))
        deviation = given.x[:, channel].reshape(-1) - found.mean[place]
        np.testing.assert_array_equal(found.deviation(place, values), deviation)
    assert (found.batch is None) == (track and not training)
    if not track:
        assert found.running_mean is None
        assert found.running_var is None
    else:
        np.testing.assert_array_equal(found.running_mean, module.running_mean[CHANNELS])
        np.testing.assert_array_equal(found.running_var, module.running_var[CHANNELS])
    factor = 0.1 if momentum is not None else 1 / 7
    assert found.factor == (factor if track and training else None)
