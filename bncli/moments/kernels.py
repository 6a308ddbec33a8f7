"""Sums over one tile: float64 of shape (before, channels, behind), contiguous.

A channel's values are summed along axis 2 where its runs there are long, and down axis 0 where
they are short. Long sums are cut into pieces of at most `PIECE_VALUES`. That bounds the rounding
error of sums whose terms all round the same way, and keeps each call of a BLAS below the size
(about 10,000 values in OpenBLAS) at which it would start threads of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bncli.model import FloatArray

PIECE_VALUES = 4096
"""Values summed in one run."""
_SHORT_RUN = 24
"""Shorter runs of a channel's values are summed down the columns."""
_SHORT_RUN_EXTREMES = 512
_WIDE_ROW = 512
_WIDE_ROW_EXTREMES = 2048
"""Rows shorter than this are taken several at a time."""
_WIDEST_PRODUCT = 2048
"""Rows from here on are added one by one, which needs no product with ones to be fast."""
_SAMPLE = 16
"""Runs, and values in each, that a mean is guessed from."""
_ONES = np.ones(2 * PIECE_VALUES)


def power_sums(x: FloatArray, scratch: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The sums of x and of x squared, each of shape (channels,).

    `scratch` has the shape of `x` and may be `x`; its values are lost.
    """
    if x.shape[1] == 1:
        x = x.reshape(1, 1, -1)
        scratch = scratch.reshape(1, 1, -1)
    k, c, s = x.shape
    if s < _SHORT_RUN:
        total = column_sums(x)
        return total, column_sums(np.square(x, out=scratch))
    pieces = -(-s // PIECE_VALUES)
    length = s // pieces
    cut = x[:, :, : pieces * length].reshape(k, c, pieces, length)
    total = _channel_sums(np.vecdot(cut, _ONES[:length]))
    square = _channel_sums(np.vecdot(cut, cut))
    if pieces * length < s:
        rest = x[:, :, pieces * length :]
        total += rest.sum(axis=(0, 2))
        square += np.square(rest).sum(axis=(0, 2))
    return total, square


def _channel_sums(x: FloatArray) -> FloatArray:
    """The sum over all axes but axis 1; a channel's terms side by side are added pairwise."""
    total: FloatArray = x.transpose(1, 0, 2).reshape(x.shape[1], -1).sum(axis=1)
    return total


def column_sums(x: FloatArray) -> FloatArray:
    """The sum of x over axes 0 and 2; along axis 0 first, as sums of long rows."""
    k, c, s = x.shape
    sums: FloatArray
    total: FloatArray
    width = c * s
    if k * width <= _ONES.size or width >= _WIDEST_PRODUCT:
        flat = x.reshape(k, width)
        sums = _ONES[:k] @ flat if k * width <= _ONES.size else np.add.reduce(flat, axis=0)
        total = np.add.reduce(sums.reshape(c, s), axis=1) if s > 1 else sums
        return total
    fold = min(k, max(1, _WIDE_ROW // width))
    height = min(k // fold, max(1, 2 * PIECE_VALUES // (fold * width)))
    pieces = k // (fold * height)
    done = pieces * height * fold
    cut = x[:done].reshape(pieces, height, fold * width)
    sums = np.matmul(_ONES[:height], cut) if height > 1 else cut[:, 0]
    if pieces > 1:
        sums = sums.sum(axis=0)
    sums = sums.reshape(fold, c, s).sum(axis=2) if s > 1 else sums.reshape(fold, c)
    total = sums.sum(axis=0)
    if done < k:
        total += x[done:].sum(axis=(0, 2))
    return total


def extreme(ufunc: np.ufunc, x: NDArray[Any]) -> NDArray[Any]:
    """`np.minimum` or `np.maximum` over axes 0 and 2, NaN where there is one; dtype of `x`."""
    k, c, s = x.shape
    found: NDArray[Any]
    if c == 1:
        found = ufunc.reduce(x, axis=(0, 2))
    elif s < _SHORT_RUN_EXTREMES and k > 1:
        width = c * s
        fold = min(k, max(1, _WIDE_ROW_EXTREMES // width))
        done = k // fold * fold
        wide = ufunc.reduce(x[:done].reshape(k // fold, fold * width), axis=0)
        found = ufunc.reduce(wide.reshape(fold, c, s), axis=(0, 2))
        if done < k:
            found = ufunc(found, ufunc.reduce(x[done:], axis=(0, 2)))
    else:
        found = ufunc.reduce(x, axis=2)
        found = ufunc.reduce(found, axis=0) if k > 1 else found[0]
    return found


def guess_mean(x: FloatArray) -> FloatArray:
    """A mean of each channel's first values; where those are equal, exactly their value."""
    few = x[:_SAMPLE, :, :_SAMPLE]
    first = few[0, :, 0]
    guess = first + (few - first[:, None]).mean(axis=(0, 2))
    return np.where(np.isfinite(guess), guess, 0.0)
