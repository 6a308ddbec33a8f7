"""What a person sees: widths, pieces, groups, and what is shortened on a terminal."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len

from bncli.renderers import Format
from bncli.report import Column, Report, Table
from tests.findings import finding
from tests.renderers.reports import grouped, render, report, squeezed


@pytest.mark.parametrize("width", [20, 40, 60, 80, 132])
def test_no_line_is_wider_than_asked(everything, width):
    text = render(Format.TABLE, everything, width=width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    # In the sentences and facts, lines may break, but nothing is lost.
    for each in everything.findings:
        assert squeezed(each.subject + ":" + each.message) in squeezed(text)
    assert squeezed(everything.verdict) in squeezed(text)
    assert squeezed("input a [b].npy shape (4, 3) eps 1e-05 worst inf") in squeezed(text)


@pytest.mark.parametrize("width", [20, 33, 80])
def test_a_cell_wider_than_the_console_goes_on_in_the_next_line(width):
    long = "".join(f"{n:03d}." for n in range(60))
    rows = [{"name": long, "x": 1}, {"name": "short", "x": 2}]
    lines = render(Format.TABLE, report(rows, ("name", "x")), width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    start = next(i for i, line in enumerate(lines) if line.startswith("000."))
    end = next(i for i, line in enumerate(lines) if line.startswith("short"))
    assert "".join(line.split(" ")[0] for line in lines[start:end]) == long


def test_wide_characters_count_twice():
    rows = [{"name": "雪" * 10, "a": "雪" * 10, "b": "雪" * 10} for _ in range(2)]
    for width in range(20, 81, 5):
        text = render(Format.TABLE, report(rows, ("name", "a", "b")), width=width)
        assert max(map(cell_len, text.splitlines())) <= width
        assert text.count("雪") >= 60


def test_every_piece_of_a_wide_table_begins_with_the_first_column():
    columns = ("channel", *(f"column{c}" for c in range(12)))
    rows = [{key: 1000 * r + c for c, key in enumerate(columns)} for r in (7, 8)]
    text = render(Format.TABLE, report(rows, columns), width=40)
    headers = [line for line in text.splitlines() if "column" in line]
    assert len(headers) > 2
    assert all(line.split()[0] == "channel" for line in headers)
    assert [key for line in headers for key in line.split()[1:]] == list(columns[1:])
    assert sum(line.split()[:1] == ["7000"] for line in text.splitlines()) == len(headers)


def test_a_long_table_is_shortened_on_a_terminal_and_says_so():
    rows = [{"channel": c} for c in range(100)]
    text = render(Format.TABLE, report(rows, ("channel",)), terminal=True, width=80)
    shown = [line for line in text.splitlines() if line.strip().isdecimal()]
    assert [int(line) for line in shown] == list(range(len(shown)))
    assert f"{100 - len(shown)} more rows" in text
    assert len(shown) < 100


@pytest.mark.parametrize("width", [None, 40])
def test_groups_are_tables_of_their_own(width):
    text = render(Format.TABLE, grouped(3, 2), width=width)
    lines = [line.split() for line in text.splitlines() if line.strip()]
    headings = [line for line in lines if line[0] == "Main,"]
    assert headings == [["Main,", "channel", str(c)] for c in range(3)]
    assert [line for line in lines if line[0] == "name"] == [["name", "value"]] * 3
    for c in range(3):
        place = lines.index(["Main,", "channel", str(c)])
        assert lines[place + 3 : place + 5] == [[f"c{c}r{r}", str(100 * c + r)] for r in (0, 1)]
    assert text.count("A note.") == 1
    assert text.index("A note.") > text.index("c2r1")


def test_many_groups_are_shortened_on_a_terminal_and_say_so():
    text = render(Format.TABLE, grouped(50, 2), terminal=True, width=80)
    shown = text.count("Main, channel")
    assert shown < 50
    assert f"... {50 - shown} more such tables" in text
    assert text.count("A note.") == 1
    assert render(Format.TABLE, grouped(50, 2), width=80).count("Main, channel") == 50


def test_no_rows_in_no_group():
    assert "Main" in render(Format.TABLE, grouped(0, 0))


def test_a_long_table_with_ends_shows_its_first_and_its_last_rows():
    text = render(Format.TABLE, grouped(1, 100, ends=True), terminal=True, width=80)
    found = [line.split()[0] for line in text.splitlines() if line.startswith(("c0r", "..."))]
    gap = found.index("...")
    assert found[:gap] == [f"c0r{r}" for r in range(gap)]
    last = len(found) - gap - 2  # the line below the table begins with dots too
    assert found[gap + 1 : -1] == [f"c0r{r}" for r in range(100 - last, 100)]
    assert gap == last > 5
    assert f"... {100 - gap - last} more rows" in text
    whole = render(Format.TABLE, grouped(1, 100, ends=True), width=80)
    assert all(f"c0r{r} " in whole for r in range(100))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0%"),
        (0.1234, "12.3%"),
        (42.5, "4250.0%"),
        (7.53e14, "7.53e+16%"),
        (math.inf, "inf"),
    ],
)
def test_a_large_percentage_is_short(value, text):
    table = Table("main", "Main", (Column("key", "key", ".1%"),), [{"key": value}])
    assert text in render(Format.TABLE, Report("compute", {}, (table,))).split()


def test_facts_that_are_not_known_are_left_out_of_the_table_only(everything):
    assert "unknown" not in render(Format.TABLE, everything)
    assert "| unknown | - |" in render(Format.MARKDOWN, everything)


def test_a_fact_that_is_a_long_list_is_shortened_on_a_terminal_alone():
    given_report = report(facts={"path": [f"{n}.pt" for n in range(500)], "shape": (1, 2, 3, 4, 5)})
    text = render(Format.TABLE, given_report, terminal=True, width=200)
    assert "path (0.pt, 1.pt, 2.pt, 3.pt, 4.pt, 5.pt and 494 more)  shape (1, 2, 3, 4, 5)" in text
    assert "499.pt" in render(Format.TABLE, given_report)


@pytest.mark.parametrize(("terminal", "number", "folded"), [
    (True, 9, True), (True, 4, True), (True, 3, False), (False, 9, False), (False, 1, False),
])  # fmt: skip
def test_many_findings_of_one_kind_are_one_line_on_a_terminal_alone(terminal, number, folded):
    """They say how many there are, the first three places, and what the first of them says."""
    alike = [finding("BN001", f"layer{n}", message=f"fact {n}.") for n in range(number)]
    last = finding("BN002", "other", message="another fact.")
    given_report = report(findings=[*alike, last])
    text = render(Format.TABLE, given_report, terminal=terminal, width=200)
    assert "error BN002 other: another fact." in text
    one_by_one = [f"error BN001 layer{n}: fact {n}." in text for n in range(number)]
    assert one_by_one == [not folded] * number
    said = f"error BN001 in {number} places (layer0, layer1, layer2 and {number - 3} more); the "
    assert (f"{said}first: fact 0." in text) == folded


def test_golden_of_a_narrow_table(fixed, golden):
    text = render(Format.TABLE, fixed, width=40)
    golden("report-40.txt", text)
    assert f"{(1 + 1 + 1 + 5) / 4:g}" in text.splitlines()[7].split()
