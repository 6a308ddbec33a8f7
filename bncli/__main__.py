"""`python -m bncli`."""

from bncli.cli import entry_point

entry_point()
