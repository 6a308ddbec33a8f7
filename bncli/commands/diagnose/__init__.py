"""`bncli diagnose`: the command, and the parts that are its own."""

from bncli.commands.diagnose.command import diagnose

__all__ = ["diagnose"]
