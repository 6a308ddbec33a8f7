"""The commands as functions of Python, each made when it is first asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from bncli.api.arguments import NOT_GIVEN, refuse_unknown, signature_of
from bncli.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bncli.api.report import Report

OTHERS = ("capture",)
"""Commands whose functions are written by hand."""


def __getattr__(name: str) -> Any:
    """The function of a command. Raises AttributeError for any other name."""
    if name not in COMMANDS or name in OTHERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return function(name)


@cache
def function(name: str) -> Callable[..., Report]:
    """The function that makes a command's report of its arguments."""
    from bncli.api.calls import report_of
    from bncli.api.documentation import docstring_of

    signature = signature_of(name)

    def run(*inputs: Any, **given: Any) -> Report:
        refuse_unknown(name, given)
        try:
            bound = signature.bind(*inputs, **given)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        return report_of(name, bound.arguments)

    run.__name__ = run.__qualname__ = name
    run.__module__ = "bncli"
    run.__doc__ = docstring_of(name)
    run.__signature__ = signature  # type: ignore[attr-defined]  # what help() and notebooks show
    return run


def schema() -> dict[str, Any]:
    """The JSON Schema of `Report.to_dict()`, and of every command's JSON report.

    Example:
    >>> bncli.schema()["title"]
    'bncli report'
    """
    import json

    from bncli.commands.schema import schema as text

    document: dict[str, Any] = json.loads(text())
    return document


__all__ = ["NOT_GIVEN", "function", "schema"]
