"""The ways to a file's bytes: what each one does, and that of any driver of fsspec's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bncli.files.remote import failures
from bncli.files.remote.failures import AbsentError, ChangedError, NoRangesError
from bncli.light import dataclass

Result = TypeVar("Result")

MARKS = (
    "ETag", "etag", "generation", "version_id", "VersionId", "md5Hash", "crc32c", "sha256",
    "blob_id", "Content-MD5", "LastModified", "Last-Modified", "last_modified", "mtime", "updated",
    "created",
)  # fmt: skip
"""What drivers call that which a file that was written anew has another of."""


@dataclass(frozen=True, slots=True)
class State:
    """A file's size in bytes, and what a file that was written anew has another of; "" for none."""

    size: int
    mark: str = ""

    def check(self, other: State) -> None:
        """Raise ChangedError where the other is not the same; what is not known is no other."""
        if other.size != self.size or (self.mark and other.mark and self.mark != other.mark):
            raise ChangedError


class Transport(Protocol):
    """The way to one file. Each function may be called by several threads and raises anything."""

    def begin(self) -> tuple[State, bytes]:
        """The file's state, and as many of its first bytes as came with it."""

    def fetch(self, start: int, stop: int, state: State) -> bytes:
        """Exactly these bytes of the file in that state."""

    def state(self) -> State:
        """What the file is now."""

    def size(self) -> int:
        """The file's bytes, of which as few are sent as can be; it need not give out ranges."""

    def download(self, target: Path) -> State:
        """Write all of the file, piece by piece, to one of this system, which is there."""


class DriverFile:
    """A file by its driver's `info` and `cat_file`."""

    def __init__(self, system: Any, inside: str) -> None:
        self._system = system
        self._inside = inside

    def begin(self) -> tuple[State, bytes]:
        """Its state; no bytes come with it."""
        return self._state(self._system.info(self._inside)), b""

    def state(self) -> State:
        """Its state, of which nothing is remembered."""
        self._system.invalidate_cache()
        return self._state(self._system.info(self._inside))

    def size(self) -> int:
        """Its size, which a driver may have from a listing."""
        return self._state(self._system.info(self._inside)).size

    def fetch(self, start: int, stop: int, state: State) -> bytes:  # noqa: ARG002 (see State)
        """Bytes as the driver gives them."""
        data: bytes = self._system.cat_file(self._inside, start=start, end=stop)
        if len(data) != stop - start:
            raise ChangedError
        return data

    def download(self, target: Path) -> State:
        """All of it by the driver's own way of reading in blocks."""
        before = self.state()
        self._system.get_file(self._inside, str(target))
        after = State(target.stat().st_size, before.mark)
        before.check(after)
        return after

    @staticmethod
    def _state(info: dict[str, Any]) -> State:
        if info.get("type") == "directory":
            raise IsADirectoryError
        size = info.get("size")
        if not isinstance(size, int):
            raise NoRangesError
        return State(size, " ".join(str(info[mark]) for mark in MARKS if info.get(mark)))


def persistently(call: Callable[[], Result]) -> Result:
    """What the call gives; it is made again where an error may pass. Raises the last one."""
    for pause in failures.PAUSES[: failures.TRIES - 1]:
        try:
            return call()
        except FileNotFoundError:
            raise AbsentError from None
        except Exception as error:
            if not failures.is_passing(error):
                raise
        time.sleep(pause)
    return call()
