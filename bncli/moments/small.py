"""The statistics of a small array, for which tasks, workers and tiles would take longer.

Each call of NumPy takes about half a microsecond whatever it does, so there are few of them.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from bncli.light import filler
from bncli.model import ChannelStats
from bncli.moments.kernels import ENGINE, PIECE_VALUES, SHORT_RUN, extreme, power_sums
from bncli.moments.worker import MAX_CANCELLATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray

_SMALL_VALUES = 1 << 17
"""Arrays of up to this many values are small."""
_PLAIN = (np.dtype(np.float32), np.dtype(np.float64))
_SHORT_SUM = 2 * PIECE_VALUES
"""Arrays of up to this many values have runs short enough to be added up as they are."""
_ONES = np.ones(PIECE_VALUES)
_NAN = np.broadcast_to(np.float64(np.nan), _SMALL_VALUES)
_ZERO = np.broadcast_to(np.float64(0), _SMALL_VALUES)
_NONE = np.broadcast_to(np.int64(0), _SMALL_VALUES)
"""What the channels of clean arrays have in common: one number seen as many, read-only."""
_ENGINES = (ENGINE,)
_made = filler(ChannelStats)


def small_stats(x: NDArray[Any], channel_axis: int, *, extremes: bool) -> ChannelStats | None:
    """The statistics of a clean array of few values; `min` and `max` are NaN without `extremes`.

    None for any other array: a larger one, one of another dtype or layout, one that has a channel
    with a NaN, an Inf or a mean far from 0, and for a `channel_axis` out of range. `shift` and the
    counts are read-only.
    """
    if not (
        0 < x.size <= _SMALL_VALUES
        and x.dtype in _PLAIN
        and x.flags.c_contiguous
        and -x.ndim <= channel_axis < x.ndim
    ):
        return None
    shape = x.shape
    channel_axis %= len(shape)
    c = shape[channel_axis]
    n = x.size // c
    x = x.reshape(prod(shape[:channel_axis]), c, -1)
    with np.errstate(all="ignore"):
        total, square = few_power_sums(x)
        offset = total / float(n)
        total *= offset
        m2 = np.subtract(square, total, out=total)
        # The comparison is False for a NaN, too.
        if np.count_nonzero(m2 * MAX_CANCELLATION >= square) < c:
            return None
        m2 /= float(n)
    if extremes:
        low = extreme(np.minimum, x).astype(np.float64)
        high = extreme(np.maximum, x).astype(np.float64)
    else:
        low = high = _NAN[:c]
    none = _NONE[:c]
    return _made(
        count=n,
        shift=_ZERO[:c],
        offset=offset,
        var=m2,
        min=low,
        max=high,
        nan=none,
        posinf=none,
        neginf=none,
        first_nonfinite=_no_indices(c),
        third=None,
        fourth=None,
        samples=None,
        engines=_ENGINES,
    )


@lru_cache(maxsize=8)
def _no_indices(channels: int) -> tuple[None, ...]:
    """`first_nonfinite` of a clean array."""
    return (None,) * channels


def few_power_sums(x: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """The sums in float64 over axes 0 and 2 of x and of x squared, each of shape (channels,).

    x (before, channels, behind) is contiguous, float32 or float64, and is not written to.
    """
    k, c, s = x.shape
    if s >= SHORT_RUN and x.size <= _SHORT_SUM:
        y = x.astype(np.float64, copy=False)
        return np.einsum("kcs->c", y), np.einsum("kcs,kcs->c", y, y)
    if s >= SHORT_RUN or k > PIECE_VALUES:
        return power_sums(x.astype(np.float64, copy=False))
    # Products with ones add up columns fastest. On x86, the OpenBLAS of NumPy's wheels, 0.3.27
    # or later, multiplies a vector by a matrix of up to `_SMALL_VALUES` on one thread.
    y = x.reshape(k, c * s).astype(np.float64)
    ones = _ONES[:k]
    total = ones.dot(y)
    square = ones.dot(np.multiply(y, y, out=y))
    if s > 1:
        total = np.add.reduce(total.reshape(c, s), axis=1)
        square = np.add.reduce(square.reshape(c, s), axis=1)
    return total, square
