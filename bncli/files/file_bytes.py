"""A tensor's elements as they lie in a file: read, never mapped, and held against a checksum.

A file may be cut while it is read. A mapped page that is gone ends the process; a read that comes
to the end is an error like any other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import field, replace
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bncli.errors import CorruptFileError, FileError
from bncli.files.reading import open_again, read_into
from bncli.light import dataclass, np
from bncli.paths import RemotePath

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 1 << 16
"""Bytes that are read at once although few of them are wanted; it takes less than two reads."""
LOOSE = 2
"""How many times the wanted bytes may be read at once, however many these are."""
CHUNK = 1 << 20
SMALL_MEMBER = 1 << 20
"""An archive's member of up to this many bytes is checked whenever a part of it is read."""
HEADER = 1 << 16
"""A tensor is all of a larger member if no more than this, such as a header, is beside it."""


@dataclass(slots=True, eq=False)
class Checksum:
    """A part of a file with its checksum, as an archive gives it; `fits` once that was seen.

    `member` is its name in the archive. The checksum is a CRC-32; or, where it is `castagnoli`,
    the CRC-32C of a tensor of that name, which says nothing beside a CRC-32.
    """

    member: str
    offset: int
    nbytes: int
    crc: int
    fits: bool = False
    castagnoli: bool = False

    def tells_of(self, nbytes: int) -> bool:
        """Whether it is worth reading all of it for the sake of so many of its bytes."""
        return self.nbytes <= SMALL_MEMBER or self.nbytes - nbytes <= HEADER

    def check(self, file: FileIO, path: Path) -> None:
        """Raise CorruptFileError where the bytes have another checksum; they are read once."""
        if self.fits:
            return
        crc, buffer = 0, memoryview(bytearray(min(CHUNK, self.nbytes)))
        added: Callable[[memoryview, int], int] = zlib.crc32
        if self.castagnoli:
            from bncli.files.crc32c import crc32c as added
        for at in range(0, self.nbytes, CHUNK):
            piece = buffer[: min(CHUNK, self.nbytes - at)]
            read_into(file, path, self.offset + at, piece)
            crc = added(piece, crc)
        if crc != self.crc:
            raise unlike_checksum(path, self.member, "tensor" if self.castagnoli else "member")
        self.fits = True


def unlike_checksum(path: Path, member: str, what: str = "member") -> CorruptFileError:
    """The error for a part of a file that is not what was written."""
    from bncli.report import printable

    shown = printable(member if len(member) <= 80 else f"{member[:77]}...")
    return CorruptFileError(
        path,
        f"its {what} {shown} does not match its checksum; the file is damaged, so download or"
        " save it again (--no-checksum reads it anyway).",
    )


@dataclass(frozen=True, slots=True)
class FileBytes:
    """A tensor's elements as they lie, plain, in a file: `nbytes` from `offset` on.

    `checksum` is that of the part of the file that they are in, where it has one.
    """

    path: Path
    offset: int
    nbytes: int
    byteorder: Literal["little", "big"] = "little"
    checksum: Checksum | None = field(default=None, compare=False, repr=False)

    def opened(self) -> AbstractContextManager[FileIO]:
        """The file. Raises FileError where it cannot be opened any more."""
        return open_again(self.path)

    def check(self, file: FileIO) -> None:
        """Raise CorruptFileError where these are not the bytes that were written.

        Known where they are all of a member of an archive that keeps checksums, or part of a small
        one. A part of a larger one says nothing, and is no reason to read the rest.
        """
        if self.checksum is not None and self.checksum.tells_of(self.nbytes):
            self.checksum.check(file, self.path)

    def part(self, start: int, nbytes: int, wanted: int) -> FileBytes:
        """The `nbytes` from `start` on, of which so many are `wanted`."""
        whole = self.checksum if self.checksum and self.checksum.tells_of(wanted) else None
        return replace(self, offset=self.offset + start, nbytes=nbytes, checksum=whole)

    def elements(
        self,
        file: FileIO,
        dtype: np.dtype[Any],
        shape: Sequence[int],
        strides: Sequence[int],
        start: int = 0,
    ) -> NDArray[Any]:
        """A tensor of `shape` and `strides` (in elements, none negative) from element `start` on.

        Little more is read than that. The array may be a view whose elements share memory. Raises
        FileError where the file has become shorter or the memory does not suffice.
        """
        from numpy.lib.stride_tricks import as_strided

        # What is stepped along; an axis of stride 0 repeats what is there.
        axes = [i for i, step in enumerate(strides) if shape[i] > 1 and step > 0]
        try:
            gathered = self._gathered(
                file, dtype, [shape[i] for i in axes], [strides[i] for i in axes], start
            )
        except MemoryError as error:
            raise FileError(self.path, "there is not enough memory to read it.") from error
        steps = [step * dtype.itemsize for step in strides]
        for axis, step in zip(axes, gathered.strides, strict=True):
            steps[axis] = step
        return as_strided(gathered, shape, steps, writeable=False)

    def _gathered(
        self,
        file: FileIO,
        dtype: np.dtype[Any],
        sizes: list[int],
        steps: list[int],
        start: int,
    ) -> NDArray[Any]:
        from numpy.lib.stride_tricks import as_strided

        wanted = 1
        for size in sizes:
            wanted *= size
        span = _span(sizes, steps)
        if span <= max(LOOSE * wanted, WINDOW // dtype.itemsize):
            flat = np.empty(span, dtype)
            read_into(
                file,
                self.path,
                self.offset + start * dtype.itemsize,
                flat.view(np.uint8).data,
            )
            return as_strided(flat, sizes, [step * dtype.itemsize for step in steps])
        out = np.empty(sizes, dtype)
        axis = max((i for i, size in enumerate(sizes) if size > 1), key=steps.__getitem__)
        rest = _span(sizes[:axis] + sizes[axis + 1 :], steps[:axis] + steps[axis + 1 :])
        count = max(1, (WINDOW // dtype.itemsize - rest) // steps[axis] + 1)
        for first in range(0, sizes[axis], count):
            some = slice(first, min(first + count, sizes[axis]))
            part = [*sizes[:axis], some.stop - first, *sizes[axis + 1 :]]
            out[(slice(None),) * axis + (some,)] = self._gathered(
                file, dtype, part, steps, start + first * steps[axis]
            )
        return out


def _span(sizes: list[int], steps: list[int]) -> int:
    """The elements from the first to the last."""
    return 1 + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))


def announce(places: Iterable[object]) -> None:
    """Say which bytes will be read soon; of places that are no `FileBytes` elsewhere, nothing.

    Nothing is fetched before the first of them is read. Raises FileError where the file is gone.
    """
    ranges: dict[RemotePath, list[tuple[int, int]]] = {}
    for place in places:
        if not isinstance(place, FileBytes) or not isinstance(place.path, RemotePath):
            continue
        begin, nbytes = place.offset, place.nbytes
        if place.checksum is not None and place.checksum.tells_of(nbytes):
            begin, nbytes = place.checksum.offset, place.checksum.nbytes
        of_file = ranges.setdefault(place.path.whole, [])
        of_file.append(place.path.range(begin, nbytes))
    if ranges:
        from bncli.files.remote import prefetch

        for path, wanted in ranges.items():
            prefetch(path, wanted)
