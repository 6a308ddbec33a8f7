"""Standard output carries reports, standard error everything else; either may be closed."""

from __future__ import annotations

import os
import sys

from bncli.errors import FileError
from bncli.report import printable


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
        raise FileError(place, f"cannot be written ({error.strerror}).") from error


def say(sentence: str) -> None:
    """Print one line on standard error, where there is one."""
    if sys.stderr is not None:
        line = printable(" ".join(sentence.split()))
        print(f"bncli: {line}", file=sys.stderr)  # noqa: T201  # its place


def abandon_standard_output() -> None:
    """Let Python's last flush go nowhere, so that it does not complain either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
