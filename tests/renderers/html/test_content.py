"""What a page says, piece by piece."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from bncli.errors import ExitCode, UsageError
from bncli.pictures import Chain, Kind, Link, Series
from bncli.renderers import Format
from bncli.renderers.html.content import content_of
from bncli.renderers.interface import RenderContext
from bncli.report import Chart, Column, Finding, Severity, Suppressed, Table
from tests.renderers.drawing.pictures.examples import picture
from tests.renderers.html.parsed import classed, every, parsed, rows, said, sections
from tests.renderers.reports import render, report


def page(given):
    return parsed(render(Format.HTML, given))


def content(given):
    return content_of(given, RenderContext(ExitCode.OK), "")


@pytest.mark.parametrize(
    ("verdict", "word", "heading"),
    [
        ("FAIL  1 error", "FAIL", "FAIL 1 error"),
        ("2 channels, all finite", "", "2 channels, all finite"),
        ("", "", "bncli compute"),
        ("PASS", "PASS", "PASS"),
    ],
)
def test_the_verdict_is_the_heading(verdict, word, heading):
    root = page(report(verdict=verdict, word=word))
    assert said(every(root, "h1")[0]) == heading
    assert said(every(root, "title")[0]).endswith("bncli compute")
    assert [said(each) for each in classed(root, "word")] == ([word] if word else [])


def test_the_answer_is_open_and_everything_else_in_folds():
    column = (Column("n", "n"),)
    answer = Table("answer", "The answer", column, [{"n": 1}], "1 more (-v lists it)")
    main = Table("main", "Main", column, [{"n": 1}, {"n": 2}])
    noted = Table("noted", "Noted", column, [], "Nothing was found.")
    empty = Table("empty", "Empty", column, [])
    given = replace(report(), tables=(main, noted, empty), answer=(answer,), facts={"eps": 1e-5})
    root = page(given)
    found = sections(root)
    (shown,) = every(found["Result"], "table")
    assert rows(shown) == [["n"], ["1"]]
    assert "1 more (“Everything else” below lists it)" in said(found["Result"])
    folds = [said(every(each, "summary")[0]) for each in every(found["Everything else"], "details")]
    assert folds == ["Main 2 rows", "Noted 0 rows", "Facts 1"]
    assert not every(found["Result"], "details")
    # Without an answer the main table is one, and is not told twice.
    (only,) = every(sections(page(replace(given, tables=(main,), answer=())))["Result"], "table")
    assert len(rows(only)) == 3
    assert "Main 2 rows" not in said(page(replace(given, tables=(main,), answer=())))


def test_facts_are_rows():
    counts = [("trained", 43), ("identical", 10)]
    root = page(report(facts={"eps": 1e-5, "states": counts, "shape": (2, 3), "seed": None}))
    (table,) = every(sections(root)["Everything else"], "table")[-1:]
    assert rows(table) == [
        ["fact", "value"], ["eps", "1e-05"], ["states", "43 trained, 10 identical"],
        ["shape", "(2, 3)"], ["seed", "-"],
    ]  # fmt: skip


def test_suppressed_findings_say_why():
    finding = Finding("BN105", Severity.WARNING, "stem.1", "It is so.", path="a.pt")
    given = report(suppressed=(Suppressed(finding, "baseline"),))
    fold = every(sections(page(given))["Everything else"], "details")
    text = [said(each) for each in fold if "do not count" in said(each)]
    assert text == [
        "Findings that do not count 1 warning BN105 It is so a.pt: stem.1 (left out by baseline)"
    ]


def test_a_chain_is_a_list_in_order():
    links = tuple(Link(f"q{n}", f"f{n}", f"n{n}", f"v{n}") for n in range(3))
    root = page(report(pictures=(Chain("k", "Title", links, "Text."),)))
    (chain,) = classed(root, "chain")
    assert chain.tag.endswith("ol")
    assert [said(item) for item in chain] == [f"q{n} v{n}f{n}= n{n}" for n in range(3)]
    assert said(every(root, "figcaption")[0]) == "Text."
    assert not every(root, "svg")


def test_pictures_are_made_when_they_are_wanted():
    made = []

    def make():
        made.append(1)
        return (picture(Series("a", Kind.LINE, [0, 1], [0, 1]), title="Made"),)

    given = report(pictures=make)
    render(Format.MARKDOWN, given)
    assert made == []
    root = page(given)
    assert made == [1]
    assert len(every(root, "svg")) == 2  # one for a wide page, one for a narrow
    assert [said(each) for each in every(every(root, "figure")[0], "h3")] == ["Made"]


def test_pictures_mark_the_findings_that_count():
    def make(findings):
        return (picture(title=f"{len(findings)} marked"),)

    found = (Finding("BN105", Severity.WARNING, "stem.1", "It is so."),)
    given = report(pictures=partial(make, findings=()), findings=found)
    assert content(given).drawings[0].title == "1 marked"


def test_a_picture_that_cannot_be_made_is_a_sentence():
    def make():
        raise UsageError("x.npy: it has changed since it was read.")

    root = page(report(pictures=make))
    assert said(sections(root)["Pictures"]) == "Pictures x.npy: it has changed since it was read."


def test_a_chart_is_drawn_unless_there_is_a_picture_of_it():
    charts = tuple(Chart(key, f"The {key}", [0, 1], {"a": [0, 1]}) for key in ("mean", "var"))
    given = replace(report(), charts=charts, pictures=(picture(key="mean"),))
    made = content(given)
    assert [each.title for each in made.charts] == ["The var"]
    (fold,) = [each for each in classed(page(given), "fold") if "chart" in said(each)]
    assert len(every(fold, "svg")) == 2
