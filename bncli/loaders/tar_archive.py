"""The members of a tar file that is not compressed: where each lies, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.interface import Source
from bncli.loaders.probes import is_tar_header

BLOCK = 512
MOST_MEMBERS = 20_000
"""How many headers are read; each takes a read of its own."""
LONGEST_NOTE = 1 << 16
"""A header that only says something of the next one is no longer than this."""
_FILES = (b"0", b"\0", b"7")
_WITHOUT_BYTES = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, folders and pipes, whatever size they say."""
_NOTES = (b"L", b"K", b"x", b"g")


class TarMember(NamedTuple):
    """A regular file in the archive: its name, and where its bytes begin and end."""

    name: str
    start: int
    stop: int


def members(source: Source) -> Iterator[TarMember]:
    """The regular files of the archive in its order; links, devices and sparse files are left out.

    A name is what tells members apart and is never taken for a path. Raises CorruptFileError for a
    damaged archive, UnsupportedFileError for one with more than MOST_MEMBERS headers.
    """
    at, notes = source.start, _Notes()
    for _ in range(MOST_MEMBERS):
        if at + 2 * BLOCK > source.size:
            break
        header = source.read(at, BLOCK)
        if not any(header):
            return  # two blocks of zeros are the end
        if not is_tar_header(header):
            raise _corrupt(source, f"it has no tar header at byte {at}")
        kind = header[156:157]
        size = 0 if kind in _WITHOUT_BYTES else _number(header[124:136])
        if kind in _FILES and notes.size is not None:
            size = notes.size
        if kind == b"S" and header[482]:  # its table goes on in blocks without headers
            raise UnsupportedFileError(
                source.path,
                "it is a tar archive of sparse files; unpack it (tar -xf) and name a file in it.",
            )
        start = at + BLOCK
        if size < 0 or start + size > source.size:
            raise _corrupt(source, f"its member at byte {at} reaches outside the file")
        at = start + -(-size // BLOCK) * BLOCK
        if kind in _NOTES:
            if size > LONGEST_NOTE:
                raise _corrupt(source, f"its header at byte {start - BLOCK} is too long")
            notes.take(kind, source.read(start, size))
            continue
        if kind in _FILES and not notes.sparse:
            name = notes.name or _name(header)
            yield TarMember(name.removeprefix("./"), start, start + size)
        notes = _Notes()
    else:
        raise UnsupportedFileError(
            source.path,
            f"it is a tar archive with more than {MOST_MEMBERS} members; unpack it (tar -xf) and"
            " name a file in it.",
        )
    raise _corrupt(source, "its end is missing")


class _Notes:
    """What headers said of the next member."""

    def __init__(self) -> None:
        self.name = ""
        self.size: int | None = None
        self.sparse = False

    def take(self, kind: bytes, data: bytes) -> None:
        """Note what a header of this kind says: a long name, or a table of pax."""
        if kind == b"L":
            self.name = data.rstrip(b"\0").decode("utf-8", "replace")
        if kind != b"x":
            return
        at = 0
        while match := re.compile(rb"(\d{1,6}) ([^=]{1,100})=").match(data, at):
            stop = at + int(match[1])
            if not match.end() < stop <= len(data):
                return
            key, value = match[2], data[match.end() : stop - 1]
            if key == b"path":
                self.name = value.decode("utf-8", "replace")
            elif key == b"size" and re.fullmatch(rb"\d{1,18}", value):
                self.size = int(value)
            self.sparse = self.sparse or key.startswith(b"GNU.sparse.")
            at = stop


def _number(digits: bytes) -> int:
    """A number in octal digits, or as bytes where the first one says so; -1 where it is none."""
    if digits[:1] == b"\x80":
        return int.from_bytes(digits[1:], "big")
    digits = digits.strip(b" \0")
    return int(digits or b"0", 8) if re.fullmatch(rb"[0-7]*", digits) else -1


def _name(header: bytes) -> str:
    """A header's own name, behind the folder of POSIX's headers."""
    name = header[:100].partition(b"\0")[0]
    folder = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (folder + b"/" + name if folder else name).decode("utf-8", "replace")


def _corrupt(source: Source, fact: str) -> CorruptFileError:
    return CorruptFileError(
        source.path,
        f"{fact}; the tar archive is damaged or cut short, so download or copy it again.",
    )
