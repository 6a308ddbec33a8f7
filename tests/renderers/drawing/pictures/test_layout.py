"""Where panels and legends stand."""

from __future__ import annotations

from itertools import combinations

import pytest

from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.renderers.drawing.pictures.layout import NARROW, WIDE, layout_of
from tests.renderers.drawing.pictures.examples import every_kind


def of(panels: int, columns: int, label="a", names=()):
    series = (Series(label, Kind.LINE, [0, 1], [0, 1]),)
    panel = Panel("title", Axis("x", names=names), Axis("y"), series)
    return Picture("k", "T", (panel,) * panels, "t", columns)


@pytest.mark.parametrize("medium", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize(("panels", "columns"), [(1, 1), (5, 2), (6, 3), (2, 9), (3, 0)])
def test_panels_do_not_touch(medium, panels, columns):
    made = layout_of(of(panels, columns), medium)
    assert len(made.boxes) == panels
    assert len(made.entries) == 1
    for box in made.boxes:
        assert box.left > 0
        assert box.left + box.width <= made.width
        assert made.entries[0].top < box.top < box.top + box.height < made.height
        assert box.width > 100
    for one, other in combinations(made.boxes, 2):
        assert (
            one.top + one.height < other.top
            or other.top + other.height < one.top
            or one.left + one.width < other.left
            or other.left + other.width < one.left
        )


def test_a_long_legend_has_several_lines():
    series = tuple(Series(f"a rather long name {n}", Kind.LINE, [0], [n]) for n in range(9))
    picture = Picture("k", "T", (Panel("", Axis("x"), Axis("y"), series),), "t")
    made = layout_of(picture, NARROW)
    assert len(made.entries) == 9
    assert len({entry.top for entry in made.entries}) > 4
    assert made.boxes[0].top > max(entry.top for entry in made.entries) + 13
    assert len(layout_of(of(1, 1, "x" * 5000), NARROW).entries[0].label) < 50


def test_bars_at_the_ends_lie_inside():
    made = layout_of(every_kind(), WIDE)
    assert made.boxes[0].x.low <= -0.5
    assert made.boxes[0].x.high >= 4.5


def test_long_names_make_it_higher_and_no_wider():
    names = [f"{n}-" + "x" * 5000 for n in range(100)]
    short, long = (layout_of(of(1, 1, names=each), WIDE) for each in (["a"] * 100, names))
    assert short.height < long.height < short.height + 200
    assert short.width == long.width


def test_a_list_is_as_high_as_its_names_need():
    def listed(number):
        series = (Series("a", Kind.POINTS, [1], [0]),)
        names = tuple(f"n{n}" for n in range(number))
        panel = Panel("", Axis("x"), Axis("", names=names), series)
        return layout_of(Picture("k", "T", (panel,), "t"), WIDE).boxes[0]

    few, some, many = map(listed, (1, 20, 300))
    assert few.height < 100 < some.height < many.height < 500
    assert len(some.y.labels) == 20
    assert 20 < len(many.y.labels) < 40


def test_it_moves():
    made = layout_of(of(2, 2), WIDE)
    moved = made.moved(7)
    assert [box.left for box in moved.boxes] == [box.left + 7 for box in made.boxes]
    assert moved.entries[0].left == 7


def over_names(*kinds: Kind, columns=1, one_scale=False, names=("a", "b", "c")):
    """A panel of each kind over the same names, its numbers twice as large as those before."""
    panels = tuple(
        Panel("t", Axis("x", names=names), Axis("y"), (Series("", kind, (0, 1, 2), y, y),))
        for kind, y in ((kind, (2**at, 0, 1)) for at, kind in enumerate(kinds))
    )
    return Picture("k", "T", panels, "t", columns, one_scale)


def test_panels_over_the_same_names_have_the_same_ends_whatever_they_hold():
    made = layout_of(over_names(Kind.POINTS, Kind.RANGE, Kind.BARS), WIDE)
    assert len({(box.x.low, box.x.high) for box in made.boxes}) == 1


@pytest.mark.parametrize("medium", [WIDE, NARROW], ids=["wide", "narrow"])
def test_names_stand_below_the_lowest_of_panels_that_share_them(medium):
    made = layout_of(over_names(Kind.POINTS, Kind.RANGE), medium)
    assert [any(box.x.labels) for box in made.boxes] == [False, True]
    assert [box.panel.x.title for box in made.boxes] == ["", "x"]
    beside = layout_of(over_names(Kind.POINTS, Kind.RANGE, columns=2), medium)
    assert [box.panel.x.title for box in beside.boxes] == ["x", "x"]
    assert all(any(box.x.labels) for box in beside.boxes)


def test_panels_of_one_scale_compare():
    apart, alike = (
        layout_of(over_names(Kind.RANGE, Kind.RANGE, columns=2, one_scale=one), WIDE)
        for one in (False, True)
    )
    assert len({box.y.high for box in apart.boxes}) == 2
    assert len({(box.y.low, box.y.high) for box in alike.boxes}) == 1
    assert alike.boxes[0].y.high >= 2
