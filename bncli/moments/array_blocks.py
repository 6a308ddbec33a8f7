"""The sums over the blocks of a batch that is a NumPy array, in any memory layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bncli.dtypes import decode
from bncli.errors import TensorError
from bncli.moments.kernels import column_sums, extreme
from bncli.moments.one_batch import BlockSums, boxes
from bncli.moments.values import Widener

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray

BLOCK_VALUES = 1 << 18
"""Values a block: in float64 2 MiB."""
_PIECE_VALUES = 1 << 12
"""Values that are squared and added up in one run, as a BLAS does it on one thread."""
_LONG_RUN = 256
"""Sums of runs as long as this are taken pairwise."""
_SHORT_RUN = 64
"""Extremes of shorter runs are taken over all samples at once."""


class ArrayBlocks:
    """A batch `x` (N, C, ...), with `dtype` "bfloat16" the bits of that dtype.

    Raises TensorError for an array without values or without a channel axis, and one of complex
    numbers or other values that have no statistics.
    """

    def __init__(self, x: NDArray[Any], dtype: str | None = None) -> None:
        if x.ndim < 2 or x.size == 0:
            raise TensorError(f"A batch has samples, channels and values; shape {x.shape} has not.")
        if x.dtype.kind not in "fiub":
            raise TensorError(f"Values of dtype {x.dtype} have no BatchNorm statistics.")
        self.samples = len(x)
        self._dtype = dtype or x.dtype.name
        n, c = x.shape[:2]
        self.values = x.reshape(n, c).T[np.newaxis] if x.size == n * c else x

    def sums(self, centre: FloatArray | None) -> Iterator[BlockSums]:
        """The sums of all blocks, of values less `centre` (num_features,)."""
        x = self.values
        by_column = _channels_lie_innermost(x)
        order = np.moveaxis(x, 1, -1) if by_column else x
        widen = Widener(self._dtype, None, min(x.size, BLOCK_VALUES))
        zero = np.empty(min(x.size, BLOCK_VALUES), bool)
        for index in boxes(order.shape, BLOCK_VALUES):
            wide, narrow = widen(order[index])
            if by_column:
                index = (index[0], index[-1], *index[1:-1])  # noqa: PLW2901  # as in `values`
            n, c = (each.stop - each.start for each in index[:2])
            wide, narrow = (
                each.reshape((n, -1, c) if by_column else (n, c, -1)) for each in (wide, narrow)
            )
            low, high = (_extremes(ufunc, narrow, by_column) for ufunc in (np.minimum, np.maximum))
            is_zero = np.equal(narrow, 0, out=zero[: narrow.size].reshape(narrow.shape))
            zeros = np.zeros(c, np.int64)
            if np.count_nonzero(is_zero):
                zeros += is_zero.sum(axis=(0, 1) if by_column else (0, 2))
            own = widen.buffer[: wide.size].reshape(wide.shape)
            if centre is not None and centre[index[1]].any():
                about = centre[index[1]]
                wide = np.subtract(wide, about if by_column else about[:, np.newaxis], out=own)
            if by_column:
                total, square = _column_sums(wide), _column_sums(np.multiply(wide, wide, out=own))
            else:
                total, square = _row_sums(wide), _row_squares(wide)
            yield BlockSums(index, total, square, low, high, zeros)

    def count_equal(self, rows: NDArray[Any], wanted: FloatArray) -> IntArray:
        """How many of each row of `values` equal the number wanted, (rows,)."""
        flat = decode(rows, self._dtype).reshape(len(rows), -1)
        return np.asarray(np.count_nonzero(flat == wanted[:, np.newaxis], axis=1))

    def widen(self, values: NDArray[Any]) -> FloatArray:
        """Some of `values` as a float64 array."""
        return decode(values, self._dtype).astype(np.float64)


def _channels_lie_innermost(x: NDArray[Any]) -> bool:
    """Whether a step along the channels is shorter in memory than along all the rest."""
    rest = [abs(stride) for stride, size in zip(x.strides, x.shape, strict=True) if size > 1]
    return x.shape[1] > 1 and abs(x.strides[1]) <= min(rest)


def _extremes(ufunc: np.ufunc, x: NDArray[Any], by_column: bool) -> NDArray[Any]:
    """Those of each sample and channel, or of each channel alone, (1, c), where that is faster."""
    if by_column:
        return extreme(ufunc, x.reshape(-1, x.shape[2], 1))[np.newaxis]
    if x.shape[2] < _SHORT_RUN:
        return extreme(ufunc, x)[np.newaxis]
    found: NDArray[Any] = ufunc.reduce(x, axis=2)
    return found


def _column_sums(x: FloatArray) -> FloatArray:
    """x (n, values, c) summed over the values."""
    if len(x) > 1:
        total: FloatArray = np.add.reduce(x, axis=1)
        return total
    return column_sums(x[0, :, :, np.newaxis])[np.newaxis]


def _row_sums(x: FloatArray) -> FloatArray:
    """x (n, c, values) summed over the values."""
    total: FloatArray = (
        np.add.reduce(x, axis=2) if x.shape[2] >= _LONG_RUN else np.einsum("nci->nc", x)
    )
    return total


def _row_squares(x: FloatArray) -> FloatArray:
    """x (n, c, values) squared and summed over the values."""
    n, c, values = x.shape
    pieces = -(-values // _PIECE_VALUES)
    done = values // pieces * pieces
    cut = x[:, :, :done].reshape(n, c, pieces, -1)
    square: FloatArray = np.vecdot(cut, cut).sum(axis=2)
    if done < values:
        square += np.square(x[:, :, done:]).sum(axis=2)
    return square
