"""`bncli compare-checkpoints`: the command, and the parts that are its own."""

from bncli.commands.compare_checkpoints.command import compare_checkpoints

__all__ = ["compare_checkpoints"]
