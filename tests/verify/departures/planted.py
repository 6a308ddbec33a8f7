"""A BatchNorm in NumPy with one mistake at a time: the mistakes of new implementations, planted.

Computed in float64 and rounded at the end, so that each mistake is there alone.
"""

from __future__ import annotations

import numpy as np

from bncli.backends.arithmetic import Arithmetic
from bncli.backends.interface import BackendRun, BatchNormCall
from bncli.dtypes import decode, encode
from bncli.model import BatchNormSettings, RunningStats
from bncli.verify.batch_norm_pass import Path
from bncli.verify.comparison import compare_channels
from bncli.verify.departures import departures
from tests.configurations import Configuration

OUTPUT = {
    "identity": "the output is the input, as it was given",
    "eps outside": "eps is outside the root",
    "unbiased": "the output was normalised by the unbiased variance",
    "no eps": "eps is not added",
    "other eps": "eps is 1e-5, not the 1e-3 that was given",
    "no mean": "mean not subtracted",
    "no std": "not divided by the standard deviation",
    "by var": "the output is divided by the variance, not by its root",
    "eps subtracted": "eps is subtracted",
    "one plus": "1 is added to weight",
    "weight twice": "weight is applied twice",
    "bias first": "bias is added before weight multiplies",
    "bias minus": "bias is subtracted",
    "swapped": "weight and bias are swapped",
    "no weight": "weight ignored",
    "no bias": "bias ignored",
    "after": "the output is normalised by the running statistics after their update",
    "stored": "the running statistics normalise in training",
    "instance": "the output was computed by InstanceNorm, but BatchNorm was expected",
    "relu": "the output was taken after a ReLU",
}
"""Mistakes of an output in training, and what is to be said of them."""

RUNNING = {
    "biased": ("running_var", "running_var is biased: it divides by n"),
    "old": ("running_mean", "momentum weighs the old value: the batch enters with 0.9"),
    "never": ("running_mean", "the running statistics are not updated"),
    "mean only": ("running_var", "running_var is not updated"),
    "added": ("running_mean", "the old value of running_mean is kept whole: the batch is only"),
    "whole": ("running_var", "the batch enters running_var whole, and the old value is weighed"),
    "all corrected": ("running_var", "n / (n - 1) multiplies all of running_var, the old value"),
    "invstd": ("running_var", "invstd enters running_var, not the variance"),
    "std": ("running_var", "the standard deviation taken for the variance"),
    "sum": ("running_var", "the sum of squares enters running_var, not the variance"),
    "corrected twice": ("running_var", "n / (n - 1) is applied twice"),
    "0.3": ("running_mean", "the batch enters running_mean with 0.3, not with 0.1"),
    "uncounted": ("num_batches_tracked", "num_batches_tracked is not counted"),
    "counted twice": ("num_batches_tracked", "a batch adds 2 to num_batches_tracked"),
}
"""Mistakes of the update, the quantity that shows each, and how what is said begins."""

GRADIENTS = {
    "constants": ("grad_input", "grad_input takes the batch's statistics for constants"),
    "var constant": ("grad_input", "grad_input takes the variance for a constant"),
    "mean constant": ("grad_input", "grad_input takes the mean for a constant"),
    "grad sums": ("grad_input", "grad_input has sums in the place of means"),
    "grad n - 1": ("grad_input", "grad_input divides sum(g * x_hat) by n - 1, not by n"),
    "grad no weight": ("grad_input", "grad_input lacks the factor weight"),
    "weight of x": ("grad_weight", "grad_weight takes x, which is not normalised"),
    "weight centered": ("grad_weight", "grad_weight takes x - mean, which is not divided by std"),
    "weight mean": ("grad_weight", "grad_weight is a mean, not a sum"),
    "bias mean": ("grad_bias", "grad_bias is a mean, not a sum"),
    "bias swapped": ("grad_bias", "grad_weight and grad_bias are swapped"),
}
"""Mistakes of the backward pass."""


class Planted:
    """A backend with the mistake of that name; "" for none."""

    def __init__(self, mistake: str = ""):
        self.name = self.mistake = mistake

    def version(self) -> str:
        return "1"

    def run(self, call: BatchNormCall) -> BackendRun:
        with np.errstate(all="ignore"):
            return self._run(call)

    def _run(self, call):
        plant, settings, axis = self.mistake, call.settings, call.channel_axis
        x = np.moveaxis(call.x.astype(np.float64), axis, -1)
        g = np.moveaxis(call.grad_output.astype(np.float64), axis, -1)
        axes, eps = tuple(range(x.ndim - 1)), settings.eps
        n = x.size // x.shape[-1]
        batch_mean, batch_var = x.mean(axes), x.var(axes)
        if plant == "one pass":
            wide = np.float64 if call.dtype == "float64" else np.float32
            narrow = x.astype(wide)
            batch_var = ((narrow**2).mean(axes) - narrow.mean(axes) ** 2).astype(np.float64)
        if plant == "half sums":
            half = x.astype(np.float16).reshape(n, -1)
            batch_mean = (np.add.accumulate(half)[-1] / np.float16(n)).astype(np.float64)
            squares = (half - batch_mean.astype(np.float16)) ** 2
            batch_var = (np.add.accumulate(squares)[-1] / np.float16(n)).astype(np.float64)
        running = self._updated(call, batch_mean, batch_var, n)
        mean, var = batch_mean, batch_var
        if (not settings.normalizes_with_batch or plant == "stored") and call.running is not None:
            mean, var = call.running.running_mean, call.running.running_var
        if plant == "after":
            mean, var = running["running_mean"], running["running_var"]
        if plant == "instance":
            mean, var = (f(tuple(range(1, x.ndim - 1)), keepdims=True) for f in (x.mean, x.var))
        if plant == "unbiased":
            var = var * n / (n - 1)
        invstd = {
            "eps outside": lambda: 1 / (np.sqrt(var) + eps),
            "no eps": lambda: 1 / np.sqrt(var),
            "no std": lambda: np.ones_like(var),
            "by var": lambda: 1 / (var + eps),
            "other eps": lambda: 1 / np.sqrt(var + 1e-5),
            "eps subtracted": lambda: 1 / np.sqrt(var - eps),
        }.get(plant, lambda: 1 / np.sqrt(var + eps))()
        weight = np.ones_like(batch_mean) if call.weight is None else call.weight
        bias = np.zeros_like(batch_mean) if call.bias is None else call.bias
        scale, shift = {
            "one plus": (1 + weight, bias),
            "weight twice": (weight**2, bias),
            "bias first": (weight, bias * weight),
            "bias minus": (weight, -bias),
            "swapped": (bias, weight),
            "no weight": (1.0, bias),
            "no bias": (weight, 0.0),
        }.get(plant, (weight, bias))
        x_hat = (x - (0 if plant == "no mean" else mean)) * invstd
        output = x_hat * scale + shift
        if plant == "identity":
            output = x
        if plant == "offset":
            output = output + 0.25
        if plant == "nan spreads":
            output = output + 0 * x.sum()
        if plant == "relu":
            output = np.maximum(output, 0)
        found = {"output": output, **running}
        found |= self._gradients(call, x, g, x_hat, invstd, weight, n)
        for name in ("output", "grad_input"):
            found[name] = decode(encode(np.moveaxis(found[name], -1, axis), call.dtype), call.dtype)
        wide = "float64" if call.dtype == "float64" else "float32"
        return BackendRun(
            found, Arithmetic.plain(call.dtype, call.parameter_dtype, n, computed_in=wide)
        )

    def _gradients(self, call, x, g, x_hat, invstd, weight, n):
        plant, axes = self.mistake, tuple(range(x.ndim - 1))
        total, product = g.sum(axes), (g * x_hat).sum(axes)
        terms = total / n, product / n
        if not call.settings.normalizes_with_batch:
            terms = terms if plant == "training terms" else (0.0, 0.0)
        terms = {
            "constants": (0.0, 0.0),
            "var constant": (terms[0], 0.0),
            "mean constant": (0.0, terms[1]),
            "grad sums": (total, product),
            "grad n - 1": (terms[0], product / (n - 1)),
        }.get(plant, terms)
        factor = invstd if plant == "grad no weight" else weight * invstd
        found = {"grad_input": (g - terms[0] - x_hat * terms[1]) * factor}
        if call.settings.affine:
            found["grad_weight"] = {
                "weight of x": (g * x).sum(axes),
                "weight centered": (g * x_hat / invstd).sum(axes),
                "weight mean": product / n,
            }.get(plant, product)
            found["grad_bias"] = {"bias mean": total / n, "bias swapped": product}.get(plant, total)
        return found

    def _updated(self, call, mean, var, n):
        plant, running, settings = self.mistake, call.running, call.settings
        if running is None:
            return {}
        old_mean, old_var = running.running_mean, running.running_var
        counted = running.num_batches_tracked
        if not settings.training and plant != "in eval":
            return {
                "running_mean": old_mean,
                "running_var": old_var,
                "num_batches_tracked": np.array([counted]),
            }
        a = 1 / (counted + 1) if settings.momentum is None else settings.momentum
        a = {"old": 1 - a, "0.3": 0.3}.get(plant, a)
        unbiased = var * n / (n - 1)
        entering = {
            "biased": var,
            "invstd": 1 / np.sqrt(var + settings.eps),
            "std": np.sqrt(unbiased),
            "sum": var * n,
            "corrected twice": unbiased * n / (n - 1),
        }.get(plant, unbiased)
        new_mean, new_var = (1 - a) * old_mean + a * mean, (1 - a) * old_var + a * entering
        if plant == "never":
            new_mean, new_var = old_mean, old_var
        elif plant == "mean only":
            new_var = old_var
        elif plant == "added":
            new_mean = old_mean + a * mean
        elif plant == "whole":
            new_var = (1 - a) * old_var + unbiased
        elif plant == "all corrected":
            new_var = ((1 - a) * old_var + a * var) * n / (n - 1)
        step = {"uncounted": 0, "counted twice": 2}.get(plant, 1)
        return {
            "running_mean": new_mean,
            "running_var": new_var,
            "num_batches_tracked": np.array([counted + step]),
        }


def case(*, mean=1.0, dtype="float32", training=True, momentum=0.1, channels=5):
    rng = np.random.default_rng(7)
    x = rng.normal(mean, 0.2, (6, channels, 9)).astype(dtype)
    wide = "float64" if dtype == "float64" else "float32"

    def kept(values):
        return values.astype(wide).astype(np.float64)

    weight, bias = kept(rng.uniform(0.4, 2, channels)), kept(rng.normal(0.5, 1, channels))
    running = RunningStats(kept(rng.normal(0, 1, channels)), kept(rng.uniform(0.5, 2, channels)), 4)
    settings = BatchNormSettings(eps=1e-3, momentum=momentum, training=training)
    return Configuration(x, dtype, 1, settings, weight, bias, running)


def named(mistake, config):
    """What is said of each quantity that differs, and which differ."""
    done = config.done()
    compared = compare_channels(
        done, config.x, Planted(mistake), seed=0, tolerance=None, path=Path()
    )
    failed = {item.whole.quantity for item in compared.quantities if not item.whole.passed}
    return {
        name: cause.words for name, cause in departures(done, config.x, compared).items()
    }, failed
