"""The forward pass of a float32 BatchNorm module as PyTorch's CPU kernels round it.

    mean            the sum (see `batch_statistics`) over n, rounded
    var_sum         squares of float32(x - mean), summed and rounded; var = var_sum / n
    invstd          1 / sqrt(var + eps) in float64, rounded; in evaluation all in float32
    alpha           invstd * weight
    beta            fma(-mean, alpha, bias)
    output          fma(x, alpha, beta)
    running_mean    a * mean + (1 - a) * running_mean, a rounded and every operation too
    running_var     a * unbiased_var in float64, plus the rounded (1 - a) * running_var

Bit for bit what `torch.nn.BatchNorm1d/2d/3d` computes on x86-64 with fused multiply-add, for
contiguous input and rows ((N, C) and channels last). Sources: aten/src/ATen/native/
Normalization.cpp and native/cpu/batch_norm_kernel.cpp. It does not speak of input that is neither
(a strided slice): PyTorch has a third way for that, with other roundings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.pytorch_cpu.statistics import (
    channel_sums,
    fused_running_sums,
    in_float64,
    running_sums,
    thread_sums,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """A batch's statistics; both arrays are float32 of shape (num_features,).

    `var_sum` is the sum of squared deviations from `mean`, `count` the values per channel.
    """

    mean: Float32Array
    var_sum: Float32Array
    count: int

    @property
    def var(self) -> Float32Array:
        """The biased variance."""
        return _over(self.var_sum, self.count)

    @property
    def unbiased_var(self) -> Float32Array:
        """The variance that enters running_var; NaN for one value, as 0/0 is."""
        return _over(self.var_sum, self.count - 1)


def sums_by_rows(x: NDArray[Any]) -> bool:
    """Whether PyTorch sums `x`, of shape (N, C, ...), row by row, judged by shape and strides.

    It does for (N, C), for one value an image and channel, and for channels last, which has 4 or
    5 axes. Everything else is taken as contiguous.
    """
    if x.size == x.shape[0] * x.shape[1]:
        return True
    return not x.flags.c_contiguous and _is_channels_last(x)


def is_strided(x: NDArray[Any]) -> bool:
    """Whether `x`, of shape (N, C, ...), is neither contiguous nor channels last."""
    return not (x.flags.c_contiguous or _is_channels_last(x))


def _is_channels_last(x: NDArray[Any]) -> bool:
    """Whether the channels of `x`, of 4 or 5 axes, lie innermost."""
    return x.ndim > 3 and bool(x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous)


def batch_statistics(
    x: Float32Array, *, rows: bool, threads: int, num_features: int | None = None
) -> BatchStatistics:
    """The statistics of `x`, float32 of shape (N, C, ...).

    Contiguous input is summed value after value in float64. `rows` are shared out to `threads`
    threads; each adds its own in float32, squares by fused multiply-add, and the threads' sums
    are added in float64. `num_features` is the module's, where `x` holds some channels of it:
    with more than 16, and no more rows than threads, rows too are summed in float64.
    """
    count = x.size // x.shape[1]
    with np.errstate(invalid="ignore", over="ignore"):
        if rows and not in_float64(count, num_features or x.shape[1], threads):
            table = np.ascontiguousarray(np.moveaxis(x, 1, -1).reshape(count, x.shape[1]))
            total = thread_sums(table, threads, half=False, running_sums=running_sums)
            mean = (total / count).astype(np.float32)
            squares = thread_sums(
                table - mean, threads, half=False, running_sums=fused_running_sums
            )
        else:
            images = x.reshape(x.shape[0], x.shape[1], -1)
            mean = (channel_sums(images) / count).astype(np.float32)
            squares = channel_sums(images, mean)
        return BatchStatistics(mean, squares.astype(np.float32), count)


def training_invstd(var: Float32Array, eps: float) -> Float32Array:
    """1 / sqrt(var + eps) of a batch variance: in float64, rounded at the end."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 / np.sqrt(var.astype(np.float64) + eps), np.float32)


def evaluation_invstd(running_var: Float32Array, eps: float) -> Float32Array:
    """1 / sqrt(running_var + eps), every operation in float32, eps rounded too."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.asarray(np.float32(1) / np.sqrt(running_var + np.float32(eps)), np.float32)


def folded(
    mean: Float32Array, invstd: Float32Array, weight: Float32Array, bias: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """(alpha, beta) with output = fma(x, alpha, beta); all of shape (num_features,)."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        alpha = invstd * weight
    return alpha, fma(-mean, alpha, bias)


def updated(
    running_mean: Float32Array, running_var: Float32Array, batch: BatchStatistics, factor: float
) -> tuple[Float32Array, Float32Array]:
    """running_mean and running_var after `batch`; `factor` is the weight of the new batch."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        new = np.float32(factor)
        old = np.float32(1) - new
        mean = new * batch.mean + old * running_mean
        kept = (old * running_var).astype(np.float64)
        var = (np.float64(new) * batch.unbiased_var.astype(np.float64) + kept).astype(np.float32)
    return mean, var


def fma(a: Float32Array, b: Float32Array, c: Float32Array) -> Float32Array:
    """a * b + c rounded once to float32; the arguments broadcast.

    The product is exact in float64. The sum is not, and rounding it twice may be wrong: it is
    rounded to odd first, which leaves the second rounding right (Boldo and Melquiond 2008,
    "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd").
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        product = np.multiply(a, b, dtype=np.float64)
        addend = np.asarray(c, np.float64)
        total = np.asarray(product + addend)
        back = total - product
        lost = (product - (total - back)) + (addend - back)
        bits = total.view(np.int64)
        wrong = np.isfinite(total) & (lost != 0) & (bits & 1 == 0)
        # The neighbour on the side of what was lost; a float's bits grow away from 0.
        step = np.where((lost > 0) == (total > 0), 1, -1)
        odd = np.where(wrong, bits + step, bits).view(np.float64)
        return odd.astype(np.float32)


def _over(sums: Float32Array, divisor: int) -> Float32Array:
    """`sums` over a count that is rounded to float32 first."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums / np.float32(divisor), np.float32)
