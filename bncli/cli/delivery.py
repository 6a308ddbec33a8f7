"""A report on its way out: which of its findings count, and where it is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import ExitCode, UsageError
from bncli.files.reading import current
from bncli.gate.verdict import count_suppressed, with_verdict
from bncli.process.streams import color_wanted, print_text, say
from bncli.renderers import Format, format_of, rendered
from bncli.renderers.interface import RenderContext
from bncli.report import FailOn, Report, Saved, Table

if TYPE_CHECKING:
    from bncli.arguments.output import Output
    from bncli.gate.entries import Baseline
    from bncli.gate.selection import Pattern


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
        self.known: Baseline | None = None
        self.select, self.ignore = (
            _patterns(texts, flag)
            for texts, flag in ((flags.select, "--select"), (flags.ignore, "--ignore"))
        )
        for path in flags.output or ():
            format_of(path)
            check_writable(path)
            current().reports[os.path.realpath(path)] = path
        if flags.baseline:  # an empty path means none, whatever the settings say
            current().renewed.add(os.path.realpath(flags.baseline))
            self.known = _read_baseline(flags.baseline, update=flags.update_baseline)
        elif flags.update_baseline:
            raise UsageError("--update-baseline: say which file with --baseline FILE.")
        if flags.quiet:
            from bncli.process import progress

            progress.silence()

    def deliver(self, report: Report) -> ExitCode:
        """Write the report to where it should go, and return its exit code."""
        from bncli.files.save import refuse_overwriting

        flags = self.flags
        for path in flags.output or ():
            refuse_overwriting(path, "--output")
        if flags.update_baseline and flags.baseline:
            refuse_overwriting(flags.baseline, "--baseline", renewing=True)
        report = _with_missing(report)
        report = replace(report, tables=tuple(map(Table.shortened, report.tables)))
        report, said = self._counted(report)
        if callable(report.answer):
            report = replace(report, answer=report.answer(report, self.fail_on))
        exit_code = report.exit_code(self.fail_on)
        report = with_verdict(report, exit_code, said)
        if notes := current().notes:
            facts = {**report.facts, "notes": list(notes)}
            report = replace(report, facts=facts, remarks=(*report.remarks, *notes))
        for path in (flags.output or ()) if report.saved is not Saved.NO else ():
            context = RenderContext(
                exit_code, flags.width, verbose=flags.verbose, fail_on=self.fail_on
            )
            pieces = rendered(format_of(path), report, context)
            _write(path, pieces, new=report.saved is Saved.NEW)
        if not flags.quiet:
            for piece in in_blocks(rendered(flags.format, report, self._context(exit_code))):
                print_text(piece)
        formats = {flags.format} if not flags.quiet else set()
        formats |= {format_of(path) for path in flags.output or ()}
        if Format.CSV in formats and report.tables[0].left_out:
            say(f"{_count_left_out(report.tables[0])}.")  # CSV has no place for it
        for unread in report.unread:
            say(f"{unread.path}: {unread.problem}")
        return exit_code

    def _counted(self, report: Report) -> tuple[Report, list[str]]:
        """The report with the findings that count, and what else its verdict has to say."""
        said = []
        gone = 0
        if self.select or self.ignore:
            from bncli.gate.selection import selected

            report = selected(report, self.select, self.ignore)
        baseline = self.flags.baseline
        if baseline and self.known is not None:
            from bncli.gate.baseline import known_removed, update_baseline

            if not self.flags.update_baseline:
                report, gone = known_removed(report, self.known, baseline)
                if self.known.former:
                    said.append(
                        f"{baseline} has format 1, whose rule for matching is less strict: "
                        "--update-baseline rewrites it"
                    )
            elif report.unread or report.nothing_checked or current().missing:
                said.append(f"{baseline} is left unchanged because not everything was checked")
            else:
                report, _ = known_removed(report, update_baseline(baseline, report), baseline)
                said.append(f"{baseline} is rewritten")
        said += [_count_left_out(table) for table in report.tables if table.left_out]
        if report.suppressed:
            said.append(count_suppressed(report))
        if gone:
            verb, them = ("is", "it") if gone == 1 else ("are", "them")
            said.append(
                f"{gone} of {baseline} {verb} no longer found: --update-baseline removes {them}"
            )
        return report, said

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


def _patterns(texts: list[str] | None, flag: str) -> tuple[Pattern, ...]:
    """The patterns of --select or --ignore. Raises UsageError."""
    if not texts:
        return ()
    from bncli.gate.selection import parse_patterns

    return parse_patterns(texts, flag)


def _read_baseline(path: str, *, update: bool) -> Baseline:
    """What is known; nothing where the baseline is about to be written for the first time."""
    from bncli.files.save import check_writable
    from bncli.gate.entries import Baseline, read_baseline

    if update:
        check_writable(path)
        if not Path(path).exists():
            return Baseline()
    return read_baseline(path)


def _with_missing(report: Report) -> Report:
    """The report, with a finding for parts that its numbers were to be of, too."""
    if not (missing := current().missing):
        return report
    from bncli.rulebook.parts import missing_parts

    return replace(report, findings=(*report.findings, *map(missing_parts, missing)))


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


def _write(path: str, pieces: Iterable[str], *, new: bool) -> None:
    """Write a report to a file, with `new` to one that is not there. Raises FileError."""
    from bncli.files.save import THERE, replacing

    with replacing(Path(path), new=new, exists=THERE) as stream:
        for text in in_blocks(pieces):
            stream.write(text.encode(errors="backslashreplace"))  # a path may not be Unicode


def _count_left_out(table: Table) -> str:
    """How many rows a table has of those that there are."""
    rows = len(table.rows)
    return f"the table {table.key} holds {rows} of {rows + table.left_out} rows"
