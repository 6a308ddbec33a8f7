"""A BatchNorm as a function on NumPy arrays: the variance is the mean of squares less the mean's."""

import numpy as np


def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
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
