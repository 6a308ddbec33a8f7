"""Tables of a page: what is in them, how it stands, and where it leads."""

from __future__ import annotations

import math
from pathlib import Path

from bncli.renderers import Format, html
from bncli.renderers.html.tables import MOST_SHOWN, grid_of
from bncli.report import Column, Finding, Report, Severity, Table
from tests.renderers.html.parsed import classed, every, parsed, rows, said
from tests.renderers.reports import render, report


def table_of(given: Report):
    return every(parsed(render(Format.HTML, given)), "table")[0]


def test_cells_are_as_everywhere(everything):
    root = parsed(render(Format.HTML, everything))
    (main,) = [t for t in every(root, "table") if said(every(t, "caption")[0]) == "The main table"]
    head, first, second, *_ = rows(main)
    assert head == ["name", "value", "count", "ok", "index", "gone"]
    assert first == ["layer1.bn", "0.333333", "8", "yes", "(0, 1)", "-"]
    assert second == ["ünïcode 雪", "nan", "0", "no", "()", "-"]


def test_numbers_stand_to_the_right_and_heads_have_scopes():
    columns = (Column("name", "name"), Column("x", "x"), Column("share", "share", ".1%"))
    rows_ = [{"name": "0.1", "x": 1.5, "share": 0.25}, {"name": "b", "x": None, "share": math.nan}]
    table = table_of(Report("compute", {}, (Table("t", "T", columns, rows_),)))
    cells = [each for each in table.iter() if str(each.tag)[-2:] in ("td", "th")]
    assert [(each.tag[-2:], each.get("scope"), each.get("class")) for each in cells[:6]] == [
        ("th", "col", None), ("th", "col", "n"), ("th", "col", "n"),
        ("th", "row", None), ("td", None, "n"), ("td", None, "n"),
    ]  # fmt: skip
    assert [said(each) for each in cells[3:]] == ["0.1", "1.5", "25.0%", "b", "-", "nan"]
    assert said(every(table, "caption")[0]) == "T"


def test_a_wide_table_scrolls_by_itself_and_by_keyboard():
    root = parsed(render(Format.HTML, report([{"a": 1}], ("a",))))
    for table in every(root, "table"):
        (caption,) = every(table, "caption")
        boxes = [each for each in classed(root, "scroll") if table in list(each)]
        (box,) = boxes
        assert (box.get("tabindex"), box.get("role")) == ("0", "region")
        assert box.get("aria-labelledby") == caption.get("id")


def test_codes_lead_to_their_findings():
    findings = [Finding("BN203", Severity.ERROR, "a", "It is so")]
    rows_ = [{"name": "aBN203", "flags": "BN203 BN105"}, {"name": "b", "flags": "-"}]
    table = table_of(report(rows_, ("name", "flags"), findings=findings))
    (link,) = every(table, "a")
    assert (said(link), link.get("href")) == ("BN203", "#BN203")
    assert rows(table)[1] == ["aBN203", "BN203 BN105"]


def test_a_very_long_table_is_cut_and_says_so():
    number = MOST_SHOWN + 7
    given = report([{"n": n} for n in range(number)], ("n",))
    text = render(Format.HTML, given)
    assert len(rows(table_of(given))) == 1 + MOST_SHOWN
    assert f"7 more rows are not on this page: see all {number} with -f json" in text
    short = render(Format.HTML, report([{"n": 1}], ("n",)))
    assert "more rows" not in short


def test_what_no_paper_holds_is_not_printed():
    def made(rows, columns):
        keys = [f"c{n}" for n in range(columns)]
        table = Table("t", "T", Column.plain(*keys), [dict.fromkeys(keys, 1)] * rows)
        return grid_of(table, {}, "id")

    assert [made(*size).is_long for size in ((9, 12), (9, 13), (200, 2), (201, 2))] == [
        False, True, False, True,
    ]  # fmt: skip
    style = Path(html.__file__).with_name("style.css").read_text("utf-8").partition("print")[2]
    assert ".fold.long > :not(summary)" in style


def test_rows_that_no_format_has_are_said():
    table = Table("t", "T", (Column("n", "n"),), [{"n": 1}], left_out=5)
    text = render(Format.HTML, Report("compute", {}, (table,)))
    assert "5 rows are in no format: choose some of them." in text


def test_long_texts_wrap_and_short_ones_do_not():
    table = Table("t", "T", Column.plain("a", "b", "c"), [{"a": "x" * 41, "b": "x" * 40, "c": 1.0}])
    assert [head.style for head in grid_of(table, {}, "id").heads] == ["wrap", "", "n"]


def test_columns_that_can_be_spared_come_last():
    columns = (Column("a", "a"), Column("b", "b", spare=2), *Column.plain("c", "d", spare=1),
               Column("e", "e"))  # fmt: skip
    row = dict(zip("abcde", "12345", strict=True))
    table = table_of(Report("compute", {}, (Table("t", "T", columns, [row]),)))
    assert rows(table) == [["a", "e", "c", "d", "b"], ["1", "5", "3", "4", "2"]]


def test_a_table_without_titles_or_columns():
    untitled = Table("t", "", (Column("a", ""),), [{"a": "x"}])
    table = table_of(Report("compute", {}, (untitled,)))
    assert not every(table, "thead")
    assert rows(table) == [["x"]]
    assert grid_of(Table("t", "", (), []), {}, "id").rows == ()
