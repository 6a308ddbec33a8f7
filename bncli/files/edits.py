"""A file with some of its bytes replaced, written as a new one, and held against the old one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple

from bncli.errors import CorruptFileError, FileError
from bncli.files.reading import CHANGED, Reading, open_again, read_into
from bncli.files.save import replacing

STRIDE = 1 << 24
"""Bytes that the system copies before a signal is heeded."""
CHUNK = 1 << 18
"""Bytes that are read at once; they stay in the processor's cache until they are used."""


FICLONE = 0x40049409
"""The request's number on most processors; Python knows it from 3.13 on."""


class Edit(NamedTuple):
    """Bytes that take the place of those from `offset` on; a file keeps its length."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset of the first byte that stays."""
        return self.offset + len(self.data)


def write_edited(source: Path, target: Path, edits: Sequence[Edit], *, force: bool = False) -> None:
    """Write `source` to `target` with these bytes replaced.

    Until all of it is written it has another name beside `target`. A file that is there already
    is replaced with `force` alone, and one that this call read never. Raises FileError where that
    is so, where `target` cannot be written, and where `source` changes meanwhile; ValueError for
    edits that overlap.
    """
    edits = _in_order(edits)
    with open_again(source) as file:
        before = os.fstat(file.fileno())
        _check_inside(source, edits, before.st_size)
        if Reading(identities={(before.st_dev, before.st_ino)}).has_read(target):
            raise FileError(target, f"it is the same file as {source}; name another file.")
        # A new file that is lost with the power can be written again from its source, which is
        # still there. The wait for the disk, which takes longer than the copy, is for the file
        # that is replaced.
        with replacing(target, new=not force, mode=before.st_mode, sync=force) as stream:
            _copy(file, source, stream, before.st_size)
            for edit in edits:
                stream.seek(edit.offset)
                stream.write(edit.data)
            after = os.fstat(file.fileno())
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise CorruptFileError(source, CHANGED)


def check_edited(source: Path, target: Path, edits: Sequence[Edit]) -> None:
    """Raise FileError unless `target` is `source` with exactly these bytes replaced.

    Both are read once. The sentence names the first byte that differs.
    """
    edits = _in_order(edits)
    with open_again(source) as old, open_again(target) as new:
        size, found = (os.fstat(file.fileno()).st_size for file in (old, new))
        _check_inside(source, edits, size)
        if size != found:
            raise FileError(
                target,
                f"it has {found} bytes, and {source} has {size}; delete it and run again.",
            )
        waiting = iter(edits)
        edit = next(waiting, None)
        expected, read = bytearray(CHUNK), bytearray(CHUNK)
        for start in range(0, size, CHUNK):
            if size - start < CHUNK:
                expected, read = (bytearray(size - start) for _ in range(2))
            stop = start + len(read)
            read_into(old, source, start, memoryview(expected))
            read_into(new, target, start, memoryview(read))
            while edit is not None and edit.offset < stop:
                first, last = max(edit.offset, start), min(edit.end, stop)
                expected[first - start : last - start] = edit.data[
                    first - edit.offset : last - edit.offset
                ]
                if edit.end > stop:
                    break
                edit = next(waiting, None)
            if read != expected:
                at = next(i for i in range(len(read)) if read[i] != expected[i])
                raise _unlike(source, target, edits, start + at)


def _unlike(source: Path, target: Path, edits: Sequence[Edit], at: int) -> FileError:
    """The error for a byte that is not what was to be written."""
    if any(edit.offset <= at < edit.end for edit in edits):
        problem = f"its byte {at} does not have the new value"
    else:
        problem = f"its byte {at} differs from that of {source}, which was to stay"
    return FileError(target, f"{problem}; delete it and run again.")


def _in_order(edits: Sequence[Edit]) -> list[Edit]:
    """The edits by their places; raises ValueError where two of them overlap."""
    ordered = sorted(edit for edit in edits if edit.data)
    end = 0
    for edit in ordered:
        if edit.offset < end:
            raise ValueError(f"the edit at {edit.offset} begins before {end}")
        end = edit.end
    return ordered


def _check_inside(path: Path, edits: Sequence[Edit], size: int) -> None:
    """Raise CorruptFileError where an edit lies past the end, which it did not when it was made."""
    if edits and edits[-1].end > size:
        raise CorruptFileError(path, CHANGED)


def _copy(file: FileIO, path: Path, stream: IO[bytes], size: int) -> None:
    """Fill the empty file of `stream` with `size` bytes of `file`, by the fastest way there is.

    Each way goes on where the last one stopped, for whatever reason; the one that always works
    is the one that says why it does not. Raises CorruptFileError where `file` is shorter.
    """
    if _clone(file.fileno(), stream.fileno()):
        return
    at = 0
    for move in (_by_range, _by_send):
        with suppress(OSError):  # not between these two files
            for count in move(file.fileno(), stream.fileno(), at, size):
                at += count
    stream.seek(at)
    buffer = memoryview(bytearray(CHUNK))
    while at < size:
        piece = buffer[: min(CHUNK, size - at)]
        read_into(file, path, at, piece)
        stream.write(piece)
        at += len(piece)


def _clone(source: int, target: int) -> bool:
    """Let the two files share their blocks until one of them is written to; whether they do."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, getattr(fcntl, "FICLONE", FICLONE), source)
    except OSError:
        return False
    return True


def _by_range(source: int, target: int, at: int, size: int) -> Iterator[int]:
    """The counts of bytes that the file system copies, on a server's disk without the network."""
    if not hasattr(os, "copy_file_range"):
        return
    while at < size and (
        count := os.copy_file_range(source, target, min(STRIDE, size - at), at, at)
    ):
        yield count
        at += count


def _by_send(source: int, target: int, at: int, size: int) -> Iterator[int]:
    """The counts of bytes that the kernel copies from one file system to another."""
    if not hasattr(os, "sendfile"):
        return
    os.lseek(target, at, os.SEEK_SET)
    while at < size and (count := os.sendfile(target, source, at, min(STRIDE, size - at))):
        yield count
        at += count
