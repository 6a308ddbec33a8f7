"""Layers that really hold another convention, and those that trained as usual."""

from __future__ import annotations

import numpy as np
import torch

from tests.changes.pairs import pair, random_layer, side

DTYPES = ("float32", "float16", "float64")


def wide_layer(channels=16, seed=1):
    """The vectors of a trained layer, float64."""
    return {
        leaf: values.astype(np.float64) for leaf, values in random_layer(channels, seed).items()
    }


def made(change, dtype="float32", channels=16, seed=1, *, forward=True, counter=100):
    """A layer and the same under a change, each stored in a dtype; `change` maps one to vectors."""
    layer = wide_layer(channels, seed)
    other = {**layer, **change(layer)}
    sides = [side(each, counter, dtype) for each in (layer, other)]
    return pair(*(sides if forward else sides[::-1]))


def updated(batches, n, *, momentum=0.1, keras=False, last=None, channels=16, seed=0):
    """Two layers that saw the same batches: the first keeps biased variances, the other unbiased.

    With `keras` the second subtracts, as Keras does; every tenth batch has `last` values a channel.
    """
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.3, 2, channels)
    offset = torch.randn(channels, generator=generator)
    mean, other_mean = torch.zeros(2, channels)
    var, other_var = torch.ones(2, channels)
    for batch in range(1, batches + 1):
        size = n if last is None or batch % 10 else last
        x = torch.randn(size, channels, generator=generator) * scale + offset
        new, biased, unbiased = x.mean(0), x.var(0, unbiased=False), x.var(0)
        mean = (1 - momentum) * mean + momentum * new
        var = (1 - momentum) * var + momentum * biased
        if keras:
            other_mean = other_mean - (other_mean - new) * momentum
            other_var = other_var - (other_var - biased * (size / (size - 1))) * momentum
        else:
            other_mean = (1 - momentum) * other_mean + momentum * new
            other_var = (1 - momentum) * other_var + momentum * unbiased
    layer = random_layer(channels, 5)
    return [
        {**layer, "running_mean": each.numpy(), "running_var": variance.numpy()}
        for each, variance in ((mean, var), (other_mean, other_var))
    ]
