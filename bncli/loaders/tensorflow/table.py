"""The index of a TensorFlow checkpoint: a sorted table of keys and values, as LevelDB writes it.

A footer at the end of the file names a block of handles, and these the blocks of entries. A block
is entries whose keys leave out what they share with the one before, a list of restarts, a byte that
says how it is compressed, and a masked CRC-32C.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.crc32c import crc32c, unmasked
from bncli.files.reading import current
from bncli.loaders.interface import Source
from bncli.loaders.probes import varint

MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
FOOTER = 48
TRAILER = 5
"""The bytes behind a block: how it is compressed, and its checksum."""
LARGEST_BLOCK = 1 << 26
LONGEST_KEY = 1 << 12
MOST_ENTRIES = 200_000
"""Entries of a table, and so tensors of a checkpoint."""
SNAPPY = 1


class Entry(NamedTuple):
    """A key, and where in the file its value lies."""

    key: bytes
    start: int
    stop: int


def is_table(source: Source) -> bool:
    """Whether the file ends as a table does."""
    at = source.size - len(MAGIC)
    return at >= source.start and source.read(at, len(MAGIC)) == MAGIC


def entries(source: Source) -> Iterator[Entry]:
    """The entries of the table in the order of their keys, which differ.

    Raises CorruptFileError where the table contradicts itself or a checksum, UnsupportedFileError
    where its blocks are compressed or there are far too many entries.
    """
    if source.size - source.start < FOOTER or not is_table(source):
        raise corrupt(source)
    end = source.size - FOOTER
    footer = source.read(end, FOOTER)
    _, at = _handle(source, footer, 0)  # of a block of filters, which has none
    directory, _ = _handle(source, footer, at)
    last, reached, count = b"", source.start, 0
    for pointer in _block(source, directory, end):
        handle, _ = _handle(source, source.read(pointer.start, pointer.stop - pointer.start), 0)
        if handle[0] < reached:  # as blocks follow each other, none is read twice
            raise corrupt(source)
        reached = handle[0] + handle[1] + TRAILER
        for entry in _block(source, handle, end):
            count += 1
            if count > MOST_ENTRIES:
                raise UnsupportedFileError(
                    source.path,
                    f"its index has more than {MOST_ENTRIES} entries;"
                    " name the checkpoint that it was made from.",
                )
            if count > 1 and entry.key <= last:
                raise corrupt(source)
            last = entry.key
            yield entry


def corrupt(source: Source) -> CorruptFileError:
    """The error for bytes that are no such table."""
    return CorruptFileError(
        source.path,
        "the index of the TensorFlow checkpoint is damaged or cut short; download or save it"
        " again.",
    )


def _block(source: Source, handle: tuple[int, int], end: int) -> Iterator[Entry]:
    """The entries of a block that ends before `end`."""
    offset, size = handle
    if size < 4 or size > LARGEST_BLOCK or offset + size + TRAILER > end:
        raise corrupt(source)
    block = source.read(source.start + offset, size + TRAILER)
    compression = block[size]
    if compression == SNAPPY:
        raise UnsupportedFileError(
            source.path,
            "its index is compressed with snappy, which TensorFlow's own writer never does; restore"
            " the checkpoint with TensorFlow and save it again.",
        )
    stored = unmasked(int.from_bytes(block[size + 1 :], "little"))
    if compression or (current().checksum and crc32c(block[: size + 1]) != stored):
        raise corrupt(source)
    restarts = int.from_bytes(block[size - 4 : size], "little")
    stop = size - 4 * (restarts + 1)
    if stop < 0:
        raise corrupt(source)
    key, at = b"", 0
    while at < stop:
        shared, at = _varint(source, block, at)
        fresh, at = _varint(source, block, at)
        length, at = _varint(source, block, at)
        value = at + fresh
        if shared > len(key) or shared + fresh > LONGEST_KEY or value + length > stop:
            raise corrupt(source)
        key = key[:shared] + block[at:value]
        at = value + length
        yield Entry(key, source.start + offset + value, source.start + offset + at)


def _handle(source: Source, data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """The offset and the size of a block, and where their numbers end."""
    offset, at = _varint(source, data, at)
    size, at = _varint(source, data, at)
    return (offset, size), at


def _varint(source: Source, data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends."""
    value, end = varint(data, at)
    if value < 0:
        raise corrupt(source)
    return value, end
