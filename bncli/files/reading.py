"""What a call reads: every file that bncli opens for its data is opened here, and so remembered.

What is written later must be none of them. A command need not say what it read, so that none can
forget it; `bncli.files.save` asks here before it writes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import field
from io import FileIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from bncli.errors import CorruptFileError, FileError
from bncli.given import is_given
from bncli.light import dataclass
from bncli.paths import as_path, is_remote

if TYPE_CHECKING:
    from bncli.files.held import HeldPath

CHANGED = (
    "it was removed or cut short while bncli was reading it; wait until it is complete, and run "
    "again."
)
OTHER = (
    "it was written to or replaced after bncli had read it; wait until it is complete, and run "
    "again."
)


class Elsewhere(Protocol):
    """The files elsewhere of a call, as `bncli.files.remote` knows them."""

    def check(self) -> None:
        """Raise FileError where one has changed."""

    def close(self) -> None:
        """Remove what was downloaded."""


@dataclass(frozen=True, slots=True)
class MissingParts:
    """Shards that are not among the parts at hand, of which `path` is the first.

    `n` is how many shards the whole has, 0 where that is no longer known, and `share` the part that
    is missing `of` what; None where nobody knows. `again` says how the first of them is made.
    """

    path: str
    shards: tuple[int, ...]
    n: int
    share: float | None
    of: str = "the inputs' bytes"
    again: str = ""


Identity = tuple[int, int]
"""A file by its device and its number there, whatever names it has."""


@dataclass(slots=True)
class Reading:
    """What one call has read, and how it reads.

    `checksum` says whether stored checksums are compared, `download` whether files elsewhere are
    fetched as a whole. One that is not `kept` is nobody's. `store` is what `bncli.files.remote`
    knows of files elsewhere, once there was one. `names` are the files as they were given, `paths`
    where those lead. `notes` has what is to be said of the files that were read, each sentence
    once. `renewed` has those that may be rewritten by what read them (a baseline), and
    by nothing else. `reports` are where reports will be
    written, each by where it leads. `first` has the state in which
    each file was opened first, by its name as it was given. `arguments` are those of the call.
    `allow_missing_parts` says that a whole may lack parts, and `missing` which ones it lacks.
    """

    checksum: bool = True
    download: bool = False
    kept: bool = True
    arguments: tuple[str, ...] = ()
    allow_missing_parts: bool = False
    names: set[Path | str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    renewed: set[str] = field(default_factory=set)
    reports: dict[str, str] = field(default_factory=dict)
    identities: set[Identity] = field(default_factory=set)
    first: dict[Path | str, tuple[int, ...]] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    store: Elsewhere | None = None
    missing: list[MissingParts] = field(default_factory=list)

    def check_unchanged(self) -> None:
        """Raise FileError where a file elsewhere is another one than when this call began it."""
        if self.store is not None:
            self.store.check()

    def may_renew(self, path: str) -> None:
        """Let a file that was read be replaced by what holds all that it held."""
        self.paths.discard(os.path.realpath(path))
        with suppress(OSError, ValueError):
            there = os.stat(path)  # noqa: PTH116 (as fstat below)
            self.identities.discard((there.st_dev, there.st_ino))

    def has_read(self, path: str | os.PathLike[str], *, renewing: bool = False) -> bool:
        """Whether `path` leads to a file that was read, by any name of it.

        `renewing` says that files that were read to be rewritten do not count.
        """
        real = os.path.realpath(path)
        if real in self.paths or (real in self.renewed and not renewing):
            return True
        try:
            there = os.stat(path)  # noqa: PTH116 (as fstat below)
        except (OSError, ValueError):  # not there, so that nothing can be lost
            return False
        return (there.st_dev, there.st_ino) in self.identities


_CURRENT: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading(
    *,
    checksum: bool = True,
    download: bool = False,
    arguments: Sequence[str] = (),
    allow_missing_parts: bool = False,
) -> Iterator[Reading]:
    """A call of its own, which remembers what is read until it ends."""
    call = Reading(
        checksum=checksum,
        download=download,
        arguments=tuple(arguments),
        allow_missing_parts=allow_missing_parts,
    )
    token = _CURRENT.set(call)
    try:
        yield call
    finally:
        _CURRENT.reset(token)
        if call.store is not None:
            call.store.close()


def current() -> Reading:
    """The current call; outside any call, a new one that is not kept."""
    return _CURRENT.get() or Reading(kept=False)


def open_to_read(path: Path | str) -> FileIO:
    """The file, open for reading without a buffer, and remembered.

    Raises OSError as open does, FileError for a file elsewhere.
    """
    path = as_path(path) if isinstance(path, str) else path
    if hasattr(path, "opened"):
        return cast("HeldPath", path).opened()
    file = FileIO(path)
    remember(file.fileno(), path)
    return file


def read_bytes(path: Path | str) -> bytes:
    """All of the file, which is remembered. Raises OSError."""
    with open_to_read(path) as file:
        return file.readall()


def open_again(path: Path) -> FileIO:
    """A file that was opened before. Raises FileError where that is no longer possible."""
    try:
        return open_to_read(path)
    except FileNotFoundError as error:
        raise FileError(path, CHANGED) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(path, f"it cannot be read ({reason}).") from error


def read_at(file: FileIO, path: Path, offset: int, count: int) -> bytearray:
    """`count` bytes from `offset` on; raises FileError as `read_into`."""
    data = bytearray(count)
    read_into(file, path, offset, memoryview(data))
    return data


def read_into(file: FileIO, path: Path, offset: int, target: memoryview) -> None:
    """Fill `target` with the bytes of `file` from `offset` on.

    Raises CorruptFileError where the file ends before, which it did not when it was opened, and
    FileError where it cannot be read.
    """
    try:
        file.seek(offset)
        while target:
            done = file.readinto(target)
            if not done:
                raise CorruptFileError(path, CHANGED)
            target = target[done:]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(path, f"it cannot be read ({reason}).") from error


def remember_path(path: Path | str) -> None:
    """Remember a file that is about to be read, whether or not that will succeed."""
    call = _CURRENT.get()
    if call is not None and path not in call.names and not is_remote(path):
        call.names.add(path)
        call.paths.add(os.path.realpath(path))


def remember_stream(stream: IO[Any]) -> None:
    """Remember a file that is redirected to a stream."""
    try:
        remember(stream.fileno())
    except (OSError, ValueError):  # a stream that is not a file's, such as a test's
        return


def remember(descriptor: int, path: Path | str | None = None) -> None:
    """Remember an open file, if it is a regular one."""
    call = _CURRENT.get()
    if call is None:
        return
    if path is not None:
        remember_path(path)
    there = os.fstat(descriptor)
    if stat.S_ISREG(there.st_mode):
        call.identities.add((there.st_dev, there.st_ino))
        if path is not None:
            call.first.setdefault(path, _state(there))


def check_same(path: Path, there: os.stat_result) -> None:
    """Raise CorruptFileError where a file is not what it was when this call opened it first."""
    first = current().first.get(path)
    if first is not None and first != _state(there):
        raise CorruptFileError(path, OTHER)


def check_still(path: Path) -> None:
    """Raise CorruptFileError where a file of this system is no longer what this call read."""
    if hasattr(path, "opened") or is_given(path):
        return
    try:
        check_same(path, path.stat())
    except OSError as error:
        raise CorruptFileError(path, CHANGED) from error


def guard(paths: Iterable[Path]) -> Callable[[], None]:
    """What raises, at any later time, CorruptFileError where one of these files has changed.

    They are files that this call read. Those that are none of this system's are not looked at.
    """
    call = current()
    seen = {path: call.first[path] for path in paths if path in call.first}

    def check() -> None:
        for path, state in seen.items():
            try:
                there = path.stat()
            except OSError as error:
                raise CorruptFileError(path, CHANGED) from error
            if _state(there) != state:
                raise CorruptFileError(path, OTHER)

    return check


def _state(there: os.stat_result) -> tuple[int, ...]:
    """What another file, or one that was written to, has another of."""
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns
