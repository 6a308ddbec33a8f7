"""A BatchNorm as one writes it first: it trains, and two things in it are wrong."""

import torch
from torch import nn


class MyBatchNorm1d(nn.Module):
    """Normalises (N, C) and (N, C, L) by the formulas of the paper."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        """The output, and in training the update of the running statistics."""
        shape = (1, -1) + (1,) * (x.ndim - 2)
        mean, var = self.running_mean, self.running_var
        if self.training:
            axes = (0, *range(2, x.ndim))
            mean, var = x.mean(axes), x.var(axes, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var, self.momentum)
        scale = self.weight / (var.sqrt() + self.eps)
        return (x - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)
