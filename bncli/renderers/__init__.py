"""The registry of output formats: one file or package each, imported when it is asked for.

A new one is that module, with a function `render`, and its entry in `Format`. One that needs a
library has a function `check` too.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bncli.errors import UsageError

if TYPE_CHECKING:
    from bncli.renderers.interface import RenderContext, Renderer
    from bncli.report import Report


class Format(str, Enum):
    """Every output format: the name of the module behind it, and the suffixes that ask for it."""

    suffixes: tuple[str, ...]

    TABLE = "table", ".txt"
    CONCISE = ("concise",)  # its lines are for a pipe
    JSON = "json", ".json"
    CSV = "csv", ".csv"
    MARKDOWN = "markdown", ".md"
    GITHUB = ("github",)  # GitHub reads its annotations from a log alone
    SARIF = "sarif", ".sarif"
    JUNIT = "junit", ".xml"
    SVG = "svg", ".svg"
    HTML = "html", ".html"

    def __new__(cls, value: str, *suffixes: str) -> Format:  # noqa: PYI034  # has no subclass
        """The format of that value; each suffix is lower case and no other format's."""
        form = str.__new__(cls, value)
        form._value_ = value
        form.suffixes = suffixes
        return form


SUFFIXES = {
    suffix: form
    for form in sorted(Format, key=lambda form: form is Format.TABLE)
    for suffix in form.suffixes
}
"""The format that a file's suffix asks for; the one that any text may have is named last."""


def renderer(name: Format) -> Renderer:
    """The renderer of that format."""
    return cast("Renderer", import_module(f"bncli.renderers.{name.value}").render)


def check_format(name: Format, flag: str) -> None:
    """Raise MissingBackendError where a format lacks what `flag`, which asks for it, needs."""
    if name is Format.HTML:  # the others need nothing, and are not imported before they are used
        import_module(f"bncli.renderers.{name.value}").check(flag)


def rendered(name: Format, report: Report, context: RenderContext) -> Iterable[str]:
    """The report in that format, in pieces where the format has them, else in one."""
    module = import_module(f"bncli.renderers.{name.value}")
    if hasattr(module, "pieces"):
        return cast("Iterable[str]", module.pieces(report, context))
    return (cast("Renderer", module.render)(report, context),)


def format_of(path: str, flag: str = "--output") -> Format:
    """The format that the suffix of an output file asks for.

    Raises UsageError for any other, which names the `flag` that the file is given by.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{flag} {path}: the suffix picks the format; use one of {', '.join(SUFFIXES)}."
        )
    return SUFFIXES[suffix]
