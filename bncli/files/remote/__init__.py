"""Files in stores and on servers, read in ranges; fsspec's drivers know how.

Imported only when a path that is a URL is asked something. `store` is what one call knows of them,
`transport` and `web` are the ways to the bytes, `pieces` what of a file is held, and `drivers` and
`failures` say what is missing or went wrong, without a credential.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from weakref import ref

from bncli.files.reading import current
from bncli.files.remote.store import Store
from bncli.paths import RemotePath

_outside = Store(lasting=10.0)
"""What is known outside of any call, for who uses Python."""
_last = [ref(_outside)]
"""What the last call knows: a thread that it starts is in no call."""


def store() -> Store:
    """What the current call knows of files elsewhere."""
    call = current()
    if not call.kept:
        last = _last[0]()
        return _outside if last is None or last.closed else last
    if call.store is None:
        call.store = made = Store(download=call.download)
        _last[0] = ref(made)
    store = call.store
    assert isinstance(store, Store)
    return store


def opened(path: RemotePath, shift: int = 0) -> FileIO:
    """The file for reading, its byte `shift` taken for the first. Raises FileError.

    All that is opened of a file reads over the same pieces.
    """
    return store().file(path).opened(shift)


def exists(path: RemotePath) -> bool:
    """Whether it is there and given out. Raises FileError where that is not known."""
    return store().exists(path)


def check_allowed(path: RemotePath) -> None:
    """Raise FileError for a file that may be there, but that its store refuses to give out."""
    store().check_allowed(path)


def is_dir(path: RemotePath) -> bool:
    """Whether it is a folder. Raises FileError where that is not known."""
    return store().is_dir(path)


def stat(path: RemotePath) -> os.stat_result:
    """Its kind and size. Raises FileError."""
    return store().stat(path)


def names_in(path: RemotePath) -> list[str]:
    """The names in a folder. Raises OSError where they cannot be listed."""
    return store().names_in(path)


def fitting(path: RemotePath) -> list[str]:
    """The URLs that fit a pattern, sorted. Raises FileError."""
    return store().fitting(path)


def look(paths: Iterable[Path]) -> None:
    """Look at the files elsewhere among these together, as they will be opened one by one."""
    store().look(path for path in paths if isinstance(path, RemotePath))


def measure(paths: Iterable[Path]) -> None:
    """Ask for the sizes of the files elsewhere among these together, and for nothing else."""
    store().measure(path for path in paths if isinstance(path, RemotePath))


def prefetch(path: RemotePath, ranges: Iterable[tuple[int, int]]) -> None:
    """Say which bytes will be read, each range as (start, stop), so that few requests suffice."""
    store().file(path).prefetch(ranges)
