"""A chart in characters, on charts made by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bncli.errors import ExitCode
from bncli.renderers.drawing.charts import HEIGHT, MARKS, chart_lines
from bncli.renderers.interface import RenderContext
from bncli.renderers.table import render
from bncli.report import Chart, Report, Table


def drawn(x, width=40, **series) -> list[str]:
    return list(chart_lines(Chart("key", "Title", x, series), width))


def body(lines) -> list[str]:
    """The lines between the axes, without their labels."""
    return [line.split("│", 1)[1] for line in lines if "│" in line]


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right():
    lines = drawn(range(9), width=12, a=[float(y) for y in range(9)])
    columns = [row.index("·") for row in body(lines)]
    assert columns == sorted(columns, reverse=True)
    assert body(lines)[0] == "        ·"
    assert body(lines)[-1].startswith("·")
    assert lines[0].startswith("8 │")
    assert lines[HEIGHT - 1].startswith("0 │")
    assert lines[-2].split() == ["0", "8"]


def test_the_ends_are_at_the_ends():
    lines = drawn([1, 1000], width=50, a=[-1.5, 2.5])
    assert body(lines)[0] == " " * (len(body(lines)[0]) - 1) + "·"
    assert body(lines)[-1] == "·"
    assert cell_len(lines[0]) == 50
    assert lines[-2].split() == ["1", "1000"]


def test_each_series_has_a_mark_and_a_name():
    names = {f"series {i}": [float(i)] for i in range(len(MARKS))}
    lines = drawn([0], width=200, **names)
    for mark, name in zip(MARKS, names, strict=True):
        assert f"{mark} {name}" in lines[-1]
        assert any(mark in row for row in body(lines))


def test_points_without_a_number_are_left_out():
    lines = drawn([0, 1, 2, 3], a=[1.0, None, math.nan, 2.0], b=[math.inf, -math.inf, None, None])
    assert sum(row.count("·") for row in body(lines)) == 2
    assert not any("─" in row for row in body(lines))
    assert drawn([0, 1], a=[None, math.nan]) == ["(no finite value)"]
    assert drawn([], a=[]) == ["(no finite value)"]


def test_a_point_is_drawn_in_the_nearest_cell():
    """21 columns and 8 rows: x is put at 20 x, y at 7 y, both rounded to the nearest."""
    for x, y in ((0.24, 0.5), (0.26, 0.07), (0.774, 0.929), (0.276, 0.93)):
        lines = drawn([0, x, 1], width=21 + len("1 │"), a=[0.0, y, 1.0])
        row, column = HEIGHT - 1 - round(7 * y), round(20 * x)
        assert body(lines)[row].ljust(21)[column] == "·"
        assert sum(each.count("·") for each in body(lines)) == 3


def test_a_later_series_is_drawn_over_an_earlier_one():
    rows = body(drawn([0, 1], width=12, a=[0.0, 1.0], b=[0.0, 0.0]))
    assert rows[0].rstrip().endswith("·")
    assert rows[-1].startswith("─")


def test_more_series_than_marks_begin_the_marks_again():
    names = {f"s{i}": [float(i)] for i in range(len(MARKS) + 1)}
    assert drawn([0], width=200, **names)[-1].split("   ")[-1] == f"{MARKS[0]} s{len(MARKS)}"


def test_the_legend_goes_on_in_the_next_line():
    names = {f"series{i}": [0.0, 1.0] for i in range(4)}
    lines = drawn([0, 1], width=30, **names)
    legend = lines[-2:]
    assert [line.split("   ")[-1].split()[-1] for line in legend] == ["series1", "series3"]
    # "· series0   ─ series1" has 21 columns, which just fit beside the labels and the axis.
    assert len(drawn([0, 1], width=24, **names)) == len(lines)
    assert len(drawn([0, 1], width=23, **names)) == len(lines) + 2


def test_numbers_as_large_as_there_are():
    rows = body(drawn([-1.7e308, 1.7e308], width=20, a=[-1.7e308, 1.7e308]))
    assert rows[0].rstrip().endswith("·")
    assert rows[-1].startswith("·")


def test_an_axis_without_room_for_both_ends_has_the_first():
    assert drawn([123456, 654321], width=15, a=[0.0, 1.0])[-2].split() == ["123456"]
    assert drawn([123456, 654321], width=16, a=[0.0, 1.0])[-2].split() == ["123456", "654321"]
    assert drawn([5, 5], a=[0.0, 1.0])[-2].split() == ["5"]


def test_one_value_is_one_line():
    assert len(body(drawn([0, 1, 2], a=[5.0, 5.0, 5.0]))) == 1


def test_a_name_obeys_no_terminal():
    assert "\x1b" not in drawn([0], **{"\x1b[31m": [1.0]})[-1]


@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats()),
        min_size=1,
        max_size=30,
    ),
    st.integers(30, 120),
)
def test_any_numbers_fit_the_width(points, width):
    x = sorted(x for x, _ in points)
    for line in drawn(x, width=width, a=[y for _, y in points]):
        assert cell_len(line) <= width


@pytest.mark.parametrize("width", [None, 40, 80, 200])
def test_the_table_renderer_draws_charts_after_its_tables(width):
    chart = Chart("key", "A chart", [0.0, 1.0], {"a": [0.0, 1.0]})
    report = Report("compute", {}, (Table("t", "A table", (), []),), charts=(chart,), verdict="Ok.")
    text = render(report, RenderContext(ExitCode.OK, width, verbose=True))
    assert text.index("A table") < text.index("A chart") < text.index("· a") < text.index("Ok.")
    assert max(map(cell_len, text.splitlines())) <= (width or 88)
