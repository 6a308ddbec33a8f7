"""The charts as a picture: where matplotlib is installed, and a clear refusal where it is not."""

from __future__ import annotations

import sys

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
    pytest.importorskip("matplotlib")
    result = run(*GENERATED, "--plot", name, "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    assert result.report["facts"]["plot"] == name
    first = (folder / name).read_bytes()
    assert first.startswith(magic)
    run(*GENERATED, "--plot", name, "-q")
    if magic == b"<?xml":
        for text in (b"running_mean of channel 0", b"population", b"Weight of the initial value"):
            assert text in first or b"<path" in first


def test_an_input_is_never_drawn_over(run, save, folder):
    pytest.importorskip("matplotlib")
    import numpy as np

    (folder / "x.png").write_bytes((folder / save("x.npy", np.ones((8, 3)))).read_bytes())
    before = (folder / "x.png").read_bytes()
    result = run("simulate-ema", "x.png", "--plot", "x.png")
    assert result.code == 2
    assert "would overwrite an input" in result.stderr
    assert (folder / "x.png").read_bytes() == before
