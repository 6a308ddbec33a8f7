"""A second backend, written from the interface alone: BatchNorm in NumPy, the plain way.

float64 input is computed in float64, all other in float32. `fault` plants one of FAULTS.
"""

from __future__ import annotations

import numpy as np

from bncli.backends.arithmetic import Arithmetic
from bncli.backends.interface import Backend, BackendRun, BatchNormCall
from bncli.dtypes import decode, encode

EPS_OUTSIDE = "eps outside the root"
BIASED = "the biased variance into running_var"
FAULTS = (EPS_OUTSIDE, BIASED)


class PlainBackend:
    """The formulas, a line each; sums in whatever order NumPy takes."""

    def __init__(self, name: str = "plain", fault: str = ""):
        self.name = name
        self.fault = fault

    def version(self) -> str:
        return np.__version__

    def run(self, call: BatchNormCall) -> BackendRun:
        with np.errstate(all="ignore"):
            return self._run(call)

    def _run(self, call: BatchNormCall) -> BackendRun:
        computed_in = "float64" if call.dtype == "float64" else "float32"
        own = np.dtype(computed_in).type
        settings, axis = call.settings, call.channel_axis
        x, g = call.x.astype(own), call.grad_output.astype(own)
        axes = tuple(other for other in range(x.ndim) if other != axis)
        shape = [-1 if other == axis else 1 for other in range(x.ndim)]
        n = x.size // x.shape[axis]
        found = {}
        if settings.normalizes_with_batch:
            mean, var = x.mean(axes), x.var(axes)
        else:
            mean = call.running.running_mean.astype(own)
            var = call.running.running_var.astype(own)
        invstd = 1 / np.sqrt(var + own(settings.eps))
        if self.fault == EPS_OUTSIDE:
            invstd = 1 / (np.sqrt(var) + own(settings.eps))
        if settings.normalizes_with_batch:
            found |= {"mean": mean, "var": var, "invstd": invstd}
        weight, bias = np.ones_like(mean), np.zeros_like(mean)
        if settings.affine:
            weight, bias = call.weight.astype(own), call.bias.astype(own)
        x_hat = (x - mean.reshape(shape)) * invstd.reshape(shape)
        output = x_hat * weight.reshape(shape) + bias.reshape(shape)
        sum_g, sum_g_x_hat = g.sum(axes), (g * x_hat).sum(axes)
        inner = g
        if settings.normalizes_with_batch:
            inner = g - (sum_g / own(n)).reshape(shape)
            inner = inner - x_hat * (sum_g_x_hat / own(n)).reshape(shape)
        grad_input = inner * (weight * invstd).reshape(shape)
        if settings.affine:
            found |= {"grad_weight": sum_g_x_hat, "grad_bias": sum_g}
        if settings.track_running_stats:
            found |= self._running(call, mean, var, n)
        for name, values in (("output", output), ("grad_input", grad_input)):
            found[name] = decode(encode(values, call.dtype), call.dtype)
        arithmetic = Arithmetic.plain(call.dtype, call.parameter_dtype, n, computed_in=computed_in)
        return BackendRun(found, arithmetic)

    def _running(self, call, mean, var, n):
        """The running statistics after the batch, in training."""
        running, settings = call.running, call.settings
        kept = [values.astype(mean.dtype) for values in (running.running_mean, running.running_var)]
        tracked = running.num_batches_tracked
        if settings.training:
            tracked += 1
            new = mean.dtype.type(1 / tracked if settings.momentum is None else settings.momentum)
            entering = var if self.fault == BIASED else var * mean.dtype.type(n / (n - 1))
            kept = [
                (1 - new) * old + new * fresh
                for old, fresh in zip(kept, (mean, entering), strict=True)
            ]
        return {
            "running_mean": kept[0],
            "running_var": kept[1],
            "num_batches_tracked": np.array([tracked]),
        }


BACKEND: Backend = PlainBackend()
