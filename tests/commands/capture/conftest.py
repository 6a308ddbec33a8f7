"""Models of a user's own, in files, and data for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.live.code import code
from tests.live.small import images, made

__all__ = ["code"]

EXACT = """
    import torch
    from torch import nn

    class Exact(nn.Module):
        '''Its layers take in sums of quarters, and its outputs in the two modes are 1 apart.'''

        def __init__(self):
            super().__init__()
            self.stem = nn.BatchNorm1d(2)
            self.head = nn.BatchNorm1d(2, momentum=None, eps=1e-3)

        def forward(self, x):
            self.stem(x)
            self.head(4 * x - 1)
            return x + float(self.stem.training)
"""


@pytest.fixture
def exact(code, folder):
    """A model whose numbers are the same on every processor, and two batches of data."""
    code("exact.py", EXACT)
    for number in range(2):
        x = np.arange(16, dtype=np.float32).reshape(4, 2, 2) / 4 + number
        np.save(f"x{number}.npy", x)
    return ("exact.py:Exact", "--data=x0.npy", "--data=x1.npy")


@pytest.fixture
def small(code, folder):
    """A net of three layers with its checkpoint and four batches, and the same in memory."""
    code("net.py", "from tests.live.small import Net")
    net, tensors = made(), images()
    torch.save(net.state_dict(), "net.pth")
    for number, x in enumerate(tensors):
        np.save(f"x{number}.npy", x.numpy())
    return net, tensors


SMALL = ("net.py:Net", "--checkpoint=net.pth", "--data=x*.npy")
