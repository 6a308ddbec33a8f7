"""Sums over one tile: float64 of shape (before, channels, behind), contiguous.

A channel's values are summed along axis 2 where its runs there are long, and down axis 0 where
they are short. Long runs are cut into pieces of at most `PIECE_VALUES`. That bounds the rounding
error of sums whose terms all round the same way, and keeps each dot product below the length
(10,000 values in OpenBLAS) from which a BLAS would start threads of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray

ENGINE = f"numpy {np.__version__}"
"""What sums here, as `ChannelStats.engines` names it."""
PIECE_VALUES = 4096
"""Values summed in one run."""
_SHORT_PIECE = 128  # no shorter, for the sake of the many pieces that follow
_MANY_PIECES = 512
"""`np.vecdot` of up to 500 pieces keeps the interpreter's lock, and other threads waiting."""
SHORT_RUN = 24
"""Shorter runs of a channel's values are summed down the columns."""
_SHORT_RUN_EXTREMES = 512  # ... and for the extremes
_WIDE_ROW = 512
_WIDE_ROW_EXTREMES = 2048
"""Rows shorter than this are taken several at a time."""
_SAMPLE = 16
"""Runs, and values in each, that a mean is guessed from."""


def power_sums(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The sums of x and of x squared, each of shape (channels,)."""
    if x.shape[1] == 1:
        x = x.reshape(1, 1, -1)
    k, c, s = x.shape
    if s < SHORT_RUN:
        return column_sums(x), _column_squares(x)
    pieces = max(-(-s // PIECE_VALUES), min(s // _SHORT_PIECE, -(-_MANY_PIECES // (k * c))))
    length = s // pieces
    cut = x[:, :, : pieces * length].reshape(k, c, pieces, length)
    total = channel_sums(np.einsum("kcpi->kcp", cut))
    square = channel_sums(np.vecdot(cut, cut))
    if pieces * length < s:
        rest = x[:, :, pieces * length :]
        total += rest.sum(axis=(0, 2))
        square += np.square(rest).sum(axis=(0, 2))
    return total, square


def channel_sums(x: FloatArray) -> FloatArray:
    """The sum over all axes but axis 1; a channel's terms side by side are added pairwise."""
    total: FloatArray = x.transpose(1, 0, 2).reshape(x.shape[1], -1).sum(axis=1)
    return total


def column_sums(x: FloatArray) -> FloatArray:
    """The sum of x over axes 0 and 2; along axis 0 first, as sums of long rows."""
    wide, rest = _wide_rows(x)
    total = _narrow(np.add.reduce(wide, axis=0), x)
    if rest.size:
        total += rest.sum(axis=(0, 2))
    return total


def _column_squares(x: FloatArray) -> FloatArray:
    """The sum of x squared over axes 0 and 2."""
    wide, rest = _wide_rows(x)
    total = _narrow(np.einsum("ij,ij->j", wide, wide), x)
    if rest.size:
        total += np.square(rest).sum(axis=(0, 2))
    return total


def _wide_rows(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """x as rows of about `_WIDE_ROW` values, and what is left at its end, in x's own shape."""
    k, c, s = x.shape
    fold = min(k, max(1, _WIDE_ROW // (c * s)))
    done = k // fold * fold
    return x[:done].reshape(k // fold, fold * c * s), x[done:]


def _narrow(sums: FloatArray, x: FloatArray) -> FloatArray:
    """Sums of the columns of `_wide_rows`, added up channel by channel of x."""
    c, s = x.shape[1:]
    if sums.size == c:
        return sums
    total: FloatArray = sums.reshape(-1, c, s).sum(axis=(0, 2))
    return total


def extreme(ufunc: np.ufunc, x: NDArray[Any]) -> NDArray[Any]:
    """`np.minimum` or `np.maximum` over axes 0 and 2, NaN where there is one; dtype of `x`."""
    k, c, s = x.shape
    found: NDArray[Any]
    if c == 1 or x.size <= PIECE_VALUES:
        found = ufunc.reduce(x, axis=(0, 2))
    elif s < _SHORT_RUN_EXTREMES and k > 1:
        width = c * s
        fold = min(k, max(1, _WIDE_ROW_EXTREMES // width))
        done = k // fold * fold
        found = ufunc.reduce(x[:done].reshape(k // fold, fold * width), axis=0)
        if fold * s > 1:
            found = ufunc.reduce(found.reshape(fold, c, s), axis=(0, 2))
        if done < k:
            found = ufunc(found, ufunc.reduce(x[done:], axis=(0, 2)))
    else:
        found = ufunc.reduce(x, axis=2)
        found = ufunc.reduce(found, axis=0) if k > 1 else found[0]
    return found


def guess_mean(x: NDArray[Any]) -> FloatArray:
    """A mean of each channel's first values; where those are equal, exactly their value."""
    few = x[:_SAMPLE, :, :_SAMPLE].astype(np.float64)
    first = few[0, :, 0]
    guess = first + (few - first[:, None]).mean(axis=(0, 2))
    return np.where(np.isfinite(guess), guess, 0.0)
