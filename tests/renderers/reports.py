"""Reports made by hand, and what a format makes of them."""

from __future__ import annotations

import html
import json
from dataclasses import replace

from bncli.renderers import Format, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import Column, Report, Table

MARKUP = "a[red]b[/red]|c*d_e`f<b>g</b>:smile:"


def report(rows=(), columns=(), *, facts=None, findings=(), verdict="", **more) -> Report:
    table = Table("main", "Main", tuple(Column(key, key) for key in columns), list(rows))
    return Report("compute", facts or {}, (table,), tuple(findings), verdict=verdict, **more)


def render(form: Format, given: Report, **context) -> str:
    code = given.exit_code()
    return renderer(form)(given, RenderContext(context.pop("exit_code", code), **context))


def full(given: Report) -> Report:
    """The report with an answer that has no rows, so that -v alone shows its tables."""
    return replace(given, answer=(Table("answer", "", (), []),))


def strict(text: str):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def squeezed(text: str) -> str:
    """Without white space: what is left when lines are wrapped between words or inside them."""
    return "".join(text.split())


def unescaped(text: str) -> str:
    """As it was before Markdown, XML or HTML had to be told what is text."""
    text = html.unescape(text) if text.startswith(("<svg", "<!doctype html>")) else text
    return text.replace("\\", "")


def grouped(groups: int, each: int, **more) -> Report:
    columns = (Column("channel", "channel"), Column("name", "name"), Column("value", "value"))
    rows = [
        {"channel": c, "name": f"c{c}r{r}", "value": 100 * c + r}
        for c in range(groups)
        for r in range(each)
    ]
    table = Table("main", "Main", columns, rows, "A note.", group=("channel",), **more)
    return Report("trace", {}, (table,))
