"""Random tensors and their norms, compared with a backend."""

from __future__ import annotations

import numpy as np

from bncli.backends import BackendName, backend
from bncli.moments import channel_stats
from bncli.norms import describe
from bncli.verify.norms import compare_norms
from tests.configurations import configuration

TORCH = backend(BackendName.TORCH)


def case(seed, largest=30_000):
    """Norms and a tensor for them: rank, dtype, layout, size, mean, spread, groups, axes, eps."""
    config = configuration(seed, largest)
    x, axis = config.x, config.channel_axis
    if axis == 0:
        x, axis = np.moveaxis(x, 0, 1), 1
    rng = np.random.default_rng(seed)
    channels = x.shape[axis]
    groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    norms = describe(
        x.shape,
        axis,
        groups=groups,
        normalized=int(rng.integers(1, x.ndim)),
        eps=None if rng.random() < 0.5 else 1e-3,
        rms_eps=2.0 ** (-52 if config.dtype == "float64" else -23),
    )
    return norms, x, config.dtype, channel_stats(x, axis)


def compared(seed, chosen=TORCH, largest=30_000):
    return compare_norms(*case(seed, largest), chosen).compared
