"""The forward pass of some channels in PyTorch's own float32 arithmetic, beside the exact one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.pytorch_cpu.float32 import (
    BatchStatistics,
    batch_statistics,
    evaluation_invstd,
    fma,
    folded,
    training_invstd,
    updated,
)
from bncli.running_stats import update_factor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.pytorch_cpu.float32 import Float32Array
    from bncli.verify.batch_norm_pass import BatchNormPass

MOST_ADDITIONS = 5_000_000
"""Additions of rows that are repeated one by one; each takes some microseconds."""


@dataclass(frozen=True, slots=True)
class Float32Pass:
    """A forward pass over some channels; every array is float32 of shape (their number,).

    `batch` is None where stored statistics normalise, the running statistics where the layer keeps
    none. `threads` shared the rows, if the input was summed by `rows`.
    """

    batch: BatchStatistics | None
    mean: Float32Array
    var: Float32Array
    invstd: Float32Array
    weight: Float32Array
    bias: Float32Array
    alpha: Float32Array
    beta: Float32Array
    factor: float | None
    running_mean: Float32Array | None
    running_var: Float32Array | None
    rows: bool
    threads: int

    def deviation(self, position: int, values: FloatArray) -> Float32Array:
        """float32(x - mean), whose squares are summed, for values as in `output`."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.asarray(values.astype(np.float32) - self.mean[position], np.float32)

    def output(self, position: int, values: FloatArray) -> Float32Array:
        """The output for flat values of the channel at `position` among those chosen."""
        own = slice(position, position + 1)
        return fma(values.astype(np.float32), self.alpha[own], self.beta[own])


def float32_pass(
    done: BatchNormPass, x: NDArray[Any], channels: list[int], *, rows: bool, threads: int
) -> Float32Pass:
    """The pass over `channels`; `x` holds those alone, float32 of shape (N, C, ...)."""
    settings, norm, before = done.settings, done.norm, done.before

    def chosen(values: FloatArray) -> Float32Array:
        return values[channels].astype(np.float32)

    batch = factor = running_mean = running_var = None
    if settings.normalizes_with_batch:
        batch = batch_statistics(x, rows=rows, threads=threads, num_features=len(norm.var))
        mean, var = batch.mean, batch.var
        invstd = training_invstd(var, settings.eps)
    else:
        mean, var = chosen(norm.mean), chosen(norm.var)
        invstd = evaluation_invstd(var, settings.eps)
    if before is not None:
        running_mean, running_var = chosen(before.running_mean), chosen(before.running_var)
        if settings.training and batch is not None:
            factor = update_factor(settings.momentum, before.num_batches_tracked + 1)
            running_mean, running_var = updated(running_mean, running_var, batch, factor)
    weight, bias = chosen(norm.weight), chosen(norm.bias)
    alpha, beta = folded(mean, invstd, weight, bias)
    return Float32Pass(
        batch,
        mean,
        var,
        invstd,
        weight,
        bias,
        alpha,
        beta,
        factor,
        running_mean,
        running_var,
        rows,
        threads,
    )
