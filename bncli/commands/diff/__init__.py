"""`bncli diff`: the command, and the parts that are its own."""

from bncli.commands.diff.command import diff

__all__ = ["diff"]
