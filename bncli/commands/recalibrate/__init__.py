"""`bncli recalibrate`: the command, and the parts that are its own."""

from bncli.commands.recalibrate.command import recalibrate

__all__ = ["recalibrate"]
