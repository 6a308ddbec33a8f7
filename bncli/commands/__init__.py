"""The registry of subcommands: one file each; the function's name is the command's."""

from __future__ import annotations

from collections.abc import Callable

from bncli.commands import (
    compare_norms,
    compute,
    conventions,
    inspect_checkpoint,
    rules,
    simulate_ema,
    trace,
)
from bncli.report import Report

COMMANDS: tuple[Callable[..., Report], ...] = (
    compute.compute,
    trace.trace,
    inspect_checkpoint.inspect_checkpoint,
    compare_norms.compare_norms,
    simulate_ema.simulate_ema,
    conventions.conventions,
    rules.rules,
)
"""Every subcommand, in the order of the help."""
