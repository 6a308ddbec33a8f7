"""Compressed files: how each is compressed, what it begins with, and all of it within a bound."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Protocol

from bncli.errors import CorruptFileError
from bncli.files.held import held
from bncli.loaders.interface import Source

PACKED_HEAD = 1 << 16  # what of a compressed file is unpacked, to see what is inside
PIECE = 1 << 20
MOST_LZMA = 80 << 20
"""The memory that unpacking an LZMA stream may take; `xz -9` asks for 65 MB."""
MOST_HELD = 128 << 20
"""How many unpacked bytes of one file are held in memory; with MOST_LZMA that is 208 MB."""
FREE_HELD = 4 << 20
HELD_RATIO = 16
"""More than FREE_HELD bytes may not be more than this times what they are unpacked from. Weights
are never compressed as well."""


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


def _bzip2() -> _Decompressor:
    import bz2

    return bz2.BZ2Decompressor()


def _lzma() -> _Decompressor:
    import lzma

    return lzma.LZMADecompressor(memlimit=MOST_LZMA)


_PACKERS: dict[str, tuple[bytes, Callable[[], _Decompressor]]] = {
    "gzip": (b"\x1f\x8b\x08", lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)),
    "bzip2": (b"BZh", _bzip2),
    "xz": (b"\xfd7zXZ\0", _lzma),
    "lzma": (b"\x5d\0\0", _lzma),
    "zlib": (b"\x78", zlib.decompressobj),
}
SURE = ("gzip", "bzip2", "xz")
"""What is known by its first bytes alone."""
_SEALED = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}


def compression(source: Source) -> tuple[str, bytes]:
    """How the file is compressed, "" where it is not, and the first bytes inside, if known.

    zlib and the old LZMA have no sure mark: they count where their first bytes decompress.
    """
    for magic, name in _SEALED.items():
        if source.head.startswith(magic):
            return name, b""
    for name, (magic, make) in _PACKERS.items():
        if source.head.startswith(magic):
            try:
                inside = make().decompress(source.head_of(PACKED_HEAD), 4096)
            except Exception:  # noqa: BLE001 (each has errors of its own, and may be missing)
                inside = b""
            if inside or name in SURE:
                return name, inside
    return "", b""


def unpacked(source: Source, how: str) -> Source | None:
    """What a file unpacks to that is compressed in one of the SURE ways; None where it is too much.

    Its path is a `HeldPath` of the file's. Raises CorruptFileError where it is cut short or
    damaged.
    """
    size = source.size - source.start
    most = min(MOST_HELD, max(FREE_HELD, HELD_RATIO * size))
    return None if size > most else hold(source, _pieces(source, how), most)


def hold(source: Source, pieces: Iterator[bytes], most: int) -> Source | None:
    """A file of these bytes, in memory; None where they are more than `most`."""
    out, size = BytesIO(), 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            return None
        out.write(piece)
    path = held(source.path, out.getvalue())
    return Source(path, path.opened(), 0, size)


def _pieces(source: Source, how: str) -> Iterator[bytes]:
    """The unpacked bytes; of several streams in a row, of each. What follows the last is ignored.

    Raises CorruptFileError.
    """
    magic, make = _PACKERS[how]
    stream, data, at = make(), b"", source.start
    while True:
        if not data and at < source.size and getattr(stream, "needs_input", True):
            data = source.read(at, min(PIECE, source.size - at))
            at += len(data)
        ended = not data and at == source.size
        try:
            out = stream.decompress(data, PIECE)
        except Exception:  # noqa: BLE001 (each has errors of its own, and may be missing)
            raise _damaged(source, how, "is damaged") from None
        yield out
        if stream.eof:
            data = stream.unused_data.lstrip(b"\0")
            while not data and at < source.size:
                data = source.read(at, min(PIECE, source.size - at))
                at += len(data)
                data = data.lstrip(b"\0")
            if not data.startswith(magic):
                return
            stream = make()
        else:
            data = getattr(stream, "unconsumed_tail", b"")
            if ended and not out:
                raise _damaged(source, how, "is cut short")


def _damaged(source: Source, how: str, fact: str) -> CorruptFileError:
    return CorruptFileError(
        source.path, f"it is a file compressed by {how}, and {fact}; download or copy it again."
    )
