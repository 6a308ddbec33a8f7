"""A file behind HTTP: each answer is looked at before its body is read.

fsspec's own reading takes the whole body of a server that ignores the range; so the requests are
made here, in the session that fsspec's driver has, with its settings.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from bncli.files.remote import failures
from bncli.files.remote.failures import ChangedError, CutError, NoRangesError, StatusError
from bncli.files.remote.pieces import FIRST
from bncli.files.remote.transport import State

Result = TypeVar("Result")

CHUNK = 1 << 20
WHOLE, PART, UNFIT = 200, 206, 416
RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")


class WebFile:
    """A file by its URL."""

    def __init__(self, system: Any, url: str) -> None:
        self._system = system
        self._url = url

    def begin(self) -> tuple[State, bytes]:
        """Its state and the first bytes."""
        return self._run(lambda: self._begin(FIRST))

    def state(self) -> State:
        """Its state, by a request for one byte: not every server that gives it answers HEAD."""
        return self._run(lambda: self._begin(1))[0]

    def size(self) -> int:
        """Its size, by a request for one byte; of a body that is longer, nothing is read."""
        return self._run(self._size)

    def fetch(self, start: int, stop: int, state: State) -> bytes:
        """The bytes of a range."""
        return self._run(lambda: self._fetch(start, stop, state))

    def download(self, target: Path) -> State:
        """The whole body, of any server."""
        with target.open("wb") as stream:
            return self._run(lambda: self._download(stream))

    async def _begin(self, count: int) -> tuple[State, bytes]:
        async with self._answer(0, count) as answer:
            first, last, size = _range_of(answer)
            if answer.status == UNFIT and size == 0:
                return State(0, _mark(answer)), b""
            if answer.status == PART:
                if size is None:
                    raise NoRangesError
                if (first, last) != (0, min(count, size) - 1):
                    raise ChangedError
                return State(size, _mark(answer)), await _body(answer, min(count, size))
            _check(answer)
            # The whole file: what is short can be had without ranges.
            length = answer.content_length
            if length is None or length > FIRST:
                raise NoRangesError
            return State(length, _mark(answer)), await _body(answer, length)

    async def _size(self) -> int:
        async with self._answer(0, 1) as answer:
            _, _, size = _range_of(answer)
            if answer.status == UNFIT and size == 0:
                return 0
            _check(answer)
            if answer.status == WHOLE:
                size = answer.content_length
            if size is None:
                raise NoRangesError
            return size

    async def _fetch(self, start: int, stop: int, state: State) -> bytes:
        async with self._answer(start, stop) as answer:
            if answer.status == UNFIT:
                raise ChangedError
            _check(answer)
            first, last, size = _range_of(answer)
            if answer.status != PART:
                raise NoRangesError
            state.check(State(state.size if size is None else size, _mark(answer)))
            if (first, last) != (start, stop - 1):
                raise ChangedError
            return await _body(answer, stop - start)

    async def _download(self, target: IO[bytes]) -> State:
        async with self._answer() as answer:
            if answer.status != WHOLE:
                raise StatusError(answer.status)
            async for chunk in answer.content.iter_chunked(CHUNK):
                target.write(chunk)
            encoded = "Content-Encoding" in answer.headers  # and decoded on its way
            if not encoded and answer.content_length not in {None, target.tell()}:
                raise CutError
            return State(target.tell(), _mark(answer))

    @asynccontextmanager
    async def _answer(self, start: int = 0, stop: int | None = None) -> AsyncIterator[Any]:
        """The answer to a request, its body not read yet."""
        from aiohttp import ClientTimeout

        session = await self._system.set_session()
        options = {**self._system.kwargs}
        headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
        if stop is not None:
            headers["Range"] = f"bytes={start}-{stop - 1}"
        wait, total = failures.SECONDS, None if stop is None else failures.MOST_SECONDS
        options.setdefault("timeout", ClientTimeout(total, sock_connect=wait, sock_read=wait))
        url = self._system.encode_url(self._url)
        async with session.get(url, headers=headers, **options) as answer:
            yield answer

    def _run(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """What `work` gives, done in fsspec's own thread."""
        from fsspec.asyn import sync

        result: Result = sync(self._system.loop, work)
        return result


def _check(answer: Any) -> None:
    """Raise StatusError for an answer without the file in it."""
    if answer.status not in {WHOLE, PART}:
        raise StatusError(answer.status)
    if answer.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
        raise NoRangesError


def _mark(answer: Any) -> str:
    found: str = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    return found


def _range_of(answer: Any) -> tuple[int | None, int | None, int | None]:
    """The first and last byte of an answer, and the size of the file, where they are said."""
    fits = RANGE.match(answer.headers.get("Content-Range", "").strip())
    first, last, size = fits.groups() if fits else (None, None, None)
    return (
        None if first is None else int(first),
        None if last is None else int(last),
        None if size in {None, "*"} else int(size or 0),
    )


async def _body(answer: Any, count: int) -> bytes:
    """A body of so many bytes; of a longer one, no more is read."""
    if answer.content_length not in {None, count}:
        raise ChangedError
    out = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK):
        out += chunk
        if len(out) > count:
            raise ChangedError
    if len(out) != count:
        raise CutError
    return bytes(out)
