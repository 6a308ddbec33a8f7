"""Pictures as figures: what is drawn, where, and in which look."""

from __future__ import annotations

import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest

from bncli.errors import MissingBackendError
from bncli.pictures import Axis, Kind, Panel, Picture, Series
from bncli.renderers.drawing.pictures.figure import check_libraries, figure_of, own_style
from bncli.renderers.drawing.pictures.layout import NARROW, WIDE
from bncli.renderers.drawing.pictures.palette import LIGHT
from tests.renderers.drawing.pictures.examples import HOSTILE, every_kind, picture


def drawn(*pictures, medium=WIDE, **more):
    with own_style():
        return figure_of(pictures, medium, LIGHT, **more)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    check_libraries("--plot", ["matplotlib"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingBackendError) as error:
        check_libraries("--plot", ["matplotlib"])
    assert str(error.value) == (
        "--plot needs matplotlib, which is not installed here: "
        "python -m pip install 'bncli[report]'"
    )


@pytest.mark.parametrize(
    "error", [ImportError("numpy.core.multiarray\nfailed"), AttributeError("b")]
)
def test_a_library_that_is_broken_is_a_sentence(monkeypatch, capsys, tmp_path, error):
    said = f"raise {type(error).__name__}({str(error)!r})"
    (tmp_path / "broken.py").write_text(
        f"import sys\nprint('at length', file=sys.stderr)\n{said}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingBackendError) as raised:
        check_libraries("--format html", ["matplotlib", "broken"])
    reason = f"{type(error).__name__}: {error}".replace("\n", r"\x0a")
    assert str(raised.value) == (
        f"--format html needs broken, which is installed here but cannot be imported ({reason}): "
        "python -m pip install --upgrade 'bncli[report]'"
    )
    assert capsys.readouterr() == ("", "")


def test_a_style_of_ones_own_changes_nothing_and_stays(monkeypatch):
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "font.size", 50.0)
    with warnings.catch_warnings(), own_style():
        assert mpl.rcParams["font.size"] == 11
        assert mpl.rcParams["text.parse_math"] is False
        warnings.warn("Glyph 38634 missing from font", stacklevel=1)
    assert mpl.rcParams["font.size"] == 50


def test_panels_stand_in_columns_and_their_axes_in_line():
    panels = tuple(
        Panel(f"p{n}", Axis("x"), Axis("y"), (Series("a", Kind.LINE, [0, 1], [0, 10.0**n]),))
        for n in range(5)
    )
    places = [
        axes.get_position().bounds for axes in drawn(Picture("k", "T", panels, "t", columns=2)).axes
    ]
    lefts, bottoms = ({round(place[at], 6) for place in places} for at in (0, 1))
    assert (len(places), len(lefts), len(bottoms)) == (5, 2, 3)
    assert len({round(place[2], 6) for place in places}) == 1
    narrow = drawn(Picture("k", "T", panels, "t", columns=2), medium=NARROW).axes
    assert len({round(axes.get_position().x0, 6) for axes in narrow}) == 1


def test_a_name_has_one_look_in_all_panels():
    def panel(*names):
        series = tuple(Series(name, Kind.LINE, range(50), range(50)) for name in names)
        return Panel("", Axis("x"), Axis("y"), series)

    figure = drawn(Picture("k", "T", (panel("a", "b"), panel("c", "b")), "t"))
    colors = [[line.get_color() for line in axes.get_lines()] for axes in figure.axes]
    (a, b), (c, again) = colors
    assert b == again
    assert len({a, b, c}) == 3
    styles = [line.get_linestyle() for axes in figure.axes for line in axes.get_lines()]
    assert styles[0] == "-"
    assert {text.get_text() for text in figure.texts} >= {"a", "b", "c"}


def test_nothing_lies_outside_of_the_figure():
    hostile = every_kind(names=[name * 30 for name in HOSTILE[:5]])
    for medium in (WIDE, NARROW):
        with own_style():
            from matplotlib.backends.backend_agg import FigureCanvasAgg

            figure = figure_of([hostile], medium, LIGHT)
            FigureCanvasAgg(figure).draw()
            assert figure.get_size_inches()[0] * 72 == pytest.approx(medium.width)
            whole = figure.bbox.padded(3)
            artists = [*figure.texts, *figure.artists]
            for axes in figure.axes:
                artists += [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.lines]
                artists += axes.patches
            for artist in artists:
                box = artist.get_window_extent()
                if box.width and box.height:
                    assert whole.contains(box.x0, box.y0), artist
                    assert whole.contains(box.x1, box.y1), artist


def test_what_stands_under_a_panel_does_not_touch():
    names = [f"a.rather.long.name.of.a.layer{n}" for n in range(40)]
    series = Series("s", Kind.POINTS, range(40), range(40))
    given = picture(series, x=Axis("layer", names=names), y=Axis("y" * 500))
    with own_style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure = figure_of([given], WIDE, LIGHT)
        FigureCanvasAgg(figure).draw()
        (axes,) = figure.axes
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(label.get_rotation() == 90 for label in axes.get_xticklabels())
        assert all(left.x1 <= right.x0 + 1 for left, right in pairwise(boxes))
        (title,) = [text for text in figure.texts if text.get_text() == "layer"]
        assert title.get_window_extent().y1 <= min(box.y0 for box in boxes)
        (side,) = [text for text in figure.texts if text.get_rotation() == 90]
        assert "…" in side.get_text()
        assert side.get_window_extent().x1 <= min(
            label.get_window_extent().x0 for label in axes.get_yticklabels()
        )


def test_a_list_is_read_from_its_top():
    series = Series("s", Kind.POINTS, [1, 2], [0, 1])
    (axes,) = drawn(picture(series, y=Axis("", names=("first", "second")))).axes
    assert axes.yaxis_inverted()
    assert np.diff(axes.get_ylim()) < 0


def test_no_picture_is_an_empty_figure():
    assert drawn().axes == []
    assert len(drawn(picture(), margin=5.0).axes) == 1
