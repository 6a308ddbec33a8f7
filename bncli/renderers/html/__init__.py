"""The report as a page: one file that needs nothing else, for a browser, a notebook or print."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.renderers.drawing.pictures.figure import check_libraries
from bncli.renderers.drawing.pictures.palette import DARK, LIGHT, variables

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext
    from bncli.report import Report

LIBRARIES = ("jinja2", "matplotlib")
"""What pages are made with."""


def check(flag: str) -> None:
    """Raise MissingBackendError, with what `flag` needs, where a library is missing or broken."""
    check_libraries(flag, LIBRARIES)


def render(report: Report, context: RenderContext) -> str:
    """The report as a whole page. Raises MissingBackendError."""
    return _filled("page.html.j2", report, context, prefix="")


def fragment(report: Report, context: RenderContext) -> str:
    """The report as a `div` for a page that has others too, such as a notebook.

    Its style holds for what is inside of it alone, and its identifiers are its own. Raises
    MissingBackendError.
    """
    said = repr((report.command, report.verdict, report.subject, report.findings, report.facts))
    digest = hashlib.sha256(said.encode(errors="backslashreplace")).hexdigest()[:10]
    return _filled("fragment.html.j2", report, context, prefix=f"bn-{digest}-")


def _filled(template: str, report: Report, context: RenderContext, *, prefix: str) -> str:
    """The template, filled in. Raises MissingBackendError."""
    check("a page of HTML")  # which a call from Python did not do before
    from bncli.renderers.html.content import content_of

    text: str = (
        _environment()
        .get_template(template)
        .render(page=content_of(report, context, prefix), id=prefix, style=_style())
    )
    return f"{text.strip()}\n"


@cache
def _environment() -> Any:
    """Jinja with every text escaped, and an error for whatever a template misspells."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style() -> Any:
    """The style sheet with the colours, as it stands between `<style>` and `</style>`."""
    from markupsafe import Markup

    text = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    # The sheet is bncli's own, and no text of a report is ever part of it.
    return Markup(  # noqa: S704  # see above
        text.replace("/* LIGHT */", variables(LIGHT)).replace("/* DARK */", variables(DARK)).strip()
    )
