"""GitHub-flavoured Markdown, for a pull request or a job summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.renderers._cells import format_cell
from bncli.report import printable

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report, Table


def render(report: Report, context: RenderContext) -> str:  # noqa: ARG001  # looks one way
    """The report as Markdown: verdict, findings, facts, then every table."""
    lines = [f"## bncli {report.command}", ""]
    if report.verdict:
        lines += [f"**{_escape(report.verdict)}**", ""]
    for finding in report.findings:
        line = f"- **{finding.severity.value}** `{finding.code}` {_escape(finding.subject)}: "
        line += _escape(finding.message)
        if finding.hint:
            line += f" _{_escape(finding.hint)}_"
        lines.append(line)
    if report.findings:
        lines.append("")
    for table in report.tables:
        lines += _table(table)
    lines += ["<details><summary>Facts</summary>", "", "| fact | value |", "|---|---|"]
    lines += [
        f"| {_escape(key)} | {_escape(format_cell(value))} |" for key, value in report.facts.items()
    ]
    return "\n".join([*lines, "", "</details>", ""])


def _table(table: Table) -> list[str]:
    """A heading, the table, and an empty line behind it."""
    lines = [f"### {_escape(table.title)}", ""]
    lines.append("| " + " | ".join(_escape(column.title) for column in table.columns) + " |")
    lines.append("|" + "---|" * len(table.columns))
    for row in table.rows:
        cells = (_escape(format_cell(row[column.key], column.spec)) for column in table.columns)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _escape(text: str) -> str:
    """Text in which Markdown sees nothing but text."""
    text = printable(" ".join(text.split()))
    for character in "\\`*_|<>[]&~$":
        text = text.replace(character, "\\" + character)
    return text
