"""The registry of subcommands: one file each; the function's name is the command's."""

from __future__ import annotations

from collections.abc import Callable

from bncli.commands import (
    compare_norms,
    compute,
    conventions,
    diff,
    identify,
    inspect_checkpoint,
    rules,
    schema,
    simulate_ema,
    trace,
)
from bncli.report import Report

COMMANDS: tuple[Callable[..., Report], ...] = (
    compute.compute,
    trace.trace,
    diff.diff,
    identify.identify,
    inspect_checkpoint.inspect_checkpoint,
    compare_norms.compare_norms,
    simulate_ema.simulate_ema,
    conventions.conventions,
    rules.rules,
)
"""Every subcommand, in the order of the help."""

WITHOUT_FILES = (conventions.conventions, rules.rules)
"""Those that read no file, and so have no flag of how files are read."""

DOCUMENTS: tuple[Callable[[], str], ...] = (schema.schema,)
"""Subcommands that print a document as it is: no report, and none of a report's flags."""
