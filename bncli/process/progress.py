"""A progress bar on standard error for work that takes a while; silent off a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bncli.given import called_from_python

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

Advance = Callable[[int], None]
"""Called with the number of bytes, or of batches, just done; may be called from any thread."""

Total = Callable[[], int | None]
"""Gives the number of batches of a pass, None as long as it is not known."""

PATIENCE = 1.0
"""Seconds after which a bar is shown."""

_silenced = False


def silence() -> None:
    """Show no progress from here on (`--quiet`)."""
    global _silenced  # noqa: PLW0603  # a process is quiet or it is not
    _silenced = True


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """Show a bar of bytes, rate and time left while the block runs, once a second has passed.

    `total` is in bytes. Nothing is shown after `silence`, in a call of the Python interface, or
    where standard error is no terminal.
    """

    def state(seen: int, seconds: float) -> dict[str, Any]:  # noqa: ARG001  # the columns measure
        return {"description": description, "total": total, "completed": seen}

    with _bar(_byte_columns, state) as advance:
        yield advance


@contextmanager
def batch_progress(description: str, total: Total) -> Iterator[Advance]:
    """The same in batches, which may come in several passes of `total()` batches each.

    From the second pass on, the bar says which pass it is; the time left is that of the pass.
    """

    def state(seen: int, seconds: float) -> dict[str, Any]:
        number = total()
        done, before = seen, 0
        if number:
            before, done = divmod(seen - 1, number)
            done += 1
        rate = seen / seconds
        of = f"/{number}" if number else ""
        left = f"  {_clock((number - done) / rate)} left in this pass" if number else ""
        return {
            "description": f"{description}, pass {before + 1}" if before else description,
            "total": number,
            "completed": done,
            "said": f"{done}{of} batches  {rate:.3g}/s{left}",
        }

    with _bar(_batch_columns, state) as advance:
        yield advance


@contextmanager
def _bar(
    columns: Callable[[], list[ProgressColumn]],
    state: Callable[[int, float], Mapping[str, Any]],
) -> Iterator[Advance]:
    """A bar with these columns, in the state that follows from what was seen and the seconds."""
    if _silenced or called_from_python() or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    bar: Progress | None = None
    begun = time.monotonic()
    seen = 0

    def advance(done: int) -> None:
        nonlocal bar, seen
        seen += done
        seconds = time.monotonic() - begun
        if bar is None:
            if seconds < PATIENCE:
                return
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(*columns(), console=Console(stderr=True), transient=True)
            bar.add_task(**state(seen, seconds))
            bar.start()
        bar.update(bar.task_ids[0], **state(seen, seconds))

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _byte_columns() -> list[ProgressColumn]:
    """Bytes, rate and time left."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    ]


def _batch_columns() -> list[ProgressColumn]:
    """Batches, rate and time left, which the state says in words."""
    from rich.progress import BarColumn, TextColumn

    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[said]}", markup=False),
    ]


def _clock(seconds: float) -> str:
    """Seconds as a clock counts them down: "0:07", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
