"""Datasets that are kept in chunks, each compressed by itself: put together when they are read.

The HDF5 library tells where the chunks are, and unpacks none: its filters take whatever memory a
chunk asks for, and may be programs that are found on the machine.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from bncli.errors import FileError, UnsupportedFileError
from bncli.light import dataclass, np
from bncli.loaders.hdf5.region import Region, opened
from bncli.loaders.names import quoted
from bncli.loaders.zip_archive import BOMB_RATIO, BOMB_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
FILTERS = {DEFLATE: "deflate", SHUFFLE: "shuffle", FLETCHER32: "fletcher32"}
OTHER_FILTERS = {4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "LZF", 32001: "Blosc"}

MOST_CHUNKS = 1 << 18
MOST_ASKED = 1 << 12
"""Of chunks, and where the library has to be asked for each by its number."""


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
                for begins, mask, offset, size in self._stored(dataset):
                    if offset is None or offset + size > self.region.size:
                        raise self._corrupt()
                    self._place(whole, begins, read(offset, size), mask)
        except MemoryError:
            raise FileError(self.region.path, "there is not enough memory to read it.") from None
        return whole.reshape(-1)

    def _stored(self, dataset: Any) -> list[Any]:
        """Where its chunks begin, the filters each left out, and its place and size in the file.

        The library walks its index once for `chunk_iter`, which HDF5 has from 1.12.3 on, and from
        its beginning for each number that `get_chunk_info` is asked for.
        """
        count = dataset.get_num_chunks()
        walks = hasattr(dataset, "chunk_iter")
        if count > (MOST_CHUNKS if walks else MOST_ASKED):
            raise UnsupportedFileError(
                self.region.path,
                f"{quoted(self.name.decode())} is in {count:,} chunks; save it in fewer, or whole.",
            )
        places = (-(-n // m) for n, m in zip(self.shape, self.chunk, strict=True))
        if count > _product(tuple(places)):
            raise self._corrupt()
        if not walks:
            return [tuple(dataset.get_chunk_info(number)) for number in range(count)]
        stored: list[Any] = []
        dataset.chunk_iter(lambda chunk: stored.append(tuple(chunk)))
        return stored

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
        return self.region.corrupt(f"a chunk of {quoted(self.name.decode())} is not as it says")


def _product(sizes: tuple[int, ...]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product
