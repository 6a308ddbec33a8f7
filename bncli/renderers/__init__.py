"""The registry of output formats: one file each, imported when it is asked for."""

from __future__ import annotations

from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bncli.errors import UsageError

if TYPE_CHECKING:
    from bncli.renderers.interface import Renderer


class Format(str, Enum):
    """Every output format; the value is the name of the module behind it."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    GITHUB = "github"
    SARIF = "sarif"
    JUNIT = "junit"


SUFFIXES = {
    ".json": Format.JSON,
    ".csv": Format.CSV,
    ".md": Format.MARKDOWN,
    ".sarif": Format.SARIF,
    ".xml": Format.JUNIT,
    ".txt": Format.TABLE,
}
"""The format that a file's suffix asks for; GitHub's annotations are read from a log alone."""


def renderer(name: Format) -> Renderer:
    """The renderer of that format."""
    return cast("Renderer", import_module(f"bncli.renderers.{name.value}").render)


def format_of(path: str) -> Format:
    """The format that the suffix of an output file asks for. Raises UsageError for any other."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"--output {path}: the suffix picks the format; use one of {', '.join(SUFFIXES)}."
        )
    return SUFFIXES[suffix]
