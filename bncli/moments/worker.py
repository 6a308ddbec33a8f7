"""One thread's work: the sums over a task, taken tile by tile, exact enough to be pooled.

The sums are taken about 0 first, which costs no pass over the data beyond the sums themselves.
Where a channel's mean turns out to be large against its deviations, they are taken again about
the mean: with K**2 the mean square over the variance, sums about 0 lose a factor K**2 of
precision (Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The American
Statistician 37, 1983), so K**2 is kept to `MAX_CANCELLATION`. Once a tensor is known to have such
channels, tasks begin with a guess of the mean instead of 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from bncli.light import dataclass
from bncli.moments import fast
from bncli.moments.by_sample import BySample, TaskSamples
from bncli.moments.kernels import (
    ENGINE,
    channel_sums,
    column_sums,
    extreme,
    guess_mean,
    power_sums,
)
from bncli.moments.layout import Box, Cut
from bncli.moments.source import Source
from bncli.moments.values import FLOAT32_OF, Widener

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray

MAX_CANCELLATION = 16.0
"""The mean square over the variance, beyond which sums are taken again about the mean."""
_LOOK_VALUES = 1 << 16
"""Values that are looked at together for NaN and Inf, which takes several times their memory."""
_ROUNDS = 4
"""A mean far away may be wrong by more than a standard deviation at first; it soon settles."""
NOWHERE = int(np.iinfo(np.int64).max)


@dataclass(slots=True)
class Nonfinite:
    """The NaNs and infinities of some channels, each array of shape (channels,).

    `first` is the C-order index in the tensor of the first of either, or the largest int64.
    """

    nan: IntArray
    posinf: IntArray
    neginf: IntArray
    first: IntArray

    @classmethod
    def none(cls, channels: int) -> Nonfinite:
        """What channels without any have."""
        zeros = np.zeros((3, channels), np.int64)
        return cls(zeros[0], zeros[1], zeros[2], np.full(channels, NOWHERE))

    @property
    def dirty(self) -> NDArray[np.bool_]:
        """Which channels have any."""
        dirty: NDArray[np.bool_] = self.first != NOWHERE
        return dirty


@dataclass(slots=True)
class Partial:
    """What one task says of its `channels`; every array of shape (channels,).

    `sum` is that of value - `shift`; `m2`, `m3` and `m4` sum powers of value - mean. They mean
    nothing for a channel with a NaN or Inf. `min` and `max` are over the finite values, NaN where
    there are none. `recentred` is the number of channels whose sums had to be taken again,
    `nbytes` what the task's values take in the tensor.
    """

    channels: slice
    count: int
    nbytes: int
    shift: FloatArray
    sum: FloatArray
    m2: FloatArray
    m3: FloatArray | None = None
    m4: FloatArray | None = None
    min: FloatArray | None = None
    max: FloatArray | None = None
    nonfinite: Nonfinite | None = None
    samples: TaskSamples | None = None
    recentred: int = 0


@dataclass(slots=True)
class _Sums:
    """Sums of value - `shift` and of its square, and the extremes of value; of (channels,)."""

    shift: FloatArray
    sum: FloatArray
    square: FloatArray
    min: FloatArray | None
    max: FloatArray | None
    samples: TaskSamples | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is summed besides the values and their squares, and what `scale`, of shape
    (num_features,), multiplies them by first.
    """

    extremes: bool
    kurtosis: bool
    by_sample: BySample | None = None
    scale: FloatArray | None = None


class Worker:
    """Does tasks of a tensor, with a reader and buffers of its own."""

    def __init__(
        self,
        source: Source,
        cast: str | None,
        stack: ExitStack,
        wanted: Wanted,
    ) -> None:
        """`cast` is what values are rounded to first; `stack` closes what is opened here."""
        self._layout = source.layout
        self._itemsize = source.itemsize
        self._read = source.reader(stack)
        self._widen = Widener(source.dtype, cast, source.layout.tile_values)
        self._extremes = wanted.extremes
        self._kurtosis = wanted.kurtosis
        self._scale = wanted.scale
        self._by_sample = wanted.by_sample
        self._fast = source.kernels
        self._float32_of = FLOAT32_OF.get(source.dtype)
        self._limit = MAX_CANCELLATION if self._fast is None else fast.MAX_CANCELLATION
        self.centre = False
        """Whether tasks begin with a guess of the mean."""
        self.engines: set[str] = set()
        """What has summed so far; see `ChannelStats.engines`."""

    def __call__(self, number: int) -> Partial:
        """Do task `number`."""
        task = self._layout.tasks[number]
        at = self._layout.channel
        channels = slice(task.starts[at], task.stops[at])
        values = 1
        for size in task.shape:
            values *= size
        n = values // (channels.stop - channels.start)
        sums = self._sums(task, None, extremes=self._extremes)
        m2 = sums.square - sums.sum * (sums.sum / n)
        part = Partial(channels, n, values * self._itemsize, sums.shift, sums.sum, m2)
        part.min = sums.min
        part.max = sums.max
        part.samples = sums.samples
        # The comparison is False for a NaN, so one glance finds all that needs a second look.
        good = m2 * self._limit >= sums.square
        if not good.all():
            self._look_again(task, part, sums, ~good)
        if self._kurtosis:
            self._higher(task, part)
        return part

    def _tiles(
        self,
        task: Box,
        cut: Cut | None = None,
        *,
        few: IntArray | None = None,
        stored: bool = False,
    ) -> Iterator[tuple[Box, slice | IntArray, NDArray[Any]]]:
        """Each tile, or each box of a `cut`, with its channels and values, or those of a `few`.

        Channels are counted from the task's first. The values are in the narrowest dtype, float32
        or float64, or as they are `stored`, and of shape (before, channels, behind). They live
        until the next tile, and may not be written to: see `_scratch`.
        """
        at = self._layout.channel
        first = task.starts[at]
        for tile in cut or self._layout.tiles(task):
            start, stop = tile.starts[at] - first, tile.stops[at] - first
            channels: slice | IntArray = slice(start, stop)
            here = None if few is None else few[(few >= start) & (few < stop)]
            if here is not None:
                channels = here
                if not len(here):
                    continue
            narrow = self._read(tile)
            if not stored:
                narrow = self._widen.narrow(narrow)
            narrow = narrow.reshape(prod(narrow.shape[:at]), narrow.shape[at], -1)
            if self._scale is not None:
                scale = self._scale[tile.starts[at] : tile.stops[at], None]
                narrow = np.multiply(narrow, scale, out=self._scratch(narrow))
            if here is not None and len(here) < narrow.shape[1]:
                narrow = np.take(narrow, here - start, axis=1)
            yield tile, channels, narrow

    def _scratch(self, x: NDArray[Any]) -> FloatArray:
        """A float64 array of x's shape to write to. It may be x itself, but is never the tensor."""
        return self._widen.buffer[: x.size].reshape(x.shape)

    def _sums(
        self,
        task: Box,
        shift: FloatArray | None,
        *,
        extremes: bool,
        few: IntArray | None = None,
    ) -> _Sums:
        """The sums over a task, or a `few` of its channels, about `shift` where it is given."""
        at = self._layout.channel
        c = task.stops[at] - task.starts[at]
        guess = shift is None and self.centre
        sums = _Sums(
            np.zeros(c) if shift is None else shift,
            np.zeros(c),
            np.zeros(c),
            np.full(c, np.inf) if extremes else None,
            np.full(c, -np.inf) if extremes else None,
            None,
        )
        if self._by_sample is not None:
            sums.samples = self._by_sample.task(task, sums.shift)
        windows = self._fast is not None and shift is None and not guess
        cut = self._layout.windows(task) if windows else None
        seen = 0
        for tile, channels, narrow in self._tiles(task, cut, few=few, stored=windows):
            if guess and isinstance(channels, slice) and channels.stop > seen:
                # Tiles come in memory order, so new channels come together.
                seen = channels.stop
                sums.shift[channels] = guess_mean(narrow)
            self._add(sums, tile, channels, narrow, about=shift is not None or guess)
        if sums.samples is not None:
            sums.samples.close(sums.shift)
        return sums

    def _add(
        self,
        sums: _Sums,
        tile: Box,
        channels: slice | IntArray,
        x: NDArray[Any],
        *,
        about: bool,
    ) -> None:
        """Add a tile's values x to the sums, those `about` the shift less the shift."""
        extremes = sums.min is not None
        low = high = np.empty(0)
        if self._fast is not None and not about:
            self.engines.add(self._fast.engine)
            take = fast.sums if sums.samples is None else fast.run_sums
            widen = None if x.dtype == np.float32 else self._float32_of
            total, square, low, high = take(self._fast, x, extremes=extremes, widen=widen)
            if sums.samples is not None:
                sums.samples.add(tile, channels, total, square)
                total, square = channel_sums(total[..., None]), channel_sums(square[..., None])
        else:
            self.engines.add(ENGINE)
            if extremes:  # first, for y may take x's place
                low, high = extreme(np.minimum, x), extreme(np.maximum, x)
            y = self._widen.wide(x)
            if about:
                y = np.subtract(y, sums.shift[channels, None], out=self._scratch(x))
            total, square = power_sums(y)
            if sums.samples is not None:
                sums.samples.add_values(tile, channels, y)
        sums.sum[channels] += total
        sums.square[channels] += square
        if sums.min is not None and sums.max is not None:
            sums.min[channels] = np.minimum(sums.min[channels], low)
            sums.max[channels] = np.maximum(sums.max[channels], high)

    def _look_again(self, task: Box, part: Partial, sums: _Sums, bad: NDArray[np.bool_]) -> None:
        """Take the channels `bad` of `part` again: NaN, Inf, overflow or a mean far away."""
        odd = ~np.isfinite(sums.square)
        if odd.any():
            self._find_nonfinite(task, part, odd)
            bad = bad & ~odd
        low, high = part.min, part.max
        for _ in range(_ROUNDS):
            if low is not None and high is not None:
                same = bad & (low == high)
                part.shift[same] = low[same]
                part.sum[same] = part.m2[same] = 0.0
                if part.samples is not None:
                    part.samples.settle(same, low)
                bad = bad & ~same
            if not bad.any():
                return
            part.recentred = max(part.recentred, int(bad.sum()))
            mean = part.shift + part.sum / part.count
            few = np.flatnonzero(bad)
            shift = np.where(bad, mean, part.shift)
            sums = self._sums(task, shift, extremes=low is None, few=few)
            if low is None:
                low, high = sums.min, sums.max
            m2 = sums.square - sums.sum * (sums.sum / part.count)
            if part.samples is not None and sums.samples is not None:
                part.samples.replace(few, sums.samples)
            part.shift[bad] = sums.shift[bad]
            part.sum[bad] = sums.sum[bad]
            part.m2[bad] = np.maximum(m2[bad], 0.0)
            bad = bad & (m2 * self._limit < sums.square)

    def _higher(self, task: Box, part: Partial) -> None:
        """Add the sums of the third and fourth powers of the deviations to `part`."""
        self.engines.add(ENGINE)
        n = part.count
        shift = part.shift + part.sum / n
        s1, s2, s3, s4 = np.zeros((4, len(shift)))
        for _, channels, narrow in self._tiles(task):
            x = self._widen.wide(narrow)
            y = np.subtract(x, shift[channels, None], out=self._scratch(x))
            y2 = np.square(y)
            s1[channels] += column_sums(y)
            s2[channels] += column_sums(y2)
            s3[channels] += column_sums(np.multiply(y, y2, out=y))
            s4[channels] += column_sums(np.square(y2, out=y2))
        r = s1 / n  # what rounding left between the shift and the mean
        part.m3 = s3 - 3 * r * s2 + 2 * n * r**3
        part.m4 = s4 - 4 * r * s3 + 6 * r**2 * s2 - 3 * n * r**4

    def _find_nonfinite(self, task: Box, part: Partial, odd: NDArray[np.bool_]) -> None:
        """Count the NaNs and infinities of the channels `odd`; those that overflowed have none."""
        found = Nonfinite.none(len(odd))
        low = np.full(len(odd), np.inf)
        high = np.full(len(odd), -np.inf)
        axis = self._layout.channel
        cut = self._layout.tiles(task, _LOOK_VALUES)
        for tile, at, x in self._tiles(task, cut, few=np.flatnonzero(odd)):
            assert isinstance(at, np.ndarray)
            bad = ~np.isfinite(x)
            if not bad.all():
                low[at] = np.minimum(low[at], extreme(np.minimum, np.where(bad, np.inf, x)))
                high[at] = np.maximum(high[at], extreme(np.maximum, np.where(bad, -np.inf, x)))
            if not bad.any():
                continue
            nan = np.isnan(x).sum(axis=(0, 2))
            infinite = bad.sum(axis=(0, 2)) - nan
            found.nan[at] += nan
            if infinite.any():
                positive = (x == np.inf).sum(axis=(0, 2))
                found.posinf[at] += positive
                found.neginf[at] += infinite - positive
            before, channel, behind = self._layout.c_order(tile)
            place = np.add.outer(before, behind)[:, None]
            first = np.where(bad, place, NOWHERE).min(axis=(0, 2))
            some = first != NOWHERE
            first[some] += channel[at[some] + (task.starts[axis] - tile.starts[axis])]
            found.first[at] = np.minimum(found.first[at], first)
        dirty = found.dirty
        if not dirty.any():
            return
        part.nonfinite = found
        if part.min is not None and part.max is not None:
            some = dirty & (low <= high)
            part.min[dirty] = part.max[dirty] = np.nan
            part.min[some] = low[some]
            part.max[some] = high[some]
