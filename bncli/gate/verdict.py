"""What becomes of a report that is delivered: which findings count, its verdict, its exit code."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bncli.errors import ExitCode, UsageError
from bncli.files.reading import current
from bncli.light import dataclass
from bncli.report import FailOn, Report, Table, count_findings

if TYPE_CHECKING:
    from bncli.gate.entries import Baseline
    from bncli.gate.selection import Pattern

MOST_CODES = 3
"""Codes of findings that a verdict names as not counted."""


def with_verdict(report: Report, exit_code: ExitCode, said: Sequence[str] = ()) -> Report:
    """The report whose verdict begins with its word, counts the findings, and ends with `said`."""
    word = report.word_for(exit_code)
    counts = count_findings(report.findings)
    scoped = bool(report.scope) and not report.nothing_checked
    if scoped and (counts or not report.verdict):
        counts = f"{counts or 'no findings'} in {report.scope}"
    codes = list(dict.fromkeys(finding.code for finding in report.findings))
    if codes:
        rules = f"bncli rules {codes[0]}"
        counts += f" ({rules} explains it)" if len(codes) == 1 else f" (see {rules})"
    parts = [report.verdict, counts]
    if scoped and word in ("WARN", "FAIL"):
        parts.reverse()  # what was found in the scope is the reason for the word
    if word == "PASS" and _excused(report):
        # The verdict says what differs; that it does not count is the reason for the word.
        left_out = count_suppressed(report)
        parts, said = [left_out, *parts], [one for one in said if one != left_out]
    if report.unread:
        number = len(report.unread)
        parts.append(f"{number} file{'s' * (number > 1)} could not be read")
    sentence = "; ".join(part.rstrip(".") for part in [*parts, *said] if part)
    return replace(report, word=word, verdict=f"{word}  {sentence}" if word else sentence)


def _excused(report: Report) -> bool:
    """Whether a difference was found and is not counted."""
    if not report.suppressed:
        return False
    from bncli.rulebook.comparison import DIFFERS, NOT_COMPARED

    return any(item.finding.code in (DIFFERS.code, NOT_COMPARED.code) for item in report.suppressed)


def _codes(report: Report, by: str) -> str:
    """The codes of the findings that were taken out, if they are few, in brackets."""
    codes = list(dict.fromkeys(item.finding.code for item in report.suppressed if item.by == by))
    return f" ({', '.join(codes)})" if len(codes) <= MOST_CODES else ""


def count_suppressed(report: Report) -> str:
    """How many findings were taken out, and by what."""
    counts = Counter(item.by for item in report.suppressed)
    names = {"select": "not selected", "ignore": "ignored", "baseline": "in the baseline"}
    said = [f"{counts[by]} {name}{_codes(report, by)}" for by, name in names.items() if counts[by]]
    return f"not counted: {', '.join(said)}"


@dataclass(slots=True)
class Gate:
    """The flags of findings. Raises UsageError at once for a --select or --ignore that is wrong.

    `begin` reads the baseline before the work starts, and `counted` finishes the report after it.
    """

    fail_on: FailOn
    select_texts: Sequence[str] | None
    ignore_texts: Sequence[str] | None
    baseline: str | None
    update_baseline: bool
    select: tuple[Pattern, ...] = field(init=False)
    ignore: tuple[Pattern, ...] = field(init=False)
    known: Baseline | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Parse the patterns."""
        self.select = _patterns(self.select_texts, "--select")
        self.ignore = _patterns(self.ignore_texts, "--ignore")

    def begin(self) -> None:
        """Read the baseline, and let nothing but --update-baseline rewrite it.

        Raises UsageError where none is named that could be updated, and FileError for one that
        cannot be read or written. An empty path means none, whatever the settings say.
        """
        if self.baseline:
            current().renewed.add(os.path.realpath(self.baseline))
            self.known = _read_baseline(self.baseline, update=self.update_baseline)
        elif self.update_baseline:
            raise UsageError("--update-baseline: say which file with --baseline FILE.")

    def counted(self, report: Report) -> tuple[Report, ExitCode]:
        """The report as it is delivered, with its verdict, and its exit code.

        It has the findings that count, tables of at most MOST_ROWS rows, and what else is to be
        said of this call. The baseline is rewritten where that is asked for.
        """
        if self.update_baseline and self.baseline:
            from bncli.files.save import refuse_overwriting

            refuse_overwriting(self.baseline, "--baseline", renewing=True)
        report = _with_missing(report)
        report = replace(report, tables=tuple(map(Table.shortened, report.tables)))
        report, said = self._chosen(report)
        if callable(report.answer):
            report = replace(report, answer=report.answer(report, self.fail_on))
        exit_code = report.exit_code(self.fail_on)
        report = with_verdict(report, exit_code, said)
        if notes := current().notes:
            facts = {**report.facts, "notes": list(notes)}
            report = replace(report, facts=facts, remarks=(*report.remarks, *notes))
        return report, exit_code

    def _chosen(self, report: Report) -> tuple[Report, list[str]]:
        """The report with the findings that count, and what else its verdict has to say."""
        said = []
        gone = 0
        if self.select or self.ignore:
            from bncli.gate.selection import selected

            report = selected(report, self.select, self.ignore)
        baseline = self.baseline
        if baseline and self.known is not None:
            from bncli.gate.baseline import known_removed, update_baseline

            if not self.update_baseline:
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
        said += [count_left_out(table) for table in report.tables if table.left_out]
        if report.suppressed:
            said.append(count_suppressed(report))
        if gone:
            verb, them = ("is", "it") if gone == 1 else ("are", "them")
            said.append(
                f"{gone} of {baseline} {verb} no longer found: --update-baseline removes {them}"
            )
        return report, said


def count_left_out(table: Table) -> str:
    """How many rows a table has of those that there are."""
    rows = len(table.rows)
    return f"the table {table.key} holds {rows} of {rows + table.left_out} rows"


def _patterns(texts: Sequence[str] | None, flag: str) -> tuple[Pattern, ...]:
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
