"""Races: bncli and its rivals take turns in one run, and a table of ratios is printed at the end.

    python -m pytest tests/benchmarks

A machine's speed changes from minute to minute, and so do a neighbour's demands on its memory;
only times taken in turns can be compared. Each turn waits a little for idle processors; the lines
above the table say how many found none. Each cell is the least of several turns. Nothing fails
for being slow: the table says what was promised and what was measured.
"""

import os
import time
from dataclasses import dataclass

import numpy as np
import pytest

from .idle import WAITS, await_idle

ROWS = pytest.StashKey[list]()
WAIT_EVERY = 100
"""Rounds between two waits, where there are so many that each is short."""


@dataclass
class Row:
    """A line of the table: a case, the rival, the ratio wanted and what the turns took."""

    case: str
    rival: str
    threads: str
    wanted: str
    measured: str
    reached: bool | None


@pytest.fixture
def rows(request):
    return request.config.stash[ROWS]


def pytest_configure(config):
    config.stash[ROWS] = []


def turns(contestants, rounds):
    """The least time of each of `contestants`, who take turns."""
    best = dict.fromkeys(contestants, float("inf"))
    for number in range(rounds):
        for name, function in contestants.items():
            if number % WAIT_EVERY == 0 or rounds < WAIT_EVERY:
                await_idle()
            begun = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - begun)
    return best


@pytest.fixture
def race(rows, benchmark):
    """A function that races `ours` with `rivals` and notes how the promised ratios fare.

    `rivals` maps a name to a function and the least ratio wanted of the rival's time to ours
    (below 1 where bncli may take longer), or None where the ratio is only told.
    """

    def run(case, threads, ours, rivals, *, values, rounds=9):
        contestants = {"bncli": ours, **{name: rival for name, (rival, _) in rivals.items()}}
        best = turns(contestants, rounds)
        mine = best["bncli"]
        benchmark.pedantic(ours, rounds=1)
        benchmark.extra_info.update({name: round(t, 9) for name, t in best.items()})
        for name, (_, wanted) in rivals.items():
            ratio = best[name] / mine
            pace = f"{ratio:.2f} ({_time(mine)}, {values / mine / 1e9:.2f} Gvalues/s)"
            rows.append(
                Row(
                    case,
                    name,
                    str(threads),
                    "" if wanted is None else f"{wanted:.2f}",
                    pace,
                    None if wanted is None else ratio >= wanted,
                )
            )

    return run


def _time(seconds):
    """A time with its unit."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[ROWS]
    if not rows:
        return
    write = terminalreporter.write_line
    write("")
    write(f"NumPy {np.__version__}, {os.cpu_count()} processors, the least of several turns.")
    write(f"{WAITS.count(False)} of {len(WAITS)} waits for idle processors were in vain.")
    write("The ratio is the rival's time (or memory) over bncli's: more is better for bncli.")
    write("")
    write("| case | rival | threads | wanted | ratio (bncli took) | reached |")
    write("|---|---|---|---|---|---|")
    for row in rows:
        reached = {True: "yes", False: "no", None: ""}[row.reached]
        write(
            f"| {row.case} | {row.rival} | {row.threads} | {row.wanted} | {row.measured} "
            f"| {reached} |"
        )
