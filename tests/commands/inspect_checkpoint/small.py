"""What several of these tests have in common."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import nn


def small(seed=0):
    """Three layers with statistics, from enough batches to have forgotten the beginning."""
    return copy.deepcopy(_small(seed))


@cache
def _small(seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.ModuleDict({"stem": nn.BatchNorm1d(4), "body": nn.BatchNorm1d(6)})
    model["head"] = nn.BatchNorm1d(4)
    for module in model.values():
        nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(module.bias, -1, 1, generator=generator)
        for _ in range(100):
            module(torch.randn(8, module.num_features, generator=generator))
    return model
