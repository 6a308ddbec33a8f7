"""`bncli compute`: the statistics of a batch, or of a statistics file, and a check."""

from bncli.commands.compute.command import compute

__all__ = ["compute"]
