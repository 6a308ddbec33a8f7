"""Protobuf messages in a file, field by field through a window; what is long stays in the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.interface import Source
from bncli.loaders.probes import varint

WINDOW = 1 << 16
"""Bytes of a file that are in memory at a time."""
MOST_FIELDS = 5_000_000
"""How many fields of a file are looked at; a tensor in an ONNX file takes some 10."""
LONGEST_TEXT = 1 << 16
"""Longer texts are no name."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""The wire types; those of groups are not used any more."""


class Field(NamedTuple):
    """One field of a message: its number, its wire type, and its value.

    A number stands in `value`, as it is stored: unsigned, the bits of a float. Of bytes (texts,
    messages, packed numbers), `value` is how many there are. They lie from `start` to `stop` in the
    file, as does a number of fixed size.
    """

    number: int
    wire: int
    value: int
    start: int
    stop: int


class Wire:
    """A file of protobuf messages. All methods raise CorruptFileError for what is no message.

    They share a budget of `most` fields, beyond which UnsupportedFileError is raised.
    """

    def __init__(self, source: Source, most: int = MOST_FIELDS) -> None:
        self._source = source
        self._window, self._base = b"", source.start
        self._most = self._left = most

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message that lies between two offsets, in their order."""
        at = start
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise UnsupportedFileError(
                    self._source.path,
                    f"it has more than {self._most} fields;"
                    " name the checkpoint that it was made from.",
                )
            tag, at = self._varint(at, stop)
            number, wire = tag >> 3, tag & 7
            value = 0
            if wire == VARINT:
                value, end = self._varint(at, stop)
            elif wire == BYTES:
                value, at = self._varint(at, stop)
                end = at + value
            elif wire in (FIXED32, FIXED64):
                end = at + (4 if wire == FIXED32 else 8)
                if end <= stop:
                    value = int.from_bytes(self.bytes(at, end), "little")
            else:
                raise self.corrupt()
            if number == 0 or end > stop:
                raise self.corrupt()
            yield Field(number, wire, value, at, end)
            at = end

    def bytes(self, start: int, stop: int) -> bytes:
        """The bytes between two offsets; for what is short."""
        if not self._base <= start or stop > self._base + len(self._window):
            self._window = self._source.window(start, stop - start, WINDOW)
            self._base = start
        return self._window[start - self._base : stop - self._base]

    def text(self, field: Field) -> str:
        """A field of bytes as a text."""
        if field.wire != BYTES or field.value > LONGEST_TEXT:
            raise self.corrupt()
        try:
            return self.bytes(field.start, field.stop).decode("utf-8")
        except UnicodeDecodeError:
            raise self.corrupt() from None

    def varints(self, field: Field) -> list[int]:
        """The numbers of a repeated field, of which this is one, or all packed."""
        if field.wire != BYTES:
            return [field.value]
        numbers, at = [], field.start
        while at < field.stop:
            self._left -= 1
            if self._left < 0:
                raise self.corrupt()
            number, at = self._varint(at, field.stop)
            numbers.append(number)
        return numbers

    def corrupt(self) -> CorruptFileError:
        """The error for bytes that are no message."""
        return CorruptFileError(
            self._source.path,
            "its protobuf messages are damaged or cut short; download or save it again.",
        )

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """A number of 64 bits, and where it ends."""
        place = at - self._base
        if 0 <= place < len(self._window) and at < stop:  # most have one byte
            byte = self._window[place]
            if byte < 0x80:
                return byte, at + 1
        value, used = varint(self.bytes(at, min(at + 10, stop)))
        if value < 0:
            raise self.corrupt()
        return value, at + used


def signed(value: int) -> int:
    """A number of an int64 or int32 field, which may be negative."""
    return value - (1 << 64) if value >> 63 else value


def shortest(four: bytes) -> float:
    """A float32 as the shortest decimal number that becomes it: 1e-05, not 9.99999975e-06."""
    (exact,) = struct.unpack("<f", four)
    for digits in range(1, 10):
        near = float(f"{exact:.{digits}g}")
        try:
            if struct.pack("<f", near) == four:
                return near
        except OverflowError:  # rounded up, beyond the largest float32
            continue
    return float(exact)
