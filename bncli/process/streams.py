"""Standard output carries reports, standard error everything else; either may be closed or full."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from bncli.errors import FileError
from bncli.report import printable
from bncli.urls import hidden

if TYPE_CHECKING:
    from typing import TextIO

WIDEST = 10_000
"""Columns or lines of a terminal that are believed."""


def take_any_character() -> None:
    """Let the standard streams show "?" for what they lack, and lack nothing that is kept.

    Windows gives a file or a pipe an encoding of few letters, in which JSON would lose some.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            kept = sys.platform == "win32" and not stream.isatty()
            stream.reconfigure(encoding="utf-8" if kept else None, errors="replace")


def print_text(text: str) -> None:
    """Write to standard output. Raises FileError where it cannot be written."""
    place = "standard output"
    if sys.stdout is None:
        raise FileError(place, "is closed.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        abandon_standard_output()
        if sys.platform == "win32" and error.errno == errno.EINVAL:  # its word for a closed pipe
            raise BrokenPipeError from error
        raise FileError(place, f"cannot be written ({error.strerror}).") from error


def color_wanted() -> bool:
    """Whether standard output is a terminal that shows colours, to a user who wants them."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return terminal and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def say(sentence: str) -> None:
    """Print one line on standard error, where there is one that takes it."""
    if sys.stderr is None:
        return
    try:
        print(f"bncli: {printable(hidden(sentence))}", file=sys.stderr, flush=True)  # noqa: T201  # its place
    except (OSError, ValueError):  # full, closed, or a pipe that nobody reads
        _abandon(sys.stderr)


def abandon_standard_output() -> None:
    """Let Python's last flush go nowhere, so that it does not complain either."""
    _abandon(sys.stdout)


def _abandon(stream: TextIO | None) -> None:
    """Put nowhere behind a stream, if it has a file behind it."""
    try:
        number = stream.fileno() if stream is not None else None
    except (OSError, ValueError):  # not a file, or closed
        return
    if number is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def forget_impossible_sizes() -> None:
    """Take sizes of a terminal that are none out of the environment, where Rich would obey them."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        size = os.environ.get(name, "1")
        if not (size.isascii() and size.isdigit() and 0 < int(size[:9]) <= WIDEST):
            del os.environ[name]
