"""What several of these tests have in common."""

from __future__ import annotations

import torch
from torch import nn


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.LayerNorm(5), nn.GroupNorm(2, 4)
    )
    layers.add_module("head", nn.BatchNorm1d(6, eps=1e-3, momentum=None))
    for module in layers:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 2)
            module.num_batches_tracked.fill_(7)
            nn.init.normal_(module.weight)
    return layers
