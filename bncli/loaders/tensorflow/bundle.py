"""The tensors of a TensorFlow checkpoint: an index of entries, and shards with their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

from bncli.dtypes import DTYPES
from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.crc32c import unmasked
from bncli.files.file_bytes import Checksum, FileBytes
from bncli.files.reading import current
from bncli.light import dataclass
from bncli.loaders.beside import check_link, is_missing
from bncli.loaders.interface import Source, check_regular
from bncli.loaders.names import Text, listed, quoted
from bncli.loaders.npy import MOST_AXES, contiguous
from bncli.loaders.pieces import Box, assembled, check_tiling
from bncli.loaders.protobuf import BYTES, Field, Wire, signed
from bncli.loaders.tensorflow.slices import WHOLE, Extent, box_of, part_key
from bncli.loaders.tensorflow.table import corrupt, entries
from bncli.model import TensorRef

INDEX = ".index"
MOST_SHARDS = 100_000
STRING = 7
DTYPE_OF = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64",
    9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16",
    22: "uint32", 23: "uint64", 24: "float8_e5m2", 25: "float8_e4m3fn", 26: "float8_e4m3fnuz",
    28: "float8_e5m2fnuz",
}  # fmt: skip
"""The numbers of TensorFlow's DataType, as far as its tensors can be read."""
OTHER_DTYPES = {
    STRING: "string", 11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16",
    20: "resource", 21: "variant", 27: "float8_e4m3b11fnuz", 29: "int4", 30: "uint4",
}  # fmt: skip


@dataclass(slots=True)
class Stored:
    """What the index says of a tensor, or of one slice of a tensor."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int | None = None
    slices: list[tuple[Extent, ...]] = field(default_factory=list)


class Bundle:
    """The index of a checkpoint, read; `stored` has its entries by their keys.

    Raises CorruptFileError and UnsupportedFileError. The data files may be missing.
    """

    def __init__(self, source: Source) -> None:
        self.path = source.path
        self._source = source
        self._wire = Wire(source)
        self.stored: dict[bytes, Stored] = {}
        self.shards, self.byteorder = 1, "little"
        text = Text(self.path)
        for entry in entries(source):
            if entry.key:
                text.take(entry.key, 2)  # its tensor is called so, too
                self.stored[entry.key] = self._entry(entry.start, entry.stop)
            else:
                self._header(entry.start, entry.stop)

    def shard(self, number: int) -> Path:
        """The path of a data file."""
        name = self.path.name.removesuffix(INDEX)
        return self.path.with_name(f"{name}.data-{number:05d}-of-{self.shards:05d}")

    def sizes(self) -> dict[int, int]:
        """How long each data file is. Raises FileError for those that are missing."""
        used = sorted({stored.shard for stored in self.stored.values() if not stored.slices})
        if used and used[-1] >= self.shards:
            raise corrupt(self._source)
        missing = [path.name for path in map(self.shard, used) if is_missing(path)]
        if missing:
            several = len(missing) > 1
            raise FileError(
                self.path,
                f"its data file{'s' * several} {listed(missing)} {'are' if several else 'is'}"
                f" missing; put {'them' if several else 'it'} beside the index.",
            )
        found = {}
        for number in used:
            check_link(self.path, self.shard(number))
            check_regular(self.shard(number))
            found[number] = self.shard(number).stat().st_size
        return found

    def _header(self, start: int, stop: int) -> None:
        for each in self._wire.fields(start, stop):
            if each.number == 1 and each.wire == BYTES:
                raise UnsupportedFileError(
                    self.path,
                    "it is a TensorFlow checkpoint of version 1, which holds all in one file;"
                    " restore it with tf.compat.v1.train.Saver and save it again with"
                    " write_version=2.",
                )
            if each.number == 1:
                self.shards = each.value
            elif each.number == 2 and each.value == 1:
                self.byteorder = "big"
        if not 1 <= self.shards <= MOST_SHARDS:
            raise corrupt(self._source)

    def _entry(self, start: int, stop: int) -> Stored:
        stored = Stored()
        for each in self._wire.fields(start, stop):
            if each.number == 1:
                stored.dtype = each.value
            elif each.number == 2:
                stored.shape = tuple(self._sizes(each))
            elif each.number == 3:
                stored.shard = each.value
            elif each.number == 4:
                stored.offset = each.value
            elif each.number == 5:
                stored.size = each.value
            elif each.number == 6:
                stored.crc = unmasked(each.value)
            elif each.number == 7:
                stored.slices.append(tuple(self._extents(each)))
        return stored

    def _sizes(self, shape: Field) -> Iterator[int]:
        for axis in self._wire.fields(shape.start, shape.stop):
            if axis.number == 2:
                numbers = self._wire.fields(axis.start, axis.stop)
                size = next((signed(each.value) for each in numbers if each.number == 1), 0)
                if size < 0:
                    raise corrupt(self._source)
                yield size

    def _extents(self, part: Field) -> Iterator[Extent]:
        for extent in self._wire.fields(part.start, part.stop):
            if extent.number == 1:
                numbers = {
                    each.number: signed(each.value)
                    for each in self._wire.fields(extent.start, extent.stop)
                }
                yield Extent(numbers.get(1, 0), numbers.get(2, WHOLE))


def tensor_refs(bundle: Bundle, names: dict[bytes, str]) -> tuple[list[TensorRef], dict[str, str]]:
    """The tensors by those names, in the order of their bytes; and why some are none, by name.

    Raises FileError where data files are missing, and CorruptFileError where they are shorter than
    the index says or a tensor's size is not that of its shape.
    """
    sizes = bundle.sizes()
    placed: list[tuple[int, int, TensorRef]] = []
    skipped: dict[str, str] = {}
    for key, name in names.items():
        stored = bundle.stored[key]
        if stored.dtype == STRING:
            skipped[name] = "it holds texts"
            continue
        first, ref = _ref(bundle, sizes, name, key)
        placed.append((first.shard, first.offset, ref))
    placed.sort(key=lambda each: each[:2])
    return [ref for _, _, ref in placed], skipped


def _ref(bundle: Bundle, sizes: dict[int, int], name: str, key: bytes) -> tuple[Stored, TensorRef]:
    """A tensor, and what is stored of it or of its first slice."""
    stored = bundle.stored[key]
    numel = 1
    for size in stored.shape:
        numel *= size
        if numel >= 1 << 62:
            raise _corrupt(bundle, f"its tensor {quoted(name)} has an impossible shape")
    dtype = DTYPE_OF.get(stored.dtype)
    if dtype is None or len(stored.shape) > MOST_AXES:
        called = OTHER_DTYPES.get(stored.dtype, f"of number {stored.dtype}")
        why = f"the dtype {called} is not read"
        if dtype is not None:
            called, why = dtype, f"it has {len(stored.shape)} axes"
        return stored, TensorRef(
            name, bundle.path, stored.shape, called, contiguous(stored.shape), None, why
        )
    if stored.slices:
        return _from_parts(bundle, sizes, name, key)
    place = _place(bundle, sizes, name, stored)
    if place.nbytes != numel * DTYPES[dtype].itemsize:
        raise _corrupt(
            bundle,
            f"its tensor {quoted(name)} of {numel} elements cannot take {place.nbytes} bytes",
        )
    ref = TensorRef(name, place.path, stored.shape, dtype, contiguous(stored.shape), place)
    return stored, ref


def _place(bundle: Bundle, sizes: dict[int, int], name: str, stored: Stored) -> FileBytes:
    path = bundle.shard(stored.shard)
    if stored.offset + stored.size > sizes[stored.shard]:
        raise CorruptFileError(
            path,
            f"it ends at byte {sizes[stored.shard]} but should reach byte"
            f" {stored.offset + stored.size}; it is cut short or belongs to another index, so"
            " download or copy both again.",
        )
    checksum = None
    if stored.crc is not None and current().checksum:
        checksum = Checksum(name, stored.offset, stored.size, stored.crc, castagnoli=True)
    order: Literal["little", "big"] = "big" if bundle.byteorder == "big" else "little"
    return FileBytes(path, stored.offset, stored.size, order, checksum)


def _from_parts(
    bundle: Bundle, sizes: dict[int, int], name: str, key: bytes
) -> tuple[Stored, TensorRef]:
    """A tensor that is kept in parts, and what is stored of the first."""
    whole = bundle.stored[key]
    found: list[tuple[Box, Stored, TensorRef]] = []
    for extents in whole.slices:
        other = part_key(key, extents)
        stored, box = bundle.stored.get(other), box_of(extents, whole.shape)
        if stored is None or box is None or stored.slices or stored.dtype != whole.dtype:
            raise _corrupt(bundle, f"the parts of its tensor {quoted(name)} do not fit together")
        _, ref = _ref(bundle, sizes, name, other)
        if ref.shape != box.sizes:
            raise _corrupt(bundle, f"the parts of its tensor {quoted(name)} do not fit together")
        found.append((box, stored, ref))
    found.sort(key=lambda part: part[0].offsets)
    problem = check_tiling(whole.shape, [box for box, _, _ in found])
    # Bytes that several parts share could make a tensor far larger than the file.
    spans = sorted((stored.shard, stored.offset, stored.size) for _, stored, _ in found)
    if any(a == b and start + size > after for (a, start, size), (b, after, _) in pairwise(spans)):
        problem = problem or "lie over each other in the data file"
    if problem:
        raise _corrupt(bundle, f"the parts of its tensor {quoted(name)} {problem}")
    first, ref = found[0][1:]
    ref = TensorRef(name, ref.path, whole.shape, ref.dtype, contiguous(whole.shape), None)
    parts = tuple((box, part) for box, _, part in found)
    return first, replace(ref, storage=partial(assembled, ref, parts))


def _corrupt(bundle: Bundle, fact: str) -> CorruptFileError:
    return CorruptFileError(
        bundle.path, f"{fact}; the TensorFlow checkpoint is damaged, so download or save it again."
    )
