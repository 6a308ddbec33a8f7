"""`bncli capture`: the command, and the parts that are its own."""

from bncli.commands.capture.command import capture

__all__ = ["capture"]
