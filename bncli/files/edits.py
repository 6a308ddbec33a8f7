"""A file with some of its bytes replaced, written as a new one, and held against the old one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple

from bncli.errors import CorruptFileError, FileError
from bncli.files.reading import CHANGED, Reading, check_same, open_again, read_into
from bncli.files.save import new_folder, replacing

STRIDE = 1 << 24
"""Bytes that the system copies before a signal is heeded."""
CHUNK = 1 << 16
"""Bytes that are read at once; they stay in the processor's cache until they are used.

From 128 KiB on a buffer begins 16 bytes into a page of its own (as glibc's malloc gives it), and
such a one takes some processors (AMD's Zen 3) five times as long to fill.
"""
SMALL = 1 << 20
"""A file of up to this many bytes, such as an index, is copied: it may be edited in its place."""
FICLONE = 0x40049409
"""The number of the request for a clone on most processors, for a Python that does not have it."""


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
    is so, where `target` cannot be written, and where `source` changes meanwhile or has changed
    since this call opened it first; ValueError for edits that overlap.
    """
    edits = _in_order(edits)
    with open_again(source) as file:
        before = os.fstat(file.fileno())
        check_same(source, before)
        _check_inside(source, edits, before.st_size)
        if Reading(identities={(before.st_dev, before.st_ino)}).has_read(target):
            raise FileError(target, f"it is the same file as {source}; name another file.")
        # A new file that a power failure spoils can be written again, as its source is still
        # there. Only a file that is replaced would be lost, so only then is the disk waited for,
        # which takes longer than the copy (2.3 GB on a fast disk: 1 s after 0.7 s).
        with replacing(target, new=not force, mode=before.st_mode, sync=force) as stream:
            _copy(file, source, stream, before.st_size)
            for edit in edits:
                stream.seek(edit.offset)
                stream.write(edit.data)
            after = os.fstat(file.fileno())
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise CorruptFileError(source, CHANGED)


class WrittenModel(NamedTuple):
    """The files of a model in a new folder: old path -> new path.

    `edited` have new bytes, `copied` are files of their own with the old ones, and `linked` are
    the old files under another name: what is written into one of them is in both folders.
    """

    edited: dict[Path, Path]
    linked: dict[Path, Path]
    copied: dict[Path, Path]


def write_model(
    folder: Path, files: Mapping[Path, Sequence[Edit]], whole: Sequence[Path]
) -> WrittenModel:
    """Make `folder` hold `files`, each with its edits, and those of `whole` as they are.

    They keep the places that they have below the folder that they share. Nothing is written for a
    large file that stays as it is, if the file system can spare it: it is cloned, so that both
    folders are independent, or else linked. `folder` gets its name once all of it is there.
    Raises FileError as `write_edited`, and where `folder` is there already with anything in it;
    ValueError for a file that is named twice.
    """
    edits = {path: _in_order(files.get(path, ())) for path in (*files, *whole)}
    places = {path: Path(os.path.abspath(path)) for path in edits}  # noqa: PTH100  # no link followed
    if len({*places.values()}) < len(files) + len(whole):
        raise ValueError("a file is named twice")
    shared = os.path.commonpath([place.parent for place in places.values()])
    written = WrittenModel({}, {}, {})
    with new_folder(folder) as made:
        for path, place in places.items():
            name = place.relative_to(shared)
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            if edits[path]:
                done = written.edited
                write_edited(path, made / name, edits[path])
            elif _link(path, made / name):
                done = written.linked
            else:
                done = written.copied
                write_edited(path, made / name, ())
            done[path] = folder / name
    return written


def _link(path: Path, target: Path) -> bool:
    """Give a file another name where a copy of it would have to be written; whether it has it."""
    file = Path(os.path.realpath(path))  # where the download's folder has a link
    try:
        check_same(path, file.stat())
        if file.stat().st_size <= SMALL or _can_clone(path, target.parent):
            return False
        target.hardlink_to(file)
    except OSError:  # another file system, one without links, a file of another user
        return False
    return True


def _can_clone(path: Path, folder: Path) -> bool:
    """Whether a copy of the file in that folder can share its blocks."""
    from tempfile import TemporaryFile

    with open_again(path) as file, TemporaryFile(dir=folder) as target:
        return _clone(file.fileno(), target.fileno())


def check_edited(source: Path, target: Path, edits: Sequence[Edit]) -> None:
    """Raise FileError unless `target` is `source` with exactly these bytes replaced.

    Both are read once. The sentence names the first byte that differs.
    """
    edits = _in_order(edits)
    with open_again(source) as old, open_again(target) as new:
        size, found = (os.fstat(file.fileno()).st_size for file in (old, new))
        if not edits and os.path.sameopenfile(old.fileno(), new.fileno()):
            return
        _check_inside(source, edits, size)
        if size != found:
            raise FileError(
                target,
                f"it has {found} bytes, and {source} has {size}; delete the file and run again.",
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
        problem = f"its byte {at} does not have the new value that belongs there"
    else:
        problem = f"its byte {at} differs from that of {source} and should be the same"
    return FileError(target, f"{problem}; delete the file and run again.")


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
