"""The report for people: the answer first, and with -v everything behind it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from bncli.renderers.drawing.blocks import blocks
from bncli.renderers.drawing.cells import format_fact
from bncli.renderers.drawing.charts import CHART_WIDTH, chart_lines
from bncli.renderers.drawing.grid import print_answer, print_table
from bncli.report import Severity, harmless, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.text import Text

    from bncli.renderers.drawing.blocks import Block
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report, Unread

ENDLESS = 1_000_000
"""Columns of a console on which nothing is ever cut or wrapped."""

LONG = 100
"""Rows of a table that stands below shorter ones, so that these are found."""

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold cyan"}

WORDS = {"PASS": "bold green", "WARN": "bold yellow", "NOTHING": "bold magenta"}
"""The colours of the verdict's words; the others, FAIL and ERROR, are red."""


def render(report: Report, context: RenderContext) -> str:
    """The subject, the findings, the answer, everything else where it is wanted, the verdict."""
    from rich.console import Console
    from rich.text import Text

    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=context.width or ENDLESS,
        force_terminal=context.color,
        color_system="standard" if context.color else None,
        legacy_windows=False,
        markup=False,  # a name such as [red] is text
        emoji=False,
        highlight=False,
    )
    for line in report.subject:
        console.print(Text(printable(line)))
    for unread in report.unread:
        _print_unread(console, unread)
    for block in blocks(report, every=context.verbose):
        _print_block(console, block)
    answers = report.answers(verbose=context.verbose)
    for table in answers:
        console.print()
        print_answer(console, table, context.width)
    if report.findings and report.remarks and not answers:
        console.print()  # or they would look like a part of the last finding
    _print_lines(console, report.remarks)
    if context.verbose:
        _print_everything(console, report, context)
    elif report.drawn:
        _print_charts(console, report, context)
    if report.verdict:
        rest = printable(report.verdict).removeprefix(report.word)
        console.print()
        word = Text(report.word, WORDS.get(report.word, "bold red"))
        console.print(word.append(Text(rest, "default")))
    text = buffer.getvalue().strip("\n")
    return "\n".join(harmless(line.rstrip()) for line in f"{text}\n".split("\n"))


def _print_lines(console: Console, lines: tuple[str, ...]) -> None:
    """Each text in a line of its own."""
    for line in lines:
        console.print(printable(line))


def _print_everything(console: Console, report: Report, context: RenderContext) -> None:
    """The facts, every table and every chart; what is longer than a screen or two comes last."""
    console.print()
    for line in _facts(report, context.width):
        console.print(line)
    main = report.tables[:1]
    told = [table for table in report.tables if table.rows or table.note or table in main]
    for table in sorted(told, key=lambda table: len(table.rows) > LONG):
        print_table(console, table, context.width)
    _print_charts(console, report, context)


def _print_charts(console: Console, report: Report, context: RenderContext) -> None:
    """The charts, one below the other."""
    for chart in report.charts:
        console.print()
        console.print(printable(chart.title), style="bold")
        for drawn in chart_lines(chart, min(context.width or CHART_WIDTH, CHART_WIDTH)):
            console.print(drawn)


def _facts(report: Report, width: int | None) -> Iterator[Text]:
    """The facts that are known, `key value`, in lines that break between facts alone."""
    from rich.text import Text

    line = Text.assemble((f"bncli {report.command}", "bold"))
    for key, value in report.facts.items():
        if value is None or value in ([], ()):
            continue
        fact = Text.assemble((key, "dim"), f" {format_fact(value)}")
        if width is not None and line.cell_len + 2 + fact.cell_len > width:
            yield line
            line = Text("  ")
        else:
            line.append("  ")
        line.append_text(fact)
    yield line


def _print_unread(console: Console, unread: Unread) -> None:
    """A file that could not be read, and why."""
    from rich.text import Text

    console.print()
    problem = printable(unread.problem)
    console.print(Text.assemble(("error", STYLES[Severity.ERROR]), ": ", (problem, "bold")))
    console.print(Text.assemble("  ", ("--> ", "blue"), printable(unread.path)))


def _print_block(console: Console, block: Block) -> None:
    """The claim, the places, what supports it, and the fix; what is long goes on indented."""
    from rich.text import Text

    def put(text: Text, indent: int, hanging: int = 2, first: int | None = None) -> None:
        """Print in lines of the console's width, the first of them less indented."""
        begin = indent if first is None else first
        if console.width == ENDLESS:
            console.print(Text(" " * begin).append_text(text))
            return
        wrapped = text.wrap(console, max(console.width - indent - hanging, 8))
        for number, line in enumerate(wrapped):
            spaces = begin if number == 0 else indent + hanging
            console.print(Text(" " * spaces).append_text(line))

    style = STYLES[block.severity]
    head = Text.assemble(
        (f"{block.severity.label}[{block.code}]", style),
        " ",
        (printable(block.claim), "bold"),
        (f" ({block.certainty})", "dim"),
    )
    console.print()
    put(head, 0)
    for place in block.places:
        arrow = "" if place.inner else "--> "
        said = f": {printable(place.message)}" if place.message else ""
        if arrow:  # which stays beside a path that is longer than the line
            console.print(Text.assemble("  ", (arrow, "blue")), end="")
        put(Text(f"{printable(place.where)}{said}"), 6, first=0 if arrow else 6)
        for detail in place.details:
            put(Text(printable(detail)), 8)
    for detail in block.details:
        put(Text(printable(detail)), 2)
    for fix in block.fixes:
        put(Text.assemble(("help: ", "bold"), printable(fix)), 2, 6)
