"""A progress bar on standard error for work that takes a while; silent off a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]
"""Called with the number of bytes just done; may be called from any thread."""


_silenced = False


def silence() -> None:
    """Show no progress from here on (`--quiet`)."""
    global _silenced  # noqa: PLW0603  # a process is quiet or it is not
    _silenced = True


def _ignore(done: int) -> None:
    """Take an advance and show nothing."""


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """Show a bar of bytes, rate and time left while the block runs, once a second has passed.

    `total` is in bytes. Nothing is shown after `silence`, or where standard error is no
    terminal.
    """
    if _silenced or sys.stderr is None or not sys.stderr.isatty():
        yield _ignore
        return
    import time

    bar = None
    begun = time.monotonic()
    seen = 0

    def advance(done: int) -> None:
        nonlocal bar, seen
        seen += done
        if bar is None:
            if time.monotonic() - begun < 1.0:
                return
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            bar.add_task(description, total=total)
            bar.start()
        bar.update(bar.task_ids[0], completed=seen)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()
