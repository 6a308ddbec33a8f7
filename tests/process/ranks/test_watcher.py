"""A thread that ends the main thread's work where another rank has failed."""

from __future__ import annotations

import threading
import time

import pytest

from bncli.errors import ExitCode
from bncli.process.ranks import watcher as module
from bncli.process.ranks.board import Board, Failure
from bncli.process.ranks.watcher import Watcher
from tests.process.ranks.fakes import FakeStore, place

FAILURE = Failure(1, "node1", "x.npy: it is broken.", ExitCode.ERROR)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    for name, value in {"POLL": 0.01, "BEAT": 0.02, "SILENCE": 0.3, "GRACE": 0.1}.items():
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def watched():
    """Watchers of rank 0 of 3, over one store, with an event for the end of the main thread."""
    store, watchers = FakeStore(), []

    def watched(rank=0):
        ended = threading.Event()
        watcher = Watcher(Board(store, rank), place(rank, 3), ended.set)
        watchers.append(watcher)
        watcher.ended = ended
        watcher.start()
        return watcher

    yield store, watched
    for watcher in watchers:
        watcher.stop()


def test_a_failure_of_another_ends_the_main_thread(watched):
    store, start = watched
    watcher = start()
    assert not watcher.ended.wait(0.1)
    Board(store, 1).fail(FAILURE)
    assert watcher.ended.wait(5)
    watcher.stop()
    assert (watcher.failure, watcher.says_it) == (FAILURE, False)


@pytest.mark.parametrize("how", ["relax", "stop"])
def test_who_goes_on_alone_or_is_done_is_not_interrupted(watched, how):
    store, start = watched
    watcher = start()
    getattr(watcher, how)()
    Board(store, 1).fail(FAILURE)
    assert not watcher.ended.wait(0.2)


def test_a_main_thread_that_does_not_end_is_ended(watched, monkeypatch, capsys):
    store, start = watched
    codes = []
    monkeypatch.setattr(module.os, "_exit", codes.append)
    start()
    Board(store, 1).fail(FAILURE)
    end = time.monotonic() + 5
    while not codes and time.monotonic() < end:
        time.sleep(0.01)
    assert codes == [2]
    assert int(store.get("gone")) == 1
    assert capsys.readouterr().err == ""


def test_a_store_that_is_gone_is_a_failure_of_ones_own(watched):
    store, start = watched
    watcher = start(1)
    store.lost = True
    assert watcher.ended.wait(5)
    watcher.stop()
    assert watcher.says_it
    assert watcher.failure.rank == 1
    assert watcher.failure.sentence == (
        "the connection to the other ranks at 127.0.0.1:29500 was lost."
    )


def test_rank_0_misses_a_rank_that_gives_no_sign_of_life(watched):
    store, start = watched
    first, other = start(0), Board(store, 2)
    first.met(("node0", "node1", "node2"))
    while not first.ended.wait(0.01):
        other.beat()
    first.stop()
    assert first.failure == Failure(1, "node1", "it has given no sign of life for 0.3 s.", 2)
    assert first.says_it


def test_the_others_watch_rank_0_alone(watched):
    store, start = watched
    zero, second = Board(store, 0), start(1)
    second.met(("node0", "node1", "node2"))
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        zero.beat()
        assert not second.ended.wait(0.01)  # though rank 2 gives no sign
    assert second.ended.wait(5)
    second.stop()
    assert second.failure.rank == 0


def test_who_stood_still_itself_blames_nobody(watched, monkeypatch):
    """A process that was stopped and goes on finds all others as silent as it was."""
    monkeypatch.setattr(module, "STANDSTILL", 0.0)
    _, start = watched
    watcher = start(0)
    watcher.met(("node0", "node1", "node2"))
    assert not watcher.ended.wait(0.6)


def test_it_gives_signs_of_life_itself(watched):
    store, start = watched
    start(1)
    end = time.monotonic() + 5
    while Board(store, 0).beats(1) < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
