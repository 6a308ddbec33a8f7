"""The sums over one batch of a layer's input, in one pass wherever its numbers allow it.

A batch is taken block by block, each small enough for a processor's cache, with what its `Blocks`
offer: NumPy here, torch for tensors of a running model. The sums are taken about 0, or about a
guess of the mean where this seems to be large against the deviations from it, which would cost
digits (see `worker`). Channels for which that was a bad guess are taken again about their mean;
and so, scaled, are those with NaN, Inf or values near the ends of float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from bncli.light import dataclass
from bncli.moments.block_plan import boxes
from bncli.moments.worker import MAX_CANCELLATION

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray

    Flags = NDArray[np.bool_]
    Pieces = Callable[[], Iterator[tuple[slice, FloatArray]]]

_FAR = 9.0
"""The mean square over the variance of channels whose sums begin with a guess of the mean: below
`MAX_CANCELLATION`, so that few others come out above it."""
_SAMPLE_PLACES = 4
_SAMPLE_VALUES = 16
"""Samples, and values in each, that a mean is guessed from."""
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
    `max` are those of p runs of values of each channel in each of some places, (places, c, p), NaN
    where a value is. `zeros` (c,) counts the values that are 0.
    """

    place: tuple[slice, ...]
    total: FloatArray
    square: FloatArray
    min: NDArray[np.floating[Any]]
    max: NDArray[np.floating[Any]]
    zeros: IntArray


class BlockPowers(NamedTuple):
    """`BlockSums` without extremes and zeros."""

    place: tuple[slice, ...]
    total: FloatArray
    square: FloatArray


class Blocks(Protocol):
    """A batch and what takes its sums. A batch without further axes counts as one sample.

    `values` is an array or a tensor of shape (n, num_features, ...), `samples` the number of
    samples that it really has.
    """

    values: Any
    samples: int

    def sums(self, centre: FloatArray | None) -> Iterator[BlockSums]:
        """The sums of all blocks, of values less `centre` (num_features,)."""

    def powers(self, centre: FloatArray | None) -> Iterator[BlockPowers]:
        """The same without extremes and zeros."""

    def count_equal(self, place: tuple[slice, ...], hit: Flags, wanted: FloatArray) -> IntArray:
        """How many values of a block equal their channel's number wanted, (c,).

        Only the runs that are `hit` count, which has the shape of the block's `min`.
        """

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


def sum_blocks(blocks: Blocks) -> BatchPart:
    """The sums of a batch.

    Mean and sums are within 1e-12 of the exact ones: the sums of squares relative to themselves,
    the mean relative to the larger of itself and the standard deviation. For `sample_squares` this
    holds where the samples' means scatter no less than those of as many independent values would.
    Counts and extremes are exact.
    """
    n, c = blocks.values.shape[:2]
    size = prod(blocks.values.shape[2:])
    with np.errstate(all="ignore"):
        centre = _guess(blocks)
        total, square, zero = np.zeros((n, c)), np.zeros(c), np.zeros(c, np.int64)
        low, high = np.full(c, np.inf), np.full(c, -np.inf)
        found = []
        for block in blocks.sums(centre):
            at = block.place[1]
            total[block.place[:2]] += block.total
            square[at] += block.square.sum(axis=0)
            zero[at] += block.zeros
            low[at] = np.minimum(low[at], block.min.min(axis=(0, 2)))
            high[at] = np.maximum(high[at], block.max.max(axis=(0, 2)))
            found.append((block.place, block.min, block.max))
        moments = Moments.of(total, square, size)
        largest = np.maximum(np.abs(low), np.abs(high))
        special = ~((largest <= _LARGEST) & ((largest >= 1 / _LARGEST) | (largest == 0)))
        constant = (low == high) & ~special
        far = ~(constant | special | (moments.squares * MAX_CANCELLATION >= square))
        part = BatchPart(
            n * size,
            blocks.samples,
            np.where(constant, low, 0.0 if centre is None else centre),
            np.where(constant, 0.0, moments.mean),
            np.where(constant, 0.0, moments.squares),
            np.where(constant, 0.0, moments.sample_squares),
            low,
            high,
            _count(blocks, [(place, least) for place, least, _ in found], low, zero),
            _count(blocks, [(place, most) for place, _, most in found], high, zero),
            zero,
            *np.zeros((3, c), np.int64),
        )
        _take_again(blocks, np.flatnonzero(far), part, survey=False)
        _take_again(blocks, np.flatnonzero(special), part, survey=True)
        if blocks.samples == part.count:  # every value is a sample
            part.sample_squares[:] = part.squares
    return part


def sum_moments(blocks: Blocks, before: BatchPart | None = None) -> BatchPart:
    """Mean and sums of squares of a batch, as exact as those of `sum_blocks`, in half the time.

    What is not finite is counted, extremes are not looked for. The means of the batch `before` are
    taken for a guess of these.
    """
    n, c = blocks.values.shape[:2]
    size = prod(blocks.values.shape[2:])
    with np.errstate(all="ignore"):
        if before is None or len(before.shift) != c:
            centre = _guess(blocks)
        else:
            centre = _if_far(before.mean, before.squares / before.count)
        total, square = np.zeros((n, c)), np.zeros(c)
        for place, some, squares in blocks.powers(centre):
            total[place[:2]] += some
            square[place[1]] += squares.sum(axis=0)
        moments = Moments.of(total, square, size)
        good = (square <= _LARGEST**2) & (moments.squares * MAX_CANCELLATION >= square)
        # Narrower values are too large for their squares to vanish.
        if blocks.values.dtype.itemsize >= 8:
            good &= square >= _LARGEST**-2
        part = BatchPart(
            n * size,
            blocks.samples,
            np.zeros(c) if centre is None else centre,
            *moments,
            *np.full((2, c), np.nan),
            *np.zeros((6, c), np.int64),
        )
        if not good.all():
            _take_again(blocks, np.flatnonzero(~good), part, survey=True)
            for extreme in (part.min, part.max):
                extreme[:] = np.nan
            for number in (part.at_min, part.at_max, part.at_zero):
                number[:] = 0
        if blocks.samples == part.count:  # every value is a sample
            part.sample_squares[:] = part.squares
    return part


def _guess(blocks: Blocks) -> FloatArray | None:
    """The means of channels that seem to be far from 0, by a few values; 0 for the others.

    None where there are none.
    """
    values = blocks.values
    n, _, *rest = values.shape
    samples = slice(0, n, -(-n // _SAMPLE_PLACES))
    middle = [slice(size // 2, size // 2 + 1) for size in rest[:-1]]
    row = slice(max(0, (rest[-1] - _SAMPLE_VALUES) // 2), (rest[-1] + _SAMPLE_VALUES) // 2)
    few = blocks.widen(values[(samples, slice(None), *middle, row)])
    mean = few.mean(axis=(0, *range(2, few.ndim)))
    var = few.var(axis=(0, *range(2, few.ndim)))
    return _if_far(mean, var)


def _if_far(mean: FloatArray, var: FloatArray) -> FloatArray | None:
    """The means that are far from 0, and 0 for the others; None where there are none."""
    far = np.isfinite(mean) & (np.square(mean) > _FAR * var)
    return np.where(far, mean, 0.0) if far.any() else None


def _count(
    blocks: Blocks,
    found: list[tuple[tuple[slice, ...], NDArray[Any]]],
    extreme: FloatArray,
    zero: IntArray,
) -> IntArray:
    """How many values equal their channel's extreme; nothing where that is NaN.

    Only runs that reach the extreme are looked at, and none where it is 0.
    """
    counts = np.where(extreme == 0, zero, 0)
    wanted = np.where(extreme == 0, np.nan, extreme)
    for place, reached in found:
        channels = place[1]
        hit = reached == wanted[channels, np.newaxis]
        if hit.any():
            counts[channels] += blocks.count_equal(place, hit, wanted[channels])
    return counts


def _take_again(blocks: Blocks, channels: IntArray, part: BatchPart, *, survey: bool) -> None:
    """Put the sums of some channels about their mean into `part`.

    The mean is known about well enough, unless a `survey` has to find it, beside all else.
    """
    values = blocks.values
    n = values.shape[0]
    step = max(1, PIECE_VALUES // (n * prod(values.shape[2:])))
    for i in range(0, len(channels), step):
        few = channels[i : i + step]
        pieces = partial(_pieces, blocks, few)
        if survey:
            _put(part, few, _survey(pieces, n, part.count))
        else:
            shift = part.mean[few]
            moments = _about(pieces, shift, n, part.count)
            _put(part, few, {"shift": shift, "offset": moments.mean, **_squares(moments)})


def _squares(moments: Moments) -> dict[str, FloatArray]:
    return {"squares": moments.squares, "sample_squares": moments.sample_squares}


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


def _about(
    pieces: Pieces, shift: FloatArray, n: int, count: int, exponent: IntArray | None = None
) -> Moments:
    """The moments of some channels about `shift`, all times 2 ** -exponent."""
    total, square = np.zeros((n, len(shift))), np.zeros(len(shift))
    by = None if exponent is None else -exponent[:, np.newaxis]
    centre = shift[:, np.newaxis] if by is None else np.ldexp(shift[:, np.newaxis], by)
    for samples, x in pieces():
        y = (x if by is None else np.ldexp(x, by)) - centre
        total[samples] += y.sum(axis=2)
        square += np.einsum("nci,nci->c", y, y)
    return Moments.of(total, square, count // n)


def _survey(pieces: Pieces, n: int, count: int) -> dict[str, NDArray[Any]]:
    """The sums of some channels of n samples by the names of `BatchPart`, whatever the values."""
    found = [_seen(x, count) for _, x in pieces()]
    low = np.minimum.reduce([each.pop("min") for each in found])
    high = np.maximum.reduce([each.pop("max") for each in found])
    sums = {name: np.add.reduce([each[name] for each in found]) for name in found[0]}
    shift = np.clip(sums.pop("rough"), low, high)
    # Powers of two, which are exact, so that squares neither overflow nor vanish.
    exponent = np.where(low <= high, np.frexp(np.maximum(np.abs(low), np.abs(high)))[1], 0)
    moments = _about(pieces, shift, n, count, exponent)
    low, high = (np.where(low <= high, each, np.nan) for each in (low, high))
    at = [
        np.add.reduce([(x == each[:, np.newaxis]).sum(axis=(0, 2)) for _, x in pieces()])
        for each in (low, high)
    ]
    spoilt = sums["nan"] + sums["posinf"] + sums["neginf"] > 0
    mean = ieee_mean(sums["nan"], sums["posinf"], sums["neginf"])
    return {
        "shift": np.where(spoilt, mean, shift),
        "offset": np.where(spoilt, 0.0, np.ldexp(moments.mean, exponent)),
        **{
            name: np.where(spoilt, np.nan, np.ldexp(each, 2 * exponent))
            for name, each in _squares(moments).items()
        },
        "min": low,
        "max": high,
        "at_min": at[0],
        "at_max": at[1],
        **sums,
    }


def _seen(x: FloatArray, count: int) -> dict[str, NDArray[Any]]:
    """Extremes of the finite values, their mean's part in `count` values, and counts, (c,) each."""
    finite = np.isfinite(x)
    return {
        "min": np.where(finite, x, np.inf).min(axis=(0, 2)),
        "max": np.where(finite, x, -np.inf).max(axis=(0, 2)),
        "rough": np.where(finite, x / count, 0.0).sum(axis=(0, 2)),
        "nan": np.isnan(x).sum(axis=(0, 2)),
        "posinf": (x == np.inf).sum(axis=(0, 2)),
        "neginf": (x == -np.inf).sum(axis=(0, 2)),
        "at_zero": (x == 0).sum(axis=(0, 2)),
    }


def ieee_mean(nan: IntArray, posinf: IntArray, neginf: IntArray) -> FloatArray:
    """The mean that IEEE arithmetic gives a channel with NaN or Inf; NaN for one without."""
    return np.where(
        (nan > 0) | ((posinf > 0) == (neginf > 0)), np.nan, np.where(posinf > 0, np.inf, -np.inf)
    )
