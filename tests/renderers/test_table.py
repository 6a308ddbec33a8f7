"""What a person sees by default and with -v: order, widths, pieces and groups."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from bncli.renderers import Format
from bncli.report import Column, Table
from tests.findings import finding
from tests.renderers.reports import full, render, report, squeezed


@pytest.mark.parametrize("width", [20, 40, 60, 80, 132])
def test_no_line_is_wider_than_asked(everything, width):
    text = render(Format.TABLE, everything, width=width, verbose=True)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    # In the sentences and facts, lines may break, but nothing is lost.
    for each in everything.findings:
        head = f"{each.severity.label}[{each.code}]{each.message}(certain)-->{each.subject}"
        assert squeezed(head) in squeezed(text)
    assert squeezed(everything.verdict) in squeezed(text)
    assert squeezed("input a [b].npy shape (4, 3) eps 1e-05 worst inf") in squeezed(text)


def test_the_order_is_subject_findings_answer_remarks_verdict():
    given = report(
        [{"n": 1}], ("n",), facts={"fact": 5}, findings=[finding(hint="Fix it.")],
        subject=("The subject.",), answer=(Table("a", "Answer", (Column("m", "m"),), [{"m": 2}]),),
        remarks=("A remark.",), word="FAIL", verdict="FAIL  it differs",
    )  # fmt: skip
    text = render(Format.TABLE, given)
    assert text == (
        "The subject.\n\nerror[BN001] a fact (certain)\n  --> here\n  help: Fix it.\n\n"
        "Answer\nm\n2\nA remark.\n\nFAIL  it differs\n"
    )
    everything = render(Format.TABLE, given, verbose=True)
    assert everything.startswith(text.partition("\nFAIL")[0])
    assert everything.endswith("\n\nFAIL  it differs\n")
    assert "fact 5" in everything
    assert "Main\nn\n" in everything


def test_remarks_without_a_table_stand_apart_from_the_findings():
    alone = full(report(findings=[finding()], remarks=("a remark",), verdict="judged"))
    assert render(Format.TABLE, alone).endswith("  --> here\n\na remark\n\njudged\n")
    assert render(Format.TABLE, replace(alone, findings=())).startswith("a remark\n")


def test_a_table_without_rows_is_told_only_where_it_is_the_main_one():
    columns = (Column("name", "name"),)
    tables = (Table("main", "Main", columns, []), Table("b", "More", columns, []))
    text = render(Format.TABLE, replace(report(), tables=tables), verbose=True)
    assert "Main" in text
    assert "More" not in text


@pytest.mark.parametrize(("verbose", "drawn"), [(False, False), (False, True), (True, False)])
def test_charts_are_drawn_where_they_are_wanted(everything, verbose, drawn):
    text = render(Format.TABLE, replace(everything, drawn=drawn), verbose=verbose)
    assert ("Loss" in text) == (verbose or drawn)


def test_the_verdicts_word_has_its_colour():
    colours = {"PASS": 32, "WARN": 33, "FAIL": 31, "ERROR": 31, "NOTHING": 35}
    for word, colour in colours.items():
        given = report(word=word, verdict=f"{word}  2 layers")
        assert f"\x1b[1;{colour}m{word}\x1b[0m" in render(Format.TABLE, given, color=True)


def test_facts_that_are_not_known_are_left_out_of_the_table_only(everything):
    assert "unknown" not in render(Format.TABLE, everything, verbose=True)
    assert "| unknown | - |" in render(Format.MARKDOWN, everything, verbose=True)


def test_counts_of_several_kinds_are_said_as_words():
    facts = {"states": [["trained", 43], ["identical", 10]], "shape": (2, 3), "left": []}
    text = render(Format.TABLE, report(facts=facts), verbose=True)
    assert "states 43 trained, 10 identical  shape (2, 3)" in text
    assert "left" not in text


def test_an_answer_that_v_lists_is_not_shown_beside_the_list():
    answer = Table("answer", "", (Column("m", "m"),), [{"m": "summed"}], note="-v lists each")
    given = replace(report([{"n": 1}], ("n",)), answer=(answer,))
    assert "summed" in render(Format.TABLE, given)
    told = render(Format.TABLE, given, verbose=True)
    assert "summed" not in told
    assert "-v lists" not in told


def test_the_arrow_stays_beside_a_long_path():
    text = render(Format.TABLE, report(findings=[finding(path="d" * 90 + ".pt")]), width=80)
    assert "  --> ddd" in text


def test_golden_of_a_narrow_table(fixed, golden):
    text = render(Format.TABLE, fixed, width=40)
    golden("report-40.txt", text)
    (row,) = (line.split() for line in text.splitlines() if line.split()[:1] == ["1"])
    assert row[1] == f"{(1 + 1 + 1 + 5) / 4:g}"
