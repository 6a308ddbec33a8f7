"""A small model with a fault, its data, and the user's files around it."""

from __future__ import annotations

import pytest
import torch

from tests.live.code import code
from tests.live.small import images, made

__all__ = ["code"]

NET = """
    from tests.live.small import Net
"""
METRICS = """
    import torch

    def square(output, batch):
        return (output ** 2).mean()

    def several(output, batch):
        return output

    def nothing(output, batch):
        return float("nan")

    def words(output, batch):
        return "good"

    def raising(output, batch):
        raise KeyError("label")

    def alone(output):
        return 0.0

    best = 1.0
"""


@pytest.fixture
def net(code, save):
    """net.py and metrics.py, and ten batches of data; returns the batches."""
    code("net.py", NET)
    code("metrics.py", METRICS)
    batches = images(batches=10)
    for number, batch in enumerate(batches):
        save(f"{number}.pt", batch)
    return batches


@pytest.fixture
def healthy(net):
    """right.pth, whose statistics fit the data; returns the model."""
    model = made(tensors=net)
    for module in model.modules():
        if hasattr(module, "num_batches_tracked"):
            module.num_batches_tracked.fill_(1000)
    torch.save(model.state_dict(), "right.pth")
    return model


@pytest.fixture
def spoilt(healthy):
    """spoilt.pth, in which the second layer's variances are 25 times what they should be."""
    healthy.bn2.running_var *= 25
    torch.save(healthy.state_dict(), "spoilt.pth")
    return healthy


CALL = ("diagnose", "net.py:Net", "--data=*.pt")
"""Without a checkpoint."""


@pytest.fixture
def diagnosed(run):
    """The JSON report of a checkpoint with the data: `diagnosed("spoilt.pth", "--try=0")`."""

    def diagnosed(checkpoint: str, *flags: object, code: int = 0):
        result = run(*CALL, f"--checkpoint={checkpoint}", *flags, "-f", "json")
        assert (result.code, result.stderr) == (code, "")
        return result.report

    return diagnosed
