"""Pictures in files, and a clear refusal where matplotlib is missing."""

from __future__ import annotations

import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bncli.errors import UsageError
from bncli.pictures import Chain, Kind, Link
from bncli.renderers.drawing.pictures.palette import LIGHT
from bncli.renderers.drawing.plot import check_plot, draw, picture_of
from bncli.report import Chart
from tests.renderers.drawing.pictures.examples import HOSTILE, every_kind, picture

GENERATED = ("simulate-ema", "--generate", "8,2,3", "--batches", 6)
SVG = "{http://www.w3.org/2000/svg}"


def test_without_matplotlib_it_says_what_to_install(run, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, stdout, stderr = run(*GENERATED, "--plot", "chart.png")
    assert (code, stdout) == (2, "")
    assert stderr == (
        "bncli: --plot needs matplotlib, which is not installed here: python -m pip install "
        "'bncli[report]'\n"
    )
    assert list(folder.iterdir()) == []
    assert run(*GENERATED, "-q").code == 0


@pytest.mark.parametrize(
    ("name", "magic"), [("chart.png", b"\x89PNG"), ("chart.svg", b"<?xml"), ("CHART.SVG", b"<?xml")]
)
def test_a_picture_of_what_a_command_shows(run, folder, name, magic):
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


def test_pictures_stand_one_under_the_other_with_their_titles(folder):
    chain = Chain("c", "Chain", (Link("a", "b", "c", "d"),), "t")
    first, second = picture(title="First", key="a"), picture(title="Second", key="b")
    draw("chart.svg", [first, chain, second])
    root = ET.parse(folder / "chart.svg").getroot()
    titles = [text for text in root.iter(f"{SVG}text") if "700" in text.get("style", "")]
    height = {text.text: float(text.get("y")) for text in titles}
    assert height["First"] < height["Second"]
    assert len(height) == 2  # a chain is made of words
    draw("empty.svg", [])
    draw("empty.png", [chain])
    assert ET.parse(folder / "empty.svg").getroot().tag == f"{SVG}svg"


def test_a_file_has_colours_and_a_paper_of_its_own(folder):
    draw("chart.svg", [every_kind(log=True)])
    text = (folder / "chart.svg").read_text("utf-8")
    assert "var(" not in text
    assert "#0102" not in text
    for role in ("paper", "ink", "series0", "error"):
        assert LIGHT[role] in text
    from matplotlib.image import imread

    draw("chart.png", [every_kind()])
    image = imread(folder / "chart.png")
    assert image.shape[1] == 2 * (760 + 2 * 16)
    assert (image[0, 0] == 1).all()
    assert len(np.unique(image.reshape(-1, 4), axis=0)) > 100


def test_hostile_names_are_drawn_as_text(folder):
    draw("chart.svg", [picture(title=name, key=name) for name in HOSTILE])
    assert ET.parse(folder / "chart.svg").getroot().tag == f"{SVG}svg"


def test_a_chart_is_a_picture_of_one_panel():
    chart = Chart("mean", "The mean", [1, 2, 3], {"batch": [1.0, None, 3.0], "ema": [0.5, 1, 2]})
    made = picture_of(chart, "step")
    (panel,) = made.panels
    batch, average = panel.series
    assert (made.key, made.title, panel.x.title) == ("mean", "The mean", "step")
    assert (batch.kind, batch.label, average.kind) == (Kind.POINTS, "batch", Kind.LINE)
    assert list(batch.x) == [1, 2, 3]
    assert list(batch.y) == [1.0, None, 3.0]
    assert picture_of(chart).panels[0].x.title == ""


@pytest.mark.parametrize("path", ["chart.pdf", "chart", ".png"])
def test_another_suffix_is_refused(folder, path):
    with pytest.raises(UsageError, match=r"the suffix picks the format; use \.png or \.svg"):
        check_plot(path)
    check_plot("a.PNG")
