"""`bncli conventions`: the command, and the parts that are its own."""

from bncli.commands.conventions.command import conventions

__all__ = ["conventions"]
