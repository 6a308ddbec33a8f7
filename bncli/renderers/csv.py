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
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    table = report.tables[0]
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_cell(row[column.key]) for column in table.columns])
    return buffer.getvalue()


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
