"""A report on its way out: which of its findings count, and where it is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import ExitCode
from bncli.files.reading import current
from bncli.gate.verdict import Gate, count_left_out
from bncli.process.streams import color_wanted, print_text, say
from bncli.renderers import Format, check_format, format_of, rendered
from bncli.renderers.interface import RenderContext
from bncli.report import FailOn, Report, Saved

if TYPE_CHECKING:
    from bncli.arguments.output import Output


BLOCK = 1 << 20
"""Characters of a report that are written at once."""


class Delivery:
    """The flags checked before the work begins, and the report's way out after it.

    Raises UsageError and FileError at once for what could not succeed later.
    """

    def __init__(self, flags: Output) -> None:
        from bncli.files.save import check_writable

        self.flags = flags
        self.fail_on = flags.fail_on or FailOn.ERROR
        self.gate = Gate(
            self.fail_on, flags.select, flags.ignore, flags.baseline, flags.update_baseline
        )
        if not flags.quiet:
            check_format(flags.format, f"--format {flags.format.value}")
        for path in flags.output or ():
            check_format(format_of(path), f"--output {path}")
            check_writable(path)
            current().reports[os.path.realpath(path)] = path
        self.gate.begin()
        if flags.quiet:
            from bncli.process import progress

            progress.silence()

    def deliver(self, report: Report) -> ExitCode:
        """Write the report to where it should go, and return its exit code."""
        from bncli.files.save import refuse_overwriting

        flags = self.flags
        for path in flags.output or ():
            refuse_overwriting(path, "--output")
        report, exit_code = self.gate.counted(report)
        for path in (flags.output or ()) if report.saved is not Saved.NO else ():
            context = RenderContext(
                exit_code, flags.width, verbose=flags.verbose, fail_on=self.fail_on
            )
            write(path, rendered(format_of(path), report, context), new=report.saved is Saved.NEW)
        if not flags.quiet:
            for piece in in_blocks(rendered(flags.format, report, self._context(exit_code))):
                print_text(piece)
        formats = {flags.format} if not flags.quiet else set()
        formats |= {format_of(path) for path in flags.output or ()}
        if Format.CSV in formats and report.tables[0].left_out:
            say(f"{count_left_out(report.tables[0])}.")  # CSV has no place for it
        for unread in report.unread:
            say(f"{unread.path}: {unread.problem}")
        return exit_code

    def _context(self, exit_code: ExitCode) -> RenderContext:
        """How standard output looks."""
        terminal = sys.stdout is not None and sys.stdout.isatty()
        width = self.flags.width
        if width is None and terminal:
            width = _terminal_width()
        return RenderContext(exit_code, width, self.flags.verbose, color_wanted(), self.fail_on)


def _terminal_width() -> int:
    """The columns of the terminal behind standard output, 80 where it does not say."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):  # no file behind it, or one that is not a terminal after all
        return 80


def in_blocks(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in fewer pieces, of BLOCK characters or a little more; one if it is short."""
    held: list[str] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += len(piece)
        if length >= BLOCK:
            yield "".join(held)
            held, length = [], 0
    if held:
        yield "".join(held)


def write(path: str, pieces: Iterable[str], *, new: bool) -> None:
    """Write a report to a file, with `new` to one that is not there. Raises FileError."""
    from bncli.files.save import THERE, replacing

    with replacing(Path(path), new=new, exists=THERE) as stream:
        for text in in_blocks(pieces):
            stream.write(text.encode(errors="backslashreplace"))  # a path may not be Unicode
