"""Threads that share tasks."""

import os
import threading
import time

import pytest

from bncli.moments.team import default_threads, in_order, shared_by


def test_processors_where_the_system_does_not_say_which_may_be_used(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    assert default_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert default_threads() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert default_threads() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 99)
    assert default_threads() == 6


def test_processes_that_share_a_machine_share_its_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16), raising=False)
    for processes, threads in {1: 6, 2: 6, 4: 4, 5: 3, 16: 1, 99: 1}.items():
        with shared_by(processes):
            assert default_threads() == threads
    assert default_threads() == 6


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_their_numbers(threads):
    def work(number):
        time.sleep(0.001 * (number % 3))
        return number**2

    assert list(in_order([work] * threads, 3, 40)) == [number**2 for number in range(3, 40)]
    assert list(in_order([work] * threads, 0, 0)) == []


@pytest.mark.parametrize("ahead", [1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_to_who_takes_the_results(threads, ahead):
    before = threading.active_count()

    def work(number):
        if number == 7:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="7"):
        list(in_order([work] * threads, 0, 20, ahead))
    assert threading.active_count() == before


def test_an_error_in_another_thread_ends_all():
    """One result at a time; this thread's own tasks have no error."""
    before, caller = threading.active_count(), threading.get_ident()
    begun = threading.Event()

    def mine(number):
        begun.wait()
        return number

    def others(number):
        begun.set()
        assert threading.get_ident() != caller
        raise ValueError(number)

    with pytest.raises(ValueError, match=r"\d"):
        list(in_order([mine, others], 0, 20, 1))
    assert threading.active_count() == before


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("threads", [2, 4])
def test_a_slow_task_holds_the_others_up(threads, ahead):
    """No more results are begun than may wait, and none is lost."""
    started = []
    seen = []

    def work(number):
        started.append(number)
        if number == 5:
            time.sleep(0.05)
            seen.append(max(started))
        return number

    assert list(in_order([work] * threads, 0, 60, ahead)) == list(range(60))
    assert seen[0] < 5 + ahead * threads
