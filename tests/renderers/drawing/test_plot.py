"""The charts as a picture, and a clear refusal where matplotlib is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bncli.errors import UsageError
from bncli.renderers.drawing.plot import check_plot, draw
from bncli.report import Chart

GENERATED = ("simulate-ema", "--generate", "8,2,3", "--batches", 6)


def test_without_matplotlib_it_says_what_to_install(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, stdout, stderr = run(*GENERATED, "--plot", "chart.png")
    assert (code, stdout) == (2, "")
    assert stderr == (
        "bncli: --plot needs matplotlib, which is not installed here: python -m pip install "
        "matplotlib\n"
    )
    assert list(folder.iterdir()) == []
    assert run(*GENERATED, "-q").code == 0


@pytest.mark.parametrize(
    ("name", "magic"), [("chart.png", b"\x89PNG"), ("chart.svg", b"<?xml"), ("CHART.SVG", b"<?xml")]
)
def test_a_picture_of_the_charts(run, folder, name, magic):
    result = run(*GENERATED, "--plot", name, "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    assert result.report["facts"]["plot"] == name
    first = (folder / name).read_bytes()
    assert first.startswith(magic)
    run(*GENERATED, "--plot", name, "-q")
    assert (folder / name).read_bytes() == first


def test_an_input_is_never_drawn_over(run, save, folder):
    (folder / "x.png").write_bytes((folder / save("x.npy", np.ones((8, 3)))).read_bytes())
    before = (folder / "x.png").read_bytes()
    result = run("simulate-ema", "x.png", "--epochs", 3, "--plot", "x.png")
    assert result.code == 2
    assert "would overwrite an input" in result.stderr
    assert (folder / "x.png").read_bytes() == before


@pytest.fixture
def drawn(folder, monkeypatch):
    """The axes, with their lines, that `draw` makes of some charts."""
    from matplotlib.figure import Figure

    made = []
    add = Figure.add_subplot

    def add_subplot(figure, *place):
        made.append((place, add(figure, *place)))
        return made[-1][1]

    monkeypatch.setattr(Figure, "add_subplot", add_subplot)

    def drawn(*charts, path="chart.svg"):
        made.clear()
        draw(path, charts)
        return made

    return drawn


def test_batches_are_points_and_everything_else_is_a_line(drawn):
    chart = Chart("mean", "The mean", [1, 2, 3], {"batch": [1.0, None, 3.0], "ema": [0.5, 1, 2]})
    ((place, axes),) = drawn(chart)
    batch, average = axes.get_lines()
    assert place == (1, 1, 1)
    assert (batch.get_linestyle(), batch.get_marker()) == ("None", ".")
    assert (average.get_linestyle(), average.get_marker()) == ("-", "None")
    assert batch.get_alpha() < average.get_alpha() == 1
    assert batch.get_markersize() < 6  # as matplotlib draws them
    assert batch.get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_array_equal(batch.get_ydata(), [1.0, np.nan, 3.0])
    assert (axes.get_title(), axes.get_xlabel()) == ("The mean", "step")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["batch", "ema"]


def test_one_step_is_a_point(drawn):
    ((_, axes),) = drawn(Chart("mean", "The mean", [1], {"ema": [0.5]}))
    (line,) = axes.get_lines()
    assert line.get_marker() == "."


def test_charts_stand_one_under_the_other_with_one_colour_a_series(drawn):
    first = Chart("mean", "The mean", [1, 2], {"a": [1.0, 2.0], "b": [2.0, 1.0]})
    second = Chart("var", "The variance", [1, 2], {"b": [1.0, 2.0], "c": [2.0, 1.0]})
    (upper_place, upper), (lower_place, lower) = drawn(first, second)
    assert (upper_place, lower_place) == ((2, 1, 1), (2, 1, 2))
    colors = [[line.get_color() for line in axes.get_lines()] for axes in (upper, lower)]
    assert colors == [["C0", "C1"], ["C1", "C2"]]
    width, height = upper.figure.get_size_inches()
    assert (width, height) == (8, pytest.approx(2 * 2.8))
    assert drawn() == []  # no chart is an empty picture


@pytest.mark.parametrize("path", ["chart.pdf", "chart", ".png"])
def test_another_suffix_is_refused(folder, path):
    with pytest.raises(UsageError, match=r"the suffix picks the format; use \.png or \.svg"):
        check_plot(path)
    check_plot("a.PNG")
