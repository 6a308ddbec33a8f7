"""Checksums of all tensors that belong together: of a model's, and of those in a checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import read_into
from bncli.gate.places import names_of
from bncli.light import np
from bncli.live.parts import COUNTER
from bncli.loaders.npy import contiguous

if TYPE_CHECKING:
    from bncli.model import TensorRef

RUNNING = frozenset({"running_mean", "running_var", COUNTER})
"""What a BatchNorm layer estimates while the model is trained."""
BLOCK = 1 << 21
"""Bytes of a tensor that are in memory at once."""


def fingerprint_of(refs: Mapping[str, TensorRef]) -> dict[str, str]:
    """The sums of a checkpoint's tensors as they are stored, by name; as `summed` gives them.

    They are the sums of a model with these tensors: of the same names but for wrappers, the same
    dtypes, and with a tensor that has two names under both. A tensor whose own checksum is in the
    file's directory is not read; another is read once, in blocks. Raises TensorError where the
    values of one cannot be had, and FileError.
    """
    return summed({name: crc_of_ref(ref) for name, ref in refs.items()})


def summed(crcs: Mapping[str, int]) -> dict[str, str]:
    """The CRC-32 sums of tensors by name as two, each of 8 hexadecimal digits.

    `running_statistics` is of running_mean, running_var and num_batches_tracked of the layers that
    have them, `weights` of all other tensors. Each is the sum of the lines "name crc" with the
    tensor's own sum, ordered by the names without wrappers, so that the order of the layers and a
    wrapper do not matter.
    """
    bare = names_of(tuple(crcs)).bare
    sums: dict[str, list[str]] = {"weights": [], "running_statistics": []}
    for name, crc in crcs.items():
        place = bare(name).replace("/", ".")
        which = "running_statistics" if place.rpartition(".")[2] in RUNNING else "weights"
        sums[which].append(f"{place} {crc:08x}\n")
    return {
        which: f"{zlib.crc32(''.join(sorted(lines)).encode()):08x}" for which, lines in sums.items()
    }


def crc_of_ref(ref: TensorRef) -> int:
    """The CRC-32 of a stored tensor's elements, in their order, little-endian as in memory.

    Raises TensorError where they cannot be had, CorruptFileError where those that are read are not
    what was written, and FileError where the file has changed.
    """
    place = ref.storage
    if ref.numel and isinstance(place, FileBytes):
        itemsize = DTYPES[ref.dtype].itemsize
        plain = ref.strides == contiguous(ref.shape)
        if plain and (place.byteorder == "little" or itemsize == 1):
            return _crc_of_bytes(place, ref.numel * itemsize)
    crc = 0
    for block in _blocks(ref):
        crc = zlib.crc32(block, crc)
    return crc


def _crc_of_bytes(place: FileBytes, nbytes: int) -> int:
    """The CRC-32 of bytes in a file; nothing is read where the file's directory says it."""
    known = place.checksum
    if known is not None and known.nbytes == nbytes:  # they are all of the member
        return known.crc
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
