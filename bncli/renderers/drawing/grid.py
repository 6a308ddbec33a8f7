"""Tables in characters: the answer, which never splits, and full tables, which may."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from bncli.renderers.drawing.cells import format_cell
from bncli.report import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from bncli.report import Column, Table, Value

    Cells = Mapping[str, list[str]]

NARROW = 80
"""Columns of a terminal for which the answer is made where there is no terminal."""

PROSE = 30
"""Columns of a terminal that are enough for a column that wraps."""

NAME = 20
"""Columns of a terminal that are enough for a column that names rows; a longer name is folded."""

PADDING = 3
"""Columns of a terminal between two columns of a table."""

NUMBER = re.compile(r"[<>~]?[-+]?\d[\d.,]*(e[-+]?\d+)?( ?%| times)?")
"""Text that is read as a number, and stands to the right as numbers do."""


def print_answer(console: Console, table: Table, width: int | None) -> None:
    """Print a table in one piece, with as many of its `spare` columns as there is room for.

    Where no column has a title, there is no line of titles.
    """
    from rich.cells import cell_len
    from rich.table import Table as RichTable

    cells = _cells(table)
    columns = _fitting(table, cells, width or NARROW)
    if table.title:
        console.print(printable(table.title), style="bold")
    titled = any(column.title for column in columns)
    head, *lines = _plain(table, columns, cells)
    if width is None or max(map(cell_len, [head, *lines])) <= width:
        if titled:
            console.print(head, style="bold")
        for line in lines:
            console.print(line)
    elif columns:
        drawn = RichTable(
            box=None,
            padding=(0, PADDING, 0, 0),
            pad_edge=False,
            show_edge=False,
            show_header=titled,
        )
        whole = _least(table, columns, cells) <= width  # if the others need not be folded as well
        for number, column in enumerate(columns):
            drawn.add_column(
                column.title,
                justify=justify(table, column),
                overflow="fold",
                no_wrap=whole and number >= table.lead and not column.wraps,
            )
        for row in zip(*(cells[column.key] for column in columns), strict=True):
            drawn.add_row(*row)
        console.print(drawn, crop=False)
    if table.note:
        console.print(printable(table.note))


def print_table(console: Console, table: Table, width: int | None) -> None:
    """Print a table in full: each group of rows by itself, in pieces where it is too wide."""
    for part in _groups(table):
        _print_full(console, part, width)


def _cells(table: Table) -> dict[str, list[str]]:
    return {
        column.key: [format_cell(row[column.key], column.spec) for row in table.rows]
        for column in table.columns
    }


def _fitting(table: Table, cells: Cells, width: int) -> tuple[Column, ...]:
    """The columns without those that can be spared and have no room; alike ones go together.

    Where the others have no room even if the names of the rows are folded, the last ones go.
    """
    columns = table.columns
    while sum(_needed(columns, cells).values()) - PADDING > width:
        most = max(column.spare for column in columns)
        if not most:
            break
        columns = tuple(column for column in columns if column.spare < most)
    while len(columns) > table.lead + 1 and _least(table, columns, cells) > width:
        columns = columns[:-1]
    return columns


def _least(table: Table, columns: Sequence[Column], cells: Cells) -> int:
    """The columns of a terminal that these take if the names of the rows are folded."""
    needed = list(_needed(columns, cells).values())
    names = (min(width, NAME + PADDING) for width in needed[: table.lead])
    return sum(names) + sum(needed[table.lead :]) - PADDING


def _groups(table: Table) -> Iterator[Table]:
    """The table, or one for each group of its rows."""
    if not table.group or not table.rows:
        yield table
        return
    titles = {column.key: column.title for column in table.columns}
    columns = tuple(column for column in table.columns if column.key not in table.group)

    def shared(row: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(row[key] for key in table.group)

    groups = [(values, list(rows)) for values, rows in groupby(table.rows, shared)]
    for number, (values, rows) in enumerate(groups, 1):
        named = ", ".join(
            f"{titles[key]} {format_cell(value)}"
            for key, value in zip(table.group, values, strict=True)
        )
        note = table.note if number == len(groups) else ""
        yield replace(table, title=f"{table.title}, {named}", columns=columns, rows=rows, note=note)


def _print_full(console: Console, table: Table, width: int | None) -> None:
    """Print a table, in several pieces one below the other where the width does not hold it."""
    from rich import box
    from rich.table import Table as RichTable

    cells = _cells(table)
    columns, folded = _folded(table, cells, width)
    console.print()
    console.print(printable(table.title), style="bold")
    if folded:
        same = ", ".join(f"{column.title} {cells[column.key][0]}" for column in folded)
        console.print(f"in every row: {same}", style="dim")
    for number, piece in enumerate(_pieces(columns, table.lead, cells, width)):
        if number:
            console.print()
        if width is None and piece:
            console.file.write("\n".join(_plain(table, piece, cells, rule=True)) + "\n")
            continue
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in piece:
            # Where not even two columns fit, a cell goes on in the next line.
            drawn.add_column(column.title, justify=justify(table, column), overflow="fold")
        for row in zip(*(cells[column.key] for column in piece), strict=True):
            drawn.add_row(*row)
        console.print(drawn, crop=False)
    if table.left_out:
        console.print(f"... {table.left_out} more rows: choose some on the command line.")
    if table.note:
        console.print(printable(table.note), style="dim")


def _plain(table: Table, piece: Sequence[Column], cells: Cells, *, rule: bool = False) -> list[str]:
    """The lines that Rich would draw where there is room for all: much faster for many rows."""
    from rich.cells import cell_len

    lines = [""] * (len(table.rows) + 1 + rule)
    for number, column in enumerate(piece):
        texts = [column.title, *cells[column.key]]
        lengths = [cell_len(text) for text in texts]
        width = max(lengths)
        right = justify(table, column) == "right"
        gap = " " * PADDING if number else ""
        padded = [
            gap + (" " * (width - length) + text if right else text + " " * (width - length))
            for text, length in zip(texts, lengths, strict=True)
        ]
        if rule:
            padded.insert(1, "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (width + len(gap)))
        lines = [line + cell for line, cell in zip(lines, padded, strict=True)]
    return lines


def justify(table: Table, column: Column) -> Literal["left", "right"]:
    """Numbers to the right, words to the left."""
    first = next((row[column.key] for row in table.rows if row[column.key] is not None), None)
    if isinstance(first, str):
        if column in table.columns[: table.lead]:  # a layer may be called 0.1
            return "left"
        texts = (row[column.key] for row in table.rows)
        numbers = all(NUMBER.fullmatch(text) for text in texts if isinstance(text, str))
        return "right" if numbers else "left"
    number = isinstance(first, (int, float)) and not isinstance(first, bool)
    return "right" if number else "left"


def _needed(columns: Sequence[Column], cells: Cells) -> dict[str, int]:
    """The columns of a terminal that each column takes, with the room behind it."""
    from rich.cells import cell_len

    needed = {}
    for column in columns:
        width = max(map(cell_len, [column.title, *cells[column.key]]))
        needed[column.key] = (min(width, PROSE) if column.wraps else width) + PADDING
    return needed


def _folded(
    table: Table, cells: Cells, width: int | None
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
    columns: tuple[Column, ...], lead: int, cells: Cells, width: int | None
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
