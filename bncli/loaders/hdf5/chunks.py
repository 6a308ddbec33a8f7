"""Datasets that are kept in chunks, each compressed by itself: put together when they are read.

The HDF5 library tells where the chunks are, and unpacks none: its filters take whatever memory a
chunk asks for, and may be programs that are found on the machine.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError
from bncli.light import dataclass, np
from bncli.loaders.hdf5.region import Region, opened
from bncli.loaders.zip_archive import BOMB_RATIO, BOMB_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
FILTERS = {DEFLATE: "deflate", SHUFFLE: "shuffle", FLETCHER32: "fletcher32"}
OTHER_FILTERS = {4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "LZF", 32001: "Blosc"}


@dataclass(frozen=True, slots=True)
class Chunked:
    """A dataset in chunks: of `shape`, in chunks of `chunk`, packed by `filters` in this order."""

    region: Region
    name: bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    filters: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of all its elements."""
        return _product(self.shape) * self.dtype.itemsize

    def problem(self, stored: int) -> str:
        """Why it is not read, from the `stored` bytes that it takes in the file; "" if it is."""
        for code in self.filters:
            if code not in FILTERS:
                how = OTHER_FILTERS.get(code, f"the HDF5 filter {code}")
                return f"it is compressed by {how}, which is not read"
        if len(self.chunk) != len(self.shape) or 0 in self.chunk:
            return "its chunks do not have its axes"
        chunk = _product(self.chunk) * self.dtype.itemsize
        most = max(BOMB_SIZE, BOMB_RATIO * stored)
        if chunk > max(1 << 20, 8 * self.nbytes) or max(chunk, self.nbytes) > most:
            return f"its {stored} stored bytes cannot be its {self.nbytes} bytes of values"
        return ""

    def read(self) -> NDArray[Any]:
        """All of its elements, flat. Raises CorruptFileError where a chunk is damaged."""
        try:
            whole = np.empty(self.shape, self.dtype)
            with opened(self.region) as file, self.region.reader() as read:
                dataset = file[self.name].id
                fill = np.zeros((), self.dtype)
                dataset.get_create_plist().get_fill_value(fill)
                whole[...] = fill
                count = dataset.get_num_chunks()
                if count > _product(
                    tuple(-(-n // m) for n, m in zip(self.shape, self.chunk, strict=True))
                ):
                    raise self._corrupt()
                for number in range(count):
                    info = dataset.get_chunk_info(number)
                    offset, size = info.byte_offset, info.size
                    if offset is None or offset + size > self.region.size:
                        raise self._corrupt()
                    self._place(whole, info.chunk_offset, read(offset, size), info.filter_mask)
        except MemoryError:
            raise FileError(self.region.path, "there is not enough memory to read it.") from None
        return whole.reshape(-1)

    def _place(
        self, whole: NDArray[Any], begins: tuple[int, ...], packed: bytes, mask: int
    ) -> None:
        values = np.frombuffer(self._unpacked(packed, mask), self.dtype).reshape(self.chunk)
        if any(begin >= size for begin, size in zip(begins, self.shape, strict=True)):
            raise self._corrupt()
        block = tuple(
            slice(begin, min(begin + step, size))
            for begin, step, size in zip(begins, self.chunk, self.shape, strict=True)
        )
        whole[block] = values[tuple(slice(each.stop - each.start) for each in block)]

    def _unpacked(self, packed: bytes, mask: int) -> bytes:
        """The bytes of a chunk; a bit of the mask is set for a filter that was left out."""
        size = _product(self.chunk) * self.dtype.itemsize
        for number, code in reversed(list(enumerate(self.filters))):
            if mask >> number & 1:
                continue
            if code == FLETCHER32:
                packed = packed[:-4]
            elif code == DEFLATE:
                inflater = zlib.decompressobj()
                try:
                    # Four bytes more where the checksum is inside.
                    packed = inflater.decompress(packed, size + 4)
                except zlib.error:
                    raise self._corrupt() from None
            elif len(packed) == size:
                parts = np.frombuffer(packed, np.uint8).reshape(self.dtype.itemsize, -1)
                packed = parts.T.tobytes()
        if len(packed) != size:
            raise self._corrupt()
        return packed

    def _corrupt(self) -> FileError:
        from bncli.loaders.names import quoted

        return self.region.corrupt(f"a chunk of {quoted(self.name.decode())} is not as it says")


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
