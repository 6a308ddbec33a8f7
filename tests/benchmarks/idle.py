"""A wait for idle processors, where the system tells of them."""

import time
from pathlib import Path

STAT = Path("/proc/stat")
WAITS = []
"""Of each wait, whether the processors became idle."""


def await_idle(seconds=0.3):
    """Wait until the processors are idle for 40 ms, or so many seconds long."""
    if not STAT.exists():  # not Linux
        return
    end = time.monotonic() + seconds
    idle = False
    while not idle and time.monotonic() < end:
        before = _ticks()
        time.sleep(0.04)
        after = _ticks()
        idle = after[0] - before[0] >= after[1] - before[1] - 1
    WAITS.append(idle)


def _ticks():
    """Of all processors together: clock ticks spent idle, and ticks in all."""
    ticks = [int(word) for word in STAT.read_text("utf-8").splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
