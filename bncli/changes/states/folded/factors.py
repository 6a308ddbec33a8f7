"""By which factors the channels of one weight were multiplied to give another's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, TensorRef

ULPS = 4.0
"""How many ulps of a dtype a product may be off that was computed in it.

In units of half an ulp, the relative error of w / sqrt(var + eps) times a weight is at most: the
weight as stored 1, w 1, the root of var and of the sum half each, the root or its inverse 1, the
division 1, the product 1; and a second rounding to the dtype of the file 1. That is 7.
"""
NEVER_MET = 1e-30
"""A weight of this size is met in no network: what underflows below it needs no room."""
FIRST, BLOCK = 1 << 15, 1 << 19
"""Elements of the first block, which is enough to see that weights were trained, and of others."""


@dataclass(frozen=True, slots=True)
class Factors:
    """For each channel the least and the largest factor that explain all its elements.

    `low` and `high` have shape (channels,). Where a channel is all 0, every factor does: it is
    not `live`. `elements` counts those that are not 0.
    """

    low: FloatArray
    high: FloatArray
    live: NDArray[np.bool_]
    elements: int

    def include(self, factors: FloatArray | float, room: FloatArray | float = 0.0) -> bool:
        """Whether these factors, or one for all, explain every channel; `room` is relative."""
        with np.errstate(invalid="ignore"):
            more = np.abs(factors) * room
            inside = (self.low <= factors + more) & (factors - more <= self.high)
        return bool((inside | ~self.live).all())

    @property
    def one_for_all(self) -> bool:
        """Whether the same factor explains every channel."""
        return bool(not self.live.any() or self.low[self.live].max() <= self.high[self.live].min())

    @property
    def moved(self) -> NDArray[np.bool_]:
        """The channels that a factor of 1 or 0 does not explain."""
        result: NDArray[np.bool_] = self.live
        for factor in (0, 1):
            result = result & ~((self.low <= factor) & (factor <= self.high))
        return result


def factors(a: TensorRef, b: TensorRef, axis: int, channels: int, dtype: str) -> Factors | None:
    """The factors that lead from the channels of `a` to those of `b`, of the same shape.

    The products are taken to be computed and stored in `dtype`. None where a channel has no such
    factor, or the axis is not one of channels. The weights are read block by block, and no further
    than to the first block that no factors explain. Raises TensorError or FileError.
    """
    split = _split(a.shape, axis, channels)
    if split is None or a.shape != b.shape or channels == 0:
        return None
    low, high = np.full(channels, -np.inf), np.full(channels, np.inf)
    live, elements = np.zeros(channels, bool), 0
    with ExitStack() as stack:
        readers = [each.block_reader(stack) for each in (a, b)]
        for block in _blocks(a.shape, split.step):
            rows = split.rows(block)
            old, new = (split.matrix(read((block,)).astype(np.float64)) for read in readers)
            least, most = _bounds(old, new, dtype)
            low[rows] = np.maximum(low[rows], least)
            high[rows] = np.minimum(high[rows], most)
            live[rows] |= old.any(axis=1)
            elements += int(np.count_nonzero(old))
            if (low[rows] > high[rows]).any():
                return None
    return Factors(low, high, live, elements)


@dataclass(frozen=True, slots=True)
class _Split:
    """How blocks along the first axis become rows of channels.

    `step` is how many indices of the first axis go together, `rows` gives the channels of a block,
    `matrix` its values with one row a channel.
    """

    step: int
    rows: Callable[[slice], slice]
    matrix: Callable[[NDArray[Any]], NDArray[Any]]


def _split(shape: tuple[int, ...], axis: int, channels: int) -> _Split | None:
    """By the axis of channels, or the two axes whose product they are; None for neither."""
    ndim = len(shape)
    if not 0 <= axis < ndim or 0 in shape:
        return None
    everything = slice(0, channels)
    if shape[axis] == channels:
        return _Split(
            1,
            (lambda block: block) if axis == 0 else lambda _: everything,
            lambda values: np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1),
        )
    groups, rest = divmod(channels, shape[axis])
    if axis == 1 and ndim > 2 and not rest and shape[0] % groups == 0:
        # A grouped transposed convolution: (inputs, outputs of a group, ...).
        step, out = shape[0] // groups, shape[1]

        def grouped(values: NDArray[Any]) -> NDArray[Any]:
            parts = values.reshape(-1, step, *shape[1:])
            return np.moveaxis(parts, 2, 1).reshape(len(parts) * out, -1)

        return _Split(
            step, lambda block: slice(block.start // step * out, block.stop // step * out), grouped
        )
    if axis >= ndim - 2 >= 1 and shape[-2] * shape[-1] == channels:
        # A depthwise kernel as TensorFlow has it: (..., inputs, outputs of each).
        return _Split(
            1, lambda _: everything, lambda values: values.reshape(-1, channels).transpose()
        )
    return None


def _blocks(shape: tuple[int, ...], step: int) -> Iterator[slice]:
    """Slices of the first axis, each a multiple of `step`."""
    one = math.prod(shape[1:]) * step
    start, size = 0, FIRST
    while start < shape[0]:
        stop = min(shape[0], start + max(1, size // one) * step)
        yield slice(start, stop)
        start, size = stop, BLOCK


def _bounds(old: FloatArray, new: FloatArray, dtype: str) -> tuple[FloatArray, FloatArray]:
    """For each row the least and the largest factor from old to new; crossed where none does."""
    kind = DTYPES[dtype]
    with np.errstate(all="ignore"):
        ratio = new / old
        room = np.abs(ratio)
        if kind.tiniest > NEVER_MET:  # what underflows keeps an absolute error, before and after
            room = room * 2.0 ** (1 - kind.digits) + kind.tiniest * (1 + room) / np.abs(old)
        else:
            room *= 2.0 ** (1 - kind.digits)
        room *= ULPS
        low, high = ratio - room, ratio + room
    zero = old == 0
    if zero.any():
        # 0 may be what is left of a value that underflowed before it was multiplied.
        wrong = np.abs(new[zero]) > 64 * ULPS * kind.tiniest
        low[zero] = np.where(wrong, np.inf, -np.inf)
        high[zero] = np.where(wrong, -np.inf, np.inf)
    least, most = low.max(axis=1), high.min(axis=1)
    # A value that is not finite leaves NaN or an infinite end.
    odd = ~np.isfinite(old.sum(axis=1) + new.sum(axis=1))
    least[odd], most[odd] = np.inf, -np.inf
    return least, most
