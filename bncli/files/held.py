"""A file that is held in memory, as what came out of a compressed one: it is opened by its path."""

from __future__ import annotations

from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # the system's own kind, which alone has subclasses before Python 3.12


class HeldPath(_Path):
    """The path of a file, for bytes that were unpacked from it: opening it gives these bytes.

    It reads as the file's own path and is equal to no other, for the bytes at an offset are others.
    """

    data: bytes

    def opened(self) -> FileIO:
        """The bytes as a file of its own; they are not copied."""
        return cast("FileIO", BytesIO(self.data))  # alike in all that reading takes

    def __eq__(self, other: object) -> bool:
        """Whether it is this very path."""
        return self is other

    def __hash__(self) -> int:
        """A number of this very path."""
        return id(self)


def held(path: Path, data: bytes) -> HeldPath:
    """The path for bytes that were unpacked from the file at `path`."""
    made = HeldPath(path)
    made.data = data
    return made
