"""How tables are laid out: widths, pieces, groups, and what an answer spares."""

from __future__ import annotations

import math

import pytest
from rich.cells import cell_len

from bncli.renderers import Format
from bncli.report import Column, Report, Table
from tests.renderers.reports import full, grouped, render, report


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("width", [20, 33, 80])
def test_a_cell_wider_than_the_console_goes_on_in_the_next_line(width, verbose):
    long = "".join(f"{n:03d}." for n in range(60))
    rows = [{"name": long, "x": 1}, {"name": "short", "x": 2}]
    given = full(report(rows, ("name", "x"))) if verbose else report(rows, ("name", "x"))
    lines = render(Format.TABLE, given, width=width, verbose=verbose).splitlines()
    assert max(map(cell_len, lines)) <= width
    start = next(i for i, line in enumerate(lines) if line.startswith("000."))
    end = next(i for i, line in enumerate(lines) if line.startswith("short"))
    assert "".join(line.split(" ")[0] for line in lines[start:end]) == long


def test_wide_characters_count_twice():
    rows = [{"name": "雪" * 10, "a": "雪" * 10, "b": "雪" * 10} for _ in range(2)]
    for width in range(20, 81, 5):
        text = render(
            Format.TABLE, full(report(rows, ("name", "a", "b"))), width=width, verbose=True
        )
        assert max(map(cell_len, text.splitlines())) <= width
        assert text.count("雪") >= 60
        short = render(Format.TABLE, report(rows, ("name", "a", "b")), width=width)
        assert max(map(cell_len, short.splitlines())) <= width
        assert short.count("雪") == 20 * len(short.splitlines()[1].split())  # the columns shown


def test_every_piece_of_a_wide_table_begins_with_the_first_column():
    columns = ("channel", *(f"column{c}" for c in range(12)))
    rows = [{key: 1000 * r + c for c, key in enumerate(columns)} for r in (7, 8)]
    text = render(Format.TABLE, full(report(rows, columns)), width=40, verbose=True)
    headers = [line for line in text.splitlines() if "column" in line]
    assert len(headers) > 2
    assert all(line.split()[0] == "channel" for line in headers)
    assert [key for line in headers for key in line.split()[1:]] == list(columns[1:])
    assert sum(line.split()[:1] == ["7000"] for line in text.splitlines()) == len(headers)


def test_the_answer_never_splits_and_spares_columns():
    """The greatest number goes first, equals together; those that nothing can spare stay."""
    columns = (
        Column("layer", "layer"), Column("mean", "mean", spare=2), Column("var", "var"),
        Column("dtype", "dtype", spare=1), Column("eps", "eps", spare=1),
    )  # fmt: skip
    rows = [dict.fromkeys(("layer", "mean", "var", "dtype", "eps"), "x" * 10)] * 2
    given = report(answer=(Table("answer", "", columns, rows),))
    widths = {62: "layer mean var dtype eps", 61: "layer var dtype eps", 48: "layer var",
              35: "layer var", 20: "layer var"}  # fmt: skip
    for width, header in widths.items():
        text = render(Format.TABLE, given, width=width)
        assert text.splitlines()[0].split() == header.split()
        assert max(map(cell_len, text.splitlines())) <= width
    assert render(Format.TABLE, given).splitlines()[0].split() == widths[62].split()
    long = [{**row, "layer": "y" * 90} for row in rows]
    text = render(Format.TABLE, report(answer=(Table("answer", "", columns, long),)))
    assert text.splitlines()[0].split() == ["layer", "var"]  # as on a terminal of 80
    assert text.count("y" * 90) == 2  # and nothing is cut


@pytest.mark.parametrize("width", [None, 40])
def test_groups_are_tables_of_their_own(width):
    text = render(Format.TABLE, full(grouped(3, 2)), width=width, verbose=True)
    lines = [line.split() for line in text.splitlines() if line.strip()]
    headings = [line for line in lines if line[0] == "Main,"]
    assert headings == [["Main,", "channel", str(c)] for c in range(3)]
    assert [line for line in lines if line[0] == "name"] == [["name", "value"]] * 3
    for c in range(3):
        place = lines.index(["Main,", "channel", str(c)])
        assert lines[place + 3 : place + 5] == [[f"c{c}r{r}", str(100 * c + r)] for r in (0, 1)]
    assert text.count("A note.") == 1
    assert text.index("A note.") > text.index("c2r1")


def test_no_rows_in_no_group():
    assert "Main" in render(Format.TABLE, grouped(0, 0), verbose=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0%"),
        (0.1234, "12.3%"),
        (42.5, "42.5 times"),
        (7.53e14, "7.53e+14 times"),
        (math.inf, "inf"),
    ],
)
def test_a_large_percentage_is_short(value, text):
    table = Table("main", "Main", (Column("key", "key", ".1%"),), [{"key": value}])
    assert text in map(
        str.strip, render(Format.TABLE, Report("compute", {}, (table,))).splitlines()
    )


@pytest.mark.parametrize(("cells", "right"), [
    (["37%", "1e-07"], True), (["0", "-0.36 .. 0.35"], False), (["0.1", None], True),
    (["nan", "0.1"], False), (["<1%", "8.54e+04"], True), (["21.5 times", "93%"], True),
])  # fmt: skip
def test_text_that_is_a_number_stands_to_the_right(cells, right):
    columns = (Column("layer", "layer"), Column("value", "a long title"))
    rows = [{"layer": f"0.{n}", "value": cell} for n, cell in enumerate(cells)]
    given = report(answer=(Table("answer", "", columns, rows),))
    head, *lines = render(Format.TABLE, given).splitlines()[:3]
    assert [line.startswith(f"0.{n}") for n, line in enumerate(lines)] == [True, True]
    assert [len(line) == len(head) for line in lines] == [right] * 2
