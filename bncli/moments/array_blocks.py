"""The sums over the blocks of a batch that is a NumPy array, in any memory layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bncli.dtypes import decode
from bncli.errors import TensorError
from bncli.moments.block_plan import lies_by_column, places, run_shape
from bncli.moments.kernels import column_sums
from bncli.moments.one_batch import BlockPowers, BlockSums
from bncli.moments.team import default_threads, in_order
from bncli.moments.values import Widener

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray

Block = TypeVar("Block")

BLOCK_VALUES = 1 << 19
"""Values a block: in float64 4 MiB, some hundred microseconds' work."""
_PIECE_VALUES = 1 << 10
"""Values that are squared and added up in one run: `np.vecdot` of more than 500 runs does not keep
the interpreter's lock, and no BLAS starts threads of its own."""
_LONG_ROW = 256
"""Rows as long as this are summed pairwise."""
_SHORT_ROW = 128
"""Shorter rows are squared one by one before they are added up."""
_MANY_FLAGS = 4096
"""From so many flags a channel on, each channel's are counted in a call of their own."""

_spare: list[_Buffers] = []
"""Buffers that no thread uses at the moment."""


class ArrayBlocks:
    """A batch `x` (N, C, ...), with `dtype` "bfloat16" the bits of that dtype.

    `threads` work on it, by default as many as on a tensor; the sums are the same for any number.
    Raises TensorError for an array without values or without a channel axis, and one of complex
    numbers or other values that have no statistics.
    """

    def __init__(
        self, x: NDArray[Any], dtype: str | None = None, threads: int | None = None
    ) -> None:
        if x.ndim < 2 or x.size == 0:
            raise TensorError(f"A batch has samples, channels and values; shape {x.shape} has not.")
        if x.dtype.kind not in "fiub":
            raise TensorError(f"Values of dtype {x.dtype} have no BatchNorm statistics.")
        self.samples = len(x)
        self._dtype = dtype or x.dtype.name
        self._threads = threads
        n, c = x.shape[:2]
        self.values = x.reshape(n, c).T[np.newaxis] if x.size == n * c else x
        self._by_column = lies_by_column(self.values.shape, self.values.strides)

    def sums(self, centre: FloatArray | None) -> Iterator[BlockSums]:
        """The sums of all blocks, of values less `centre` (num_features,)."""
        return self._taken(self._all_sums, centre)

    def powers(self, centre: FloatArray | None) -> Iterator[BlockPowers]:
        """The same without extremes and zeros."""
        return self._taken(self._powers, centre)

    def _taken(
        self,
        take: Callable[[_Buffers, FloatArray | None, tuple[slice, ...]], Block],
        centre: FloatArray | None,
    ) -> Iterator[Block]:
        """What `take` makes of each block, in order, by several threads."""
        cut = list(places(self.values.shape, BLOCK_VALUES, by_column=self._by_column))
        threads = min(self._threads or default_threads(), len(cut))
        buffers = [_spare.pop() if _spare else _Buffers() for _ in range(threads)]
        workers = [lambda k, own=each: take(own, centre, cut[k]) for each in buffers]
        with closing(in_order(workers, 0, len(cut))) as found:
            yield from found
        _spare.extend(buffers)

    def _all_sums(
        self, buffers: _Buffers, centre: FloatArray | None, place: tuple[slice, ...]
    ) -> BlockSums:
        """The sums of one block."""
        widen, flags = buffers.of(self._dtype)
        wide, narrow = map(self._three, widen(self._block(place)))
        low, high, zeros = self._seen(narrow, flags[: narrow.size])
        total, square = self._added(wide, widen, None if centre is None else centre[place[1]])
        return BlockSums(place, total, square, low, high, zeros)

    def _powers(
        self, buffers: _Buffers, centre: FloatArray | None, place: tuple[slice, ...]
    ) -> BlockPowers:
        """The sums of one block without extremes and zeros."""
        widen, _ = buffers.of(self._dtype)
        wide = self._three(widen(self._block(place))[0])
        about = None if centre is None else centre[place[1]]
        return BlockPowers(place, *self._added(wide, widen, about))

    def _added(
        self, wide: FloatArray, widen: Widener, about: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """The values of a block less the numbers `about`, and their squares, added up (n, c)."""
        own = widen.buffer[: wide.size].reshape(wide.shape)
        if about is not None:
            wide = _less(about, wide, own, by_column=self._by_column)
        if self._by_column:
            return _column_sums(wide), _column_sums(np.multiply(wide, wide, out=own))
        if wide.shape[2] < _SHORT_ROW:
            return _row_sums(wide), _row_sums(np.multiply(wide, wide, out=own))
        return _row_sums(wide), _row_squares(wide)

    def _seen(
        self, x: NDArray[Any], flags: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], NDArray[Any], IntArray]:
        """The extremes of a block's runs (places, c, p), and the number of its zeros (c,)."""
        runs, axis, swap = self._runs(x)
        low, high = np.minimum.reduce(runs, axis=axis), np.maximum.reduce(runs, axis=axis)
        if swap:
            low, high = low.swapaxes(1, 2), high.swapaxes(1, 2)
        number = np.count_nonzero(np.equal(x.reshape(-1), 0, out=flags))
        if not number:
            return low, high, np.zeros(low.shape[1], np.int64)
        # In a block whose only zeros are runs of nothing else, nobody has to look for them.
        zeros = np.count_nonzero((low == 0) & (high == 0), axis=(0, 2)) * runs.shape[axis]
        if zeros.sum() < number:
            flags = flags.reshape(x.shape)
            c = len(zeros)
            if self._by_column or flags.size < _MANY_FLAGS * c:
                zeros = flags.sum(axis=(0, 1) if self._by_column else (0, 2))
            else:
                zeros = np.array([np.count_nonzero(flags[:, channel]) for channel in range(c)])
        return low, high, zeros

    def count_equal(
        self, place: tuple[slice, ...], hit: NDArray[np.bool_], wanted: FloatArray
    ) -> IntArray:
        """How many values of a block equal their channel's number wanted, (c,), where it is hit."""
        runs, axis, swap = self._runs(self._three(decode(self._block(place), self._dtype)))
        where = np.unravel_index(np.flatnonzero(hit), hit.shape)
        at = where[1]
        if axis == 3:
            found = runs[where]
        else:  # along axis 1
            first, second = (where[2], at) if swap else (at, where[2])
            found = runs[where[0], :, first, second]
        equal = found == wanted[at, np.newaxis].astype(found.dtype)
        once = np.count_nonzero(equal) == len(at)
        return np.bincount(at, None if once else equal.sum(axis=1), len(wanted)).astype(np.int64)

    def widen(self, values: NDArray[Any]) -> FloatArray:
        """Some of `values` as a float64 array."""
        return decode(values, self._dtype).astype(np.float64)

    def _block(self, place: tuple[slice, ...]) -> NDArray[Any]:
        """A block's stored values, its axes in the order in which they are taken."""
        block = self.values[place]
        return np.moveaxis(block, 1, -1) if self._by_column else block

    def _three(self, block: NDArray[Any]) -> NDArray[Any]:
        """A block as (n, values, c) or (n, c, values)."""
        shape = block.shape
        return block.reshape((shape[0], -1, shape[-1]) if self._by_column else (*shape[:2], -1))

    def _runs(self, x: NDArray[Any]) -> tuple[NDArray[Any], int, bool]:
        """A block's runs, of which extremes are taken: see `run_shape`."""
        shape, axis, swap = run_shape(x.shape, by_column=self._by_column)
        return x.reshape(shape), axis, swap


class _Buffers:
    """What widens a block, and flags for its values; the same memory batch after batch."""

    def __init__(self) -> None:
        self._flags = np.empty(BLOCK_VALUES, bool)
        self._widen = Widener("float32", None, BLOCK_VALUES)
        self._dtype = "float32"

    def of(self, dtype: str) -> tuple[Widener, NDArray[np.bool_]]:
        """For an array of this dtype."""
        if dtype != self._dtype:
            self._widen, self._dtype = Widener(dtype, None, BLOCK_VALUES), dtype
        return self._widen, self._flags


def _less(about: FloatArray, wide: FloatArray, own: FloatArray, *, by_column: bool) -> FloatArray:
    """A block less the numbers `about` (c,) of its channels; `own` may be written to."""
    few = np.flatnonzero(about)
    if not len(few):
        return wide
    if by_column or 4 * len(few) > len(about) or not np.may_share_memory(wide, own):
        return np.subtract(wide, about if by_column else about[:, np.newaxis], out=own)
    for channel in few:
        wide[:, channel] -= about[channel]
    return wide


def _column_sums(x: FloatArray) -> FloatArray:
    """x (n, values, c) summed over the values."""
    if len(x) > 1:
        total: FloatArray = np.add.reduce(x, axis=1)
        return total
    return column_sums(x[0, :, :, np.newaxis])[np.newaxis]


def _row_sums(x: FloatArray) -> FloatArray:
    """x (n, c, values) summed over the values."""
    total: FloatArray
    total = np.add.reduce(x, axis=2) if x.shape[2] >= _LONG_ROW else np.einsum("nci->nc", x)
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
