"""One strict JSON object; its keys are a promise to scripts.

Versions of the format:
    1   command, exit_code, verdict, remarks, facts, tables, charts, findings, suppressed, unread;
        left_out where a table has not all of its rows

`report.schema.json` in the package describes it; `bncli schema` prints that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

from bncli.report import BRACKETED

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Finding, Report, Table, Value

FORMAT_VERSION = 1
UNUSUAL = re.compile(r"[^ -~\n]")


def render(report: Report, context: RenderContext) -> str:
    """The report as JSON: floats in full, and null for a number that is not finite."""
    return "".join(pieces(report, context))


def pieces(report: Report, context: RenderContext) -> Iterator[str]:
    """The same text, piece by piece, so that a table of many rows is not in memory as a whole."""
    document = {
        "format_version": FORMAT_VERSION,
        "command": report.command,
        "exit_code": int(context.exit_code),
        "verdict": report.verdict,
        "remarks": report.remarks,
        "facts": {**report.facts, "part": report.part} if report.part else report.facts,
        "tables": report.tables,
        "charts": {chart.key: {"x": chart.x, "series": chart.series} for chart in report.charts},
        "findings": [_finding(finding) for finding in report.findings],
        "suppressed": [{**_finding(item.finding), "by": item.by} for item in report.suppressed],
        "unread": [{"path": item.path, "problem": item.problem} for item in report.unread],
    }
    left_out = {table.key: table.left_out for table in report.tables if table.left_out}
    if left_out:
        document["left_out"] = left_out
    before = "{"
    for key, value in document.items():
        yield f"{before}\n"
        if key == "tables" and report.tables:
            yield from _tables(report.tables)
        else:
            yield text_of({key: value or {}} if key == "tables" else {key: value})[2:-3]
        before = ","
    yield "\n}\n"


def _tables(tables: Sequence[Table]) -> Iterator[str]:
    """The tables as they stand in the document, without a line break behind them."""
    before = '  "tables": {'
    for table in tables:
        if not table.rows:
            yield _harmless(f"{before}\n    {_text(table.key)}: []")
        else:
            yield _harmless(f"{before}\n    {_text(table.key)}: [\n")
            keys = [(column.key, f"\n        {_text(column.key)}: ") for column in table.columns]
            between = ""
            for row in table.rows:
                cells = [f"{begin}{_cell(row[key])}" for key, begin in keys]
                yield _harmless(f"{between}      {{{','.join(cells)}\n      }}")
                between = ",\n"
            yield "\n    ]"
        before = ","
    yield "\n  }"


def _cell(value: Value) -> str:
    """A value in a row, before what is not printable in it is escaped."""
    if type(value) is float and math.isfinite(value):
        return repr(value)
    if type(value) is str and value.isascii():
        return encode_basestring(value)
    if value is None or type(value) is int:
        return "null" if value is None else repr(value)
    return json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False).replace(
        "\n", "\n        "
    )


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def text_of(document: Any) -> str:
    """The document as text; what is not printable is escaped, and so are commands of CI servers."""
    text = json.dumps(strict(document), indent=2, ensure_ascii=False, allow_nan=False)
    return _harmless(text) + "\n"


def _harmless(text: str) -> str:
    """The text with what is not printable escaped; it can stand in strings alone."""
    text = UNUSUAL.sub(_escaped, text)
    return BRACKETED.sub("#\\\\u0023", text) if "##" in text else text


def _escaped(found: re.Match[str]) -> str:
    """A character as it is where it is printable, and else as JSON escapes it."""
    character = found[0]
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _finding(finding: Finding) -> dict[str, Any]:
    """A finding's keys; `path` is null where the command reads its files as one input."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "path": finding.path or None,
        "subject": finding.subject,
        "message": finding.message,
        "detail": finding.detail,
        "certainty": finding.certainty.value,
        "evidence": finding.evidence,
        "hint": finding.hint,
    }


def strict(value: Any) -> Any:
    """The same value with null for every float that JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        # A name from a file may hold half of a surrogate pair, which UTF-8 has no bytes for.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value
