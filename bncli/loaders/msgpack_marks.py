"""MessagePack in a file, mark by mark through a window; what is long stays in the file.

The msgpack package would hold all values of a file in memory, where only the places of most are
wanted.
"""

from __future__ import annotations

from typing import NamedTuple

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.interface import Source

WINDOW = 1 << 16
"""Bytes of a file that are in memory at a time."""
MOST_VALUES = 2_000_000
"""How many values of a file are looked at; an array of Flax takes 8."""
LONGEST_TEXT = 4_096
"""Longer texts are no name."""
MAP, LIST, TEXT, EXTENSION, NUMBER, TRUE, OTHER = range(7)
"""The kinds of values: texts are bytes too, and a number is one that is not negative."""

_KINDS = {
    0xC0: (OTHER, 0), 0xC2: (OTHER, 0), 0xC3: (TRUE, 0),  # nil, false
    0xC4: (TEXT, 1), 0xC5: (TEXT, 2), 0xC6: (TEXT, 4),  # bytes
    0xC7: (EXTENSION, 1), 0xC8: (EXTENSION, 2), 0xC9: (EXTENSION, 4),
    0xCC: (NUMBER, 1), 0xCD: (NUMBER, 2), 0xCE: (NUMBER, 4), 0xCF: (NUMBER, 8),
    0xD9: (TEXT, 1), 0xDA: (TEXT, 2), 0xDB: (TEXT, 4),
    0xDC: (LIST, 2), 0xDD: (LIST, 4), 0xDE: (MAP, 2), 0xDF: (MAP, 4),
}  # fmt: skip
"""What a mark begins, and of how many bytes the count, the length or the number behind it is."""
_FIXED = {
    0xCA: (OTHER, 4), 0xCB: (OTHER, 8),  # floats
    0xD0: (OTHER, 1), 0xD1: (OTHER, 2), 0xD2: (OTHER, 4), 0xD3: (OTHER, 8),  # signed
    0xD4: (EXTENSION, 1), 0xD5: (EXTENSION, 2), 0xD6: (EXTENSION, 4), 0xD7: (EXTENSION, 8),
    0xD8: (EXTENSION, 16),
}  # fmt: skip
"""What a mark begins, and of how many bytes that is."""


class Mark(NamedTuple):
    """What begins at a place: its kind, and its number of values or bytes, or the number it is."""

    kind: int
    size: int


class Marks:
    """The position in a file of MessagePack.

    All methods raise CorruptFileError for what is none, and UnsupportedFileError beyond
    `MOST_VALUES`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._window, self._base = b"", source.start
        self._left = MOST_VALUES
        self.at = source.start

    def corrupt(self) -> CorruptFileError:
        """The error for the place where it stands."""
        return CorruptFileError(
            self._source.path,
            f"its MessagePack is damaged or cut short at byte {self.at}; download or save it"
            " again.",
        )

    def take(self, count: int) -> bytes:
        """The next `count` bytes, which are few."""
        begin, end = self.at, self.skip(count)
        if begin < self._base or end > self._base + len(self._window):
            self._window, self._base = self._source.window(begin, count, WINDOW), begin
        return self._window[begin - self._base : end - self._base]

    def skip(self, count: int) -> int:
        """Go on behind the next `count` bytes; where that is."""
        if count > self._source.size - self.at:
            raise self.corrupt()
        self.at += count
        return self.at

    def mark(self, *kinds: int) -> Mark:
        """What begins here, which must be of one of the kinds if any are given."""
        self._left -= 1
        if self._left < 0:
            raise UnsupportedFileError(
                self._source.path,
                f"it is a MessagePack file of more than {MOST_VALUES} values; load it where it was"
                " made and save its arrays with np.savez.",
            )
        mark = self._mark(self.take(1)[0])
        if kinds and mark.kind not in kinds:
            raise self.corrupt()
        return mark

    def _mark(self, byte: int) -> Mark:
        if byte < 0x80:
            return Mark(NUMBER, byte)
        if byte < 0xC0:
            kind = MAP if byte < 0x90 else LIST if byte < 0xA0 else TEXT
            return Mark(kind, byte & (0x1F if kind == TEXT else 0xF))
        if byte >= 0xE0:  # from -32 to -1
            return Mark(OTHER, 0)
        if byte in _FIXED:
            return Mark(*_FIXED[byte])
        if byte not in _KINDS:
            raise self.corrupt()
        kind, width = _KINDS[byte]
        return Mark(kind, int.from_bytes(self.take(width), "big"))

    def text(self, mark: Mark) -> str:
        """The short text that a mark begins."""
        if mark.kind != TEXT or mark.size > LONGEST_TEXT:
            raise self.corrupt()
        try:
            return self.take(mark.size).decode("utf-8")
        except UnicodeDecodeError:
            raise self.corrupt() from None
