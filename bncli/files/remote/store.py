"""What one call knows of files elsewhere: each is looked at once, and read over the same pieces."""

from __future__ import annotations

import io
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bncli.errors import FileError, UnsupportedFileError
from bncli.files.remote.drivers import file_system
from bncli.files.remote.failures import (
    AbsentError,
    ForbiddenError,
    HiddenError,
    absent,
    explained,
)
from bncli.files.remote.pieces import Pieces, Shelf, together
from bncli.files.remote.transport import DriverFile, Transport, persistently
from bncli.files.save import UNFINISHED, umask
from bncli.paths import RemotePath
from bncli.urls import is_web

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Result = TypeVar("Result")


class RemoteFile:
    """A file elsewhere, with what is held of it. Raises FileError where it cannot be had."""

    def __init__(self, path: RemotePath, transport: Transport, shelf: Shelf) -> None:
        self.path = path
        self.transport = transport
        self.fetched = False
        self.state, head = self._asked(transport.begin)
        self.pieces = Pieces(self.state.size, self._fetch, shelf)
        self.pieces.put(0, head)
        self.fetched = bool(head)

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.state.size

    def opened(self, shift: int = 0) -> FileIO:
        """A reader with a place of its own, for which the byte `shift` is the first."""
        return cast("FileIO", Reader(self.pieces, shift))

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Say which bytes will be read."""
        self.pieces.announce(ranges)

    def check(self) -> None:
        """Raise FileError where it is not what it was when its first byte was read."""
        if self.fetched:
            self.fetched = False  # first, for another thread may fetch meanwhile
            try:
                now = self._asked(self.transport.state)
                self._asked(lambda: self.state.check(now))
            except FileError:
                self.fetched = True  # nothing else that is made of it may pass
                raise

    def _fetch(self, start: int, stop: int) -> bytes:
        self.fetched = True
        return self._asked(lambda: self.transport.fetch(start, stop, self.state))

    def _asked(self, call: Callable[[], Result]) -> Result:
        return asked(self.path, call)


class Downloaded:
    """A file that was fetched as a whole, into a temporary file."""

    def __init__(self, path: RemotePath, transport: Transport, folder: Path) -> None:
        handle, name = tempfile.mkstemp(dir=folder)
        self.path = path
        self._local = Path(name)
        self._local.chmod(0o666 & ~umask())  # whatever is made of it; its folder is private
        os.close(handle)
        self.state = asked(path, lambda: transport.download(self._local))

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.state.size

    def opened(self, shift: int = 0) -> FileIO:
        """The temporary file, in which nothing has to be looked for later."""
        assert not shift
        return FileIO(self._local)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """All is there."""

    def check(self) -> None:
        """One answer gave all of it."""


class Reader(io.RawIOBase):
    """A file to read from, alike a `FileIO` in all that reading takes; it has no descriptor."""

    def __init__(self, pieces: Pieces, shift: int = 0) -> None:
        super().__init__()
        self._pieces = pieces
        self._shift = shift
        self._size = max(pieces.size - shift, 0)
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place. Raises OSError for one before the file."""
        origin = {os.SEEK_CUR: self._at, os.SEEK_END: self._size}.get(whence, 0)
        if origin + offset < 0:
            raise OSError("a place before the file")
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as the file reaches."""
        count = self._pieces.read_into(self._at + self._shift, memoryview(buffer).cast("B"))
        self._at += count
        return count

    def at_hand(self, offset: int) -> int:
        """How many bytes from a place on can be had without a request."""
        return self._pieces.at_hand(offset + self._shift)

    def readall(self) -> bytes:
        """All that is behind the place."""
        data = bytearray(max(self._size - self._at, 0))
        self.readinto(data)
        return bytes(data)


class Store:
    """The files elsewhere that one call has asked about; with `download`, fetched as a whole.

    What nobody asked about for `lasting` seconds is looked at again, if that is given.
    """

    def __init__(self, *, download: bool = False, lasting: float | None = None) -> None:
        self.closed = False
        self._download = download
        self._lasting = lasting
        self._asked_at: dict[str, float] = {}
        self._shelf = Shelf()
        self._lock = threading.RLock()
        self._locks: dict[str, threading.RLock] = {}
        self._files: dict[str, RemoteFile | Downloaded | FileError] = {}
        self._folders: dict[str, bool] = {}
        self._sizes: dict[str, int] = {}
        self._systems: dict[RemotePath, tuple[Any, str]] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def file(self, path: RemotePath) -> RemoteFile | Downloaded:
        """The file; what was wrong with it stays so. Raises FileError."""
        with self._lock:
            mine = self._locks.setdefault(path.url, threading.RLock())
        with mine:
            known, now = self._files.get(path.url), time.monotonic()
            if (
                self._lasting is not None
                and now - self._asked_at.get(path.url, now) > self._lasting
            ):
                known = None
            self._asked_at[path.url] = now
            if known is None:
                try:
                    known = self._opened(path)
                except FileError as error:
                    known = error
                self._files[path.url] = known
        if isinstance(known, FileError):
            raise known
        return known

    def _transport(self, path: RemotePath) -> Transport:
        system, inside = self._system(path)
        if is_web(path.url) and hasattr(system, "set_session"):
            from bncli.files.remote.web import WebFile

            return WebFile(system, inside)
        return DriverFile(system, inside)

    def _opened(self, path: RemotePath) -> RemoteFile | Downloaded:
        transport = self._transport(path)
        if not self._download:
            return RemoteFile(path, transport, self._shelf)
        with self._lock:
            if self._temporary is None:
                self._temporary = tempfile.TemporaryDirectory(
                    prefix="bncli-", ignore_cleanup_errors=True
                )
                UNFINISHED.add(Path(self._temporary.name))
        return Downloaded(path, transport, Path(self._temporary.name))

    def look(self, paths: Iterable[RemotePath]) -> None:
        """Look at several files together; what is wrong with one is said when it is opened."""

        def file(path: RemotePath) -> None:
            with suppress(FileError):
                self.file(path)

        together(partial(file, path) for path in paths)

    def measure(self, paths: Iterable[RemotePath]) -> None:
        """Ask for the sizes of several files together, and for nothing else of them.

        What is wrong with one is said when its size is wanted.
        """

        def size(path: RemotePath) -> None:
            try:
                self._sizes[path.url] = self._measured(path)
                self._folders[path.url] = False
            except FileError as error:
                self._files.setdefault(path.url, error)

        known = {*self._sizes, *self._files}
        together(partial(size, path) for path in paths if path.url not in known)

    def _measured(self, path: RemotePath) -> int:
        try:
            return asked(path, self._transport(path).size)
        except UnsupportedFileError:
            if not self._download:
                raise
            return self.file(path).size  # which only all of it tells

    def _system(self, path: RemotePath) -> tuple[Any, str]:
        if path not in self._systems:
            self._systems[path] = file_system(path)
        return self._systems[path]

    def exists(self, path: RemotePath) -> bool:
        """Whether it is a file or a folder. A server that hides what is there says no, too."""
        try:
            return self.is_dir(path) or self.file(path).size >= 0
        except HiddenError:
            return False

    def check_allowed(self, path: RemotePath) -> None:
        """Raise FileError for a file that may be there, but that the store refuses to give out."""
        try:
            self.file(path)
        except ForbiddenError:
            raise
        except FileError:
            return

    def is_dir(self, path: RemotePath) -> bool:
        """Whether it is a folder; a web server has none."""
        if is_web(path.url):
            return False
        if path.url not in self._folders:
            self._folders[path.url] = self._is_folder(path)
        return self._folders[path.url]

    def _is_folder(self, path: RemotePath) -> bool:
        if not path.url.endswith("/"):
            try:
                self.file(path)
            except (HiddenError, UnsupportedFileError):
                pass
            else:
                return False
        system, inside = self._system(path)
        return asked(path, lambda: bool(system.isdir(inside)))

    def stat(self, path: RemotePath) -> os.stat_result:
        """Its kind and size; the size as it was listed, where that was said with its name."""
        if self.is_dir(path):
            return os.stat_result((stat.S_IFDIR, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        size = self._sizes.get(path.url)
        size = self.file(path).size if size is None else size
        return os.stat_result((stat.S_IFREG, 0, 0, 0, 0, 0, size, 0, 0, 0))

    def names_in(self, path: RemotePath) -> list[str]:
        """The names in a folder. Raises OSError where they cannot be listed."""
        if is_web(path.url):
            raise OSError("a web server lists nothing")
        system, inside = self._system(path)
        try:
            found = asked(path, lambda: system.ls(inside, detail=False))
        except FileError as error:
            raise OSError(error.problem) from None
        names = (str(each).rstrip("/").rpartition("/")[2] for each in found)
        return [name for name in names if name]

    def fitting(self, path: RemotePath) -> list[str]:
        """The URLs that fit a pattern, sorted; folders are none. Raises FileError."""
        system, inside = self._system(path)

        def found() -> dict[str, int | None]:
            try:
                every: dict[str, dict[str, Any]] = system.glob(inside, detail=True)
            except ValueError:
                raise FileError(
                    path, "fsspec does not take this pattern; ** stands for whole folders alone."
                ) from None
            names = sorted(name for name, info in every.items() if info["type"] != "directory")
            return {name: every[name].get("size") for name in names}

        url_of = _url_of(path.url, inside, system)
        sizes = {url_of(name): size for name, size in asked(path, found).items()}
        for url, size in sizes.items():
            self._folders[url] = False
            if isinstance(size, int):
                self._sizes[url] = size
        return list(sizes)

    def check(self) -> None:
        """Raise FileError where a file is not what it was when it was first read."""
        files = [file for file in self._files.values() if not isinstance(file, FileError)]
        together(file.check for file in files)

    def close(self) -> None:
        """Remove what was downloaded."""
        self.closed = True
        if self._temporary is not None:
            self._temporary.cleanup()
            UNFINISHED.discard(Path(self._temporary.name))
            self._temporary = None


def _url_of(url: str, inside: str, system: Any) -> Callable[[str], str]:
    """A function from a path in a file system to its URL, written as `url` is of `inside`."""
    if url.endswith(inside):  # https://host/x, s3://bucket/x
        front = url.removesuffix(inside)
        return lambda name: front + name
    if inside.startswith("/") and url.endswith(inside[1:]):  # memory://x is /x
        front = url.removesuffix(inside[1:])
        return lambda name: front + name[1:]
    return lambda name: str(system.unstrip_protocol(name))


def asked(path: RemotePath, call: Callable[[], Result]) -> Result:
    """What a driver answers, after some tries. Raises FileError."""
    try:
        return persistently(call)
    except AbsentError:
        raise absent(path) from None
    except Exception as error:  # noqa: BLE001 (whatever a driver raises)
        raise explained(path, error) from None
