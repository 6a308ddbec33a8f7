"""The registry of subcommands: one file each; the function's name is the command's."""

from __future__ import annotations

from collections.abc import Callable

from bncli.commands import compare_norms, compute, inspect_checkpoint, trace
from bncli.report import Report

COMMANDS: tuple[Callable[..., Report], ...] = (
    compute.compute,
    trace.trace,
    inspect_checkpoint.inspect_checkpoint,
    compare_norms.compare_norms,
)
"""Every subcommand, in the order of the help."""
