"""What ranks tell each other."""

from __future__ import annotations

import pytest

from bncli.errors import ExitCode
from bncli.process.ranks.board import Board, Failure
from tests.process.ranks.fakes import FakeStore


@pytest.fixture
def boards():
    store = FakeStore()
    return [Board(store, rank) for rank in range(3)]


def test_what_one_posts_all_read(boards):
    assert boards[1].read("x") is None
    boards[0].post("x", "é")
    boards[0].post("empty")
    assert [board.read("x") for board in boards] == ["é"] * 3
    assert boards[2].read("empty") == ""


def test_the_first_failure_is_the_one(boards):
    assert boards[0].failure() is None
    first = Failure(1, "a", 'x "quoted"\n', ExitCode.ERROR)
    assert boards[1].fail(first)
    assert not boards[2].fail(Failure(2, "b", "y", ExitCode.BUG))
    assert boards[0].failure() == first


def test_a_failure_in_a_line():
    said = Failure(1, "node1", "x.npy: it is broken", 4).said
    assert said == "rank 1 on node1: x.npy: it is broken. All ranks end with exit code 4."
    assert Failure(1, "n", "x.", 2).said == "rank 1 on n: x. All ranks end with exit code 2."


def test_each_rank_comes_once_and_all_leave(boards):
    assert [board.come() for board in (*boards[:2], boards[0])] == [True, True, False]
    boards[0].leave()
    assert not boards[0].all_gone()
    boards[1].leave()
    assert boards[0].all_gone()  # the third has never come


def test_signs_of_life_are_counted_by_rank(boards):
    boards[1].beat()
    boards[1].beat()
    assert [boards[0].beats(rank) for rank in range(3)] == [0, 2, 0]


@pytest.mark.parametrize("code", ExitCode)
def test_rank_0s_code(boards, code):
    assert boards[1].code() is None
    boards[0].finish(code)
    assert boards[1].code() is code
