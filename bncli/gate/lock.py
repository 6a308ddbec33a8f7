"""One process at a time: whoever reads a file in order to write it anew waits for the others."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_WAIT = 60.0
"""Seconds that another process may keep a file; a mark that is older was left by a crash."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the folder of `path`, on POSIX, or else a mark beside it, while the block runs.

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
    except ImportError:  # Windows
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    end = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                os.close(handle)
                raise FileError(
                    folder, "another process has been writing here for a minute; run this again."
                ) from None
            time.sleep(0.02)
        except OSError:  # a file system without locks
            os.close(handle)
            return None
        else:
            return handle


def _make(mark: Path, path: Path) -> None:
    """Make the mark, as soon as nobody else's is there."""
    end = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            with suppress(OSError):
                if time.time() - mark.stat().st_mtime > LONGEST_WAIT:
                    mark.unlink(missing_ok=True)
            if time.monotonic() > end:
                raise FileError(
                    path, f"another process is writing it; if none is, remove {mark.name}."
                ) from None
            time.sleep(0.02)
        except OSError as error:
            if isinstance(error, PermissionError) and os.name == "nt" and time.monotonic() < end:
                time.sleep(0.02)  # Windows: a mark that is just being removed
                continue
            raise FileError(path, f"cannot be written ({error.strerror}).") from error
        else:
            return
