"""A stored tensor's elements in their order, block by block, and their checksum."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack

from bncli.dtypes import DTYPES
from bncli.files.file_bytes import Checksum, FileBytes
from bncli.files.reading import read_into
from bncli.light import np
from bncli.loaders.npy import contiguous
from bncli.model import TensorRef

BLOCK = 1 << 21
"""Bytes of a tensor that are in memory at once."""


def is_dense(ref: TensorRef) -> bool:
    """Whether the elements lie side by side, each once, in whatever order of the axes."""
    step = 1
    for stride, size in sorted(zip(ref.strides, ref.shape, strict=True)):
        if size > 1:
            if stride != step:
                return False
            step *= size
    return ref.numel > 0


def covering(ref: TensorRef) -> Checksum | None:
    """The CRC-32 that the file keeps of exactly the tensor's bytes, as they lie; None for none.

    It is that of the elements in their order where their strides are `contiguous`.
    """
    place = ref.storage
    if not isinstance(place, FileBytes) or place.checksum is None or not is_dense(ref):
        return None
    if place.checksum.castagnoli:
        return None
    nbytes = ref.numel * DTYPES[ref.dtype].itemsize
    return place.checksum if place.checksum.nbytes == nbytes else None


def crc_of_ref(ref: TensorRef) -> int:
    """The CRC-32 of a stored tensor's elements, in their order, little-endian as in memory.

    Nothing is read where the file's directory says it. Raises TensorError where they cannot be had,
    CorruptFileError where those that are read are not what was written, and FileError where the
    file has changed.
    """
    place = ref.storage
    if ref.numel and isinstance(place, FileBytes):
        itemsize = DTYPES[ref.dtype].itemsize
        plain = ref.strides == contiguous(ref.shape)
        if plain and (place.byteorder == "little" or itemsize == 1):
            known = covering(ref)
            if known is not None:
                return known.crc
            return _crc_of_bytes(place, ref.numel * itemsize)
    crc = 0
    for block in _blocks(ref):
        crc = zlib.crc32(block, crc)
    return crc


def _crc_of_bytes(place: FileBytes, nbytes: int) -> int:
    """The CRC-32 of bytes in a file, which are read."""
    crc, buffer = 0, memoryview(bytearray(min(BLOCK, nbytes)))
    with place.opened() as file:
        place.check(file)
        for at in range(0, nbytes, BLOCK):
            piece = buffer[: min(BLOCK, nbytes - at)]
            read_into(file, place.path, place.offset + at, piece)
            crc = zlib.crc32(piece, crc)
    return crc


def _blocks(ref: TensorRef) -> Iterator[memoryview]:
    """The bytes of the elements in order, little-endian, block by block along the first axis."""
    with ExitStack() as stack:
        stored = ref.stored_reader(stack)
        if not ref.numel:
            return
        rows = ref.shape[0] if ref.ndim else 1
        row = ref.numel // rows * DTYPES[ref.dtype].itemsize
        step = max(1, BLOCK // row)
        for start in range(0, rows, step):
            block = stored((slice(start, min(start + step, rows)),) if ref.ndim else ())
            little = block.astype(block.dtype.newbyteorder("<"), order="C", copy=False)
            yield np.ascontiguousarray(little).reshape(-1).view(np.uint8).data
