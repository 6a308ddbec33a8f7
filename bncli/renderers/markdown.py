"""GitHub-flavoured Markdown, for a pull request or a job summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.renderers.drawing.blocks import blocks
from bncli.renderers.drawing.cells import format_cell
from bncli.report import harmless, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bncli.renderers.drawing.blocks import Block
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report, Table


LONGEST = 1_000_000
"""Bytes of a document: GitHub takes a job summary of up to 1 MiB, or nothing of it."""

OPEN_ROWS = 24
"""Rows of a table that is shown at once; a longer one is folded away under its heading."""


def render(report: Report, context: RenderContext) -> str:
    """The report as Markdown: verdict, subject, findings, answer; with -v every table and fact."""
    lines = [f"## bncli {report.command}", ""]
    if report.verdict:
        lines += [f"**{_escape(report.verdict)}**", ""]
    lines += _paragraphs(report.subject)
    facts = _facts(report) if context.verbose else []
    room = _Room(LONGEST - _size([*lines, *facts]) - 10_000)  # headings and closing lines
    told = [
        room.fitting([_block(full)]) or room.fitting([_block(short)])  # it may be too long
        for full, short in zip(
            blocks(report, every=context.verbose), blocks(report, every=False), strict=True
        )
    ]
    lines += _with_rest([text for texts in told for text in texts], len(told), "rules")
    if told:
        lines.append("")
    for unread in report.unread:
        lines += [f"- **unread** {_escape(unread.path)}: {_escape(unread.problem)}", ""]
    for table in report.answers(verbose=context.verbose):
        lines += _table(table, room)
    lines += _paragraphs(report.remarks)
    for table in report.tables if context.verbose else ():
        lines += _table(table, room)
    return "\n".join([*lines, *facts])


def _paragraphs(texts: Iterable[str]) -> list[str]:
    """Each text, and an empty line behind it."""
    return [line for text in texts for line in (harmless(_escape(text)), "")]


def _facts(report: Report) -> list[str]:
    """The facts, folded away."""
    lines = ["<details><summary>Facts</summary>", "", "| fact | value |", "|---|---|"]
    lines += [
        f"| {_escape(key)} | {_escape(format_cell(value))} |" for key, value in report.facts.items()
    ]
    return [*lines, "", "</details>", ""]


class _Room:
    """What is left of the longest document."""

    def __init__(self, left: int) -> None:
        self.left = left

    def fitting(self, lines: Iterable[str]) -> list[str]:
        """The first of the lines, as many as there is room for."""
        taken = []
        for line in lines:
            size = _size([line])
            if size > self.left:
                break
            self.left -= size
            taken.append(line)
        return taken


def _size(lines: list[str]) -> int:
    return sum(len(line.encode(errors="backslashreplace")) + 1 for line in lines)


def _with_rest(shown: list[str], number: int, things: str) -> list[str]:
    """The lines shown, and how many more there are."""
    if len(shown) == number:
        return shown
    return [*shown, "", f"... {number - len(shown)} more {things}: see all of them with -f json."]


def _block(block: Block) -> str:
    """The findings of one rule as an item of a list, its places as a list inside."""
    said = f"{_escape(block.claim)} ({block.certainty})"
    lines = [f"- **{block.severity.label}** `{block.code}` {said}"]
    for place in block.places:
        message = f": {_escape(place.message)}" if place.message else ""
        indent = "    " if place.inner else "  "
        lines.append(f"{indent}- {_escape(place.where)}{message}")
        lines += [f"{indent}  {_escape(detail)}" for detail in place.details]
    lines += [f"  - {_escape(detail)}" for detail in block.details]
    lines += [f"  - _help: {_escape(fix)}_" for fix in block.fixes]
    return "\n".join(lines)


def _table(table: Table, room: _Room) -> list[str]:
    """A heading, the table, and an empty line behind it."""
    folded = len(table.rows) > OPEN_ROWS
    lines = [f"### {_escape(table.title)}", ""] if table.title else []
    if folded:
        lines += [f"<details><summary>{len(table.rows)} rows</summary>", ""]
    lines.append("| " + " | ".join(_escape(column.title) for column in table.columns) + " |")
    lines.append("|" + "---|" * len(table.columns))
    lines += _with_rest(room.fitting(_rows(table)), len(table.rows), "rows")
    if table.left_out:
        lines += ["", f"... {table.left_out} rows are in no format: choose some of them."]
    if table.note:
        lines += ["", *_paragraphs((table.note,))[:-1]]
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
