"""A BatchNorm as a function on NumPy arrays; its variance is mean(x^2) - mean^2."""

import numpy as np


def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
    """The output; running_mean and running_var are updated in place."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var = running_mean, running_var
    if training:
        axes = (0, *range(2, x.ndim))
        mean = x.mean(axes)
        var = (x * x).mean(axes) - mean * mean
        if running_mean is not None:
            n = x.size // x.shape[1]
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (var * n / (n - 1) - running_var)
    y = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + x.dtype.type(eps))
    if weight is not None:
        y = y * weight.reshape(shape) + bias.reshape(shape)
    return y
