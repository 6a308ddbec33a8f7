"""How two stored tensors compare: by checksums, by bytes, by values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bncli.changes.contents import compared
from bncli.loaders import open_model
from bncli.model.changes import Same


def tensors(path):
    return open_model(Path(path)).tensors


@pytest.fixture
def saved(save):
    """A function that compares two tensors, stored in torch files."""

    def compare(a, b):
        ours, theirs = save("a.pth", {"x": a}), save("b.pth", {"x": b})
        return compared(tensors(ours)["x"], tensors(theirs)["x"])

    return compare


def test_one_element_that_differs(saved):
    x = torch.randn(30, 20, 3, 3)
    other = x.clone()
    assert saved(x, other) is Same.SAME
    other[29, 19, 2, 2] = torch.nextafter(other[29, 19, 2, 2], torch.tensor(9.0))
    assert saved(x, other) is Same.MOVED


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_rounding(saved, dtype):
    x = torch.randn(30, 20, 3, 3)
    assert saved(x, x.to(dtype)) is Same.ROUNDED
    assert saved(x.to(dtype).float(), x) is Same.ROUNDED


def test_other_shapes_have_no_answer(saved):
    assert saved(torch.zeros(3), torch.zeros(4)) is None
