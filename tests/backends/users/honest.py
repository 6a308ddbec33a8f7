"""Honest ways to reduce a batch, as people write them, in NumPy; and one that is not."""

from __future__ import annotations

import numpy as np


def two_pass(values):
    """The mean, and then the mean of squared deviations, row after row."""
    mean = np.add.accumulate(values, 0)[-1] / values.dtype.type(len(values))
    squares = (values - mean) ** 2
    return mean, np.add.accumulate(squares, 0)[-1] / values.dtype.type(len(values))


def welford(values):
    """One pass, with a mean that moves."""
    mean, total = np.zeros_like(values[0]), np.zeros_like(values[0])
    for n, row in enumerate(values, 1):
        delta = row - mean
        mean = mean + delta / values.dtype.type(n)
        total = total + delta * (row - mean)
    return mean, total / values.dtype.type(len(values))


def blocked(values, size=32):
    """Blocks by two passes, merged pairwise by Chan's formula."""
    parts = [
        (block.mean(0), ((block - block.mean(0)) ** 2).sum(0), len(block))
        for block in (values[i : i + size] for i in range(0, len(values), size))
    ]
    real = values.dtype.type
    while len(parts) > 1:
        merged = []
        for i in range(0, len(parts) - 1, 2):
            (one, a, n), (other, b, m) = parts[i : i + 2]
            delta = other - one
            mean = one + delta * real(m / (n + m))
            merged.append((mean, a + b + delta**2 * real(n * m / (n + m)), n + m))
        parts = merged + parts[len(parts) // 2 * 2 :]
    mean, total, n = parts[0]
    return mean, total / real(n)


def one_pass_in_double(values):
    """mean(x^2) - mean^2, in float64."""
    wide = values.astype(np.float64)
    mean = wide.mean(0)
    var = np.maximum((wide**2).mean(0) - mean**2, 0)
    return mean.astype(values.dtype), var.astype(values.dtype)


def one_pass(values):
    """The same in the values' own dtype, which loses the digits that |mean| / std takes."""
    mean = values.mean(0)
    return mean, np.maximum((values**2).mean(0) - mean**2, 0)


def batch_norm_by(statistics):
    """A function that reduces a batch in this way; half precision is computed in float32."""

    def batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps):
        real = np.float64 if x.dtype == np.float64 else np.float32
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.astype(real)
        mean, var = running_mean, running_var
        if training:
            values = np.moveaxis(wide, 1, -1).reshape(-1, x.shape[1])
            mean, var = statistics(values)
            if running_mean is not None:
                n = len(values)
                running_mean += real(momentum) * (mean - running_mean)
                running_var += real(momentum) * (var * real(n / (n - 1)) - running_var)
        scale = 1 / np.sqrt(var.astype(real) + real(eps))
        y = (wide - mean.reshape(shape)) * scale.reshape(shape)
        if weight is not None:
            y = y * weight.reshape(shape) + bias.reshape(shape)
        return y.astype(x.dtype)

    return batch_norm
