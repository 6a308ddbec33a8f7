"""Passes to be asked of a backend, and what the formulas give in NumPy: nothing of bncli's own."""

from __future__ import annotations

import numpy as np

from bncli.backends.interface import BatchNormCall
from bncli.dtypes import decode, encode
from bncli.model import BatchNormSettings, RunningStats

SHAPES = {"1d rows": (6, 3), "1d": (4, 3, 5), "2d": (3, 3, 4, 5), "3d": (2, 3, 3, 2, 4)}
MODES = [
    BatchNormSettings(training=training, affine=affine, track_running_stats=track)
    for training in (True, False)
    for affine in (True, False)
    for track in (True, False)
]
ROUNDING = {"float16": 1e-2, "bfloat16": 8e-2, "float32": 2e-5, "float64": 1e-10}


def call_of(shape, settings, dtype="float64", channel_axis=1, seed=0) -> BatchNormCall:
    rng = np.random.default_rng(seed)
    wide = "float64" if dtype == "float64" else "float32"
    channels = shape[channel_axis]
    kept = settings.affine or settings.track_running_stats
    parameter_dtype = wide if kept else dtype

    def rounded(values):
        return decode(encode(values, dtype), dtype)

    def parameters(values):
        return values.astype(wide).astype(np.float64)

    return BatchNormCall(
        x=rounded(rng.normal(1, 2, shape)),
        grad_output=rounded(rng.normal(size=shape)),
        dtype=dtype,
        parameter_dtype=parameter_dtype,
        channel_axis=channel_axis,
        settings=settings,
        weight=parameters(rng.normal(size=channels)) if settings.affine else None,
        bias=parameters(rng.normal(size=channels)) if settings.affine else None,
        running=RunningStats(
            parameters(rng.normal(size=channels)), parameters(rng.uniform(0.5, 2, channels)), 3
        )
        if settings.track_running_stats
        else None,
    )


def expected_quantities(call: BatchNormCall) -> dict[str, np.ndarray]:
    """By the formulas, in NumPy: nothing of bncli's own."""
    settings, axis = call.settings, call.channel_axis
    x = np.moveaxis(call.x.astype(np.float64), axis, -1)
    g = np.moveaxis(call.grad_output.astype(np.float64), axis, -1)
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    mean, var = x.mean(axes), x.var(axes)
    found: dict[str, np.ndarray] = {}
    batch = settings.training or not settings.track_running_stats
    if batch:
        found |= {"mean": mean, "var": var, "invstd": 1 / np.sqrt(var + settings.eps)}
    running = call.running
    if running is not None:
        changes = settings.training
        a = settings.momentum if changes else 0.0
        found |= {
            "running_mean": (1 - a) * running.running_mean + a * mean,
            "running_var": (1 - a) * running.running_var + a * var * count / (count - 1),
            "num_batches_tracked": np.array([running.num_batches_tracked + changes]),
        }
        if not batch:
            mean, var = running.running_mean, running.running_var
    x_hat = (x - mean) / np.sqrt(var + settings.eps)
    weight = call.weight if call.weight is not None else 1.0
    bias = call.bias if call.bias is not None else 0.0
    g_sum, g_x_hat = g.sum(axes), (g * x_hat).sum(axes)
    grad = g - (g_sum + x_hat * g_x_hat) / count if batch else g
    found["output"] = np.moveaxis(x_hat * weight + bias, -1, axis)
    found["grad_input"] = np.moveaxis(grad * weight / np.sqrt(var + settings.eps), -1, axis)
    if settings.affine:
        found |= {"grad_weight": g_x_hat, "grad_bias": g_sum}
    return found
