"""A user's implementations for tests: honest ones, written as people write them."""

from __future__ import annotations

import numpy as np
import torch

from bncli.backends.users import users_backend
from bncli.live.users_code import users_code


def backend(value, name=""):
    """A user's backend, its errors told as a command tells them."""
    return users_backend(value, users_code, name)


def plain(x, weight, bias, running_mean, running_var, training, momentum, eps):
    """The formulas in NumPy, statistics updated in place; half precision computed in float32."""
    axes, shape = (0, *range(2, x.ndim)), [1, -1] + [1] * (x.ndim - 2)
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    n = x.size // x.shape[1]
    mean, var = running_mean, running_var
    if training:
        mean, var = wide.mean(axes), wide.var(axes)
        if running_mean is not None:
            running_mean[...] = (1 - momentum) * running_mean + momentum * mean
            running_var[...] = (1 - momentum) * running_var + momentum * var * n / (n - 1)
    eps = var.dtype.type(eps)
    y = (wide - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    if weight is not None:
        y = y * weight.reshape(shape) + bias.reshape(shape)
    return y.astype(x.dtype)


class Plain(torch.nn.Module):
    """A module of two lines more than the formulas, without a counter."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = torch.nn.Parameter(torch.ones(num_features))
        self.bias = torch.nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(axes), x.var(axes, correction=0)
            n = x.numel() // x.shape[1]
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * n / (n - 1), self.momentum)
        y = (x - mean.view(shape)) / (var.view(shape) + self.eps).sqrt()
        return y * self.weight.view(shape) + self.bias.view(shape)
