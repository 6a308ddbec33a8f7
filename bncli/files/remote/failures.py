"""What a driver raises, as one sentence: without its own text, which may hold a credential."""

from __future__ import annotations

import asyncio
import os
from http import HTTPStatus

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.paths import RemotePath

TRIES = 3
"""How often a request is made before it has failed."""
PAUSES = (0.2, 0.8)
"""Seconds before the second and the third try."""
SECONDS = 60.0
"""How long a request may go without any byte."""
HIDDEN = {401, 403, 404, 410}
"""Answers that a server gives to what is not there."""
FORBIDDEN = {401, 403}
"""Those that it also gives to what is there."""
MOST_SECONDS = 600.0
"""How long a request for a part of a file may take; for all of it, as long as bytes come."""
BUSY = {408, 425, 429, 500, 502, 503, 504}
"""Answers after which it pays to ask again."""
CHANGED = (
    "it changed while bncli was reading it (its size or its ETag is another one); run again when "
    "it is complete."
)
DOWNLOAD = "give --download, which fetches the whole file to this machine first."


PASSING = {
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientOSError",
    "ClientPayloadError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
    "FSTimeoutError",
}
"""Errors of aiohttp and fsspec that may pass; other drivers try again by themselves."""
UNREACHED = {"EndpointConnectionError", "ConnectionError", "ConnectError"}
"""Theirs for a server that does not answer."""


class StatusError(Exception):
    """An answer that is none."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ChangedError(Exception):
    """Another size or ETag, or another number of bytes, than was to be expected."""


class NoRangesError(Exception):
    """The server gives a file as a whole only, or does not say how long it is."""


class HiddenError(FileError):
    """There is no such file, or the server does not say whether there is."""


class ForbiddenError(HiddenError):
    """The file may be there, but is not given out to who asks."""


class AbsentError(Exception):
    """There is no such file."""


class CutError(Exception):
    """The answer ended before it was complete."""


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed when it is made again."""
    if isinstance(error, StatusError):
        return error.status in BUSY
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return False
    name = type(error).__name__
    kinds = (CutError, ConnectionError, TimeoutError, asyncio.TimeoutError)
    return isinstance(error, kinds) or name in PASSING


def explained(path: RemotePath, error: BaseException) -> FileError:
    """The sentence for what a driver raised; raise it `from None`, for -v shows what is chained."""
    if isinstance(error, FileError):
        return error
    status = getattr(error, "status", None)
    if status == HTTPStatus.BAD_REQUEST and type(error).__name__ == "ClientResponseError":
        return FileError(path, "the server answered 400 Bad Request, or what is not HTTP at all.")
    if isinstance(status, int) and status:
        kind = HiddenError if status in HIDDEN else FileError
        return (ForbiddenError if status in FORBIDDEN else kind)(path, _of_status(status))
    if isinstance(error, ChangedError):
        return CorruptFileError(path, CHANGED)
    if isinstance(error, NoRangesError):
        return UnsupportedFileError(
            path,
            f"the server gives no parts of it (it does not answer range requests); {DOWNLOAD}",
        )
    if isinstance(error, (AbsentError, FileNotFoundError)):
        return absent(path)
    if isinstance(error, PermissionError):
        return ForbiddenError(
            path, "the store refuses access; check the name and your credentials."
        )
    if isinstance(error, IsADirectoryError):
        return UnsupportedFileError(path, "it is a folder; name a file in it.")
    if isinstance(error, MemoryError):
        return FileError(path, "there is not enough memory to read it.")
    name = type(error).__name__
    if "Credential" in name:
        return FileError(path, f"its driver found no credentials that it can use ({name}).")
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)) or "Timeout" in name:
        return FileError(path, f"there was no answer in time, in {TRIES} tries; try again later.")
    reason = _reason(error)
    if isinstance(error, CutError) or name == "ClientPayloadError":
        return FileError(path, f"the answer was cut short in {TRIES} tries; try again later.")
    if is_passing(error):
        return FileError(path, f"the server cannot be reached, in {TRIES} tries ({reason}).")
    if name in UNREACHED:
        return FileError(path, f"the server cannot be reached ({reason}).")
    return FileError(path, f"its driver cannot read it ({reason}).")


def absent(path: RemotePath) -> FileError:
    """The error for what is not there."""
    return HiddenError(path, "there is no such file in the store.")


def _of_status(status: int) -> str:
    """What an HTTP status means for who reads a file."""
    try:
        said = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        said = str(status)
    if status == HTTPStatus.NOT_FOUND:
        return f"there is no such file (the server answered {said})."
    if status in FORBIDDEN:
        return f"the server answered {said}; check the address and your credentials."
    tries = f" in {TRIES} tries" if status in BUSY else ""
    return f"the server answered {said}{tries}."


def _reason(error: BaseException) -> str:
    """The kind of an error in the system's words or its own name: a text may hold the URL."""
    inner = getattr(error, "os_error", error)
    number = getattr(inner, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    return type(error).__name__
