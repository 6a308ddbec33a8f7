"""BatchNorms that are right, with places where a bug can be planted: a module and a function."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn


class Honest(nn.Module):
    """A BatchNorm in plain operations of PyTorch; every method may be overridden."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.track = track_running_stats
        self.weight = nn.Parameter(torch.ones(num_features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features)) if affine else None
        if track_running_stats:
            self.register_buffer("running_mean", torch.zeros(num_features))
            self.register_buffer("running_var", torch.ones(num_features))
            self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        if self.training and self.track:
            self.count(x)
        if self.training or not self.track:
            if x.numel() == 0:
                return x * 1
            if x.numel() == x.shape[1]:
                raise ValueError("more than one value per channel is needed")
            mean, var = self.statistics(wide)
            if self.training and self.track:
                self.update(mean, var, wide)
        else:
            mean, var = self.stored()
        y = self.normalise(wide, mean, var)
        return self.affine(y).to(x.dtype)

    def count(self, x):
        self.num_batches_tracked += 1

    def axes(self, x):
        return [0, *range(2, x.ndim)]

    def along(self, values, x):
        if values.ndim > 1:
            return values
        return values.reshape(1, -1, *[1] * (x.ndim - 2))

    def statistics(self, x):
        axes = self.axes(x)
        mean = x.mean(axes)
        var = ((x - self.along(mean, x)) ** 2).mean(axes)
        return mean, var

    def stored(self):
        return self.running_mean, self.running_var

    def factor(self):
        if self.momentum is None:
            return 1.0 / float(self.num_batches_tracked)
        return self.momentum

    def kept_var(self, var, x):
        n = x.numel() / x.shape[1]
        return var * n / (n - 1)

    def update(self, mean, var, x):
        with torch.no_grad():
            a = self.factor()
            self.running_mean.mul_(1 - a).add_(a * mean)
            self.running_var.mul_(1 - a).add_(a * self.kept_var(var, x))

    def normalise(self, x, mean, var):
        return (x - self.along(mean, x)) * self.scale(self.along(var, x))

    def scale(self, var):
        return 1 / torch.sqrt(var + self.eps)

    def affine(self, y):
        if self.weight is None:
            return y
        return y * self.along(self.weight, y) + self.along(self.bias, y)


class Rsqrt(Honest):
    """By the reciprocal root, whose derivative autograd has as -0.5 * invstd**3."""

    def scale(self, var):
        return torch.rsqrt(var + self.eps)


def numpy_batchnorm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    """The same for NumPy's arrays: it returns the output, and changes the buffers in place."""
    axes = (0, *range(2, x.ndim))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    wide = x.astype(np.result_type(x.dtype, np.float32))
    if training and x.size:
        n = x.size // x.shape[1]
        if n == 1:
            raise ValueError("more than one value per channel is needed")
        mean = wide.mean(axes)
        var = np.square(wide - mean.reshape(shape)).mean(axes)
        if running_mean is not None:
            running_mean[:] = (1 - momentum) * running_mean + momentum * mean
            running_var[:] = (1 - momentum) * running_var + momentum * var * n / (n - 1)
    elif training:
        return x
    else:
        mean, var = running_mean, running_var
    y = (wide - mean.reshape(shape)) / np.sqrt(var + eps).reshape(shape)
    if weight is not None:
        y = y * weight.reshape(shape) + bias.reshape(shape)
    return y.astype(x.dtype)


def pure_python(x, weight, bias, running_mean, running_var, training, momentum, eps):
    """Two passes over lists of Python's floats, channel by channel."""
    y = np.empty_like(x)
    for channel in range(x.shape[1]):
        values = [float(value) for value in x[:, channel].ravel()]
        n = len(values)
        if training and n == 1:
            raise ValueError("more than one value per channel is needed")
        if training and n:
            mean = sum(values) / n
            var = sum((value - mean) * (value - mean) for value in values) / n
            if running_mean is not None:
                kept = 1 - momentum
                running_mean[channel] = kept * running_mean[channel] + momentum * mean
                running_var[channel] = kept * running_var[channel] + momentum * var * n / (n - 1)
        elif training:
            continue
        else:
            mean, var = float(running_mean[channel]), float(running_var[channel])
        scale = 1 / math.sqrt(var + eps) if not math.isnan(var) else math.nan
        w, b = (1.0, 0.0) if weight is None else (float(weight[channel]), float(bias[channel]))
        done = [(value - mean) * scale * w + b for value in values]
        y[:, channel] = np.array(done).reshape(x[:, channel].shape)
    return y
