"""Tables for people, drawn with Rich: as wide as the terminal, or as wide as it takes."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from bncli.renderers.drawing.cells import format_cell
from bncli.renderers.drawing.charts import CHART_WIDTH, chart_lines
from bncli.report import Severity, harmless, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

    from bncli.renderers.interface import RenderContext
    from bncli.report import Column, Finding, Report, Table, Value

MOST_ROWS = 24
"""Rows of a table on a terminal, before it is shortened."""

MOST_GROUPS = 6
"""Groups of a table's rows on a terminal."""

MOST_ITEMS = 6
"""Items of a fact that is a list on a terminal, before it is shortened."""

MOST_ALIKE = 3
"""Findings of one kind on a terminal, before they are folded into one line."""

ENDLESS = 1_000_000
"""Columns of a console on which nothing is ever cut or wrapped."""

PROSE = 30
"""Columns of a terminal that are enough for a column that wraps."""

PADDING = 3
"""Columns of a terminal between two columns of a table."""

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def render(report: Report, context: RenderContext) -> str:
    """Facts in a line, every table, the findings, and the verdict last."""
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
    for line in _facts(report, context):
        console.print(line)
    for table in report.tables:
        for part in _parts(table, terminal=context.terminal):
            _print_table(console, part, context)
    for chart in report.charts:
        console.print()
        console.print(printable(chart.title), style="bold")
        for drawn in chart_lines(chart, min(context.width or CHART_WIDTH, CHART_WIDTH)):
            console.print(drawn)
    console.print()
    for alike in _groups(report.findings, context):
        first = _finding(alike[0], report.place_of(alike[0]))
        console.print(first if len(alike) == 1 else _fold(alike, report))
    if report.verdict:
        style = "bold green" if int(context.exit_code) == 0 else "bold red"
        console.print(Text(printable(report.verdict), style))
    return "\n".join(harmless(line.rstrip()) for line in buffer.getvalue().split("\n"))


def _facts(report: Report, context: RenderContext) -> Iterator[Text]:
    """The facts that are known, `key value`, in lines that break between facts alone."""
    from rich.text import Text

    width = context.width

    line = Text.assemble((f"bncli {report.command}", "bold"))
    for key, value in report.facts.items():
        if value is None:
            continue
        shown = format_cell(value)
        if context.terminal and isinstance(value, (list, tuple)) and len(value) > MOST_ITEMS:
            shown = f"{format_cell(value[:MOST_ITEMS])[:-1]} and {len(value) - MOST_ITEMS} more)"
        fact = Text.assemble((key, "dim"), f" {shown}")
        if width is not None and line.cell_len + 2 + fact.cell_len > width:
            yield line
            line = Text("  ")
        else:
            line.append("  ")
        line.append_text(fact)
    yield line


def _groups(findings: Sequence[Finding], context: RenderContext) -> Iterator[list[Finding]]:
    """Findings one by one; on a terminal, many of one kind that follow each other together."""
    for _, several in groupby(findings, key=lambda finding: finding.code):
        alike = list(several)
        if context.terminal and len(alike) > MOST_ALIKE:
            yield alike
        else:
            yield from ([finding] for finding in alike)


def _fold(alike: list[Finding], report: Report) -> object:
    """Many findings of one kind in a line: how many, some of the places, and the first's fact."""
    from rich.text import Text

    first = alike[0]
    places = ", ".join(printable(report.place_of(finding)) for finding in alike[:MOST_ALIKE])
    text = Text.assemble(
        (f"{first.severity.value} {first.code}", STYLES[first.severity]),
        " ",
        (f"in {len(alike)} places", "bold"),
        f" ({places} and {len(alike) - MOST_ALIKE} more); the first: {printable(first.message)}",
    )
    if first.hint:
        text.append(f" {printable(first.hint)}", "dim")
    return text


def _finding(finding: Finding, place: str) -> object:
    """One finding: severity, code, place, fact and mend."""
    from rich.text import Text

    style = STYLES[finding.severity]
    text = Text.assemble(
        (f"{finding.severity.value} {finding.code}", style),
        " ",
        (printable(place), "bold"),
        f": {printable(finding.message)}",
    )
    if finding.hint:
        text.append(f" {printable(finding.hint)}", "dim")
    return text


def _parts(table: Table, *, terminal: bool) -> Iterator[Table]:
    """The table, or one for each group of its rows; on a terminal not for many."""
    if not table.group or not table.rows:
        yield table
        return
    titles = {column.key: column.title for column in table.columns}
    columns = tuple(column for column in table.columns if column.key not in table.group)

    def shared(row: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(row[key] for key in table.group)

    groups = [(values, list(rows)) for values, rows in groupby(table.rows, shared)]
    shown = groups[:MOST_GROUPS] if terminal else groups
    for number, (values, rows) in enumerate(shown, 1):
        named = ", ".join(
            f"{titles[key]} {format_cell(value)}"
            for key, value in zip(table.group, values, strict=True)
        )
        note = table.note if number == len(shown) else ""
        if number == len(shown) < len(groups):
            left = len(groups) - len(shown)
            more = f"... {left} more such tables: choose some on the command line, or see all of "
            note = f"{more}them with -f json. {note}".strip()
        yield replace(table, title=f"{table.title}, {named}", columns=columns, rows=rows, note=note)


def _print_table(console: Console, table: Table, context: RenderContext) -> None:
    """Print a table, in several pieces side by side where the width does not hold it."""
    from rich import box
    from rich.table import Table as RichTable

    cells = {
        column.key: [format_cell(row[column.key], column.spec) for row in table.rows]
        for column in table.columns
    }
    columns, folded = _folded(table, cells, context.width)
    shown = len(table.rows)
    if context.terminal and shown > MOST_ROWS and not table.whole:
        chosen = list(table.digest or range(MOST_ROWS))
        half = MOST_ROWS // 2
        if table.ends:
            chosen = [*range(half), *range(shown - half, shown)]
        shown = len(chosen)
        cells = {key: [texts[index] for index in chosen] for key, texts in cells.items()}
        if table.ends:
            for texts in cells.values():
                texts.insert(half, "...")
    console.print()
    console.print(printable(table.title), style="bold")
    if folded:
        same = ", ".join(f"{column.title} {cells[column.key][0]}" for column in folded)
        console.print(f"in every row: {same}", style="dim")
    for number, piece in enumerate(_pieces(columns, table.lead, cells, context.width)):
        if number:
            console.print()
        if context.width is None and piece:
            console.file.write(_plain(table, piece, cells))
            continue
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in piece:
            # Where not even two columns fit, a cell goes on in the next line.
            drawn.add_column(column.title, justify=_justify(table, column), overflow="fold")
        for row in zip(*(cells[column.key] for column in piece), strict=True):
            drawn.add_row(*row)
        console.print(drawn, crop=False)
    if more := len(table.rows) - shown + table.left_out:
        others = "." if table.left_out else ", or see all of them with -f json."
        console.print(f"... {more} more rows: choose some on the command line{others}")
    if table.note:
        console.print(printable(table.note), style="dim")


def _plain(table: Table, piece: tuple[Column, ...], cells: dict[str, list[str]]) -> str:
    """The table that Rich would draw, where there is room for all: much faster for many rows."""
    from rich.cells import cell_len

    lines = [""] * (len(table.rows) + 2)
    for column in piece:
        texts = [column.title, *cells[column.key]]
        lengths = [cell_len(text) for text in texts]
        width = max(lengths)
        right = _justify(table, column) == "right"
        gap = "" if column is piece[0] else " " * PADDING
        padded = [
            gap + (" " * (width - length) + text if right else text + " " * (width - length))
            for text, length in zip(texts, lengths, strict=True)
        ]
        padded.insert(1, "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (width + len(gap)))
        lines = [line + cell for line, cell in zip(lines, padded, strict=True)]
    return "\n".join(lines) + "\n"


def _justify(table: Table, column: Column) -> Literal["left", "right"]:
    """Numbers to the right, words to the left."""
    first = next((row[column.key] for row in table.rows if row[column.key] is not None), None)
    number = isinstance(first, (int, float)) and not isinstance(first, bool)
    return "right" if number else "left"


def _needed(columns: tuple[Column, ...], cells: dict[str, list[str]]) -> dict[str, int]:
    """The columns of a terminal that each column takes, with the room behind it."""
    from rich.cells import cell_len

    needed = {}
    for column in columns:
        width = max(map(cell_len, [column.title, *cells[column.key]]))
        needed[column.key] = (min(width, PROSE) if column.wraps else width) + PADDING
    return needed


def _folded(
    table: Table, cells: dict[str, list[str]], width: int | None
) -> tuple[tuple[Column, ...], list[Column]]:
    """The columns to draw, and those to say in a line: the same in every row of a wide table."""
    columns = table.columns
    if width is None or sum(_needed(columns, cells).values()) - PADDING <= width:
        return columns, []
    same = [
        column
        for column in columns[table.lead :]
        if column.foldable and len(cells[column.key]) > 1 and len(set(cells[column.key])) == 1
    ]
    kept = tuple(column for column in columns if column not in same)
    return kept, [column for column in same if cells[column.key][0] != format_cell(None)]


def _pieces(
    columns: tuple[Column, ...], lead: int, cells: dict[str, list[str]], width: int | None
) -> Iterator[tuple[Column, ...]]:
    """Cut the columns to fit `width`; every piece begins with the first `lead` of them."""
    if width is None or not columns:
        yield columns
        return
    needed = _needed(columns, cells)
    first = columns[:lead]
    piece = [*first]
    used = sum(needed[column.key] for column in first)
    for column in columns[lead:]:
        if len(piece) > lead and used + needed[column.key] > width:
            yield tuple(piece)
            piece = [*first]
            used = sum(needed[column.key] for column in first)
        piece.append(column)
        used += needed[column.key]
    yield tuple(piece)
