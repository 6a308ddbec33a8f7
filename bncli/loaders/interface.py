"""What a loader is, and what it is given: a file that is looked at by offset, never by suffix.

A loader is a module with the two functions of `Loader`, and a row of `bncli.loaders.registry`.
It reads what it needs to list the tensors and leaves their bytes where they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.files.reading import open_to_read, read_at, remember_path
from bncli.given import is_given, object_of
from bncli.loaders.registry import STATISTICS, ZIP
from bncli.model import TensorFile
from bncli.paths import RemotePath, as_path

if TYPE_CHECKING:
    from bncli.loaders.pickle_records import Pickle
    from bncli.loaders.zip_archive import ZipArchive

HEAD = 4096
"""How many first bytes of a file `Source.head` holds."""
FEW = 256
"""Bytes that are read along with those behind them."""
STANDARD_INPUT = Path("-")


class Source:
    """A regular file, open for reading: its first bytes, and any other piece on demand.

    One that lies inside another file reaches from its byte `start` to `size`; offsets are those
    in the outer file all the same. Loaders keep no `Source`: a `TensorRef` opens the file again
    when its values are wanted.
    """

    def __init__(self, path: Path, file: FileIO, start: int = 0, stop: int | None = None) -> None:
        self.path = path
        self._file = file
        self.start = start
        self.size = file.seek(0, os.SEEK_END) if stop is None else stop
        self._near, self._near_at = b"", 0
        self.head = self.read(start, min(HEAD, self.size - start))

    def inside(self, start: int, stop: int) -> Source:
        """The file that the bytes from `start` to `stop` are."""
        return Source(self.path, self._file, start, stop)

    def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes from `offset`; CorruptFileError where the file ends before."""
        if offset < self.start or count < 0 or offset + count > self.size:
            raise CorruptFileError(
                self.path,
                f"it ends at byte {self.size} but should reach byte {max(offset, 0) + count}; it"
                " is cut short or damaged, so download or copy it again.",
            )
        if count > FEW or isinstance(self.path, RemotePath):
            return bytes(read_at(self._file, self.path, offset, count))
        # What is small, such as a header in an archive of small members, has others near.
        at = offset - self._near_at
        if not 0 <= at <= len(self._near) - count:
            near = min(HEAD, self.size - offset)
            self._near, self._near_at = bytes(read_at(self._file, self.path, offset, near)), offset
            at = 0
        return self._near[at : at + count]

    def window(self, offset: int, least: int, most: int) -> bytes:
        """From `least` to `most` bytes from `offset`, as many as cost no more than `least` do.

        Fewer than `most` at the end of the file, and where no more of a file elsewhere are there.
        """
        at_hand = getattr(self._file, "at_hand", None)
        held = at_hand(offset) if at_hand else 0
        count = min(most, held or most, self.size - offset)
        return self.read(offset, max(least, count))

    def check(self, where: FileBytes) -> None:
        """Raise CorruptFileError where bytes of this file do not match their checksum."""
        where.check(self._file)

    def announce(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Say which bytes will be read, from the first to behind the last; a request for many.

        Of a file of this system, nothing is done.
        """
        if isinstance(self.path, RemotePath):
            from bncli.files.remote import prefetch

            prefetch(self.path, ranges)

    def head_of(self, count: int) -> bytes:
        """The first `count` bytes, fewer where the file is shorter."""
        return self.read(self.start, min(count, self.size - self.start))

    @cached_property
    def archive(self) -> ZipArchive | None:
        """The directory of a ZIP file; None where the file does not begin as one."""
        if not self.head.startswith(ZIP):
            return None
        from bncli.loaders.zip_archive import ZipArchive

        return ZipArchive(self.path, self.size, self.read, self.start)

    @cached_property
    def pickle(self) -> Pickle:
        """The pickle that the file begins with. Raises as `unpickler.load`."""
        from bncli.loaders.unpickler import load

        return load(self.path, self, self.start)

    @property
    def is_statistics(self) -> bool:
        """Whether it is a statistics file, by the name of its header."""
        return self.archive is not None and STATISTICS in self.archive.members


class Loader(Protocol):
    """One file format."""

    def detect(self, source: Source) -> bool:
        """Whether the content is of this format (perhaps a damaged file of it)."""

    def open_tensors(self, source: Source) -> TensorFile:
        """The tensors in the file. Raises the FileError family and nothing else."""


class FolderLoader(Protocol):
    """One kind of model that lies in several files."""

    def whole_of(self, path: Path) -> Path | None:
        """The path to open for all of the model of which a path is a part or a short name.

        None where it is none. By names alone: nothing is opened, and the path may not exist.
        """

    def is_whole(self, folder: Path) -> bool:
        """Whether a folder is such a model. Raises nothing."""

    def open_folder(self, folder: Path) -> TensorFile:
        """The tensors of such a folder. Raises the FileError family and nothing else."""


ABSENT = "it is not beside the file"
"""How `TensorFile.skipped` begins to speak of another file that would say more of the layers."""


def look(paths: Iterable[Path]) -> None:
    """Look at files elsewhere together, for each of which a server has to be waited for."""
    if elsewhere := [path for path in paths if isinstance(path, RemotePath)]:
        from bncli.files.remote import look as look_at

        look_at(elsewhere)


def measure(paths: Iterable[Path]) -> None:
    """Ask together for the sizes of files elsewhere, of which nothing will be read."""
    if elsewhere := [path for path in paths if isinstance(path, RemotePath)]:
        from bncli.files.remote import measure as ask

        ask(elsewhere)


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a regular file; FileError says why that is not possible."""
    try:
        with open_to_read(path) as file:
            yield Source(path, file)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(path, f"it cannot be read ({reason}).") from error


def lean_json(text: bytes, most: int, width: int = 0, **hooks: Any) -> Any:
    """The value of JSON in UTF-8 that takes no more memory than such JSON should.

    Every list, table and value has one of four marks, and costs some hundred bytes once parsed.
    There may be `most` of them, and one more in `width` bytes if that is given. `hooks` are those
    of `json.loads`. Raises ValueError, also where it is nested too deeply; the caller has bounded
    the length of the text, which takes up to four times as much once it is decoded.
    """
    import json

    marks = sum(text.count(mark) for mark in (b"[", b"{", b":", b","))
    if marks > most + (len(text) // width if width else 0):
        raise ValueError(marks)
    try:
        return json.loads(text.decode("utf-8"), **hooks)
    except RecursionError as error:
        raise ValueError from error


def check_regular(path: Path) -> None:
    """Raise where `path` is missing, or is a pipe or a device. A directory passes."""
    try:
        remember_path(path)
        mode = path.stat().st_mode
    except FileNotFoundError:
        from bncli.loaders.names import missing

        raise missing(path) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(path, f"it cannot be read ({reason.lower()}).") from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UnsupportedFileError(
            path, "it is a pipe or a device, not a file; save what it gives to a file first."
        )


def is_statistics_file(path: Path | str) -> bool:
    """Whether it is a statistics file, by its header's name alone; no for what cannot be opened."""
    path = as_path(path)
    if path == STANDARD_INPUT:
        return False
    if is_given(path):
        from bncli.loaders.objects.recorded import is_recorded

        return is_recorded(object_of(path))
    try:
        check_regular(path)
        with open_source(path) as source:
            return source.is_statistics
    except FileError:
        return False
