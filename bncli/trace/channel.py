"""One channel of a tensor, read in pieces, so that memory does not grow with the tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bncli.batchnorm import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from bncli.model import FloatArray


@dataclass(frozen=True, slots=True)
class ChannelView:
    """The values of `channel` of a tensor: `stored` with `channel_axis`, seen through `decoded`.

    `decoded` turns stored elements into values (a cast, or bits widened). Values are counted in C
    order of the tensor's axes without the channels'.
    """

    stored: NDArray[Any]
    channel_axis: int
    channel: int
    decoded: Callable[[NDArray[Any]], NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape without the channel axis."""
        return self._own().shape

    @property
    def count(self) -> int:
        """The number of values."""
        return int(self._own().size)

    def index(self, position: int) -> tuple[int, ...]:
        """The index in the whole tensor of the value at `position`."""
        import numpy as np

        place = [int(i) for i in np.unravel_index(position, self.shape)]
        return (*place[: self.channel_axis], self.channel, *place[self.channel_axis :])

    def position(self, index: tuple[int, ...]) -> int:
        """The position of the value at `index` in the tensor without the channel axis."""
        import numpy as np

        return int(np.ravel_multi_index(index, self.shape))

    def pieces(self) -> Iterator[FloatArray]:
        """All values in order, flat, float64."""
        return self.between(0, self.count)

    def between(self, begin: int, end: int) -> Iterator[FloatArray]:
        """The values at positions from `begin` to `end`, flat, float64, in pieces."""
        import numpy as np

        own = self._own()
        start = 0
        for block in blocks(own.shape):
            size = int(np.prod([part.stop - part.start for part in block]))
            if start < end and begin < start + size:
                values = self.decoded(own[block]).astype(np.float64).reshape(-1)
                yield values[max(begin - start, 0) : end - start]
            start += size

    def read(self, begin: int, end: int) -> FloatArray:
        """The values at positions from `begin` to `end`, as one array."""
        import numpy as np

        return np.concatenate([np.empty(0), *self.between(begin, end)])

    def ends(self, most: int) -> tuple[FloatArray, FloatArray]:
        """All values and none, or at most `most` of them: the first ones and the last ones."""
        if self.count <= most:
            return self.read(0, self.count), self.read(0, 0)
        last = most // 2
        return self.read(0, most - last), self.read(self.count - last, self.count)

    def _own(self) -> NDArray[Any]:
        import numpy as np

        own: NDArray[Any] = np.moveaxis(self.stored, self.channel_axis, 0)[self.channel]
        return own
