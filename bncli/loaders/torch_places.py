"""A tensor that a pickle describes becomes a place in the file, once it is known to fit there.

Whatever a view claims, reading all tensors of a file costs a bounded multiple of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import open_again, read_at
from bncli.light import np
from bncli.loaders.deflated import Packed
from bncli.loaders.inflated import Inflated, inflate
from bncli.loaders.names import quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.pickle_records import Blob, Buffer
from bncli.loaders.torch_values import Inline, Storage, View
from bncli.model import TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_REPEATED = 1 << 22
"""A view may name this many elements more than its storage holds (an axis of stride 0 costs no
byte); a larger one is listed as not readable, since reading it would make memory of nothing."""
MOST_READ_AGAIN = 64
"""The tensors of a file may together name this many times the bytes that it stores, and the bytes
of one repeated view besides; those beyond are listed as not readable."""
READ_TOO_OFTEN = "the tensors before it already repeat the file's contents too often"

Region = FileBytes | Packed
"""Where a storage's bytes are."""
Place = Callable[[Storage], Region]
"""Finds the bytes of a storage; raises CorruptFileError where there are none."""


class Places:
    """The places of the tensors of one file, whose pickle was read from `data`."""

    def __init__(self, path: Path, data: Buffer, place: Place) -> None:
        self.path = path
        self.data = data
        self.place = place
        self.regions: dict[str, Region] = {}
        self.inflated = Inflated()
        self.inline: dict[int, int] = {}
        self.readable = 8 * MOST_REPEATED  # the bytes of one repeated view, 8 an element

    def ref(self, name: str, view: View) -> TensorRef:
        """The view as a place in the file, after checking that it stays in its storage."""
        shape, strides, storage = view.shape, view.strides, view.storage
        unreadable = view.unreadable
        if not unreadable and len(shape) != len(strides):
            raise self._broken(name, "has more or fewer strides than axes")
        if not unreadable and len(shape) > MOST_AXES:
            unreadable = f"it has {len(shape)} axes"
        if not unreadable and storage is not None and storage.location == "meta":
            unreadable = "it was on the meta device and has no values"
        if view.inline is not None and not unreadable:
            return self._inline(name, view, view.inline)
        if unreadable or storage is None:
            return TensorRef(name, self.path, shape, view.dtype, strides, None, unreadable)

        itemsize = DTYPES[view.dtype].itemsize
        room = storage.nbytes // itemsize
        extent, steps = 1, 0
        for size, step in zip(shape, strides, strict=True):
            extent *= max(size, 1)
            steps += (size - 1) * step
        count = 0 if 0 in shape else steps + 1
        if count and view.offset + count > room:
            raise self._broken(name, f"reaches outside its storage of {room} elements")
        if extent > max(MOST_REPEATED, 4 * room):
            unreadable = f"its shape spreads {room} stored elements over {extent}"
            return TensorRef(name, self.path, shape, view.dtype, strides, None, unreadable)
        # An axis that is never stepped along may have any stride, even one that overflows.
        strides = tuple(
            step if size > 1 and count else dense
            for size, step, dense in zip(shape, strides, contiguous(shape), strict=True)
        )
        region = self._region(storage)
        available = region.nbytes if isinstance(region, FileBytes) else region.size
        start = storage.offset * storage.itemsize
        if start + storage.nbytes > available:
            raise self._broken(
                name, f"has a storage of {start + storage.nbytes} bytes, of which {available} exist"
            )
        cost = extent * itemsize if count else 0
        if isinstance(region, Packed):
            cost += self.inflated.cost(region)
        if not self._may_read(cost):
            return TensorRef(name, self.path, shape, view.dtype, strides, None, READ_TOO_OFTEN)
        if count:
            start += view.offset * itemsize
        nbytes = count * itemsize
        if isinstance(region, FileBytes):
            bytes_ = FileBytes(
                region.path, region.offset + start, nbytes, region.byteorder, region.checksum
            )
            return TensorRef(name, self.path, shape, view.dtype, strides, bytes_)
        if count:
            self.inflated.will_use(region, start, start + nbytes)
        place = partial(inflate, self.inflated, region, view.dtype, start, count)
        origin = region.offset, start
        return TensorRef(name, self.path, shape, view.dtype, strides, place, origin=origin)

    def _region(self, storage: Storage) -> Region:
        region = self.regions.get(storage.key)
        if region is None:
            region = self.regions[storage.key] = self.place(storage)
            if isinstance(region, FileBytes):
                self.readable += MOST_READ_AGAIN * region.nbytes
            else:
                self.readable += MOST_READ_AGAIN * region.packed + region.size
        return region

    def _inline(self, name: str, view: View, inline: Inline) -> TensorRef:
        """A NumPy array, whose bytes are in the pickle."""
        nbytes = DTYPES[view.dtype].itemsize
        extent = 1
        for size in view.shape:
            nbytes *= size
            extent *= max(size, 1)
        raw = inline.raw
        stored = raw.stop - raw.start if isinstance(raw, Blob) else 4 * len(raw)
        if id(raw) not in self.inline:
            self.inline[id(raw)] = len(self.inline)
            self.readable += MOST_READ_AGAIN * stored
        plain = isinstance(raw, Blob) and not inline.encoded
        if nbytes > stored or (plain and nbytes != stored):
            raise self._broken(name, f"should have {nbytes} bytes but has {stored}")
        place: FileBytes | Callable[[], NDArray[Any]] | None
        unreadable = ""
        if nbytes == 0 and extent > MOST_REPEATED:
            place, unreadable = None, "its shape is not one that NumPy can have"
        elif not self._may_read(nbytes):
            place, unreadable = None, READ_TOO_OFTEN
        elif isinstance(raw, Blob) and plain and not isinstance(self.data, bytes):
            place = FileBytes(self.path, raw.start, nbytes, inline.byteorder)
        else:
            data = self.data if isinstance(self.data, bytes) else self.path
            place = partial(_decoded, self.path, data, inline, view.dtype, nbytes)
        return TensorRef(
            name, self.path, view.shape, view.dtype, view.strides, place, unreadable,
            origin=(-1, self.inline[id(raw)]),  # the bytes have no place of their own
        )  # fmt: skip

    def _may_read(self, nbytes: int) -> bool:
        """Count the bytes of a tensor as it will be read; False where that is too much."""
        if nbytes > self.readable:
            return False
        self.readable -= nbytes
        return True

    def _broken(self, name: str, fact: str) -> CorruptFileError:
        return CorruptFileError(
            self.path,
            f"its tensor {quoted(name) or 'at the top'} {fact}; the file is damaged, so download or"
            " save it again.",
        )


def _decoded(
    path: Path, data: Path | bytes, inline: Inline, dtype: str, nbytes: int
) -> NDArray[Any]:
    """The elements of a NumPy array, as a flat array of the stored dtype.

    `data` is what the pickle was read from, the path where that was the file.
    """
    raw = inline.raw
    if isinstance(raw, str):
        # The strings of Python 2 were taken for UTF-8 where they could be.
        codec = "latin-1" if inline.encoded or len(raw) == nbytes else "utf-8"
        stored = raw.encode(codec, "replace")
    else:
        if isinstance(data, Path):
            with open_again(data) as file:
                stored = bytes(read_at(file, data, raw.start, raw.stop - raw.start))
        else:
            stored = data[raw.start : raw.stop]
        if inline.encoded:
            stored = stored.decode("utf-8", "replace").encode("latin-1", "replace")
    if len(stored) != nbytes:
        raise CorruptFileError(
            path,
            f"one of its NumPy arrays should have {nbytes} bytes but has {len(stored)}; it is"
            " damaged, so download or save it again.",
        )
    kind = np.dtype(DTYPES[dtype].stored).newbyteorder(inline.byteorder)
    return np.frombuffer(stored, kind) if stored else np.empty(0, kind)
