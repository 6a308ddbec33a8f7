"""The charts as a picture, and a clear refusal where matplotlib is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

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
