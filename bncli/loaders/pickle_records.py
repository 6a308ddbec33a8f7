"""What a pickle's objects come back as: names, arguments and items, which do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bncli.light import dataclass


class FileView(Protocol):
    """A file that a pickle lies in: its size, and any piece of it."""

    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes from `offset`. Raises FileError where they are not there."""


Buffer = bytes | FileView


class Global:
    """The name of a class or a function; nothing of that name was looked for."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name


class Blob:
    """A long string, number or bytes object, left in the pickle: bytes `start` to `stop`."""

    __slots__ = ("start", "stop")

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop


class Persistent:
    """A reference to something outside the pickle, such as a tensor's storage."""

    __slots__ = ("pid",)

    def __init__(self, pid: object) -> None:
        self.pid = pid


class Dict:
    """A dictionary: its items as pairs, in the file's order, later ones winning."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: list[tuple[object, object]] = []


class Record:
    """An object of any class, or the result of any call, as the pickle describes it.

    `cls` is what would have been called (mostly a `Global`) with `args`; `states` are the values
    given to it afterwards, `pairs` and `elements` the items put into it.
    """

    __slots__ = ("args", "cls", "elements", "pairs", "states")

    def __init__(self, cls: object, args: tuple[object, ...]) -> None:
        self.cls = cls
        self.args = args
        self.states: tuple[object, ...] = ()
        self.pairs: Sequence[tuple[object, object]] = ()  # lists from the first item on
        self.elements: Sequence[object] = ()


@dataclass(frozen=True, slots=True)
class Pickle:
    """What a pickle holds: its object, every reference to the outside, where it lies in what."""

    value: object
    persistents: tuple[Persistent, ...]
    start: int
    end: int
    data: Buffer

    @property
    def length(self) -> int:
        """The number of bytes."""
        return self.end - self.start
