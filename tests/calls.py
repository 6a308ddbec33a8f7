"""A call of each command on the examples, for tests of what all commands promise."""

from __future__ import annotations

from bncli.commands import COMMANDS

TUTORIAL = "examples/tutorial/x.npy"
SHARDS = ("examples/shards/batch0.npy", "examples/shards/batch1.npy")
LIVE = (
    "examples/diagnose/seg.py:UNet",
    "--checkpoint=examples/diagnose/unet.pth",
    "--data=examples/diagnose/seg.py:validation",
    "--input-key=image",
    "--batches=2",
)
COMPARED = ("examples/compare/before.pt", "examples/compare/after.pt")
CALLS = {
    "diagnose": ("examples/diagnose/stats.npz",),
    "recalibrate": (*LIVE, "--max-error=1"),
    "capture": LIVE,
    "compute": (TUTORIAL, "--against", "torch", "--rtol=0", "--atol=1e-9"),
    "trace": (TUTORIAL,),
    "simulate-ema": SHARDS,
    "diff": SHARDS,
    "identify": SHARDS,
    "inspect-checkpoint": ("examples/checkpoint/net.pt",),
    "compare-checkpoints": COMPARED,
    "compare-norms": (TUTORIAL,),
    "conventions": (),
    "rules": (),
}
"""Each one's report has every table that is promised."""
NAMES = [name.replace("_", "-") for name in COMMANDS]
