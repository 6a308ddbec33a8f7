"""Tables of a page: cells as text, numbers to the right, codes of findings as links."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.renderers.drawing.cells import format_cell
from bncli.renderers.drawing.grid import justify
from bncli.report import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bncli.report import Column, Table

Codes = dict[str, str]
"""The identifier of the block of each code of a finding."""

MOST_SHOWN = 2_000
"""Rows of a table: a page with more is slow to open, and nobody reads them there."""

SHORT = 40
"""Letters of a cell that stays in one line."""

LONG = 200
"""Rows of a table that is not printed."""

WIDE = 12
"""Columns of a table that find room on paper."""

CODE = re.compile(r"\bBN\d{3}\b")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column, and how its cells look: "n" for numbers, "wrap" for long texts."""

    title: str
    style: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a cell, and the identifier that it leads to, "" for none."""

    text: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as it stands on a page; the first `lead` cells of each row name it."""

    id: str
    title: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[tuple[Part, ...], ...], ...]
    number: int
    lead: int
    note: str
    left_out: int

    @property
    def more(self) -> int:
        """How many rows other formats have besides."""
        return self.number - len(self.rows)

    @property
    def is_long(self) -> bool:
        """Whether it is too long or too wide to be printed with the rest."""
        return len(self.rows) > LONG or self.is_wide

    @property
    def is_wide(self) -> bool:
        """Whether no paper is wide enough for it."""
        return len(self.heads) > WIDE


def grid_of(table: Table, codes: Codes, name: str) -> Grid:
    """A table with that identifier, whose codes lead to the findings that `codes` has.

    Columns that can be spared come last, where a narrow page shows them when it is scrolled.
    """
    table = replace(table, columns=tuple(sorted(table.columns, key=lambda column: column.spare)))
    texts = [
        [format_cell(row[column.key], column.spec) for column in table.columns]
        for row in table.rows[:MOST_SHOWN]
    ]
    by_column = [[row[place] for row in texts] for place in range(len(table.columns))]
    return Grid(
        id=name,
        title=printable(table.title),
        heads=tuple(
            Head(printable(column.title), _style(table, column, cells))
            for column, cells in zip(table.columns, by_column, strict=True)
        ),
        rows=tuple(tuple(tuple(_parts(text, codes)) for text in row) for row in texts),
        number=len(table.rows),
        lead=table.lead,
        note=printable(table.note),
        left_out=table.left_out,
    )


def _style(table: Table, column: Column, cells: list[str]) -> str:
    """How the cells of a column look."""
    if justify(table, column) == "right":
        return "n"
    return "wrap" if any(len(cell) > SHORT for cell in cells) else ""


def _parts(text: str, codes: Codes) -> Iterator[Part]:
    """The text of a cell, with its codes by themselves."""
    at = 0
    for found in CODE.finditer(text) if "BN" in text else ():
        if (target := codes.get(found[0])) is None:
            continue
        if found.start() > at:
            yield Part(text[at : found.start()])
        yield Part(found[0], target)
        at = found.end()
    if at < len(text):
        yield Part(text[at:])
