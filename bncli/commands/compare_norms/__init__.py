"""`bncli compare-norms`: the command, and the parts that are its own."""

from bncli.commands.compare_norms.command import compare_norms

__all__ = ["compare_norms"]
