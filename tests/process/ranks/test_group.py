"""The group as a command sees it: payloads, agreements, and waits that end."""

from __future__ import annotations

import threading
import time
from queue import Queue

import pytest

from bncli.errors import ExitCode, RankError
from bncli.process.ranks.board import Board, Failure
from bncli.process.ranks.group import LeftError, OtherFailedError, Ranks, current, working
from bncli.process.ranks.watcher import Watcher
from tests.process.ranks.fakes import FakeChannel, FakeStore, place


class Together:
    """Ranks as threads of this process."""

    def __init__(self, world: int) -> None:
        self.store = FakeStore()
        queues = {rank: Queue() for rank in range(world)}
        self.ranks = []
        for rank in range(world):
            board = Board(self.store, rank)
            ranks = Ranks(place(rank, world), board, Watcher(board, place(rank, world)))
            ranks.channel = FakeChannel(queues, rank)
            self.ranks.append(ranks)

    def run(self, work):
        """What each rank's work gives, or the class of what it raises."""
        results = [None] * len(self.ranks)

        def one(rank):
            try:
                results[rank] = work(self.ranks[rank])
            except BaseException as error:  # noqa: BLE001  # the test's to judge
                results[rank] = type(error)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(self.ranks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        return results


@pytest.mark.parametrize("world", [1, 2, 4])
def test_payloads_come_in_the_order_of_the_ranks_and_the_others_leave(world):
    payloads = [bytes([rank]) * rank for rank in range(world)]  # rank 0's is empty
    results = Together(world).run(lambda ranks: ranks.gather(payloads[ranks.rank]))
    assert results == [payloads, *[LeftError] * (world - 1)]


def test_what_is_to_be_checked_is_checked_before_anything_is_sent():
    together = Together(2)

    def refuse():
        raise RankError("x.npy changed.")

    together.ranks[1].before_gather = refuse
    together.ranks[0]._watcher.failure = Failure(1, "node1", "x.npy changed.", 2)
    assert together.run(lambda ranks: ranks.gather(b"")) == [OtherFailedError, RankError]
    assert not together.store.check(["result/size/1"])


def test_several_exchanges_do_not_mix_and_all_go_on():
    def work(ranks):
        first = ranks.collect("first", b"a%d" % ranks.rank)
        second = ranks.collect("second", b"b%d" % ranks.rank)
        return first, second

    zero, *others = Together(3).run(work)
    assert zero == ([b"a0", b"a1", b"a2"], [b"b0", b"b1", b"b2"])
    assert others == [(None, None)] * 2


def test_none_goes_on_before_all_are_there():
    order = []

    def work(ranks):
        if ranks.leads:
            time.sleep(0.1)
        order.append("come")
        ranks.assemble("here")
        order.append("gone on")

    Together(3).run(work)
    assert order == ["come"] * 3 + ["gone on"] * 3


def test_all_agree_with_rank_0():
    results = Together(3).run(lambda r: r.agree("go", f"yes {r.rank}" if r.leads else None))
    assert results == ["yes 0"] * 3


def test_who_waits_for_rank_0_leaves_when_it_is_done():
    together = Together(2)
    Board(together.store, 0).finish(ExitCode.NOTHING)
    with pytest.raises(LeftError):
        together.ranks[1].gather(b"late")


def test_a_failure_ends_a_wait():
    ranks = Together(2).ranks[0]
    ranks._watcher.failure = Failure(1, "node1", "x.", 2)
    with pytest.raises(OtherFailedError):
        ranks.collect("x", b"")


def test_a_store_that_is_gone_ends_a_wait():
    together = Together(2)
    together.store.lost = True
    with pytest.raises(RankError, match="connection to the other ranks was lost"):
        together.ranks[0].wait(lambda: together.store.check(["x"]) or None)


def test_the_current_group_is_that_of_the_call():
    ranks = Together(1).ranks[0]
    with working(ranks):
        assert current() is ranks
    with pytest.raises(IndexError):
        current()


def test_a_rank_is_named_with_its_machine():
    ranks = Together(2).ranks[0]
    assert ranks.said(1) == "rank 1"
    ranks.hosts = ("a", "b")
    assert ranks.said(1) == "rank 1 on b"
    assert (ranks.rank, ranks.world, ranks.leads) == (0, 2, True)
