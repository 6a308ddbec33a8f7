"""The command's main table as CSV (RFC 4180): floats in full, nan and inf by name, None empty."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report, Value


def render(report: Report, context: RenderContext) -> str:  # noqa: ARG001  # CSV looks one way
    """The first table of the report, with its keys as the header."""
    table = report.tables[0]
    lines = [_line([column.key for column in table.columns])]
    lines += [_line([_cell(row[column.key]) for column in table.columns]) for row in table.rows]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    """One record, without its end. The end it has here makes `csv` quote both line breaks."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n")


def _cell(value: Value) -> str:
    """A value as CSV text; a list as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (str, int)):
        return str(value)
    return json.dumps(list(value))
