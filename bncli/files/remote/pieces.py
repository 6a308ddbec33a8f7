"""The pieces of a file that are held or on their way, and which are fetched next.

A piece is fetched in the background by a thread of its own, and is waited for by who reads it.
What is read next to what was read before comes in larger and larger pieces, and then some blocks
ahead; of what was announced, each run is one piece.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future

LEAST = 1 << 16
"""Bytes that are fetched at least: a request takes as long as some ten thousand bytes."""
FIRST = 1 << 18
"""Bytes of a file's beginning, where its list of tensors is."""
GROWTH = 4
"""How many times the last piece the next one is, where it follows it."""
BLOCK = 1 << 22
"""The largest piece of a file that is read from end to end."""
GAP = 1 << 18
"""Bytes between two announced ranges that are fetched along: they cost less than a request."""
RUN = 1 << 24
"""The largest piece of what was announced."""
IN_FLIGHT = 8
"""Requests at a time, and pieces that are fetched ahead of who reads."""
MOST_HELD = 1 << 26
"""Bytes of all files that are held; beyond, those go that were used longest ago."""

Fetch = Callable[[int, int], bytes]


class Piece:
    """The bytes of a file from `start` to `stop`, once they have come."""

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop
        self.data: Future[bytes] = Future()
        self.used = False


class Shelf:
    """What is held of all files of a call, and how many requests are made at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.slots = threading.Semaphore(IN_FLIGHT)
        self.pieces: OrderedDict[Piece, Pieces] = OrderedDict()
        self.nbytes = 0
        self.waiting = 0
        """Pieces that nobody has used yet."""

    def add(self, piece: Piece, of: Pieces) -> None:
        """Take a new piece, and let the oldest go that were used, then any that have come."""
        self.pieces[piece] = of
        self.nbytes += piece.stop - piece.start
        self.waiting += not piece.used
        for used in (True, False):
            for old in list(self.pieces) if self.nbytes > MOST_HELD else ():
                if self.nbytes <= MOST_HELD:
                    break
                if old is not piece and old.data.done() and (old.used or not used):
                    self.drop(old)

    def use(self, piece: Piece) -> None:
        """Note that a piece is read."""
        if not piece.used:
            piece.used = True
            self.waiting -= 1
        self.pieces.move_to_end(piece)

    def drop(self, piece: Piece) -> None:
        """Forget a piece."""
        of = self.pieces.pop(piece, None)
        if of is not None:
            self.nbytes -= piece.stop - piece.start
            self.waiting -= not piece.used
            of.forget(piece)


class Pieces:
    """What is held of one file of `size` bytes; `fetch` gives exactly the bytes of a range."""

    def __init__(self, size: int, fetch: Fetch, shelf: Shelf) -> None:
        self.size = size
        self._fetch = fetch
        self._shelf = shelf
        self._starts: list[int] = []
        self._held: dict[int, Piece] = {}
        self._ends: dict[int, int] = {}  # where a piece ended -> how long it was
        self._runs: list[tuple[int, int]] = []

    def put(self, start: int, data: bytes) -> None:
        """Hold bytes that have come already."""
        if data:
            with self._shelf.lock:
                piece = Piece(start, start + len(data))
                piece.data.set_result(data)
                piece.used = True
                self._keep(piece)

    def announce(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Remember what else will be read; the first read of it brings it, and what is next."""
        with self._shelf.lock:
            self._runs = joined([*self._runs, *ranges])

    def at_hand(self, offset: int) -> int:
        """How many bytes from here on are held, or on their way in one piece."""
        with self._shelf.lock:
            piece = self._at(offset)
            return 0 if piece is None else piece.stop - offset

    def read_into(self, offset: int, target: memoryview) -> int:
        """Fill the target from `offset` on, as far as the file reaches; the bytes that it has."""
        done, count = 0, min(len(target), max(self.size - offset, 0))
        while done < count:
            at = offset + done
            with self._shelf.lock:
                piece = self._piece(at, count - done)
                self._shelf.use(piece)
            try:
                data = piece.data.result()
            except BaseException:
                with self._shelf.lock:
                    self._shelf.drop(piece)
                raise
            part = memoryview(data)[at - piece.start :][: count - done]
            target[done : done + len(part)] = part
            done += len(part)
        return done

    def _piece(self, at: int, count: int) -> Piece:
        """The piece with this byte, asked for where it is not there, and some ahead."""
        piece = self._at(at)
        if piece is not None:
            if not piece.used and piece.stop - piece.start == self._ends.get(piece.stop):
                self._ahead(piece)
            return piece
        run = self._run(at)
        if run is not None:
            first = self._ask(*run, at)
            self._announced(run)
            return first
        before = self._ends.get(at, 0)
        length = min(max(count, GROWTH * before, LEAST if at else FIRST), BLOCK)
        if length == BLOCK:  # blocks begin where those of other threads do
            length = BLOCK - at % BLOCK
        first = self._ask(at, at + length, at)
        if count > length or (before and length + at % BLOCK == BLOCK):
            self._ahead(first)
        return first

    def _ahead(self, piece: Piece) -> None:
        """Ask for what follows a piece, where it was one of the blocks or runs."""
        run = self._run(piece.start)
        if run is not None:
            self._announced(run)
            return
        at = piece.stop
        while at < self.size and self._shelf.waiting < IN_FLIGHT:
            there = self._at(at)
            at = self._ask(at, at + BLOCK - at % BLOCK, at).stop if there is None else there.stop

    def _announced(self, run: tuple[int, int]) -> None:
        """Ask for the runs that follow one."""
        for start, stop in self._runs[bisect_right(self._runs, run) :]:
            if self._shelf.waiting >= IN_FLIGHT or self._shelf.nbytes > MOST_HELD // 2:
                break
            at = start
            while at < stop:
                there = self._at(at)
                at = self._ask(at, stop, at).stop if there is None else there.stop

    def _run(self, at: int) -> tuple[int, int] | None:
        """The announced run with this byte."""
        place = bisect_right(self._runs, (at, self.size)) - 1
        if place >= 0 and self._runs[place][0] <= at < self._runs[place][1]:
            return self._runs[place]
        return None

    def _at(self, at: int) -> Piece | None:
        """The piece with this byte, held or on its way."""
        place = bisect_right(self._starts, at) - 1
        if place < 0:
            return None
        piece = self._held[self._starts[place]]
        return piece if at < piece.stop else None

    def _ask(self, start: int, stop: int, at: int) -> Piece:
        """Ask for what is missing about the byte `at`, from `start` to `stop` at most."""
        place = bisect_right(self._starts, at)
        if place:
            start = max(start, self._held[self._starts[place - 1]].stop)
        if place < len(self._starts):
            stop = min(stop, self._starts[place])
        piece = Piece(start, min(stop, self.size))
        self._ends[piece.stop] = piece.stop - piece.start
        self._keep(piece)
        threading.Thread(target=self._bring, args=(piece,), daemon=True).start()
        return piece

    def _keep(self, piece: Piece) -> None:
        insort(self._starts, piece.start)
        self._held[piece.start] = piece
        self._ends.setdefault(piece.stop, piece.stop - piece.start)
        self._shelf.add(piece, self)

    def forget(self, piece: Piece) -> None:
        """Take a piece out, which the shelf has dropped."""
        if self._held.get(piece.start) is piece:
            del self._held[piece.start]
            self._starts.remove(piece.start)

    def _bring(self, piece: Piece) -> None:
        """Fetch a piece, in a thread of its own."""
        with self._shelf.slots:
            try:
                piece.data.set_result(self._fetch(piece.start, piece.stop))
            except BaseException as error:  # noqa: BLE001 (raised again for who reads)
                piece.data.set_exception(error)


def together(calls: Iterable[Callable[[], object]]) -> None:
    """Make calls, some at a time. Raises the first error, after which no further one is made."""
    waiting = iter(list(calls))
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        while not errors:
            with lock:
                call = next(waiting, None)
            if call is None:
                return
            try:
                call()
            except BaseException as error:  # noqa: BLE001 (raised again below)
                errors.append(error)

    team = [threading.Thread(target=work, daemon=True) for _ in range(IN_FLIGHT)]
    for thread in team:
        thread.start()
    try:
        for thread in team:
            thread.join()
    except BaseException as error:
        errors.append(error)  # so that the others stop
        raise
    if errors:
        raise errors[0]


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges as runs in their order, small gaps filled and long runs cut."""
    runs: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if stop <= start:
            continue
        if runs and start <= runs[-1][1] + GAP:
            runs[-1] = runs[-1][0], max(runs[-1][1], stop)
        else:
            runs.append((start, stop))
    return [(at, min(at + RUN, stop)) for start, stop in runs for at in range(start, stop, RUN)]
