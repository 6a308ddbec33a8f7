"""A call that several ranks work on: they meet, compute, and end with one exit code."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from typing import Any

from bncli import __version__
from bncli.errors import ExitCode, MissingBackendError, RankError
from bncli.process import progress, signals
from bncli.process.ranks import meeting
from bncli.process.ranks.board import Board, Failure
from bncli.process.ranks.group import LeftError, OtherFailedError, Ranks, working
from bncli.process.ranks.place import Place
from bncli.process.ranks.watcher import GRACE, Watcher
from bncli.process.streams import say

LEAVE_SECONDS = 10.0
"""How long the ranks wait for each other at the end."""

SIGNAL_SECONDS = 1.0
"""How long a rank that was ended by a signal waits for the others."""

_PAUSE = 0.02

Work = Callable[[bool], ExitCode]
"""Does the call's work, as rank 0 where the argument is true, and gives the exit code."""

Explain = Callable[[Exception], tuple[str, ExitCode]]
"""What an error comes to: the sentence that is said of it, and the exit code."""


def together(
    work: Work, explain: Explain, call: str, tidy: Callable[[], None] = lambda: None
) -> ExitCode:
    """Do the work as one of the ranks that torchrun started; every rank returns the same code.

    Rank 0 alone makes the report. Where one rank fails, it says so in one line, and the work of the
    others is interrupted. `call` is the command line, which must be the same on all ranks. `tidy`
    removes temporary files where there is no time for what made them. Raises
    UsageError and MissingBackendError where there can be no group, KeyboardInterrupt and
    `Terminated` as they come, and BrokenPipeError where nobody reads rank 0's report.
    """
    place = Place.here()
    if place.rank:
        progress.silence()
    try:
        store, notes, watched = meeting.open_stores(place)
    except MissingBackendError:
        if place.local_rank:  # which another rank says on this machine
            return ExitCode.ERROR
        raise
    except signals.Terminated:
        _say_terminated(place, Failure(place.rank, place.host, "", ExitCode.TERMINATED))
        raise
    watcher = Watcher(Board(watched, place.rank), place, tidy=tidy)
    run = _Run(place, Board(notes, place.rank), watcher)
    return run.done(work, explain, call, lambda: meeting.Gloo(place, store))


class _Run:
    """One rank's way through a call."""

    def __init__(self, place: Place, board: Board, watcher: Watcher) -> None:
        self._place = place
        self._board = board
        self._watcher = watcher

    def done(self, work: Work, explain: Explain, call: str, connect: Callable[[], Any]) -> ExitCode:
        """Meet, do the work and leave; `connect` gives what carries the payloads."""
        place, watcher = self._place, self._watcher
        if not self._board.come():
            raise RankError(
                f"{place.said}: another process is rank {place.rank} of the group at "
                f"{place.address}:{place.port} already; each process needs a RANK of its own."
            )
        watcher.start()
        try:
            try:
                return self._done(work, call, connect)
            except OtherFailedError:
                return self._follow()
            except (KeyboardInterrupt, signals.Terminated) as signal:
                if watcher.failure is not None:
                    return self._follow()
                interrupted = isinstance(signal, KeyboardInterrupt)
                self._fail("", ExitCode.INTERRUPTED if interrupted else ExitCode.TERMINATED)
                raise
            except BrokenPipeError:
                if place.rank:
                    return self._fail("", ExitCode.CLOSED_PIPE)
                self._finish(ExitCode.CLOSED_PIPE)
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is, the others have to know
                if watcher.failure is not None:
                    return self._follow()
                return self._fail(*explain(error))
        except signals.Terminated:  # from the watcher, while another error was being told
            if watcher.failure is None:
                raise
            return self._follow()

    def _done(self, work: Work, call: str, connect: Callable[[], Any]) -> ExitCode:
        """The course of a call in which nothing fails."""
        place, board = self._place, self._board
        ranks = Ranks(place, board, self._watcher)
        ranks.hosts = self._meet(ranks, call)
        self._watcher.met(ranks.hosts)
        ranks.channel = channel = connect()
        with working(ranks):
            try:
                code = work(ranks.leads)
            except LeftError:
                code = ExitCode.OK
            if not ranks.leads:
                try:
                    code = ranks.wait(board.code)
                except LeftError:  # which is the same
                    found = board.code()
                    code = ExitCode.ERROR if found is None else found
        for tidy in ranks.afterwards:
            tidy()
        if ranks.leads and code:
            say(f"exit code {int(code)} on all ranks; torchrun ends with 1 for any code but 0.")
        self._finish(code)
        channel.close()
        return code

    def _meet(self, ranks: Ranks, call: str) -> tuple[str, ...]:
        """The machines of all ranks, once these have come; raises RankError where they do not fit.

        Raises RankError for those that do not come in time, too.
        """
        place, board = self._place, self._board
        deadline = time.monotonic() + meeting.JOIN_SECONDS
        own = {
            "WORLD_SIZE": place.world,
            "version": __version__,
            "call": zlib.crc32(call.encode(errors="backslashreplace")),
        }
        board.post(f"here/{place.rank}", json.dumps([place.host, own]))

        def look(rank: int) -> str | None:
            text = board.read(f"here/{rank}")
            if text is None and time.monotonic() >= deadline:
                late = [n for n in range(place.world) if board.read(f"here/{n}") is None]
                raise RankError(_missing(late, place.world))
            return text

        hosts = []
        for rank in range(place.world):
            host, its = json.loads(ranks.wait(lambda rank=rank: look(rank)))  # type: ignore[misc]  # a default binds the number
            hosts.append(host)
            for name, value in own.items():
                if its[name] != value:
                    raise RankError(_differing(name, rank, host, its[name], value))
        return tuple(hosts)

    # ------------------------------------------------------------------ the end

    def _finish(self, code: ExitCode) -> None:
        """Share the exit code of rank 0, and leave when all ranks have it."""
        if self._place.rank == 0:
            self._board.finish(code)
        self._watcher.stop()
        self._leave(LEAVE_SECONDS)

    def _fail(self, sentence: str, code: ExitCode) -> ExitCode:
        """Tell the others that this rank cannot go on, and say why; the exit code of all ranks.

        Nothing is said where another rank was the first, which most often has the same to say.
        """
        self._watcher.stop()
        failure = Failure(self._place.rank, self._place.host, sentence, code)
        first = True
        try:
            first = self._board.fail(failure)
            if not first:
                failure = self._board.failure() or failure
        except RuntimeError:  # the store is gone, which the others see for themselves
            pass
        if first and sentence:
            say(failure.said)
        _say_terminated(self._place, failure)
        self._leave(GRACE + 1 if sentence else SIGNAL_SECONDS)
        return ExitCode(failure.code)

    def _follow(self) -> ExitCode:
        """End as another rank has; said on rank 0's machine where that happened on another."""
        failure = self._watcher.failure
        assert failure is not None
        self._watcher.stop()
        elsewhere = self._place.rank == 0 and failure.host != self._place.host
        if failure.sentence and (self._watcher.says_it or elsewhere):
            say(failure.said)
        _say_terminated(self._place, failure)
        self._leave(GRACE + 1 if self._place.keeps_store else 0)
        return ExitCode(failure.code)

    def _leave(self, seconds: float) -> None:
        """Say that this rank is done, and wait for the others; what comes now changes nothing."""
        signals.decided()
        deadline = time.monotonic() + seconds
        try:
            self._board.leave()
            while not self._board.all_gone() and time.monotonic() < deadline:
                time.sleep(_PAUSE)
        except RuntimeError:  # the store has gone with who kept it
            pass


def _say_terminated(place: Place, failure: Failure) -> None:
    """Say on rank 0 that SIGTERM ended a rank: why it came, only torchrun knows."""
    if place.rank == 0 and not failure.sentence and failure.code == ExitCode.TERMINATED:
        say(
            f"rank {failure.rank} on {failure.host}: it was terminated, as torchrun does when "
            "another rank ends; torchrun's own block names that rank."
        )


def _missing(late: list[int], world: int) -> str:
    """Who has not come."""
    shown = ", ".join(map(str, late[:8])) + (", ..." if len(late) > 8 else "")
    who = f"rank {shown}" if len(late) == 1 else f"ranks {shown}"
    return (
        f"{who} of {world} did not come within {meeting.JOIN_SECONDS:g} s; what they print says "
        "why, or they were not started."
    )


def _differing(name: str, rank: int, host: str, value: object, own: object) -> str:
    """What another rank has that does not fit."""
    if name == "call":
        return f"rank {rank} on {host} was called with other flags; all ranks need the same call."
    if name == "version":
        return f"rank {rank} on {host} runs bncli {value} and this rank {own}; install the same."
    return f"rank {rank} on {host} has {name} {value} and this rank {own}; they must be the same."
