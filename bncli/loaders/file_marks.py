"""What tells whether a file is still what it was: its size, and a CRC-32 of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bncli.errors import FileError, UsageError
from bncli.files.reading import OTHER, open_again
from bncli.given import is_given
from bncli.loaders.interface import STANDARD_INPUT
from bncli.paths import RemotePath

PIECE = 4096
"""Bytes of each piece of an input that its fingerprint is of."""
PIECES, PIECES_ELSEWHERE = 16, 3
"""Pieces, evenly spread from the beginning to the end; elsewhere, each of them is a request."""

Mark = tuple[int, int, str]
"""A file's bytes, the time of its last change in ns, and its fingerprint."""


def file_size(path: Path) -> int:
    """A file's bytes; of a folder that is one model, those of its files, of an object its own."""
    if path == STANDARD_INPUT:
        raise UsageError("standard input cannot be cut into shards; name files.")
    if is_given(path):
        from bncli.loaders.objects import nbytes_of

        return nbytes_of(path)
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.iterdir() if each.is_file())
        return path.stat().st_size
    except FileNotFoundError:
        from bncli.loaders.names import missing

        raise missing(path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(path, f"it cannot be read ({reason.lower()}).") from None


def fingerprint(path: Path, size: int) -> str:
    """A CRC-32 of an input's size and of some pieces of it, which changes if it was made anew.

    A change of a few bytes between the pieces is not seen: all would have to be read twice. A
    folder's is that of its files' names and sizes.
    """
    crc = zlib.crc32(str(size).encode())
    if is_given(path):
        from bncli.loaders.objects import pieces_of

        for piece in pieces_of(path, PIECES, PIECE):
            crc = zlib.crc32(piece, crc)
        return f"{crc:08x}"
    if path.is_dir():
        for each in sorted(path.iterdir()):
            crc = zlib.crc32(f"{each.name}\0{each.stat().st_size}".encode(), crc)
        return f"{crc:08x}"
    pieces = PIECES_ELSEWHERE if isinstance(path, RemotePath) else PIECES
    with open_again(path) as file:
        last, gaps = max(0, size - PIECE), pieces - 1
        for begin in sorted({last * number // gaps for number in range(pieces)}):
            file.seek(begin)
            crc = zlib.crc32(file.read(PIECE), crc)
    return f"{crc:08x}"


def described(files: Sequence[Path]) -> str:
    """What files hold together, to be compared with others: "of 410 bytes, CRC-32 0badcafe"."""
    return f"of {sum(map(file_size, files))} bytes, CRC-32 {crc_of(files)}"


def crc_of(files: Sequence[Path]) -> str:
    """A CRC-32 of all bytes; of objects and files elsewhere, of what `fingerprint` takes."""
    crc = 0
    for path in files:
        if isinstance(path, RemotePath) or is_given(path):
            crc = zlib.crc32(fingerprint(path, file_size(path)).encode(), crc)
            continue
        with open_again(path) as file:
            while piece := file.read(1 << 20):
                crc = zlib.crc32(piece, crc)
    return f"{crc:08x}"


# ---------------------------------------------------------------------------- during a call


def marks_of(paths: Iterable[Path]) -> dict[Path, Mark | None]:
    """The files of this machine among these as they are now, None for one that cannot be read.

    Files elsewhere are looked after by what reads them.
    """
    there = dict.fromkeys(
        path for path in paths if not isinstance(path, RemotePath) and not is_given(path)
    )
    return {path: _mark(path) for path in there}


def check_marks(marks: Mapping[Path, Mark | None]) -> None:
    """Raise FileError for a file that is not what it was when `marks_of` saw it."""
    for path, mark in marks.items():
        if mark is None or _mark(path) != mark:
            raise FileError(path, OTHER)


def _mark(path: Path) -> Mark | None:
    try:
        size = file_size(path)
        return size, path.stat().st_mtime_ns, fingerprint(path, size)
    except (FileError, OSError):
        return None
