"""The sums over one batch of a layer's input, in one pass wherever its numbers allow it.

A batch is taken block by block, each small enough for a processor's cache, with what its `Blocks`
offer: NumPy here, torch for tensors of a running model. The sums are taken about 0, or about the
means of a batch before, which costs digits where a channel's mean is large against its deviations
(see `worker`). Those channels, and ones with NaN, Inf or values near the ends of float64, are
taken again in two passes: about their mean, and scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from bncli.light import dataclass
from bncli.moments.layout import Box, Cut
from bncli.moments.worker import MAX_CANCELLATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray

    Flags = NDArray[np.bool_]
    Pieces = Callable[[], Iterator[tuple[slice, FloatArray]]]

PIECE_VALUES = 1 << 18
"""Values that are taken again at a time: 2 MiB in float64."""
_LARGEST = 2.0**400
"""Sums of squares of values up to this, and down to its inverse, have all their digits."""


@dataclass(frozen=True, slots=True)
class BatchPart:
    """One batch of a layer's input; each array of shape (num_features,).

    `count` is the number of values of a channel and `samples` that of the batch axis. The mean is
    `shift` + `offset`. `squares` adds up the squared deviations of the values from the mean, and
    `sample_squares` those of the samples' means. A channel with a NaN or Inf has what IEEE
    arithmetic gives: `shift` NaN or infinite, `offset` 0 and NaN for both sums of squares. `min`
    and `max` are over the finite values, NaN where there are none; `at_min`, `at_max` and `at_zero`
    count the values that equal them, and 0.
    """

    count: int
    samples: int
    shift: FloatArray
    offset: FloatArray
    squares: FloatArray
    sample_squares: FloatArray
    min: FloatArray
    max: FloatArray
    at_min: IntArray
    at_max: IntArray
    at_zero: IntArray
    nan: IntArray
    posinf: IntArray
    neginf: IntArray

    @property
    def mean(self) -> FloatArray:
        """The mean, rounded to one float64."""
        return self.shift + self.offset


class BlockSums(NamedTuple):
    """What one block of a batch comes to: n samples and c channels, those at `place` in it.

    `total` (n, c) sums the values less the centre, and `square` (n, c) their squares. `min` and
    `max`, NaN where a value is, are those of each sample, (n, c), or of all of them, (1, c).
    `zeros` (c,) counts the values that are 0.
    """

    place: tuple[slice, ...]
    total: FloatArray
    square: FloatArray
    min: NDArray[np.floating[Any]]
    max: NDArray[np.floating[Any]]
    zeros: IntArray


class Blocks(Protocol):
    """A batch and what takes its sums. A batch without further axes counts as one sample.

    `values` is an array or a tensor of shape (n, num_features, ...), `samples` the number of
    samples that it really has.
    """

    values: Any
    samples: int

    def sums(self, centre: FloatArray | None) -> Iterator[BlockSums]:
        """The sums of all blocks, of values less `centre` (num_features,)."""

    def count_equal(self, rows: Any, wanted: FloatArray) -> IntArray:
        """How many of each row of `values` equal the number wanted, (rows,)."""

    def widen(self, values: Any) -> FloatArray:
        """Some of `values` as a float64 array."""


class Moments(NamedTuple):
    """The mean of values less a shift and sums of squared deviations, each (num_features,)."""

    mean: FloatArray
    squares: FloatArray
    sample_squares: FloatArray

    @classmethod
    def of(cls, total: FloatArray, square: FloatArray, size: int) -> Moments:
        """From the sums of samples of `size` values (n, c), and the sum of all squares (c,)."""
        means = total / size
        mean = means[0] + (means - means[0]).mean(axis=0)
        squares = square - size * len(means) * np.square(mean)
        by_sample = np.square(means - mean).sum(axis=0)
        return cls(mean, np.maximum(squares, 0.0), by_sample)


def sum_blocks(blocks: Blocks, centre: FloatArray | None = None) -> BatchPart:
    """The sums of a batch; `centre` (num_features,) is near its means where these are far from 0.

    Mean and sums are within 1e-12 of the exact ones: the sums of squares relative to themselves,
    the mean relative to the larger of itself and the standard deviation. For `sample_squares` this
    holds where the samples' means scatter no less than those of as many independent values would.
    Counts and extremes are exact.
    """
    n, c = blocks.values.shape[:2]
    size = prod(blocks.values.shape[2:])
    with np.errstate(all="ignore"):
        total, square, zero = np.zeros((n, c)), np.zeros(c), np.zeros(c, np.int64)
        low, high = np.full(c, np.inf), np.full(c, -np.inf)
        lows, highs = [], []
        for block in blocks.sums(centre):
            at = block.place[1]
            total[block.place[:2]] += block.total
            square[at] += block.square.sum(axis=0)
            zero[at] += block.zeros
            low[at] = np.minimum(low[at], block.min.min(axis=0))
            high[at] = np.maximum(high[at], block.max.max(axis=0))
            lows.append((block.place, block.min))
            highs.append((block.place, block.max))
        moments = Moments.of(total, square, size)
        constant = (low == high) & np.isfinite(low)
        largest = np.maximum(np.abs(low), np.abs(high))
        known = moments.squares * MAX_CANCELLATION >= square
        known &= (largest <= _LARGEST) & (largest >= 1 / _LARGEST)
        again = ~(constant | known)
        part = BatchPart(
            n * size,
            blocks.samples,
            np.where(constant, low, 0.0 if centre is None else centre),
            np.where(constant, 0.0, moments.mean),
            np.where(constant, 0.0, moments.squares),
            np.where(constant, 0.0, moments.sample_squares),
            low,
            high,
            _count(blocks, lows, low, zero, ~again),
            _count(blocks, highs, high, zero, ~again),
            zero,
            *np.zeros((3, c), np.int64),
        )
        _take_again(blocks, np.flatnonzero(again), part)
        if blocks.samples == part.count:  # every value is a sample
            part.sample_squares[:] = part.squares
    return part


def _count(
    blocks: Blocks,
    found: list[tuple[tuple[slice, ...], NDArray[Any]]],
    extreme: FloatArray,
    zero: IntArray,
    wanted: Flags,
) -> IntArray:
    """How many values equal their channel's extreme; nothing for channels that are not wanted.

    Only samples that reach the extreme are looked at, and none where it is 0.
    """
    counts = np.where(extreme == 0, zero, 0)
    wanted = wanted & (extreme != 0)
    for index, reached in found:
        channels = index[1]
        hit = wanted[channels] & (reached == extreme[channels])
        if not hit.any():
            continue
        values = blocks.values[index]
        which, at = np.nonzero(np.broadcast_to(hit, values.shape[:2]))
        step = max(1, PIECE_VALUES // prod(values.shape[2:]))
        for i in range(0, len(at), step):
            few = slice(i, i + step)
            equal = blocks.count_equal(values[which[few], at[few]], extreme[channels][at[few]])
            np.add.at(counts[channels], at[few], equal)
    return counts


def boxes(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Indices of boxes of at most so many values, in C order, of an array of `shape`."""
    origin = (0,) * len(shape)
    return (box.slices for box in Cut(Box(origin, tuple(shape)), origin, most))


def _take_again(blocks: Blocks, channels: IntArray, part: BatchPart) -> None:
    """Put the sums of some channels, found in two passes, into `part`."""
    values = blocks.values
    step = max(1, PIECE_VALUES // (values.shape[0] * prod(values.shape[2:])))
    for i in range(0, len(channels), step):
        few = channels[i : i + step]
        pieces = partial(_pieces, blocks, few)
        _put(part, few, _in_two_passes(pieces, values.shape[0], len(few), part.count))


def _pieces(blocks: Blocks, channels: IntArray) -> Iterator[tuple[slice, FloatArray]]:
    """Some channels piece by piece: which samples, and their values (samples, channels, rest)."""
    if len(channels) > 1:
        few = blocks.widen(blocks.values[:, channels])
        yield slice(None), few.reshape(*few.shape[:2], -1)
        return
    values = blocks.values[:, int(channels[0])]
    for index in boxes(values.shape, PIECE_VALUES):
        piece = blocks.widen(values[index])
        yield index[0], piece.reshape(piece.shape[0], 1, -1)


def _put(part: BatchPart, channels: IntArray, few: dict[str, NDArray[Any]]) -> None:
    for name, numbers in few.items():
        getattr(part, name)[channels] = numbers


def _in_two_passes(pieces: Pieces, n: int, c: int, count: int) -> dict[str, NDArray[Any]]:
    """The sums of c channels of n samples by the names of `BatchPart`, whatever the values."""
    low, high, rough = np.full(c, np.inf), np.full(c, -np.inf), np.zeros(c)
    nan, posinf, neginf, zero, at_min, at_max = np.zeros((6, c), np.int64)
    for _, x in pieces():
        finite = np.isfinite(x)
        low = np.minimum(low, np.where(finite, x, np.inf).min(axis=(0, 2)))
        high = np.maximum(high, np.where(finite, x, -np.inf).max(axis=(0, 2)))
        rough += np.where(finite, x / count, 0.0).sum(axis=(0, 2))
        nan += np.isnan(x).sum(axis=(0, 2))
        posinf += (x == np.inf).sum(axis=(0, 2))
        neginf += (x == -np.inf).sum(axis=(0, 2))
        zero += (x == 0).sum(axis=(0, 2))
    shift = np.clip(rough, low, high)
    # By powers of two, which is exact, so that squares neither overflow nor vanish.
    exponent = np.where(low <= high, np.frexp(np.maximum(np.abs(low), np.abs(high)))[1], 0)
    scaled = np.ldexp(shift, -exponent)[:, np.newaxis]
    total, square = np.zeros((n, c)), np.zeros(c)
    for samples, x in pieces():
        at_min += (x == low[:, np.newaxis]).sum(axis=(0, 2))
        at_max += (x == high[:, np.newaxis]).sum(axis=(0, 2))
        y = np.ldexp(x, -exponent[:, np.newaxis]) - scaled
        total[samples] += y.sum(axis=2)
        square += np.square(y).sum(axis=(0, 2))
    moments = Moments.of(total, square, count // n)
    spoilt = nan + posinf + neginf > 0
    low[low == np.inf] = high[high == -np.inf] = np.nan
    return {
        "shift": np.where(spoilt, ieee_mean(nan, posinf, neginf), shift),
        "offset": np.where(spoilt, 0.0, np.ldexp(moments.mean, exponent)),
        "squares": np.where(spoilt, np.nan, np.ldexp(moments.squares, 2 * exponent)),
        "sample_squares": np.where(spoilt, np.nan, np.ldexp(moments.sample_squares, 2 * exponent)),
        "min": low,
        "max": high,
        "at_min": at_min,
        "at_max": at_max,
        "at_zero": zero,
        "nan": nan,
        "posinf": posinf,
        "neginf": neginf,
    }


def ieee_mean(nan: IntArray, posinf: IntArray, neginf: IntArray) -> FloatArray:
    """The mean that IEEE arithmetic gives a channel with NaN or Inf; NaN for one without."""
    return np.where(
        (nan > 0) | ((posinf > 0) == (neginf > 0)), np.nan, np.where(posinf > 0, np.inf, -np.inf)
    )
