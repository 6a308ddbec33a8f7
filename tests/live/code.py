"""A user's files for tests: written, imported, and forgotten again."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from bncli.live import users_code

NET = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, classes=2, width=4):
            super().__init__()
            self.conv = nn.Conv2d(3, width, 3)
            self.bn = nn.BatchNorm2d(width)
            self.head = nn.Conv2d(width, classes, 1)

        def forward(self, x):
            return self.head(self.bn(self.conv(x)))
"""


@pytest.fixture
def code(folder, monkeypatch):
    """Write a file of the user's: `code("net.py", text)` gives its name."""
    before = set(sys.modules)
    monkeypatch.setattr(users_code, "_surroundings", users_code._Surroundings())

    def write(name: str, text: str) -> str:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return name

    yield write
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(folder)):
            del sys.modules[name]
