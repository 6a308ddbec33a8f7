"""A call of each command on the examples, for tests of what all commands promise."""

from __future__ import annotations

from bncli.commands import COMMANDS

TUTORIAL = "examples/tutorial/x.npy"
SHARDS = ("examples/shards/batch0.npy", "examples/shards/batch1.npy")
CALLS = {
    "compute": (TUTORIAL, "--against", "torch", "--rtol=0", "--atol=1e-9"),
    "trace": (TUTORIAL,),
    "simulate-ema": SHARDS,
    "diff": SHARDS,
    "identify": SHARDS,
    "inspect-checkpoint": ("examples/checkpoint/net.pt",),
    "compare-norms": (TUTORIAL,),
    "conventions": (),
    "rules": (),
}
"""Each one's report has every table that is promised."""
NAMES = [name.replace("_", "-") for name in COMMANDS]
