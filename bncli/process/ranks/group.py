"""The ranks that work on a call, as a command sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from bncli.errors import RankError
from bncli.process.ranks.board import Board
from bncli.process.ranks.place import Place
from bncli.process.ranks.watcher import Watcher

Value = TypeVar("Value")

_SHORTEST, _LONGEST = 0.005, 0.2
"""Seconds between two looks for what another rank posts."""


class LeftError(BaseException):
    """A rank other than 0 has sent what it had: the rest of the command is rank 0's alone."""


class OtherFailedError(BaseException):
    """Another rank has failed."""


class Channel(Protocol):
    """What carries payloads: `Gloo`."""

    def send(self, payload: bytes) -> None:
        """Send to rank 0."""

    def receive(self, rank: int, size: int) -> bytes:
        """What a rank sends."""

    def close(self) -> None:
        """Take it apart."""


class Ranks:
    """The group, seen by one of its ranks; rank 0 leads.

    `hosts` are the machines of the ranks, and `channel` carries payloads, once all have come.
    `before_gather` is called when this rank has read all that it reads, and may raise; what is in
    `afterwards`, when rank 0 has delivered.
    """

    def __init__(self, place: Place, board: Board, watcher: Watcher) -> None:
        self._place = place
        self._board = board
        self._watcher = watcher
        self.channel: Channel | None = None
        self.hosts: tuple[str, ...] = ()
        self.before_gather: Callable[[], object] = lambda: None
        self.afterwards: list[Callable[[], object]] = []

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return self._place.rank

    @property
    def world(self) -> int:
        """How many ranks there are."""
        return self._place.world

    @property
    def local_world(self) -> int:
        """How many of the ranks share this machine."""
        return self._place.local_world

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone makes the report."""
        return self._place.rank == 0

    def said(self, rank: int) -> str:
        """A rank and its machine, in a sentence."""
        return f"rank {rank} on {self.hosts[rank]}" if self.hosts else f"rank {rank}"

    def collect(self, name: str, payload: bytes) -> list[bytes] | None:
        """Every rank's payload on rank 0, in the order of the ranks; None on the others.

        Each rank sends when all those before it have; the name tells this exchange from others.
        """
        assert self.channel is not None
        self._board.post(f"{name}/size/{self.rank}", str(len(payload)))
        if not self.leads:
            self.wait(lambda: self._board.read(f"{name}/send/{self.rank}"))
            self.channel.send(payload)
            return None
        payloads = [payload]
        for rank in range(1, self.world):
            size = self.wait(lambda rank=rank: self._board.read(f"{name}/size/{rank}"))  # type: ignore[misc]  # a default binds the number
            self._board.post(f"{name}/send/{rank}")
            payloads.append(self.channel.receive(rank, int(size)))
        return payloads

    def gather(self, payload: bytes) -> list[bytes]:
        """Every rank's payload on rank 0, in the order of the ranks; the others leave the command.

        Nothing that happens to them matters to rank 0 any more.
        """
        self.before_gather()
        payloads = self.collect("result", payload)
        if payloads is None:
            raise LeftError
        self._watcher.relax()
        return payloads

    def assemble(self, name: str) -> None:
        """Wait until all ranks are here; the name tells this place from others."""
        self._board.post(f"{name}/at/{self.rank}")
        every = [f"{name}/at/{rank}" for rank in range(self.world)]
        self.wait(lambda: self._board.has(every) or None)

    def agree(self, name: str, text: str | None = None) -> str:
        """The text that rank 0 has for all; only rank 0's is taken."""
        if self.leads:
            assert text is not None
            self._board.post(f"agreed/{name}", text)
            return text
        return self.wait(lambda: self._board.read(f"agreed/{name}"))

    def wait(self, look: Callable[[], Value | None]) -> Value:
        """What a look finds, sooner or later.

        Raises OtherFailedError where a rank fails meanwhile, and LeftError where rank 0 is done.
        """
        pause = _SHORTEST
        while True:
            try:
                found = look()
            except RuntimeError as error:  # torch.distributed's: the store has gone
                if self._watcher.failure is not None:
                    raise OtherFailedError from error
                raise RankError("the connection to the other ranks was lost.") from error
            if found is not None:
                return found
            if self._watcher.failure is not None:
                raise OtherFailedError
            if not self.leads and self._board.code() is not None:
                raise LeftError
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)


_current: list[Ranks] = []


@contextmanager
def working(ranks: Ranks) -> Iterator[None]:
    """Commands that run inside are those of a group."""
    _current.append(ranks)
    try:
        yield
    finally:
        _current.pop()


def current() -> Ranks:
    """The group that this call works in, which it does with --distributed alone."""
    return _current[-1]
