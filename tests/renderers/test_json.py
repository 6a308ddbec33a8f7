"""One strict JSON object, with floats in full."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from bncli.errors import ExitCode
from bncli.renderers import Format
from bncli.renderers.interface import RenderContext
from bncli.renderers.json import pieces, text_of
from bncli.renderers.json import strict as plain
from bncli.report import Column, Finding, Report, Severity, Suppressed, Table, Unread
from tests.renderers.reports import MARKUP, render, strict


def test_json_is_strict_and_exact(everything):
    document = strict(render(Format.JSON, everything, exit_code=ExitCode.FINDING))
    assert list(document) == [
        "format_version", "command", "exit_code", "verdict", "remarks", "facts", "tables", "charts",
        "findings", "suppressed", "unread",
    ]  # fmt: skip
    assert (document["format_version"], document["exit_code"]) == (1, 1)
    first, second, third, fourth = document["tables"]["main"]
    assert first == {
        "name": "layer1.bn", "value": 1 / 3, "count": 8, "ok": True, "index": [0, 1], "gone": None,
    }  # fmt: skip
    assert (second["value"], third["value"], fourth["value"]) == (None, None, None)
    assert third["name"] == MARKUP
    assert fourth["count"] == 2**63
    assert document["facts"] == {
        "input": "a [b].npy", "shape": [4, 3], "eps": 1e-5, "unknown": None, "worst": None,
    }  # fmt: skip
    assert document["charts"] == {
        "loss": {"x": [0.0, 1.0], "series": {"a": [0.5, None], "b": [None, 2.0]}}
    }
    assert document["findings"][0] == {
        "code": "BN001", "severity": "error", "path": None, "subject": "channel 3",
        "message": "2 NaN", "detail": "", "certainty": "certain",
        "evidence": {"nan": [2, None]}, "hint": "Fix it.",
    }  # fmt: skip


def test_what_is_known_of_the_rest_is_there_too():
    known = Suppressed(Finding("BN009", Severity.INFO, "bn", "It is so.", path="a.pt"), "baseline")
    table = Table("main", "Main", (Column("n", "n"),), [{"n": 1}], left_out=5)
    given = Report(
        "compute", {}, (table,), suppressed=(known,), unread=(Unread("b.pt", "There is none."),)
    )
    document = strict(render(Format.JSON, given))
    assert document["exit_code"] == 2
    assert document["left_out"] == {"main": 5}
    assert document["unread"] == [{"path": "b.pt", "problem": "There is none."}]
    (item,) = document["suppressed"]
    assert (item["code"], item["path"], item["by"]) == ("BN009", "a.pt", "baseline")
    assert "left_out" not in strict(render(Format.JSON, replace(given, tables=())))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("ünïcode 雪", "ünïcode 雪"),
        ("a\x1b\u202eb", "a\\u001b\\u202eb"),
        ("\U000e0001", "\\udb40\\udc01"),
        ("##[error]", "#\\u0023[error]"),
        ("## a", "## a"),
    ],
)
def test_what_is_not_printable_is_escaped_and_comes_back(text, written):
    made = text_of({"name": text})
    assert made == f'{{\n  "name": "{written}"\n}}\n'
    assert json.loads(made) == {"name": text}


def test_whatever_a_number_is_the_json_is_strict():
    value = {"a": [math.nan, (math.inf, 1.5)], 3: -math.inf, "s": "\udcff", "t": True, "n": 2**70}
    assert plain(value) == {
        "a": [None, [None, 1.5]], "3": None, "s": "\\udcff", "t": True, "n": 2**70,
    }  # fmt: skip


CELLS = [
    *(0.1, 1e300, -0.0, 5.0, math.nan, -math.inf, 0, 2**70, True, False, None, [], [1, [0.5, "a"]]),
    *("", 'a "b" \\ \t', "é", "\ud800", "\u202e", "##vso[x]", "# #", "##", "\x1b[0m", "▁·█"),
]


def test_a_table_in_pieces_is_what_the_standard_library_writes():
    columns = Column.plain("a", "é", "##[b")
    rows = [{"a": cell, "é": 1, "##[b": [cell]} for cell in CELLS]
    tables = (Table("t", "T", columns, rows), Table("##[e", "E", columns, ()))
    report = Report("compute", {"n": 1}, tables)
    context = RenderContext(ExitCode.OK)
    parts = list(pieces(report, context))
    document = json.loads("".join(parts))
    assert list(document["tables"]) == ["t", "##[e"]
    assert len(parts) > len(rows)
    written = {**document, "tables": {"t": rows, "##[e": []}}
    assert "".join(parts) == text_of(written)


def test_a_report_without_tables_is_what_the_standard_library_writes():
    text = "".join(pieces(Report("compute", {}, ()), RenderContext(ExitCode.OK)))
    assert text == text_of(json.loads(text))
    assert json.loads(text)["tables"] == {}
