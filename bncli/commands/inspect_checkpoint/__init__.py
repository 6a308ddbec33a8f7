"""`bncli inspect-checkpoint`: the command, and the parts that are its own."""

from bncli.commands.inspect_checkpoint.command import inspect_checkpoint

__all__ = ["inspect_checkpoint"]
