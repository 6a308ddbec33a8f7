"""Batch statistics and running update of a float16 or bfloat16 module, as PyTorch's CPU kernels
round them.

    float16     mean and var_sum are kept in float32, and the update is float32 throughout; the
                buffers alone are rounded to float16
    bfloat16    mean and var_sum are rounded to bfloat16, and so are the weight of the new batch,
                the divisor n - 1 and every step of the update, but for a * unbiased_var

Bit for bit what `torch.nn.BatchNorm1d/2d/3d` leaves in its buffers on x86-64. Source:
aten/src/ATen/native/Normalization.cpp (`batch_norm_cpu_update_stats_template`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bncli.dtypes import decode, encode
from bncli.light import np
from bncli.pytorch_cpu.float32 import BatchStatistics
from bncli.pytorch_cpu.statistics import lane_sums, running_sums, thread_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.pytorch_cpu.float32 import Float32Array


def batch_statistics(x: NDArray[Any], *, dtype: str, rows: bool, threads: int) -> BatchStatistics:
    """The statistics of `x`, of shape (N, C, ...) and of values that `dtype` represents.

    Mean and var_sum come as float32, those of bfloat16 rounded to it.
    """
    count = x.size // x.shape[1]
    kept = "float32" if dtype == "float16" else dtype
    with np.errstate(invalid="ignore", over="ignore"):
        if rows:
            table = np.ascontiguousarray(
                np.moveaxis(x, 1, -1).reshape(count, x.shape[1]), dtype=np.float32
            )
            add = partial(thread_sums, threads=threads, half=True, running_sums=running_sums)
            mean = rounded(add(table) / np.float32(count), kept)
            squares = add(np.square(table - mean))
        else:
            images = x.reshape(x.shape[0], x.shape[1], -1).astype(np.float32, copy=False)
            center = lane_sums(images) / np.float32(count)  # not rounded yet
            squares = lane_sums(np.square(images - center[:, np.newaxis]))
            mean = rounded(center, kept)
        return BatchStatistics(mean, rounded(squares, kept), count)


def rounded(values: NDArray[Any], dtype: str) -> Float32Array:
    """`values` rounded to `dtype`, as float32."""
    return np.asarray(decode(encode(values, dtype), dtype), np.float32)
