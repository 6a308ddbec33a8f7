"""`bncli simulate-ema`: the command, and the parts that are its own."""

from bncli.commands.simulate_ema.command import simulate_ema

__all__ = ["simulate_ema"]
