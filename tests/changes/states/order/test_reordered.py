"""Whether the convolution before a layer is in the order of its channels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bncli.changes.pair import LayerPair
from bncli.changes.states.order import reordered
from bncli.changes.states.order.reordered import convolution_order
from bncli.model.changes import Same
from tests.changes.networks import before, side, trained

LEAVES = ["running_mean", "running_var"]


def order(a, b, same=None):
    """What is said of a layer whose channels are reversed, behind two convolutions."""
    norm = trained(nn.BatchNorm2d(8))
    sides = [replace(side(norm), before=each) for each in (a, b)]
    ours = {leaf: getattr(norm, leaf).numpy().astype(float) for leaf in LEAVES}
    theirs = {leaf: values[::-1] for leaf, values in ours.items()}
    return convolution_order(LayerPair(*sides, same), ours, theirs, LEAVES)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_axis_of_the_outputs_counts(axis):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 8, 3)
    new = nn.Conv2d(8, 8, 3)
    with torch.no_grad():
        new.weight.copy_(conv.weight.flip(axis))
    assert order(before(conv, axis=axis), before(new, axis=axis)) == "same order"
    assert order(before(conv, axis=axis), before(conv, axis=axis)) == "not permuted"
    other = before(nn.Conv2d(8, 8, 3), axis=axis)
    assert order(before(conv, axis=axis), other) == "unknown"


def test_a_rounded_convolution_is_compared():
    torch.manual_seed(0)
    conv, new = nn.Conv2d(4, 8, 3), nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        new.weight.copy_(conv.weight.flip(0))
    assert order(before(conv), before(new.half())) == "same order"


def test_what_need_not_or_cannot_be_read(monkeypatch):
    conv = before(nn.Conv2d(4, 8, 3))
    missing = replace(conv, weight=replace(conv.weight, storage=None))
    assert order(missing, missing, Same.SAME) == "not permuted"
    assert order(missing, missing) == "unknown"
    assert order(None, conv) == order(conv, None) == "unknown"
    assert order(conv, before(nn.Conv2d(5, 8, 3))) == "unknown"
    assert order(before(nn.Conv2d(8, 4, 3)), before(nn.Conv2d(8, 4, 3))) == "unknown"
    monkeypatch.setattr(reordered, "MOST_BYTES", 100)
    assert order(conv, conv) == "unknown"
