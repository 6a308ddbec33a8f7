"""The sums over samples, taken tile by tile beside those over channels.

Most layouts have a sample's values of a channel close together: they are summed within a tile, and
of the sample's mean and variance only powers are kept. Where they are not, the sums of samples that
are begun wait for the rest, as many as the layout makes and at most `MOST_OPEN`.

A sample's variance comes from sums about its channel's shift: it is as exact as the channel's,
relative to the channel's. Of a sample whose own mean is far from that shift, K times its own
standard deviation, the relative error is some K**2 roundings.
"""

from __future__ import annotations

from dataclasses import field
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bncli.light import dataclass
from bncli.model.samples import SampleSums, moved, power_sums
from bncli.moments.layout import Box, Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray

MOST_OPEN = 1 << 21
"""Pairs of a sample and a channel that may be begun and not finished: 50 MB."""

_LETTERS = "abcdef"


class _Place(NamedTuple):
    """A rectangle of samples and channels, as the layout counts them."""

    samples: tuple[int, int]
    channels: tuple[int, int]


@dataclass(frozen=True, slots=True)
class BySample:
    """How a layout's values are summed sample by sample.

    `size` is the number of values of a sample in a channel.
    """

    layout: Layout
    sample: int
    size: int

    @classmethod
    def of(cls, layout: Layout) -> BySample | None:
        """For this layout; None where there is one sample, or too many would be begun at once."""
        if layout.sample is None:
            return None
        pair = (layout.sample, layout.channel)
        others = [axis for axis in range(len(layout.shape)) if axis not in pair]
        if others:
            open_pairs = prod(layout.shape[axis] for axis in pair if axis > others[0])
            if open_pairs > MOST_OPEN:
                return None
        return cls(layout, layout.sample, prod(layout.shape[axis] for axis in others))

    def task(self, task: Box, shift: FloatArray) -> TaskSamples:
        """The sums over a task's samples, of values less `shift`; nothing added yet."""
        return TaskSamples(self, task, shift)

    def pool(self, channels: int) -> SamplePool:
        """The sums over all tasks; nothing added yet."""
        return SamplePool(self, np.zeros((8, channels)))

    def place(self, box: Box) -> _Place:
        """The samples and channels that a box has a part in."""
        sample, channel = self.sample, self.layout.channel
        return _Place(
            (box.starts[sample], box.stops[sample]), (box.starts[channel], box.stops[channel])
        )

    def values(self, box: Box) -> int:
        """The number of values that a box has of each of its samples and channels."""
        pair = (self.sample, self.layout.channel)
        return prod(size for axis, size in enumerate(box.shape) if axis not in pair)

    def sums(self, x: FloatArray, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray | None]:
        """The sums of a tile's values and of their squares, (samples, channels) each.

        No squares for samples of one value, whose variance is 0.
        """
        x = x.reshape(shape)
        letters = _LETTERS[: len(shape)]
        wanted = letters[self.sample] + letters[self.layout.channel]
        total = np.einsum(f"{letters}->{wanted}", x)
        if self.size == 1:
            return total, None
        return total, np.einsum(f"{letters},{letters}->{wanted}", x, x)


@dataclass(slots=True)
class TaskSamples:
    """What one task says of samples, about `shift` (channels of the task,).

    `sums` is over the samples that are whole in the task; of others `total` and `square` hold the
    sums so far, (samples, channels), over `values` values of each.
    """

    by: BySample
    task: Box
    shift: FloatArray
    sums: FloatArray | None = None
    total: FloatArray | None = None
    square: FloatArray | None = None

    @property
    def place(self) -> _Place:
        """The samples and channels that the task has a part in."""
        return self.by.place(self.task)

    @property
    def number(self) -> int:
        """The samples that the task has a part in."""
        return self.place.samples[1] - self.place.samples[0]

    @property
    def values(self) -> int:
        """The values that the task has of each sample and channel."""
        return self.by.values(self.task)

    def add_values(self, tile: Box, channels: slice | IntArray, x: FloatArray) -> None:
        """Take in a tile's values of some of the task's channels, less `shift`."""
        shape = list(tile.shape)
        shape[self.by.layout.channel] = x.shape[1]
        self._add(tile, channels, *self.by.sums(x, tuple(shape)))

    def add(
        self, tile: Box, channels: slice | IntArray, total: FloatArray, square: FloatArray
    ) -> None:
        """Take in the sums of each run of a tile's values, (runs, channels), and of their squares.

        The samples go before the channels.
        """
        shape = (*tile.shape[: self.by.layout.channel], total.shape[1])
        axes = tuple(i for i in range(len(shape) - 1) if i != self.by.sample)
        self._add(tile, channels, *(each.reshape(shape).sum(axis=axes) for each in (total, square)))

    def _add(
        self,
        tile: Box,
        channels: slice | IntArray,
        total: FloatArray,
        square: FloatArray | None,
    ) -> None:
        """Take in the sums of a tile's samples, (samples, channels)."""
        size = self.by.size
        if self.by.values(tile) == size:
            if self.sums is None:
                self.sums = np.zeros((8, len(self.shift)))
            mean = total if size == 1 else total / size
            var = None if square is None else variances(mean, square, size)
            self.sums[:, channels] += power_sums(mean, var)
            return
        if self.total is None or self.square is None:
            shape = (self.number, len(self.shift))
            self.total, self.square = np.zeros(shape), np.zeros(shape)
        assert square is not None
        first = self.place.samples[0]
        begin, end = self.by.place(tile).samples
        self.total[begin - first : end - first, channels] += total
        self.square[begin - first : end - first, channels] += square

    def close(self, shift: FloatArray) -> None:
        """Finish: all values, less `shift`, have been added. `shift` is copied.

        A sample that the task has whole is finished here even if it came in several tiles, for
        another pass over the task may take it in one window; see `replace`.
        """
        self.shift = shift.copy()
        size = self.by.size
        if self.total is not None and self.square is not None and self.values == size:
            mean = self.total / size
            self.sums = power_sums(mean, variances(mean, self.square, size))
            self.total = self.square = None

    def settle(self, channels: NDArray[np.bool_], value: FloatArray) -> None:
        """All values of some channels equal `value` (channels of the task,); closed before."""
        self.shift[channels] = value[channels]
        for sums in (self.sums, self.total, self.square):
            if sums is not None:
                sums[:, channels] = 0.0

    def replace(self, channels: IntArray, other: TaskSamples) -> None:
        """Take the sums of some channels from `other`, of the same task; both are closed."""
        self.shift[channels] = other.shift[channels]
        for mine, theirs in (
            (self.sums, other.sums),
            (self.total, other.total),
            (self.square, other.square),
        ):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                mine[:, channels] = theirs[:, channels]


def only_sample(var: FloatArray) -> SampleSums:
    """The sums over one sample, which has the mean and variance of its channels."""
    return SampleSums(1, 1.0, power_sums(np.zeros((1, len(var))), var[np.newaxis]))


def variances(mean: FloatArray, square: FloatArray, size: int) -> FloatArray:
    """The biased variances of samples of `size` values, from the sums of their squares."""
    return np.maximum(square / size - np.square(mean), 0.0)


@dataclass(slots=True)
class _Open:
    """Samples that are begun: `values` of each so far, their mean and squared deviations."""

    values: int
    mean: FloatArray
    m2: FloatArray


@dataclass(slots=True)
class SamplePool:
    """The samples of one tensor, pooled task by task in their order, about the pool's shift."""

    by: BySample
    sums: FloatArray
    _open: dict[_Place, _Open] = field(default_factory=dict)

    def add(self, channels: slice, part: TaskSamples, shift: FloatArray) -> None:
        """Take in a task, `shift` being what the pool's own values are less."""
        by = part.shift - shift
        if part.sums is not None:
            self.sums[:, channels] += moved(part.sums, part.number, by)
            return
        assert part.total is not None
        assert part.square is not None
        n = part.values
        mean = part.total / n
        m2 = n * variances(mean, part.square, n)
        mean += by
        begun = self._open.pop(part.place, None)
        if begun is not None:
            both = begun.values + n
            delta = mean - begun.mean
            mean = begun.mean + delta * (n / both)
            m2 += begun.m2 + np.square(delta) * (begun.values / both * n)
            n = both
        if n < self.by.size:
            self._open[part.place] = _Open(n, mean, m2)
        else:
            self.sums[:, channels] += power_sums(mean, m2 / n)

    def about(self, offset: FloatArray) -> SampleSums:
        """The sums of all samples, their means less `offset` from the pool's shift."""
        number = self.by.layout.shape[self.by.sample]
        return SampleSums(number, float(number), moved(self.sums, number, -offset))
