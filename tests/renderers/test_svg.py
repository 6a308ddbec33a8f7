"""The report as a picture: what is in it, where it stands, and that it needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.cells import cell_len

from bncli.renderers import Format
from bncli.renderers.svg import ADVANCE, CLASSES, LEADING, MARGIN, SIZE, STYLE
from tests.renderers.reports import MARKUP, render, report

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text: str) -> list[str]:
    """The lines of the picture, each word put at the column where it is drawn."""
    lines: dict[int, str] = {}
    for element in ET.fromstring(text).iter(f"{SVG}text"):
        row = (int(element.get("y")) - MARGIN - SIZE) / LEADING
        column = (float(element.get("x")) - MARGIN) / ADVANCE
        assert row == int(row)
        assert column == pytest.approx(round(column), abs=0.01)
        assert float(element.get("textLength")) == pytest.approx(
            cell_len(element.text) * ADVANCE, abs=0.06
        )
        line = lines.get(int(row), "")
        lines[int(row)] = line + " " * (round(column) - cell_len(line)) + element.text
    return [lines.get(row, "") for row in range(max(lines) + 1)]


@pytest.mark.parametrize("verbose", [False, True])
def test_it_is_what_a_terminal_of_80_columns_shows(everything, verbose):
    shown = render(Format.TABLE, everything, width=80, verbose=verbose)
    assert drawn(render(Format.SVG, everything, verbose=verbose)) == shown.splitlines()
    assert (
        drawn(render(Format.SVG, everything, width=60))
        == render(Format.TABLE, everything, width=60).splitlines()
    )


def test_every_line_lies_on_the_paper(everything):
    for width in (None, 30, 80, 200):
        text = render(Format.SVG, everything, width=width, verbose=True)
        root = ET.fromstring(text)
        _, _, wide, high = map(int, root.get("viewBox").split())
        assert (root.get("width"), root.get("height")) == (str(wide), str(high))
        paper = root.find(f"{SVG}rect")
        assert (paper.get("width"), paper.get("height")) == (str(wide), str(high))
        for element in root.iter(f"{SVG}text"):
            assert float(element.get("x")) + float(element.get("textLength")) <= wide - MARGIN + 1
            assert MARGIN + SIZE <= int(element.get("y")) <= high - MARGIN


def test_it_needs_nothing_from_elsewhere(everything):
    text = render(Format.SVG, everything)
    assert text.count("http") == 1  # the name of the format
    assert not re.search(r"url\(|href|@import|@font-face|<script|<!", text)
    assert text == render(Format.SVG, everything)


def test_each_style_is_defined(everything):
    text = render(Format.SVG, everything, verbose=True)
    used = {
        name for element in ET.fromstring(text).iter() for name in element.get("class", "").split()
    }
    assert {"bold", "red", "yellow", "cyan", "dim"} <= used
    for name in {*used, *CLASSES.values()} - {"", "bncli"}:
        assert f".bncli .{name} {{" in STYLE


def test_its_letters_can_be_read():
    """The contrast of each colour with the paper, by the formula of WCAG 2: 4.5 or more."""

    def luminance(color: str) -> float:
        parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colors = dict(re.findall(r"\.bncli(?: \.(\w+))? \{.*?fill: (#\w{6})", STYLE))
    paper = luminance(colors.pop("paper"))
    assert len(colors) == 8
    for name, color in colors.items():
        assert (luminance(color) + 0.05) / (paper + 0.05) >= 4.5, name


def test_what_xml_would_take_for_its_own_is_text():
    given = replace(report([{"name": MARKUP}], ("name",)), subject=('<a b="c">&amp; \x00\x1b[31m',))
    lines = drawn(render(Format.SVG, given))
    assert lines[0] == '<a b="c">&amp; \\x00\\x1b[31m'
    assert any(MARKUP in line for line in lines)


def test_wide_characters_take_two_columns():
    text = render(Format.SVG, report([{"name": "均值", "n": 7}], ("name", "n")))
    (name,) = [line for line in drawn(text) if "均值" in line]
    head = next(line for line in drawn(text) if line.startswith("name"))
    assert cell_len(name[: name.index("7") + 1]) == cell_len(head)
