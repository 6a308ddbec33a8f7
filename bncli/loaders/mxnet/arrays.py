"""A list of MXNet's arrays: for each its shape, its dtype and its bytes, and then their names."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders.interface import Source
from bncli.loaders.names import Text, quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.model import TensorRef

MAGIC = struct.pack("<2Q", 0x112, 0)
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
"""Versions of an array: sizes of 64 bits, storage types, shapes as NumPy has them. What has none
of them begins with its number of axes, and has sizes of 32 bits."""
SPARSE = {1: 1, 2: 2}
"""How many arrays of indices a storage type has: by rows, and compressed rows."""
FLAGS = (
    "float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool", "int16", "uint16",
    "uint32", "uint64", "bfloat16",
)  # fmt: skip
"""The dtypes by their numbers."""
MOST_ARRAYS = 100_000
LONGEST_NAME = 4_096
WINDOW = 1 << 16
"""Bytes of a file that are in memory at a time."""


def read_arrays(source: Source) -> tuple[dict[str, TensorRef], dict[str, str]]:
    """The arrays by name, numbered where the file has no names; those without values, and why.

    Raises CorruptFileError, and UnsupportedFileError for a dtype that is not known.
    """
    reader = _Reader(source)
    count = reader.count()
    arrays = [reader.array() for _ in range(count)]
    names = list(reader.names())
    names = names or [str(number) for number in range(count)]
    if len(set(names)) != count or len(names) != count or reader.at != source.size:
        raise reader.corrupt("its arrays and their names do not fit together")
    tensors: dict[str, TensorRef] = {}
    skipped: dict[str, str] = {}
    for name, array in zip(names, arrays, strict=True):
        if array is None:
            skipped[name] = "it has no values"
            continue
        shape, dtype, place = array
        why = "" if place is not None else "it is sparse"
        tensors[name] = TensorRef(name, source.path, shape, dtype, contiguous(shape), place, why)
    return tensors, skipped


_Array = tuple[tuple[int, ...], str, FileBytes | None]
"""Its shape, its dtype and its bytes, None for a sparse one."""


class _Reader:
    """The position in the file; the methods raise CorruptFileError where it is damaged."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window, self._base = b"", 0
        self.at = source.start + len(MAGIC)

    def corrupt(self, fact: str) -> CorruptFileError:
        """The error for a fact."""
        return CorruptFileError(
            self._source.path, f"{fact}; it is damaged or cut short, so download or save it again."
        )

    def skip(self, count: int) -> int:
        """Go on behind the next `count` bytes; where they began."""
        begin = self.at
        if count > self._source.size - begin:
            raise self.corrupt(f"it ends before byte {begin + count}, to which it should reach")
        self.at = begin + count
        return begin

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """The next little-endian numbers or bytes, whose widths `layout` has as struct does."""
        width = struct.calcsize(f"<{layout}")
        begin = self.skip(width)
        if begin < self._base or self.at > self._base + len(self._window):
            self._window, self._base = self._source.window(begin, width, WINDOW), begin
        return struct.unpack_from(f"<{layout}", self._window, begin - self._base)

    def count(self) -> int:
        """The next number, which counts things of at least 4 bytes each."""
        count: int = self.numbers("Q")[0]
        if count > (self._source.size - self.at) // 4:
            raise self.corrupt(f"it should hold {count} arrays or names")
        if count > MOST_ARRAYS:
            raise UnsupportedFileError(
                self._source.path,
                f"it holds {count} arrays, and at most {MOST_ARRAYS} are read; save those of the"
                " model alone.",
            )
        return count

    def names(self) -> Iterator[str]:
        """The names, behind their number."""
        text = Text(self._source.path)
        for _ in range(self.count()):
            name = self._name()
            text.take(name)
            yield name

    def _name(self) -> str:
        (length,) = self.numbers("Q")
        if length > LONGEST_NAME:
            raise self.corrupt(f"one of its names should have {length} bytes")
        raw: bytes = self.numbers(f"{length}s")[0]
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.corrupt("one of its names is not text") from None

    def shape(self, letter: str = "q", axes: int | None = None) -> tuple[int, ...]:
        """The next shape, its number of axes first unless that is known."""
        if axes is None:
            (axes,) = self.numbers("I")
        if axes > MOST_AXES:
            raise self.corrupt(f"one of its arrays should have {axes} axes")
        sizes = self.numbers(f"{axes}{letter}")
        if min(sizes, default=0) < 0 or prod(sizes) >= 1 << 60:
            raise self.corrupt(f"one of its arrays should have the shape {sizes}")
        return sizes

    def dtype(self) -> str:
        """The next dtype."""
        (flag,) = self.numbers("I")
        if flag >= len(FLAGS):
            raise UnsupportedFileError(
                self._source.path,
                f"one of its arrays has the dtype {quoted(str(flag))} of MXNet, which is not read.",
            )
        return FLAGS[flag]

    def array(self) -> _Array | None:
        """The next array; None for one without a shape and values."""
        (magic,) = self.numbers("I")
        kind = 0
        stored: tuple[int, ...] | None = None
        if magic in {V2, V3}:
            (kind,) = self.numbers("I")
            if kind in SPARSE:
                stored = self.shape()
            elif kind:
                raise self.corrupt(f"one of its arrays is stored in the way {kind}")
            (axes,) = self.numbers("I")
            if axes == (0 if magic == V2 else 0xFFFF_FFFF):
                return None
            shape = self.shape(axes=axes)
        else:
            shape = self.shape() if magic == V1 else self.shape("I", magic)
            if not shape:
                return None
        self.numbers("2I")  # the device
        dtype = self.dtype()
        indices = [(self.dtype(), self.shape()) for _ in range(SPARSE.get(kind, 0))]
        nbytes = prod(shape if stored is None else stored) * DTYPES[dtype].itemsize
        begin = self.skip(nbytes)
        for each, sizes in indices:
            self.skip(prod(sizes) * DTYPES[each].itemsize)
        place = FileBytes(self._source.path, begin, nbytes) if stored is None else None
        return shape, dtype, place
