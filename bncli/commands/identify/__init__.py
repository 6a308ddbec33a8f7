"""`bncli identify`: the command, and the parts that are its own."""

from bncli.commands.identify.command import identify

__all__ = ["identify"]
