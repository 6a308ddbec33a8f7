"""Markdown that GitHub takes as a job summary, whatever the report's length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.errors import ExitCode
from bncli.renderers.interface import RenderContext
from bncli.renderers.markdown import render
from bncli.report import Column, Report, Table, Unread
from tests.findings import finding, report

CONTEXT = RenderContext(ExitCode.OK, verbose=True)
LIMIT = 1024 * 1024  # of a step's summary


def rows(number: int, cell: str = "x") -> Report:
    table = Table("main", "Main", (Column("n", "n"), Column("x", "x")), [])
    filled = Table("main", "Main", table.columns, [{"n": n, "x": cell} for n in range(number)])
    return Report("hand-made", {"a": 1}, (filled, table))


def test_a_long_table_is_folded_away_and_whole():
    for number, folded in ((24, False), (25, True), (3000, True)):
        text = render(rows(number), CONTEXT)
        assert (f"<details><summary>{number} rows</summary>" in text) == folded
        assert text.count("<details>") == text.count("</details>") == 1 + folded
        assert text.count("| x |") == number + 2  # and the two headers


def test_by_default_the_answer_is_the_only_table():
    answer = Table("answer", "", (Column("n", "n"),), [{"n": 7}], note="2 more rows.")
    text = render(replace(rows(5), answer=(answer,)), RenderContext(ExitCode.OK))
    assert "| n |\n|---|\n| 7 |\n\n2 more rows." in text
    assert "| x |" not in text
    assert "<details>" not in text


@pytest.mark.parametrize("cell", ["x" * 50, "雪" * 50, "|" * 50])
def test_a_document_is_no_longer_than_a_job_summary_may_be(cell):
    text = render(rows(30_000, cell), CONTEXT)
    assert LIMIT * 0.9 < len(text.encode()) < LIMIT
    assert "more rows: see all of them with -f json." in text
    shown = text.count(cell.replace("|", "\\|"))
    assert f"... {30_000 - shown} more rows" in text
    many = report(*(finding(message=f"{cell}{n}", subject=str(n)) for n in range(30_000)))
    text = render(many, CONTEXT)
    assert len(text.encode()) < LIMIT
    assert "29995 more: -v lists them" in text
    assert "more rules" not in text  # one rule is one item, with the first of its places
    assert "### Layers" in text


def test_files_and_places():
    given = report(
        finding(subject="head.1", path="b.pt"), read=("a.pt", "b.pt"),
        unread=(Unread("c[1].pt", "it is cut short."),),
    )  # fmt: skip
    text = render(given, CONTEXT)
    assert "- **error** `BN001` a fact (certain)\n  - b.pt: head.1\n" in text
    assert "- **unread** c\\[1\\].pt: it is cut short." in text


def test_markdown_tables_have_as_many_cells_as_columns(everything):
    for block in render(everything, CONTEXT).split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
