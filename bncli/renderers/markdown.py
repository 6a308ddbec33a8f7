"""GitHub-flavoured Markdown, for a pull request or a job summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.renderers.drawing.cells import format_cell
from bncli.report import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bncli.renderers.interface import RenderContext
    from bncli.report import Finding, Report, Table


LONGEST = 1_000_000
"""Bytes of a document: GitHub takes a job summary of up to 1 MiB, or nothing of it."""

OPEN_ROWS = 24
"""Rows of a table that is shown at once; a longer one is folded away under its heading."""


def render(report: Report, context: RenderContext) -> str:  # noqa: ARG001  # looks one way
    """The report as Markdown: verdict, findings, every table, and the facts last."""
    lines = [f"## bncli {report.command}", ""]
    if report.verdict:
        lines += [f"**{_escape(report.verdict)}**", ""]
    facts = ["<details><summary>Facts</summary>", "", "| fact | value |", "|---|---|"]
    facts += [
        f"| {_escape(key)} | {_escape(format_cell(value))} |" for key, value in report.facts.items()
    ]
    room = _Room(LONGEST - _size([*lines, *facts]) - 10_000)  # headings and closing lines
    findings = room.fitting(_finding(report, finding) for finding in report.findings)
    lines += _with_rest(findings, len(report.findings), "findings")
    if report.findings:
        lines.append("")
    for unread in report.unread:
        lines += [f"- **unread** {_escape(unread.path)}: {_escape(unread.problem)}", ""]
    for table in report.tables:
        lines += _table(table, room)
    return "\n".join([*lines, *facts, "", "</details>", ""])


class _Room:
    """What is left of the longest document."""

    def __init__(self, left: int) -> None:
        self.left = left

    def fitting(self, lines: Iterable[str]) -> list[str]:
        """The first of the lines, as many as there is room for."""
        taken = []
        for line in lines:
            self.left -= _size([line])
            if self.left < 0:
                break
            taken.append(line)
        return taken


def _size(lines: list[str]) -> int:
    return sum(len(line.encode(errors="backslashreplace")) + 1 for line in lines)


def _with_rest(shown: list[str], number: int, things: str) -> list[str]:
    """The lines shown, and how many more there are."""
    if len(shown) == number:
        return shown
    return [*shown, "", f"... {number - len(shown)} more {things}: see all of them with -f json."]


def _finding(report: Report, finding: Finding) -> str:
    """One finding as an item of a list."""
    line = f"- **{finding.severity.value}** `{finding.code}` {_escape(report.place_of(finding))}: "
    line += _escape(finding.message)
    return f"{line} _{_escape(finding.hint)}_" if finding.hint else line


def _table(table: Table, room: _Room) -> list[str]:
    """A heading, the table, and an empty line behind it."""
    title = _escape(table.title)
    folded = len(table.rows) > OPEN_ROWS
    lines = [f"### {title}", ""]
    if folded:
        lines += [f"<details><summary>{len(table.rows)} rows</summary>", ""]
    lines.append("| " + " | ".join(_escape(column.title) for column in table.columns) + " |")
    lines.append("|" + "---|" * len(table.columns))
    lines += _with_rest(room.fitting(_rows(table)), len(table.rows), "rows")
    if table.left_out:
        lines += ["", f"... {table.left_out} rows are in no format: choose some of them."]
    return [*lines, "", "</details>", ""] if folded else [*lines, ""]


def _rows(table: Table) -> Iterator[str]:
    for row in table.rows:
        cells = (_escape(format_cell(row[column.key], column.spec)) for column in table.columns)
        yield "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    """Text in which Markdown sees nothing but text."""
    text = printable(text)
    for character in "\\`*_|<>[]&~$":
        text = text.replace(character, "\\" + character)
    return text
