"""Threads that share tasks."""

import os
import time

import pytest

from bncli.moments.team import default_threads, in_order


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


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_their_numbers(threads):
    def work(number):
        time.sleep(0.001 * (number % 3))
        return number**2

    assert list(in_order([work] * threads, 3, 40)) == [number**2 for number in range(3, 40)]
    assert list(in_order([work] * threads, 0, 0)) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_to_who_takes_the_results(threads):
    def work(number):
        if number == 7:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="7"):
        list(in_order([work] * threads, 0, 20))
