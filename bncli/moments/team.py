"""Threads that share numbered tasks, whose results come in the order of the numbers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

MOST_THREADS = 6
"""Threads by default: more find the memory busy, and each has about 9 MiB of buffers for a dense
tensor."""
TASKS_AHEAD = 4
"""Tasks a thread may be ahead of who takes the results, which bounds what waits there."""


_sharing = [1]
"""How many processes share this machine; the last one counts."""


@contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Inside, this many processes like this one share the processors."""
    _sharing.append(processes)
    try:
        yield
    finally:
        _sharing.pop()


def default_threads() -> int:
    """One thread for each processor that this process may use, but no more than is good.

    Of processors that several processes share, it is a part.
    """
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        processors = os.cpu_count() or 1
    return min(max(1, processors // _sharing[-1]), MOST_THREADS)


def in_order(
    workers: Sequence[Callable[[int], Result]], start: int, stop: int, ahead: int = TASKS_AHEAD
) -> Generator[Result, None, None]:
    """The results of tasks `start` to `stop` - 1 in order.

    The calling thread is the first worker's, each other worker has one of its own. At most `ahead`
    results per worker are under way or wait for those before them.
    """
    first, *others = workers
    if not others:
        yield from map(first, range(start, stop))
        return
    numbers = count(start)
    results: SimpleQueue[tuple[int, Result | BaseException]] = SimpleQueue()
    permits = threading.Semaphore(ahead * len(workers))
    over = threading.Event()

    def work(worker: Callable[[int], Result]) -> None:
        with np.errstate(all="ignore"):  # a thread begins with NumPy's own settings
            while True:
                permits.acquire()
                number = next(numbers)
                if over.is_set() or number >= stop:
                    return
                try:
                    results.put((number, worker(number)))
                except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
                    results.put((number, error))
                    return

    team = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in others]
    early: dict[int, Result] = {}
    wanted = start
    try:
        for thread in team:
            thread.start()
        while wanted < stop:
            mine = next(numbers) if permits.acquire(blocking=False) else stop
            if mine < stop:
                early[mine] = first(mine)
            # Without a task of its own, this thread waits for the others' results.
            while not results.empty() or (mine >= stop and wanted not in early):
                which, result = results.get()
                if isinstance(result, BaseException):
                    raise result
                early[which] = result
            while wanted in early:
                yield early.pop(wanted)
                permits.release()
                wanted += 1
    finally:
        over.set()
        for _ in team:
            permits.release()
        for thread in team:
            if thread.ident is not None:
                thread.join()
