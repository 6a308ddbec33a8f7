"""The batch statistics as PyTorch's CPU kernels compute them, rounding by rounding.

The kernels (aten/src/ATen/native/cpu/batch_norm_kernel.cpp and native/Normalization.cpp) sum in
an order that depends on dtype and memory format, and round in ways that can be repeated:

    float32, contiguous    one running sum a channel, in float64
    float32, rows          one running sum a channel and thread, in float32, then float64; with
                           fewer rows than threads and many channels, as contiguous
    float64                as float32, all in float64
    half, contiguous       one running sum a vector lane, in float32; what an image has beyond
                           whole vectors goes to a running sum of its own
    half, rows             one running sum a channel and thread, in float32, then float32

Rows are (N, C) input and channels last. Half stands for float16 and bfloat16.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bncli.dtypes import decode, encode
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bncli.model import FloatArray

    Summed = Callable[[NDArray[Any]], NDArray[Any]]

LANES = 8
"""The float32 values in a vector register of x86-64's AVX2, which these kernels are built for."""

FEWEST_CHANNELS = 17
"""Channels from which threads share the channels, where there are not more rows than threads."""

LONGEST_LOOP = 200_000
"""Fused additions that are repeated one by one; each takes some microseconds."""


@dataclass(frozen=True, slots=True)
class CpuStatistics:
    """The mean and biased variance, float64 arrays of shape (num_features,).

    Rows' squares are added by a fused multiply-add on most machines (`fused_var`) and by a rounded
    product on others (`var`). `fused_var` is None elsewhere, and where it would take too long.
    """

    mean: FloatArray
    var: FloatArray
    fused_var: FloatArray | None


def cpu_statistics(
    x: NDArray[Any], *, dtype: str, parameter_dtype: str, rows: bool, threads: int
) -> CpuStatistics:
    """Recompute the statistics of `x`, of shape (N, C, ...), in `dtype` or widened to float32.

    Bit for bit on x86-64, but for the last bits of the variance of float32 rows and of float64.
    """
    wide = "float64" if dtype == "float64" else "float32"
    half = dtype not in ("float32", "float64")
    count = x.size // x.shape[1]
    if rows and dtype == "float32" and in_float64(count, x.shape[1], threads):
        rows = False
        x = np.moveaxis(x, 1, -1).reshape(1, count, -1).transpose(0, 2, 1)
    if rows:
        # In C order, or NumPy would add along the columns, pairwise.
        table = np.ascontiguousarray(np.moveaxis(x, 1, -1).reshape(count, x.shape[1]), dtype=wide)
        return _statistics(
            table,
            count,
            unstored_center=False,
            parameter_dtype=parameter_dtype,
            center=lambda mean: table - mean,
            plain=partial(thread_sums, threads=threads, half=half, running_sums=running_sums),
            fused=None
            if wide == "float64" or _share(count, threads) > LONGEST_LOOP
            else partial(thread_sums, threads=threads, half=half, running_sums=fused_running_sums),
        )
    images = x.reshape(x.shape[0], x.shape[1], -1).astype(wide, copy=False)
    return _statistics(
        images,
        count,
        unstored_center=half,
        parameter_dtype=parameter_dtype,
        center=lambda mean: images - mean[:, np.newaxis],
        plain=lane_sums if half else channel_sums,
        fused=None,
    )


def _statistics(
    values: NDArray[Any],
    count: int,
    *,
    unstored_center: bool,
    parameter_dtype: str,
    center: Callable[[NDArray[Any]], NDArray[Any]],
    plain: Summed,
    fused: Summed | None,
) -> CpuStatistics:
    """Mean and variance, given how deviations are taken and how values and squares are summed.

    `unstored_center`: deviations are taken from the mean before it is rounded to be stored.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = plain(values)
        mean = total / total.dtype.type(count)
        rounded = decode(encode(mean, parameter_dtype), parameter_dtype)
        deviations = center((mean if unstored_center else rounded).astype(values.dtype))
        var = _divided(plain(np.square(deviations)), count, values.dtype)
        fused_var = None if fused is None else _divided(fused(deviations), count, values.dtype)
    return CpuStatistics(rounded.astype(np.float64), var, fused_var)


def _divided(squares: NDArray[Any], count: int, dtype: Any) -> FloatArray:
    """The variance: the sum of squares is stored in `dtype`, and divided in it."""
    var: NDArray[Any] = squares.astype(dtype) / dtype.type(count)
    return var.astype(np.float64)


def in_float64(count: int, num_features: int, threads: int) -> bool:
    """Whether float32 rows are summed channel by channel, in float64, as contiguous input is."""
    return count <= threads and num_features >= FEWEST_CHANNELS


def _share(count: int, threads: int) -> int:
    """The rows that one thread adds up; so few that not every thread gets one go to the first."""
    return count if count <= threads else -(-count // threads)


def running_sums(table: NDArray[Any]) -> NDArray[Any]:
    """Column sums of (n, k), row after row in the table's own dtype."""
    if table.shape[1] == 1:  # NumPy adds a lone column pairwise
        return np.add.accumulate(table[:, 0])[-1:]
    return np.asarray(np.add.reduce(table, axis=0, dtype=table.dtype))


def fused_running_sums(table: NDArray[Any]) -> NDArray[Any]:
    """Column sums of the squares of (n, k) float32, each square added with a single rounding."""
    sums = np.zeros(table.shape[1], np.float32)
    wide = np.empty(table.shape[1])
    for begin in range(0, len(table), 4096):
        # A float32's square is exact in float64.
        for square in np.square(table[begin : begin + 4096], dtype=np.float64):
            np.add(sums, square, out=wide)
            sums[:] = wide
    return sums


def thread_sums(
    table: NDArray[Any], threads: int, *, half: bool, running_sums: Summed
) -> NDArray[Any]:
    """Column sums of (n, C): each thread its share of the rows, then the shares."""
    total = np.zeros(table.shape[1], "float32" if half else "float64")
    share = _share(len(table), threads)
    for begin in range(0, len(table), share):
        total += running_sums(table[begin : begin + share])
    return total


def lane_sums(images: NDArray[Any]) -> NDArray[Any]:
    """Channel sums of (N, C, L) float32 as a vector register adds them.

    A step takes two registers of values; what is left of an image is added one by one, and so
    are the lanes in the end.
    """
    batch, channels, length = images.shape
    body = length - length % (2 * LANES)
    total = np.zeros(channels, np.float32)
    if body < length:
        rest = images[:, :, body:].transpose(0, 2, 1).reshape(-1, channels)
        total += running_sums(np.ascontiguousarray(rest))
    if body:
        table = images[:, :, :body].reshape(batch, channels, -1, LANES).transpose(0, 2, 1, 3)
        by_lane = running_sums(np.ascontiguousarray(table.reshape(-1, channels * LANES)))
        register = np.add.accumulate(by_lane.reshape(channels, LANES), axis=1, dtype=np.float32)
        total += register[:, -1]
    return total


def channel_sums(images: NDArray[Any], mean: NDArray[Any] | None = None) -> NDArray[Any]:
    """Channel sums of (N, C, L), value after value, in float64.

    With `mean`, (C,), of the squared deviations from it, each rounded to the dtype of `images`.
    """
    sums = np.empty(images.shape[1])
    for channel in range(images.shape[1]):
        total = np.float64(0.0)
        flat = images[:, channel].reshape(-1)
        for begin in range(0, len(flat), 1 << 16):
            values = flat[begin : begin + (1 << 16)]
            if mean is not None:
                values = np.square(values - mean[channel])
            piece = values.astype(np.float64)
            piece[0] += total
            total = np.add.accumulate(piece)[-1]
        sums[channel] = total
    return sums
