"""The command's main table as CSV (RFC 4180): floats in full, nan and inf by name, None empty.

A text that a spreadsheet would take for a formula, or a CI server for a command, has a ' before it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from bncli.report import COMMANDS, printable

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report, Value

FORMULA = tuple("=+-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}")
FORMULA += tuple("\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}\N{MINUS SIGN}")
"""What a formula begins with, in a spreadsheet of any language."""

QUOTED = frozenset('",;|')
"""What makes a cell a quoted one: some spreadsheets take others of them for the end of a cell."""


def render(report: Report, context: RenderContext) -> str:  # noqa: ARG001  # CSV looks one way
    """The first table of the report, with its keys as the header."""
    table = report.tables[0]
    lines = [_line([column.key for column in table.columns])]
    lines += [_line([_cell(row[column.key]) for column in table.columns]) for row in table.rows]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    """One record, without its end."""
    if cells == [""]:
        return '""'  # an empty line is not a record
    return ",".join(map(_quoted, cells))


def _quoted(cell: str) -> str:
    """A cell in quotes, where it needs them."""
    return cell if QUOTED.isdisjoint(cell) else '"' + cell.replace('"', '""') + '"'


def _cell(value: Value) -> str:
    """A value as CSV text; a list as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    return printable(json.dumps(list(value), ensure_ascii=False))


def _text(value: str) -> str:
    """Words as data: neither a formula nor a command, and on one line."""
    escaped = printable(value)
    # A tab, and the end of a line, would begin a formula too.
    taken = escaped.lstrip().startswith((*FORMULA, *COMMANDS, "'")) or value[:1] in {
        "\t",
        "\r",
        "\n",
    }
    return f"'{escaped}" if taken and not _is_number(escaped) else escaped


def _is_number(text: str) -> bool:
    """Whether a spreadsheet has nothing but a number to see in it."""
    try:
        return math.isfinite(float(text)) and text.isascii() and "_" not in text
    except ValueError:
        return False
