"""A tensor's stored values, wherever they lie, given out tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from io import FileIO
from operator import mul
from typing import TYPE_CHECKING, Any

import numpy as np

from bncli.dtypes import DTYPES, decode
from bncli.errors import CorruptFileError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import read_into
from bncli.model import TensorRef
from bncli.moments import fast
from bncli.moments.layout import TILE_VALUES, Box, Layout, lies_dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW = 8
"""Places along each axis of an array from which values are looked at."""
_MANY = 8
"""Channels far from 0 are many where there is more than one in so many."""


def are_many(far: int, channels: int) -> bool:
    """Whether taking all channels about a guess of the mean is faster than the far ones twice."""
    return _MANY * far > channels


class Source:
    """A tensor's stored values and their layout.

    `dtype` is PyTorch's name of the stored dtype, `itemsize` its size in bytes; `shape` is the
    tensor's own. `kernels` sum its windows; None where NumPy sums its tiles. Raises
    CorruptFileError where the tensor does not fit its place or its checksum.
    """

    def __init__(
        self,
        tensor: TensorRef | NDArray[Any],
        channel_axis: int,
        dtype: str,
        shape: tuple[int, ...],
        sample_axis: int | None = None,
        *,
        windows: bool = False,
    ) -> None:
        """`windows` allows windows, which are taken where there are kernels for them that pay."""
        self.dtype = dtype
        self.shape = shape
        self.itemsize = DTYPES[dtype].itemsize
        self._file: FileBytes | None = None
        if isinstance(tensor, TensorRef) and isinstance(tensor.storage, FileBytes):
            self._file = tensor.storage
            self._stored = np.dtype(DTYPES[dtype].stored).newbyteorder(self._file.byteorder)
            plan = partial(
                Layout,
                tensor.shape,
                tensor.strides,
                channel_axis,
                max_span=4 * TILE_VALUES,
                sample_axis=sample_axis,
            )
            self.layout = plan()
            plain = self._stored.isnative and lies_dense(self.layout.shape, self.layout.strides)
            sizes = fast.IN_FILE
            last = sum((axis.size - 1) * axis.stride for axis in self.layout.axes)
            if last < 0 or (last + 1) * self.itemsize > self._file.nbytes:
                raise CorruptFileError(
                    self._file.path,
                    f"{tensor.name or 'the tensor'} of shape {tensor.shape} does not fit in the "
                    f"{self._file.nbytes} bytes that the file has for it.",
                )
            tensor.check()
        else:
            array = tensor.stored() if isinstance(tensor, TensorRef) else tensor
            plan = partial(
                Layout, array.shape, array.strides, channel_axis, sample_axis=sample_axis
            )
            self.layout = plan()
            one_wide = [i for i in range(array.ndim) if i not in self.layout.order]
            self._view = array.transpose(self.layout.order + one_wide).reshape(self.layout.shape)
            flags = self._view.flags
            plain = self._view.dtype.isnative and flags.c_contiguous and flags.aligned
            sizes = fast.IN_MEMORY
        self.kernels: fast.Kernels | None = None
        if windows and plain and dtype in fast.DTYPES:
            layout = plan(sizes=sizes)
            window = layout.windows(layout.tasks[0])[0].shape
            pays = fast.pays(dtype, window, layout.channel, layout.sample)
            if pays and not self._seems_far():
                self.kernels = fast.kernels()
            if self.kernels is not None:
                self.layout = layout

    def _seems_far(self) -> bool:
        """Whether many channels of an array seem to be far from 0, by a few values of each."""
        if self._file is not None:
            return False
        at = self.layout.channel
        # The golden ratio spreads the places evenly and in step with no image's width.
        spread = (np.arange(_FEW) * 0.6180339887 + 0.5) % 1
        places = [np.unique((spread * size).astype(np.intp)) for size in self.layout.shape]
        places[at] = np.arange(self.layout.shape[at])
        few = decode(self._view[np.ix_(*places)], self.dtype).astype(np.float64)
        others = tuple(i for i in range(few.ndim) if i != at)
        with np.errstate(all="ignore"):
            square, var = np.square(few).mean(axis=others), few.var(axis=others)
            # A constant channel is not taken again.
            far = (square > fast.MAX_CANCELLATION * var) & (var > 0)
        return are_many(int(np.count_nonzero(far)), len(far))

    @property
    def most_threads(self) -> int | None:
        """How many threads can help; None for as many as there are processors.

        The kernels of windows keep the interpreter's lock, so that one thread works at a time,
        while another may read.
        """
        if self.kernels is None:
            return None
        return 1 if self._file is None else 2

    def reader(self, stack: ExitStack) -> Callable[[Box], NDArray[Any]]:
        """A function from a tile to its stored values, which may live until the next call.

        Each thread takes its own; `stack` closes what it opens.
        """
        if self._file is None:
            return lambda tile: self._view[tile.slices]
        file = stack.enter_context(self._file.opened())
        return _FileReader(file, self._file, self.layout, self._stored)


class _FileReader:
    """Reads a tile's span of a file into a buffer that is used again.

    The file is read and not mapped: pages of a map count as the process's memory.
    """

    def __init__(
        self, file: FileIO, where: FileBytes, layout: Layout, stored: np.dtype[Any]
    ) -> None:
        self._file = file
        self._where = where
        self._steps = layout.strides
        # A window is dense, so that its span is its size.
        self._buffer = np.empty(max(layout.tile_span + 1, layout.window_values), stored)
        self._strides = tuple(axis.stride * stored.itemsize for axis in layout.axes)

    def __call__(self, tile: Box) -> NDArray[Any]:
        shape = tile.shape
        begin = sum(map(mul, tile.starts, self._steps))
        span = sum(map(mul, shape, self._steps)) - sum(self._steps)
        buffer = self._buffer[: span + 1]
        offset = self._where.offset + begin * buffer.itemsize
        read_into(self._file, self._where.path, offset, buffer.view(np.uint8).data)
        return np.ndarray(shape, buffer.dtype, buffer, strides=self._strides)
