"""The verdict of a report that is delivered: its word, and how many findings count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from bncli.errors import ExitCode
from bncli.report import Report, count_findings

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
