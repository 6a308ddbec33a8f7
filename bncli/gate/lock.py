"""One process at a time: whoever reads a file in order to rewrite it waits for the others."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_WAIT = 60.0
"""Seconds that another process may keep a file; a mark that is older was left by a crash."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder of `path`, on POSIX, otherwise a lock file beside it, while the block runs.

    Raises FileError where another process does not let go, or where the mark cannot be made.
    """
    target = Path(os.path.realpath(path))
    handle = _held_folder(target.parent)
    if handle is not None:
        try:
            yield
        finally:
            os.close(handle)  # which lets go, and so does the end of the process
        return
    mark = target.with_name(f".{target.name}.lock")
    _make(mark, path)
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _held_folder(folder: Path) -> int | None:
    """A handle of the folder once nobody else holds it; None where the system has no such thing."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows; a folder that may be written and not listed
        return None
    try:
        _wait(folder, lambda: fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB), BlockingIOError)
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    except FileError:
        os.close(handle)
        raise
    return handle


def _make(mark: Path, path: Path) -> None:
    """Make the mark, as soon as nobody else's is there."""

    def attempt() -> None:
        with suppress(OSError):
            if time.time() - mark.stat().st_mtime > LONGEST_WAIT:
                mark.unlink(missing_ok=True)
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    # Windows refuses to make a mark that is just being removed.
    busy = (FileExistsError, PermissionError) if os.name == "nt" else (FileExistsError,)
    try:
        _wait(path, attempt, *busy)
    except OSError as error:
        raise FileError(path, f"cannot be written ({error.strerror}).") from error


def _wait(path: Path, attempt: Callable[[], None], *busy: type[OSError]) -> None:
    """Try again while another process is busy. Raises FileError after LONGEST_WAIT seconds."""
    end = time.monotonic() + LONGEST_WAIT
    while not _done(attempt, busy):
        if time.monotonic() > end:
            raise FileError(path, "another process has been writing it for a minute; try again.")
        time.sleep(0.02)


def _done(attempt: Callable[[], None], busy: tuple[type[OSError], ...]) -> bool:
    try:
        attempt()
    except busy:
        return False
    return True
