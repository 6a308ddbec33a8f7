"""What of a file is held, and how many requests fetch it."""

from __future__ import annotations

import itertools
import random
import threading
import time
from functools import partial

import pytest

from bncli.files.remote import pieces
from bncli.files.remote.pieces import (
    BLOCK,
    GAP,
    IN_FLIGHT,
    LEAST,
    RUN,
    Pieces,
    Shelf,
    joined,
    together,
)


class Distant:
    """Bytes that are told apart, and what was asked of them."""

    def __init__(self, size: int) -> None:
        self.data = random.Random(0).randbytes(size)
        self.asked: list[tuple[int, int]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.shelf = Shelf()
        self.pieces = Pieces(size, self.fetch, self.shelf)

    def fetch(self, start, stop):
        with self.lock:
            self.asked.append((start, stop))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.002)
        with self.lock:
            self.at_once -= 1
        return self.data[start:stop]

    def read(self, offset, count):
        target = bytearray(count)
        done = self.pieces.read_into(offset, memoryview(target))
        return bytes(target[:done])

    def settle(self):
        for piece in list(self.shelf.pieces):
            piece.data.result()


def test_any_read_gives_the_bytes():
    distant = Distant(3 * BLOCK + 17)
    chance = random.Random(1)
    for _ in range(200):
        offset, count = chance.randrange(len(distant.data) + 9), chance.choice((1, 999, BLOCK, 0))
        assert distant.read(offset, count) == distant.data[offset : offset + count]
    distant.settle()
    covered = sorted(distant.asked)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(covered)), "fetched twice"


def test_reads_of_neighbours_cost_one_request():
    distant = Distant(10 * BLOCK)
    for at in range(0, LEAST, 100):
        distant.read(5 * BLOCK + at, 8)
    assert distant.asked == [(5 * BLOCK, 5 * BLOCK + LEAST)]


def test_a_stream_is_read_ahead_in_blocks_and_bounded_memory(monkeypatch):
    block = 1 << 14
    for name, value in (("BLOCK", block), ("FIRST", 1 << 10), ("LEAST", 1 << 8)):
        monkeypatch.setattr(pieces, name, value)
    monkeypatch.setattr(pieces, "MOST_HELD", 12 * block)
    distant = Distant(40 * block)
    most = 0
    for at in range(0, len(distant.data), 1 << 10):
        assert distant.read(at, 1 << 10) == distant.data[at : at + (1 << 10)]
        most = max(most, distant.shelf.nbytes)
    assert most <= 12 * block
    assert 2 < distant.most_at_once <= IN_FLIGHT
    assert len(distant.asked) <= 40 + 5
    assert sum(stop - start for start, stop in distant.asked) == len(distant.data)


def test_several_threads_read_one_stream():
    distant = Distant(12 * BLOCK)
    wrong = []

    def work(first):
        wrong.extend(
            at
            for at in range(first, len(distant.data), 4 << 20)
            if distant.read(at, 1 << 20) != distant.data[at : at + (1 << 20)]
        )

    team = [threading.Thread(target=work, args=(k << 20,)) for k in range(4)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert not wrong
    assert sum(stop - start for start, stop in distant.asked) == len(distant.data)


def test_no_more_requests_at_a_time_than_are_good():
    distant = Distant(8 * BLOCK)
    places = range(BLOCK // 4, 8 * BLOCK, BLOCK // 4)
    together(partial(distant.read, at, 9) for at in places)
    team = [threading.Thread(target=distant.read, args=(at + LEAST, 9)) for at in places]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert len(distant.asked) == 2 * len(places)
    assert 1 < distant.most_at_once <= IN_FLIGHT


def test_calls_are_made_together_until_one_fails():
    made = []

    def call(number):
        made.append(number)
        if number == 3:
            raise ValueError(number)

    together(partial(call, number) for number in (0, 1, 2))
    assert sorted(made) == [0, 1, 2]
    with pytest.raises(ValueError):
        together(partial(call, number) for number in [3] * 1000)
    assert len(made) < 100


def test_each_announced_run_is_one_request():
    distant = Distant(12 * BLOCK)
    ranges = [(at + part, at + part + 400) for at in range(0, 12 * BLOCK, BLOCK) for part in
              (7, 1007, 100_007)]  # fmt: skip
    distant.pieces.announce(ranges)
    for start, stop in ranges:
        assert distant.read(start, stop - start) == distant.data[start:stop]
    assert sorted(distant.asked) == [(at + 7, at + 100_407) for at in range(0, 12 * BLOCK, BLOCK)]
    assert distant.most_at_once > 1


def test_what_was_held_is_not_announced_again():
    distant = Distant(BLOCK)
    distant.pieces.put(0, distant.data[:LEAST])
    distant.pieces.announce([(LEAST - 100, LEAST + 100)])
    assert distant.read(LEAST - 50, 100) == distant.data[LEAST - 50 : LEAST + 50]
    assert distant.asked == [(LEAST, LEAST + 100)]


@pytest.mark.parametrize(
    ("ranges", "runs"),
    [
        ([], []),
        ([(5, 5)], []),
        ([(9, 20), (0, 4)], [(0, 20)]),
        ([(0, 4), (4 + GAP, 5 + GAP)], [(0, 5 + GAP)]),
        ([(0, 4), (5 + GAP, 6 + GAP)], [(0, 4), (5 + GAP, 6 + GAP)]),
        ([(0, 9), (2, 3)], [(0, 9)]),
        ([(0, RUN + 1)], [(0, RUN), (RUN, RUN + 1)]),
    ],
)
def test_ranges_are_joined_over_small_gaps(ranges, runs):
    assert joined(ranges) == runs


def test_an_error_reaches_who_reads_and_is_not_kept():
    distant = Distant(BLOCK)
    fetch, distant.pieces._fetch = distant.pieces._fetch, lambda *_: 1 // 0
    with pytest.raises(ZeroDivisionError):
        distant.read(0, 5)
    distant.pieces._fetch = fetch
    assert distant.read(0, 5) == distant.data[:5]
