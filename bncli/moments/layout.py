"""Where a tensor's elements lie, and how they are cut into tasks and tiles.

The axes are put in memory order and neighbours are joined, so that every layout (channels first,
channels last, Fortran order, a sliced view) becomes: some axes, the channel, some axes. A box in
it takes whole inner axes and a piece of one, so its values lie close together. A task is a large
box, worth a thread's while; a tile is a piece of a task that fits in a processor's cache. How a
tensor is cut depends on its shape and strides alone, never on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


TASK_VALUES = 1 << 20
"""Values a task: some milliseconds' work, against which what Python does about it is little."""
TASK_CHANNELS = 1 << 18
"""Channels a task, each of which takes 72 bytes and more until it is pooled."""
TILE_VALUES = 1 << 19
"""Values a tile: in float64 4 MiB, the size of a worker's buffer."""


def lies_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements follow one another in C order without gaps; `strides` count elements."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


class Sizes(NamedTuple):
    """The most values that a task has, and a window.

    A window is a piece of a task that is summed as it is stored, and so may be larger than a tile,
    which is widened to float64.
    """

    task: int
    window: int


class Axis(NamedTuple):
    """One or more of the tensor's axes that a single stride walks through.

    `stride` is in the caller's unit (bytes or elements). `parts` are the tensor's axes joined
    here, slowest first, each as its size and its stride in the tensor's own C order; those that
    are neighbours in that order, too, are one part.
    """

    size: int
    stride: int
    parts: tuple[tuple[int, int], ...]

    def joined(self, size: int, stride: int, c_stride: int) -> Axis:
        """This axis with the next faster one, which takes `c_stride` steps in C order."""
        *slower, (last, step) = self.parts
        if step == c_stride * size:
            return Axis(self.size * size, stride, (*slower, (last * size, c_stride)))
        return Axis(self.size * size, stride, (*self.parts, (size, c_stride)))

    def c_order(self, start: int, stop: int) -> NDArray[np.int64]:
        """What the places `start` to `stop` on this axis add to an element's C-order index."""
        rest = np.arange(start, stop, dtype=np.int64)
        (_, slowest), *faster = self.parts
        total = np.zeros(stop - start, np.int64)
        for size, stride in reversed(faster):
            rest, place = np.divmod(rest, size)
            total += place * stride
        return total + rest * slowest


class Box(NamedTuple):
    """A part of the layout: from `starts` to `stops` along its axes."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as an index."""
        return tuple(map(slice, self.starts, self.stops))

    @property
    def shape(self) -> tuple[int, ...]:
        """The box's sizes."""
        return tuple(b - a for a, b in zip(self.starts, self.stops, strict=True))


class Cut:
    """A box cut into boxes of at most `max_values` values, `max_span` apart in memory.

    `count` is the number of boxes, `values` and `span` are the most that one of them has: the
    values in it, and the distance in memory from its first to its last, in the unit of `strides`.
    """

    def __init__(
        self, box: Box, strides: Sequence[int], max_values: int, max_span: int | None = None
    ) -> None:
        self._box = box
        shape = box.shape
        values = 1
        span = 0
        axis = len(shape)
        size = step = 1
        while axis:
            axis -= 1
            size, stride = shape[axis], abs(strides[axis])
            room = max_values // values
            if max_span is not None and stride:
                room = min(room, (max_span - span) // stride + 1)
            pieces = -(-size // max(1, room))
            step = -(-size // pieces)
            values *= step
            span += (step - 1) * stride
            if step < size:
                break
        self.values = values
        self.span = span
        self._axis = axis
        self._step = step
        self._pieces = -(-size // step)
        self._outer = shape[:axis]
        self.count = self._pieces
        for size in self._outer:
            self.count *= size

    def __getitem__(self, number: int) -> Box:
        """Box `number`, from 0 to `count` - 1, in memory order."""
        axis = self._axis
        number, piece = divmod(number, self._pieces)
        starts = list(self._box.starts)
        stops = list(self._box.stops)
        starts[axis] += piece * self._step
        stops[axis] = min(stops[axis], starts[axis] + self._step)
        for i in range(axis - 1, -1, -1):
            number, place = divmod(number, self._outer[i])
            starts[i] += place
            stops[i] = starts[i] + 1
        return Box(tuple(starts), tuple(stops))

    def __iter__(self) -> Iterator[Box]:
        """All boxes, in memory order."""
        return map(self.__getitem__, range(self.count))


class Layout:
    """The axes in memory order, `axes[channel]` being the channel, and the cut into tasks.

    `order` are the tensor's axes as `axes` has them, those of size 1 left out (never the
    channel); `shape` are the sizes of `axes`. `axes[sample]`, where a sample axis was named and
    has more than one sample, is that of the samples.
    """

    def __init__(
        self,
        shape: Sequence[int],
        strides: Sequence[int],
        channel_axis: int,
        max_span: int | None = None,
        sample_axis: int | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        """Plan for a tensor of `shape` and `strides`, `channel_axis` not negative.

        `sample_axis` is kept an axis of its own, too. `max_span` bounds how far apart, in the unit
        of `strides`, the first and the last element of a tile may lie, for a tensor that is read
        span by span. `sizes` bounds tasks and windows; without it, tasks have `TASK_VALUES`.
        """
        order = [i for i, size in enumerate(shape) if size != 1 or i == channel_axis]
        # The stride of a channel axis of size 1 means nothing: it goes first, out of the way.
        order.sort(key=lambda i: -abs(strides[i]) if shape[i] != 1 else -inf)
        c_strides = [1] * len(shape)
        for i in range(len(shape) - 1, 0, -1):
            c_strides[i - 1] = c_strides[i] * shape[i]
        axes: list[Axis] = []
        joinable = False
        self.channel = 0
        self.sample: int | None = None
        for i in order:
            size, stride = shape[i], strides[i]
            part = ((size, c_strides[i]),)
            if i == channel_axis:
                self.channel = len(axes)
                joinable = False
                axes.append(Axis(size, stride, part))
            elif i == sample_axis:
                self.sample = len(axes)
                joinable = False
                axes.append(Axis(size, stride, part))
            elif joinable and axes[-1].stride == stride * size:
                axes[-1] = axes[-1].joined(size, stride, c_strides[i])
            else:
                axes.append(Axis(size, stride, part))
                joinable = True
        self.order = order
        self.axes = axes
        self.shape = tuple(axis.size for axis in axes)
        self.strides = tuple(axis.stride for axis in axes)
        self._max_span = max_span
        self._sizes = sizes or Sizes(TASK_VALUES, 0)
        self.tasks = self._cut_into_tasks()
        # Tasks come in two sizes: a whole piece, as the first, and what is left, as the last.
        ends = [self.tasks[number] for number in (0, self.tasks.count - 1)]
        cuts = [self.tiles(task) for task in ends]
        self.window_values = max(self.windows(task).values for task in ends) if sizes else 0
        self.tile_values = max(cut.values for cut in cuts)
        self.tile_span = max(cut.span for cut in cuts)

    def _cut_into_tasks(self) -> Cut:
        """Tasks of at most `Sizes.task` values and `TASK_CHANNELS` channels."""
        whole = Box((0,) * len(self.shape), self.shape)
        tasks = Cut(whole, self.strides, self._sizes.task)
        channels, *behind = tasks[0].shape[self.channel :]
        if channels <= TASK_CHANNELS:
            return tasks
        return Cut(whole, self.strides, TASK_CHANNELS * prod(behind))

    def tiles(self, task: Box, most: int | None = None) -> Cut:
        """A task's tiles, of at most so many values.

        Each has at most `tile_values` values, and a span of at most `tile_span`.
        """
        return Cut(task, self.strides, min(most or TILE_VALUES, TILE_VALUES), self._max_span)

    def windows(self, task: Box) -> Cut:
        """A task's windows, in a layout with `sizes`; each has at most `window_values` values."""
        return Cut(task, self.strides, self._sizes.window)

    def c_order(self, box: Box) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The C-order index of a box's elements, as three terms to be added.

        One each for the axes before the channel, the channel and the axes behind it, flattened:
        the terms of the box seen as three axes.
        """
        terms = [
            axis.c_order(start, stop)
            for axis, start, stop in zip(self.axes, box.starts, box.stops, strict=True)
        ]
        before = np.zeros(1, np.int64)
        behind = np.zeros(1, np.int64)
        for term in terms[: self.channel]:
            before = np.add.outer(before, term).reshape(-1)
        for term in terms[self.channel + 1 :]:
            behind = np.add.outer(behind, term).reshape(-1)
        return before, terms[self.channel], behind
