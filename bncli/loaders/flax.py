"""Flax's files: MessagePack, in which every array is an extension with its shape, dtype and bytes.

They are read without the msgpack package, which would hold all arrays in memory.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import read_into
from bncli.light import dataclass, np
from bncli.loaders import jax_trees
from bncli.loaders.interface import Source
from bncli.loaders.msgpack_marks import (
    EXTENSION,
    LIST,
    LONGEST_TEXT,
    MAP,
    NUMBER,
    TEXT,
    TRUE,
    Marks,
)
from bncli.loaders.names import Text, quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.probes import is_msgpack
from bncli.model import TensorFile, TensorRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTAINER = "flax-msgpack"
DEEPEST = 100
"""How many maps and lists may lie in each other."""
ARRAY, SCALAR = 1, 3
"""Flax's types of extensions with (shape, name of the dtype, bytes)."""
CHUNKED = "__msgpack_chunked_array__"
"""The key that makes a map one array of more than 1 GB: its "shape", and its parts as "chunks"."""


def detect(source: Source) -> bool:
    """Whether the file is a map of MessagePack with a text for its first key."""
    return is_msgpack(source)


def open_tensors(source: Source) -> TensorFile:
    """The arrays by the keys on the way to them, joined by "/".

    Raises UnsupportedFileError for MessagePack without arrays as Flax writes them.
    """
    tree = _Tree(source)
    tree.read("", 0)
    if tree.marks.at != source.size:
        raise tree.marks.corrupt()
    if not tree.arrays:
        raise UnsupportedFileError(
            source.path,
            "it is a MessagePack file without arrays as Flax writes them; load it where it was"
            " made and save its arrays with np.savez.",
        )
    tensors = {name: array.ref(name, source) for name, array in tree.arrays.items()}
    tensors, layers, modules = jax_trees.unstacked(tensors)
    return TensorFile(source.path, CONTAINER, tensors, modules, layers=layers)


@dataclass(frozen=True, slots=True)
class _Array:
    """An array by its description; each part of its bytes is a place in the file and a length."""

    shape: tuple[int, ...]
    dtype: str
    parts: tuple[tuple[int, int], ...]

    @property
    def numel(self) -> int:
        """The number of elements."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    def ref(self, name: str, source: Source) -> TensorRef:
        """The same as a tensor, held against the number of its bytes."""
        path, strides = source.path, contiguous(self.shape)
        known = DTYPES.get(self.dtype)
        if known is None:
            why = f"the dtype {quoted(self.dtype)} is not read"
            return TensorRef(name, path, self.shape, self.dtype, strides, None, why)
        nbytes = sum(count for _, count in self.parts)
        if nbytes != self.numel * known.itemsize:
            raise CorruptFileError(
                path,
                f"its array {quoted(name)} of shape {self.shape} in {self.dtype} cannot take"
                f" {nbytes} bytes; it is damaged, so download or save it again.",
            )
        places = [FileBytes(path, *part) for part in self.parts]
        if len(places) == 1:
            return TensorRef(name, path, self.shape, self.dtype, strides, places[0])
        joined = partial(_joined, places, known.stored)
        return TensorRef(name, path, self.shape, self.dtype, strides, joined)


def _joined(places: list[FileBytes], stored: str) -> NDArray[Any]:
    """The elements of an array that lies in parts."""
    dtype = np.dtype(stored).newbyteorder("<")
    flat = np.empty(sum(place.nbytes for place in places) // dtype.itemsize, dtype)
    rest = flat.view(np.uint8).data
    for place in places:
        with place.opened() as file:
            read_into(file, place.path, place.offset, rest[: place.nbytes])
        rest = rest[place.nbytes :]
    return flat


class _Tree:
    """The arrays of a file by name; `sizes` and `chunked` are what is known of those in parts."""

    def __init__(self, source: Source) -> None:
        self.marks = Marks(source)
        self._text = Text(source.path)
        self.arrays: dict[str, _Array] = {}
        self.sizes: dict[str, int] = {}
        self.chunked = False

    def read(self, name: str, depth: int) -> None:
        """Read one value, and all that is in it."""
        marks = self.marks
        if depth > DEEPEST or len(name) > LONGEST_TEXT:
            raise marks.corrupt()
        kind, count = marks.mark()
        if kind == MAP:
            chunked = False
            for _ in range(count):
                key = self._key()
                self.read(f"{name}/{key}" if name else key, depth + 1)
                chunked |= key == CHUNKED
            if chunked:
                self._join(name)
        elif kind == LIST:
            for number in range(count):
                self.read(f"{name}/{number}" if name else str(number), depth + 1)
        elif kind == EXTENSION:
            self._extension(name, count)
        elif kind == NUMBER:
            if "shape/" in name:
                self._text.take(name)
                self.sizes[name] = count
        elif kind != TRUE:
            marks.skip(count)

    def _key(self) -> str:
        mark = self.marks.mark(TEXT, NUMBER)
        return str(mark.size) if mark.kind == NUMBER else self.marks.text(mark)

    def _extension(self, name: str, nbytes: int) -> None:
        """Read an extension of so many bytes behind its type; others than arrays are passed."""
        marks = self.marks
        kind = marks.take(1)[0]
        begin = marks.at
        end = marks.skip(nbytes)
        if kind in (ARRAY, SCALAR):
            marks.at = begin
            _, three = marks.mark(LIST)
            _, axes = marks.mark(LIST)
            if three != 3 or axes > MOST_AXES or name in self.arrays:
                raise marks.corrupt()
            self._text.take(name)
            shape = tuple(marks.mark(NUMBER).size for _ in range(axes))
            dtype = marks.text(marks.mark(TEXT))
            _, count = marks.mark(TEXT)
            self.arrays[name] = _Array(shape, dtype, ((marks.at, count),))
            if marks.skip(count) != end:
                raise marks.corrupt()

    def _join(self, name: str) -> None:
        """Make the parts of an array one array under the name of their map."""
        begin = f"{name}/" if name else ""
        shape: list[int] = []
        parts: list[_Array] = []
        while (size := self.sizes.pop(f"{begin}shape/{len(shape)}", None)) is not None:
            shape.append(size)
        while (part := self.arrays.pop(f"{begin}chunks/{len(parts)}", None)) is not None:
            parts.append(part)
        if not parts or len(shape) > MOST_AXES or len({part.dtype for part in parts}) > 1:
            raise self.marks.corrupt()
        places = tuple(place for part in parts for place in part.parts)
        self.arrays[name] = replace(parts[0], shape=tuple(shape), parts=places)
