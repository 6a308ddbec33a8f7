"""One channel of a tensor, read in pieces, so that memory does not grow with the tensor."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import blocks
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bncli.model import FloatArray


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file, of which a block is read when it is asked for."""

    shape: tuple[int, ...]
    read: Callable[[tuple[slice, ...]], NDArray[Any]]

    def __getitem__(self, block: tuple[slice, ...]) -> NDArray[Any]:
        """The elements of a block."""
        return self.read(block)


@dataclass(frozen=True, slots=True)
class ChannelView:
    """The values of `channel` of a tensor: `stored` with `channel_axis`, seen through `decoded`.

    `decoded` turns stored elements into values (a cast, or bits widened). Values are counted in C
    order of the tensor's axes without the channels'.
    """

    stored: NDArray[Any] | StoredTensor
    channel_axis: int
    channel: int
    decoded: Callable[[NDArray[Any]], NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape without the channel axis."""
        return self.stored.shape[: self.channel_axis] + self.stored.shape[self.channel_axis + 1 :]

    @property
    def count(self) -> int:
        """The number of values."""
        return prod(self.shape)

    def index(self, position: int) -> tuple[int, ...]:
        """The index in the whole tensor of the value at `position`."""
        place = [int(i) for i in np.unravel_index(position, self.shape)]
        return (*place[: self.channel_axis], self.channel, *place[self.channel_axis :])

    def position(self, index: tuple[int, ...]) -> int:
        """The position of the value at `index` in the tensor without the channel axis."""
        return int(np.ravel_multi_index(index, self.shape))

    def pieces(self) -> Iterator[FloatArray]:
        """All values in order, flat, float64."""
        return self.between(0, self.count)

    def between(self, begin: int, end: int) -> Iterator[FloatArray]:
        """The values at positions from `begin` to `end`, flat, float64, in pieces."""
        start = 0
        own = slice(self.channel, self.channel + 1)
        for block in blocks(self.shape):
            size = prod(part.stop - part.start for part in block)
            if start < end and begin < start + size:
                there = (*block[: self.channel_axis], own, *block[self.channel_axis :])
                values = self.decoded(self.stored[there]).astype(np.float64).reshape(-1)
                yield values[max(begin - start, 0) : end - start]
            start += size

    def read(self, begin: int, end: int) -> FloatArray:
        """The values at positions from `begin` to `end`, as one array."""
        return np.concatenate([np.empty(0), *self.between(begin, end)])

    def ends(self, most: int) -> tuple[FloatArray, FloatArray]:
        """All values and none, or at most `most` of them: the first ones and the last ones."""
        if self.count <= most:
            return self.read(0, self.count), self.read(0, 0)
        last = most // 2
        return self.read(0, most - last), self.read(self.count - last, self.count)
