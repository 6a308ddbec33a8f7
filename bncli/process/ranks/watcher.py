"""A thread that looks after the other ranks while the main thread computes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from bncli.errors import ExitCode
from bncli.process import signals
from bncli.process.ranks.board import Board, Failure
from bncli.process.ranks.place import Place
from bncli.process.streams import say

POLL = 0.25
"""Seconds between two looks for a failure."""

GRACE = 5.0
"""Seconds in which the main thread tidies up; after them the process ends all the same."""

BEAT = 5.0
"""Seconds between two signs of life."""

STANDSTILL = 5.0
"""Seconds without a look after which this process itself stood still, and knows nothing."""

SILENCE = 60.0
"""Seconds without a sign of life after which a rank counts as lost."""


class Watcher:
    """Looks for failures of other ranks, and ends what the main thread does where there is one.

    `board` is over a connection of the watcher's own, as each is used by one thread at a time.
    Every rank watches for signs of life from rank 0, and rank 0 from all, whose machines are
    `hosts`. `end` ends what the main thread does, and `tidy` removes what it would have removed
    itself.
    """

    def __init__(
        self,
        board: Board,
        place: Place,
        end: Callable[[], None] | None = None,
        tidy: Callable[[], None] = lambda: None,
    ) -> None:
        self.failure: Failure | None = None
        self.says_it = False
        self._board = board
        self._place = place
        self._end = end or signals.end_main_thread
        self._tidy = tidy
        self._hosts: Sequence[str] = ()
        self._stopped = threading.Event()
        self._relaxed = False
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[int, float]] = {}
        self._thread = threading.Thread(target=self._watch, name="bncli ranks", daemon=True)

    def start(self) -> None:
        """Begin to look for failures."""
        self._thread.start()

    def met(self, hosts: Sequence[str]) -> None:
        """Begin to look for signs of life: all ranks have come, from these machines."""
        self._hosts = hosts

    def relax(self) -> None:
        """The main thread goes on alone: nothing that happens to the others matters any more."""
        with self._lock:
            self._relaxed = True

    def stop(self) -> None:
        """Look no more. Afterwards the main thread is not interrupted."""
        with self._lock:
            self._stopped.set()

    def _watch(self) -> None:
        last = beaten = time.monotonic()
        self._look(self._board.beat)
        while not self._stopped.wait(POLL):
            now = time.monotonic()
            if now - last > STANDSTILL:
                self._seen.clear()
            last = now
            if now - beaten >= BEAT:
                beaten = now
                self._look(self._board.beat)
                self._look(self._listen)
            if not self._relaxed:
                self._look(self._find)
            if self.failure is not None and not self._relaxed:
                self._interrupt()
                return

    def _look(self, step: Callable[[], None]) -> None:
        """One step over the store; a store that is not there any more is a failure."""
        try:
            step()
        except RuntimeError:  # torch.distributed's errors
            if self.failure is None and not self._stopped.is_set() and not self._relaxed:
                self.says_it = True
                where = f"{self._place.address}:{self._place.port}"
                self.failure = Failure(
                    self._place.rank,
                    self._place.host,
                    f"the connection to the other ranks at {where} was lost.",
                    ExitCode.ERROR,
                )

    def _find(self) -> None:
        self.failure = self.failure or self._board.failure()

    def _listen(self) -> None:
        """Count the signs of life of those that this rank looks after."""
        if self._relaxed or not self._hosts:
            return
        others = range(1, self._place.world) if self._place.rank == 0 else (0,)
        now = time.monotonic()
        for rank in others:
            beats = self._board.beats(rank)
            known, since = self._seen.get(rank, (-1, now))
            if beats != known:
                self._seen[rank] = (beats, now)
            elif now - since > SILENCE:
                sentence = f"it has given no sign of life for {SILENCE:g} s."
                failure = Failure(rank, self._hosts[rank], sentence, ExitCode.ERROR)
                self.says_it = self._board.fail(failure)
                self.failure = failure if self.says_it else self._board.failure()
                return

    def _interrupt(self) -> None:
        """Interrupt the main thread, and end the process where that takes too long."""
        with self._lock:
            if self._stopped.is_set() or self._relaxed:
                return
            self._end()
        if self._stopped.wait(GRACE):
            return
        assert self.failure is not None
        self._look(self._board.leave)
        if self.says_it:
            say(self.failure.said)
        self._tidy()
        os._exit(int(self.failure.code))
