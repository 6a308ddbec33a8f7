"""Pictures on a page: what is said of them, whose colours they have, and what they refer to."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from bncli.pictures import Axis, Kind, Series
from bncli.renderers.drawing.pictures.layout import NARROW, WIDE
from bncli.renderers.drawing.pictures.page import svg_of
from bncli.renderers.drawing.pictures.palette import LIGHT
from bncli.report import Severity
from tests.renderers.drawing.pictures.examples import HOSTILE, every_kind, picture


def identifiers(text: str) -> list[str]:
    return [each.get("id") for each in ET.fromstring(text).iter() if each.get("id")]


def texts(text: str) -> list[str]:
    return [each.text or "" for each in ET.fromstring(text).iter("text")]


def test_its_name_is_its_title_and_its_text_is_for_the_page():
    root = ET.fromstring(svg_of(picture(title="A <b>", text='Say "so" & so.'), WIDE))
    assert (root.tag, root.get("role"), root.get("viewBox")[:8]) == ("svg", "img", "0 0 760 ")
    title = next(iter(root))
    assert (title.tag, title.text) == ("title", "A <b>")
    assert root.get("aria-labelledby") == title.get("id")
    assert "so" not in "".join(root.itertext())


def test_it_refers_to_nothing_but_itself():
    for log in (False, True):
        text = svg_of(every_kind(log=log), WIDE)
        assert not re.search(r"http|url\(|@import|<style|<!|<\?|metadata|xlink|src=", text)
        targets = re.findall(r'href="#([^"]*)"', text)
        assert targets
        assert set(targets) < set(identifiers(text))


def test_identifiers_are_of_one_picture_alone():
    series = Series("a", Kind.POINTS, [0, 1], [0, 1])
    drawn = [
        svg_of(picture(series, key=key, title=title), medium)
        for key in ("a", "b") for title in ("t", "u") for medium in (WIDE, NARROW)
    ]  # fmt: skip
    every = [name for text in drawn for name in identifiers(text)]
    assert len(every) == len(set(every)) > 8 * 2
    assert svg_of(picture(series, key="a", title="t"), WIDE) == drawn[0]


def test_its_colours_are_the_pages():
    text = svg_of(every_kind(log=True), WIDE)
    assert not re.search(r"(?i)#[0-9a-f]{3,8}\b(?=[^\"]*;|\")", re.sub(r'href="[^"]*"', "", text))
    used = set(re.findall(r"var\(--bn-(\w+)\)", text))
    assert {"ink", "muted", "grid", "error", "series0", "series5"} <= used <= set(LIGHT)
    assert "font-family" not in text
    assert "DejaVu" not in text


def test_marks_of_findings_say_which_they_are():
    series = Series(
        "f", Kind.POINTS, [0, 1], [1, 2], severity=Severity.ERROR, names=("BN101 <a>", "BN102 b")
    )
    root = ET.fromstring(svg_of(picture(series), WIDE))
    assert [each.text for group in root.iter("g") for each in group.findall("title")] == [
        "BN101 <a>", "BN102 b",
    ]  # fmt: skip


@pytest.mark.parametrize("medium", [WIDE, NARROW], ids=["wide", "narrow"])
def test_hostile_names_are_text(medium):
    n = len(HOSTILE)
    for number, name in enumerate(HOSTILE):
        series = Series(
            name, Kind.POINTS, range(n), range(n), severity=Severity.ERROR, names=HOSTILE
        )
        names = tuple(f"{name}{place}" for place in range(n))
        given = picture(
            series, x=Axis(name, names=names), y=Axis(name), title=name, text=name, key=name
        )
        text = svg_of(given, medium)
        text.encode()
        root = ET.fromstring(text)
        assert {each.tag for each in root.iter()} <= {
            "svg", "g", "text", "path", "use", "defs", "title",
        }  # fmt: skip
        assert len(text) < 60_000
        if number in (0, 2, 3, 8):  # short and printable ones stand there as they are
            assert any(name[:8] in each for each in texts(text))


def test_numbers_have_few_digits():
    rng = np.random.default_rng(0)
    text = svg_of(picture(Series("a", Kind.LINE, range(99), rng.normal(size=99))), WIDE)
    assert not re.search(r"\d\.\d{3}", text)


def test_many_points_make_a_small_picture():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50_000))
    for kind in Kind:
        series = Series(
            "a", kind, () if kind is Kind.LEVEL else x, y[:5] if kind is Kind.LEVEL else y
        )
        assert len(svg_of(picture(series), WIDE)) < 60_000
