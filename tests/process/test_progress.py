"""The bar shows after a second on a terminal, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bncli.given import objects_given
from bncli.process import progress

WORK = """
import sys, time
from bncli.process import progress
if "short" in sys.argv:
    time.monotonic = lambda: 0.5  # however long a busy machine takes
if "quiet" in sys.argv:
    progress.silence()
with progress.progress("statistics", 3_000_000) as advance:
    for _ in range(6):
        advance(500_000)
        time.sleep(float(sys.argv[1]))
print("done")
"""

BATCHES = """
import time, types
from bncli.process import progress
clock = iter(range(1000))
progress.time = types.SimpleNamespace(monotonic=lambda: next(clock) / 2)
number = None
with progress.batch_progress("capture", lambda: number) as advance:
    for _ in range(3):  # each a pass of 6 batches, whose number is known after the first
        for _ in range(6):
            advance(1)
            time.sleep(0.1)
        number = 6
"""


def on_a_terminal(*argv: str, work: str = WORK) -> str:
    """What the work prints to a standard error that is a terminal."""
    import pty  # not on Windows

    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", work, *argv],
        stderr=terminal,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(reader, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == 0
    os.close(reader)
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_long_work_on_a_terminal_shows_bytes_and_rate():
    shown = on_a_terminal("0.4")
    assert "statistics" in shown
    assert "MB" in shown
    assert "/s" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("argv", [("0", "short"), ("0.4", "quiet")])
def test_short_work_and_quiet_show_nothing(argv):
    assert on_a_terminal(*argv) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_batches_are_counted_pass_by_pass():
    shown = on_a_terminal(work=BATCHES)
    assert "capture" in shown
    assert "2 batches  2/s" in shown  # a second has passed, and the number is not known
    assert "capture, pass 2" in shown
    assert "1/6 batches  2/s  0:02 left in this pass" in shown
    assert "capture, pass 3" in shown
    assert "6/6 batches  2/s  0:00 left in this pass" in shown
    assert "pass 4" not in shown


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0:00"), (7.4, "0:07"), (61, "1:01"), (3723, "1:02:03")]
)
def test_time_left_is_written_as_a_clock(seconds, said):
    assert progress._clock(seconds) == said


def test_off_a_terminal_nothing_is_shown(capsys, monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with progress.progress("statistics", 10) as advance:
        advance(5)
        advance(5)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_no_bar_is_shown(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setattr(progress, "_silenced", False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bars = []
    monkeypatch.setattr("rich.progress.Progress.start", lambda _: bars.append(1))
    with progress.progress("bytes", 2) as advance:
        advance(1)
    assert len(bars) == 1  # which the test can see
    with objects_given(), progress.progress("bytes", 2) as advance:
        advance(1)
    assert len(bars) == 1
