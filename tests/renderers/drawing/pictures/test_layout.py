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


def test_it_moves():
    made = layout_of(of(2, 2), WIDE)
    moved = made.moved(7)
    assert [box.left for box in moved.boxes] == [box.left + 7 for box in made.boxes]
    assert moved.entries[0].left == 7
