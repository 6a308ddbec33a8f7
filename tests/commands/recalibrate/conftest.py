"""The small model of `bncli diagnose`'s tests with a fault, its data, and calls that repair it."""

from __future__ import annotations

import pytest

from tests.commands.diagnose.conftest import healthy, net, spoilt
from tests.live.code import code

__all__ = ["code", "healthy", "net", "spoilt"]

CALL = ("recalibrate", "net.py:Net", "--data=*.pt", "--max-error=1")
"""Without a checkpoint. The data are too few for the largest error that is allowed by default."""


@pytest.fixture
def recalibrated(run):
    """The JSON report of a call: `recalibrated("spoilt.pth", "--save-checkpoint=new.pth")`."""

    def recalibrated(checkpoint: str, *flags: object, code: int = 0):
        result = run(*CALL, f"--checkpoint={checkpoint}", *flags, "-f", "json")
        assert (result.code, result.stderr) == (code, "")
        return result.report

    return recalibrated


@pytest.fixture
def captured(run, spoilt):
    """stats.npz, which bncli capture saved of spoilt.pth; returns the model."""
    flags = ("--data=*.pt", "--checkpoint=spoilt.pth", "--per-batch", "--save-stats=stats.npz")
    assert run("capture", "net.py:Net", *flags).code == 0
    return spoilt
