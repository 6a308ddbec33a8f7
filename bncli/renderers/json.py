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
from typing import TYPE_CHECKING, Any

from bncli.report import BRACKETED

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Finding, Report

FORMAT_VERSION = 1
UNUSUAL = re.compile(r"[^ -~\n]")


def render(report: Report, context: RenderContext) -> str:
    """The report as JSON: floats in full, and null for a number that is not finite."""
    document = {
        "format_version": FORMAT_VERSION,
        "command": report.command,
        "exit_code": int(context.exit_code),
        "verdict": report.verdict,
        "remarks": report.remarks,
        "facts": {**report.facts, "part": report.part} if report.part else report.facts,
        "tables": {
            table.key: [
                {column.key: row[column.key] for column in table.columns} for row in table.rows
            ]
            for table in report.tables
        },
        "charts": {chart.key: {"x": chart.x, "series": chart.series} for chart in report.charts},
        "findings": [_finding(finding) for finding in report.findings],
        "suppressed": [{**_finding(item.finding), "by": item.by} for item in report.suppressed],
        "unread": [{"path": item.path, "problem": item.problem} for item in report.unread],
    }
    left_out = {table.key: table.left_out for table in report.tables if table.left_out}
    if left_out:
        document["left_out"] = left_out
    return text_of(document)


def text_of(document: Any) -> str:
    """The document as text; what is not printable is escaped, and so are commands of CI servers."""
    text = json.dumps(strict(document), indent=2, ensure_ascii=False, allow_nan=False)
    text = UNUSUAL.sub(_escaped, text)  # it can stand in strings alone
    return BRACKETED.sub("#\\\\u0023", text) + "\n"


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
