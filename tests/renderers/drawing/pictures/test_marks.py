"""Each kind of series: what is drawn of it, and that every number is where it belongs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from bncli.pictures import Axis, Kind, Series
from bncli.renderers.drawing.pictures.figure import figure_of, own_style
from bncli.renderers.drawing.pictures.layout import WIDE
from bncli.renderers.drawing.pictures.marks import EDGE, is_marked, numbers
from bncli.renderers.drawing.pictures.palette import LIGHT
from bncli.report import Severity
from tests.renderers.drawing.pictures.examples import every_kind, picture

NAN = math.nan


def axes_of(*series, **more):
    with own_style():
        (axes,) = figure_of([picture(*series, **more)], WIDE, LIGHT).axes
    return axes


def points(line):
    return np.column_stack(line.get_data()).tolist()


def test_numbers():
    np.testing.assert_array_equal(numbers([1, None, math.inf, NAN, 2]), [1, NAN, NAN, NAN, 2])
    assert numbers(()).shape == (0,)


def test_a_line_has_gaps_and_marks_where_it_has_few_points():
    line, marks = axes_of(Series("a", Kind.LINE, [0, 1, 2], [5, None, 7])).get_lines()
    np.testing.assert_array_equal(line.get_ydata(), [5, NAN, 7])
    assert (line.get_marker(), marks.get_marker()) == ("None", "o")
    assert points(marks) == [[0, 5], [2, 7]]
    (alone,) = axes_of(Series("a", Kind.LINE, range(99), range(99))).get_lines()
    assert len(alone.get_xdata()) == 99
    one = [None] * 98 + [3]
    assert is_marked(Series("a", Kind.LINE, range(99), one))
    assert not is_marked(Series("a", Kind.LINE, range(99), range(99)))


def test_points():
    (marks,) = axes_of(Series("a", Kind.POINTS, [0, 1, 2], [5, math.inf, -7])).get_lines()
    assert (marks.get_linestyle(), marks.get_marker()) == ("None", "o")
    assert points(marks) == [[0, 5], [2, -7]]
    rng = np.random.default_rng(0)
    (many,) = axes_of(Series("a", Kind.POINTS, *rng.normal(size=(2, 30_000)))).get_lines()
    assert 100 < len(many.get_xdata()) <= 600


def test_a_level_reaches_from_side_to_side():
    axes = axes_of(Series("a", Kind.LEVEL, (), [1.0, None, 3.0]))
    first, second = axes.get_lines()
    assert list(first.get_xdata()) == list(axes.get_xlim())
    assert [*first.get_ydata(), *second.get_ydata()] == [1, 1, 3, 3]


def test_a_band_is_an_area_with_gaps():
    series = Series("a", Kind.BAND, [0, 1, 2, 3], [1, 2, None, 4], [2, 3, 4, 5])
    patches = axes_of(series).patches
    corners = [patch.get_xy().tolist() for patch in patches]
    assert len(patches) == 2
    assert [0, 1] in corners[0]
    assert [1, 3] in corners[0]
    assert [3, 4] in corners[1]
    assert all(patch.get_alpha() < 0.5 for patch in patches)


def test_the_edges_of_a_band_are_lines_in_its_full_colour():
    series = Series("a", Kind.BAND, [0, 1, 2, 3, 4], [1, 2, None, 4, 5], [2, 3, 4, 5, 6])
    axes = axes_of(series)
    lines = axes.get_lines()
    assert [points(line) for line in lines] == [
        [[0, 1], [1, 2]],
        [[0, 2], [1, 3]],
        [[3, 4], [4, 5]],
        [[3, 5], [4, 6]],
    ]
    for line, patch in zip(lines, (axes.patches[0],) * 2 + (axes.patches[1],) * 2, strict=True):
        assert to_rgba(line.get_color())[:3] == patch.get_facecolor()[:3]
        assert line.get_alpha() is None
        assert line.get_linewidth() > 0.5


def test_ranges_are_bars_from_edge_to_edge():
    (line,) = axes_of(Series("a", Kind.RANGE, [0, 1], [1, 2], [4, 2])).get_lines()
    assert points(line)[:2] == [[0, 1], [0, 4]]
    assert points(line)[3:5] == [[1, 2], [1, 2]]  # which its caps show
    assert line.get_solid_capstyle() == "round"


def test_ranges_of_several_series_stand_side_by_side():
    first, second = axes_of(
        *(Series(name, Kind.RANGE, [0, 1], [1, 2], [4, 5]) for name in "ab")
    ).get_lines()
    assert np.nanmax(first.get_xdata()[:2]) < 0 < np.nanmin(second.get_xdata()[:2])
    assert first.get_linewidth() == second.get_linewidth() > 1


def test_bars_begin_at_zero():
    axes = axes_of(Series("a", Kind.BARS, [0, 1, 2], [3, -4, None]))
    (patch,) = axes.patches
    corners = patch.get_path().vertices.reshape(-1, 5, 2)
    assert corners[:, :, 1].min(axis=1).tolist() == [0, -4]
    assert corners[:, :, 1].max(axis=1).tolist() == [3, 0]
    assert corners[0, :, 0].mean() == pytest.approx(0, abs=0.1)
    assert axes.get_ylim()[0] < -4


def test_bars_of_names_stand_side_by_side():
    axes = axes_of(
        *(Series(name, Kind.BARS, [0, 1], [1, 2]) for name in "ab"),
        x=Axis("", names=("first", "second")),
    )
    first, second = (patch.get_path().vertices[:5, 0] for patch in axes.patches)
    assert first.max() <= second.min()


@pytest.mark.parametrize("kind", [Kind.LINE, Kind.POINTS, Kind.RANGE, Kind.BAND])
def test_what_a_log_axis_cannot_show_is_at_its_edge_with_another_mark(kind):
    series = Series("a", kind, [0, 1, 2], [10, 0, -3], [20, 5, -2])
    axes = axes_of(series, y=Axis("y", log=True))
    (edge,) = [line for line in axes.get_lines() if line.get_marker() == EDGE]
    low = axes.get_ylim()[0]
    assert 0 < low < 10
    assert points(edge) == [[1, low], [2, low]]
    (plain,) = [line for line in axes_of(series).get_lines() if line.get_marker() == EDGE] or [None]
    assert plain is None


@pytest.mark.parametrize(
    ("series", "log", "told"),
    [
        (Series("a", Kind.POINTS, [0, 1], [0, 1]), True, True),
        (Series("a", Kind.LINE, [0, 1], [-1, 1]), True, True),
        (Series("a", Kind.RANGE, [0, 1], [0, 1], [1, 1]), True, True),
        (Series("a", Kind.POINTS, [0, 1], [0, 1]), False, False),
        (Series("a", Kind.POINTS, [0, 1], [2, 1]), True, False),
        (Series("a", Kind.POINTS, [0, 1], [None, 1]), True, False),
        (Series("a", Kind.BARS, [0, 1], [0, 1]), True, False),
        (Series("a", Kind.POINTS, [0, 1], [0, 1], severity=Severity.INFO), True, False),
    ],
)
def test_the_legend_says_what_the_mark_at_the_edge_is(series, log, told):
    with own_style():
        figure = figure_of([picture(series, y=Axis("y", log=log))], WIDE, LIGHT)
    texts = [text.get_text() for text in figure.texts]
    assert ("0 or less, which a log axis cannot show" in texts) is told
    handles = [each for each in figure.artists if getattr(each, "get_marker", str)() == EDGE]
    drawn = [line for line in figure.axes[0].get_lines() if line.get_marker() == EDGE]
    assert (len(handles), len(drawn)) == (told, told)


def test_a_range_below_the_edge_of_a_log_axis_is_its_mark_alone():
    series = Series("a", Kind.RANGE, [0, 1], [0, 1], [0, 2])
    line, edge = axes_of(series, y=Axis("y", log=True)).get_lines()
    assert points(line)[:2] == [[1, 1], [1, 2]]
    assert (edge.get_marker(), len(edge.get_xdata())) == (EDGE, 1)


def test_findings_are_marked_by_severity_and_say_what_they_are():
    made = {}
    for severity in Severity:
        series = Series("f", Kind.POINTS, [0, 1], [1, 2], severity=severity, names=("n$0", "n1"))
        first, second = axes_of(series).get_lines()
        assert (first.get_gid(), second.get_gid()) == ("named: n$0", "named: n1")
        assert first.get_color() == LIGHT[severity.value]
        made[severity] = first.get_marker()
    assert len(set(made.values())) == 3
    (line,) = axes_of(Series("f", Kind.POINTS, [0, 1], [1, 2], severity=Severity.INFO)).get_lines()
    assert points(line) == [[0, 1], [1, 2]]


def test_errors_are_seen_among_many_warnings():
    places = range(500)
    axes = axes_of(
        Series("e", Kind.POINTS, [3, 250], [1, 1], severity=Severity.ERROR),
        Series("n", Kind.POINTS, [4], [1], severity=Severity.INFO),
        Series("w", Kind.POINTS, places, [1] * 500, severity=Severity.WARNING),
    )
    error, note, warning = axes.get_lines()
    assert error.zorder > warning.zorder > note.zorder
    assert error.get_markersize() == note.get_markersize() > warning.get_markersize()


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("names", [(), ("a", "b", "c", "d", "e")])
def test_every_kind_together_and_empty(names, log):
    axes = axes_of(*every_kind(names).panels[0].series, x=Axis("x", False, names), y=Axis("y", log))
    assert len(axes.get_lines()) >= 5
    for kind in Kind:
        axes_of(Series("a", kind, (), ()), Series("b", kind, [1], [None], [None]))


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("log", [False, True])
def test_extreme_numbers_are_drawn(kind, log):
    y = [5e-324, 1.8e308, -1.8e308, 0.0]
    with own_style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        x = () if kind is Kind.LEVEL else [0, 1e308, -1e308, 1]
        given = picture(Series("a", kind, x, y, [1e308] * 4), y=Axis("y", log=log))
        with np.errstate(all="raise", under="ignore"):
            FigureCanvasAgg(figure_of([given], WIDE, LIGHT)).draw()
