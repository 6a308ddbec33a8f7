"""The registry of subcommands: one file or package each, imported when it is called.

The name is the module's, the function's, and with hyphens the one that is typed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

COMMANDS = {
    "compute": True,
    "trace": True,
    "diff": True,
    "identify": True,
    "inspect_checkpoint": True,
    "compare_norms": True,
    "simulate_ema": True,
    "conventions": False,
    "rules": False,
}
"""Every subcommand that makes a report, in the order of the help, and whether it reads files.

One that does has the flag of how they are read.
"""

DOCUMENTS = ("schema",)
"""Subcommands that print a document as it is: no report, and none of a report's flags."""


def command(name: str) -> Callable[..., Any]:
    """The function of a subcommand: from its flags to a `Report`, or to a document's text."""
    function: Callable[..., Any] = getattr(import_module(f"bncli.commands.{name}"), name)
    return function
