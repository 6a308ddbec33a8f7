"""How a batch is cut into blocks, and a block's channels into runs, by shape and strides alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bncli.moments.layout import Box, Cut

_RUN_VALUES = 2048
"""A row is cut into runs no shorter than this.

NumPy takes the extremes of each run in a loop of its own, and starting one takes as long as looking
at several hundred values.
"""
_SHORT_ROW = 256
"""Values of shorter rows are taken across the samples."""
_FEW_SAMPLES = 4
_WIDE_ROW = 512
"""Rows of channels shorter than this are taken several at a time."""


def boxes(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Indices of boxes of at most so many values, in C order, of an array of `shape`."""
    origin = (0,) * len(shape)
    return (box.slices for box in Cut(Box(origin, tuple(shape)), origin, most))


def lies_by_column(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a step along axis 1, the channels, is the shortest in memory."""
    rest = [abs(stride) for stride, size in zip(strides, shape, strict=True) if size > 1]
    return shape[1] > 1 and abs(strides[1]) <= min(rest)


def places(shape: Sequence[int], most: int, *, by_column: bool) -> Iterator[tuple[slice, ...]]:
    """Indices of the blocks of a batch (n, c, ...), each of at most so many values.

    With `by_column` the channels are the last to be cut, else the last axes are.
    """
    if not by_column:
        yield from boxes(shape, most)
        return
    for first, *rest, channels in boxes((shape[0], *shape[2:], shape[1]), most):
        yield (first, channels, *rest)


def run_shape(
    shape: Sequence[int], *, by_column: bool
) -> tuple[tuple[int, int, int, int], int, bool]:
    """How a block (n, values, c), or (n, c, values), is seen as runs.

    The shape of four axes, the axis along the runs, and whether the other three are then (places,
    p, c) and not (places, c, p). Runs are short enough for looking at one to cost little.
    """
    if by_column:
        n, values, c = shape
        fold = _divisor(values, max(1, _WIDE_ROW // c))
        return (n, values // fold, fold, c), 1, True
    n, c, values = shape
    if values < _SHORT_ROW and n >= _FEW_SAMPLES:
        return (1, n, c, values), 1, False
    runs = _divisor(values, max(1, values // _RUN_VALUES))
    return (n, c, runs, values // runs), 3, False


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is not above `most`."""
    return next(each for each in range(most, 0, -1) if number % each == 0)
