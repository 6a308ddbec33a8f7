"""Pages in a real browser: `pytest -m browser`, where a Chromium is installed.

`BNCLI_SCREENSHOTS=FOLDER` keeps what they look like.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bncli.errors import ExitCode
from bncli.renderers import Format
from bncli.renderers.html import fragment
from bncli.renderers.interface import RenderContext
from tests.calls import CALLS, NAMES
from tests.renderers.drawing.pictures.examples import HOSTILE, every_kind
from tests.renderers.html.chromium import PROGRAM, Browser
from tests.renderers.reports import render, report

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed"),
]

OVERFLOWING = """[...document.querySelectorAll('.bncli *')].filter(e =>
    !e.closest('.scroll') && !e.closest('svg') && !e.closest('.unseen')
    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"""

CUT = """[...document.querySelectorAll('svg text')].filter(e => {
    const t = e.getBoundingClientRect(), s = e.closest('svg').getBoundingClientRect();
    return s.width && (t.left < s.left - 2 || t.right > s.right + 2 || t.bottom > s.bottom + 2);
}).map(e => e.textContent)"""


@pytest.fixture(scope="module")
def browser():
    made = Browser()
    yield made
    made.close()


@pytest.fixture
def looked_at(browser, tmp_path):
    """Look at a page at each width and in each scheme; nothing may be out of place."""

    def looked_at(text: str, name: str):
        path = tmp_path / f"{name}.html"
        path.write_text(text, "utf-8")
        kept = os.environ.get("BNCLI_SCREENSHOTS")
        for width in (390, 1280):
            papers = set()
            for dark in (False, True):
                browser.open(path, width=width, dark=dark)
                browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                assert browser.evaluate("document.documentElement.scrollWidth") == width
                assert browser.evaluate(OVERFLOWING) == []
                assert browser.evaluate(CUT) == []
                assert browser.complaints == []
                papers.add(
                    browser.evaluate(
                        "getComputedStyle(document.querySelector('.bncli')).backgroundColor"
                    )
                )
                if kept:
                    scheme = "dark" if dark else "light"
                    browser.screenshot(Path(kept, f"{name}-{width}-{scheme}.png"))
            assert papers == {"rgb(255, 255, 255)", "rgb(20, 24, 31)"}
        browser.print(path.with_suffix(".pdf"))
        assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")

    return looked_at


@pytest.mark.parametrize("name", NAMES)
def test_each_command(run, repository, monkeypatch, looked_at, name):
    monkeypatch.chdir(repository)
    looked_at(run(name, *CALLS[name], "-f", "html").stdout, name)


def test_hostile_names(looked_at):
    rows = [{"name": name, "n": 1.5} for name in HOSTILE]
    given = report(
        rows, ("name", "n"), facts={"input": HOSTILE[6]}, verdict=HOSTILE[6],
        pictures=(every_kind(names=HOSTILE[2:7]),),
    )  # fmt: skip
    looked_at(render(Format.HTML, given), "hostile")


def test_a_fragment_has_its_style_on_another_page(looked_at):
    given = report([{"name": "a", "n": 1.5}], ("name", "n"), pictures=(every_kind(),))
    text = fragment(given, RenderContext(ExitCode.OK))
    page = '<!doctype html><meta charset="utf-8"><title>t</title><style>p { margin: 9em }</style>'
    looked_at(f'{page}<body style="margin: 0">{text}{text}', "fragment")


def test_the_browser_says_what_is_wrong(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        '<!doctype html><div class="bncli"><img src="gone.png"><p style="width: 900px">a</p></div>'
        "<script>console.error('no')</script>",
        "utf-8",
    )
    browser.open(path, width=390)
    assert len(browser.evaluate(OVERFLOWING)) >= 1
    said = str(browser.complaints)
    assert "gone.png" in said
    assert "consoleAPICalled" in said
