"""`bncli trace`: the command, and the parts that are its own."""

from bncli.commands.trace.command import trace

__all__ = ["trace"]
