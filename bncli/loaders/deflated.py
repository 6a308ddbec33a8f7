"""The compressed bytes of a member of a ZIP file, and what they become."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from bncli.errors import CorruptFileError
from bncli.files.file_bytes import unlike_checksum
from bncli.files.reading import open_again
from bncli.light import dataclass
from bncli.loaders.names import quoted


@dataclass(frozen=True, slots=True)
class Packed:
    """The compressed bytes of a member: where they are, and what they should become.

    `crc` is None where no checksum was written, or none is wanted.
    """

    path: Path
    name: str
    offset: int
    packed: int
    size: int
    crc: int | None
    byteorder: Literal["little", "big"] = "little"

    def chunks(self) -> Iterator[bytes]:
        """The member's bytes, piece by piece, `size` of them in all.

        Raises CorruptFileError where the compressed bytes do not give them.
        """
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        left, crc, waiting = self.size, 0, self.packed
        with open_again(self.path) as file:
            file.seek(self.offset)
            while True:
                piece = inflater.unconsumed_tail
                if not piece and waiting:
                    piece = file.read(min(waiting, 1 << 16))
                    waiting = waiting - len(piece) if piece else 0
                try:
                    out = inflater.decompress(piece, 1 << 20)
                except zlib.error:
                    raise self._corrupt() from None
                left -= len(out)
                if left < 0:
                    raise self._corrupt()
                crc = zlib.crc32(out, crc)
                if out:
                    yield out
                elif inflater.eof or not (waiting or inflater.unconsumed_tail):
                    break
        if left:
            raise self._corrupt()
        if self.crc not in {None, crc}:
            raise unlike_checksum(self.path, self.name)

    def of(self, packed: bytes) -> bytes:
        """All of the member's bytes, from the compressed ones. Raises as `chunks`."""
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, self.size + 1)
        except zlib.error:
            raise self._corrupt() from None
        if len(data) != self.size:
            raise self._corrupt()
        if self.crc not in {None, zlib.crc32(data)}:
            raise unlike_checksum(self.path, self.name)
        return data

    def read(self) -> bytearray:
        """All of the member's bytes, as a buffer that grows with what really comes."""
        out = bytearray()
        for chunk in self.chunks():
            out += chunk
        return out

    def head(self, count: int) -> bytes:
        """The first `count` bytes, or all where there are fewer; no more than these inflated."""
        out = bytearray()
        for chunk in self.chunks():
            out += chunk
            if len(out) >= count:
                break
        return bytes(out[:count])

    def _corrupt(self) -> CorruptFileError:
        return CorruptFileError(
            self.path,
            f"its member {quoted(self.name)} does not decompress to the {self.size} bytes that the"
            " archive promises; download or save it again.",
        )
