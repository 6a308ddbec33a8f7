"""Time and peak memory of whole processes, of Python and of other programs."""

import os
import subprocess
import sys

import pytest

from .idle import await_idle

if sys.platform != "linux":
    pytest.skip("ru_maxrss is in KiB, and wait4 there, on Linux", allow_module_level=True)

BNCLI = "import sys; from bncli.cli import main; sys.exit(main())"

# An installed package has its bytecode beside it, which this setting may keep from being written.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

# A process's ru_maxrss begins with that of the one that started it, so a small one does.
STOPWATCH = """
import os, sys, time
begun = time.perf_counter()
null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, usage = os.wait4(pid, 0)
took = time.perf_counter() - begun, usage.ru_utime + usage.ru_stime
print(os.waitstatus_to_exitcode(status), *took, usage.ru_maxrss * 1024)
"""


class Program(tuple):
    """The command line of a program other than Python, whose path comes first."""

    __slots__ = ()


def measured(*arguments):
    """Wall-clock seconds and peak resident megabytes of Python with some code and its arguments."""
    return measured_program(sys.executable, "-c", *arguments)


def measured_program(*arguments):
    """The same of a command line."""
    seconds, _, peak = _measured(arguments)
    return seconds, peak


def processor_time(*arguments):
    """Seconds of processor time and peak resident megabytes of Python with some code."""
    _, seconds, peak = _measured((sys.executable, "-c", *arguments))
    return seconds, peak


def _measured(arguments):
    """Wall-clock seconds, those of the processor and peak resident megabytes of a command line."""
    told = subprocess.run(
        [sys.executable, "-c", STOPWATCH, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    code, seconds, processor, peak = told.stdout.split()
    assert code in {"0", "1"}, told.stderr
    return float(seconds), float(processor), float(peak) / 1e6


def raced(contestants, rounds):
    """Take turns; the list of seconds and the greatest peak of each of `contestants`.

    Each is Python code with its arguments, or a `Program`.
    """
    seconds = {name: [] for name in contestants}
    memory = dict.fromkeys(contestants, 0.0)
    for _ in range(rounds):
        for name, arguments in contestants.items():
            await_idle(3.0)
            told = measured_program if isinstance(arguments, Program) else measured
            took, peak = told(*arguments)
            seconds[name].append(took)
            memory[name] = max(memory[name], peak)
    return seconds, memory
