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
    !e.parentElement.closest('.scroll') && !e.closest('svg') && !e.closest('.unseen')
    && (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
).map(e => e.outerHTML.slice(0, 200))"""

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


ANSWERS = """[...document.querySelectorAll('section')].filter(
    s => s.querySelector('h2').textContent == 'Result').flatMap(
    s => [...s.querySelectorAll('.scroll')]).map(e => [e.scrollWidth, e.clientWidth])"""

PROSE = """[...document.querySelectorAll('h1, h2, figure, .finding, .note, .fold')].map(
    e => [e.getBoundingClientRect().left, e.getBoundingClientRect().width])"""


@pytest.mark.parametrize(
    "call",
    [
        ("inspect-checkpoint", *CALLS["inspect-checkpoint"]),
        ("compute", "examples/shards/batch0.npy", "examples/shards/batch1.npy"),
        ("diff", "examples/debugging/port.npy", "examples/debugging/served.npy"),
    ],
    ids=lambda call: call[0],
)
def test_an_answer_is_whole_where_the_window_has_room(
    run, repository, monkeypatch, browser, tmp_path, call
):
    monkeypatch.chdir(repository)
    path = tmp_path / "a.html"
    path.write_text(run(*call, "-f", "html").stdout, "utf-8")
    browser.open(path, width=1280)
    answers = browser.evaluate(ANSWERS)
    assert answers
    assert all(needed <= given for needed, given in answers)
    assert max(given for _, given in answers) > 920  # wider than prose
    assert all(left >= 180 and width <= 920 for left, width in browser.evaluate(PROSE))


def test_a_table_that_scrolls_shows_where_there_is_more(browser, tmp_path):
    import matplotlib.image

    keys = [f"column{n}" for n in range(9)]
    path, seen = tmp_path / "a.html", tmp_path / "a.png"
    path.write_text(render(Format.HTML, report([dict.fromkeys(keys, 1.5)], keys)), "utf-8")
    for dark in (False, True):
        browser.open(path, width=390, dark=dark)
        box = "document.querySelector('.scroll')"
        shaded = []
        for scrolled in (0, 1):
            browser.evaluate(f"{box}.scrollLeft = {scrolled} * 9999")
            rect = browser.evaluate(
                f"(r => [r.left, r.right, r.bottom])({box}.getBoundingClientRect())"
            )
            browser.screenshot(seen)
            image = matplotlib.image.imread(seen)
            left, right, bottom = (round(place) for place in rect)
            paper = image[2, 2]
            # Below the last row's letters, above its line.
            shaded.append(
                [
                    bool(abs(image[bottom - 4, at] - paper).max() > 0.1)
                    for at in (left + 2, right - 3)
                ]
            )
        assert shaded == [[False, True], [True, False]]


def test_numbers_are_printed_in_one_line(browser, tmp_path):
    for count in (10, 30):
        keys = [f"column{n}" for n in range(count)]
        path = tmp_path / "a.html"
        path.write_text(render(Format.HTML, report([dict.fromkeys(keys, 0.123456)], keys)), "utf-8")
        browser.open(path, width=700)
        browser.call("Emulation.setEmulatedMedia", media="print")
        lines = browser.evaluate("""[...document.querySelectorAll('tbody .n')].map(cell => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            return range.getClientRects().length;
        })""")
        assert len(lines) >= count
        assert set(lines) == {1}


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
