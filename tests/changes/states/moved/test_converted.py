"""Weights that no training changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bncli.changes.pair import LayerPair
from bncli.changes.states.moved.converted import converted
from bncli.model.changes import Same, State
from tests.changes.networks import side
from tests.changes.pairs import pair, random_layer

SEED = 3


def behind(change, conv=None):
    """A layer whose convolution changed, in both files."""
    torch.manual_seed(SEED)
    conv = conv or nn.Conv2d(6, 8, 3, bias=False)
    layer = nn.BatchNorm2d(conv.weight.shape[0])
    layer.running_var.uniform_(0.5, 2)
    other = nn.Conv2d(*conv.weight.shape[:2], 3, bias=False)
    with torch.no_grad():
        other.weight = nn.Parameter(change(conv.weight.detach().clone()).contiguous())
    return LayerPair(side(layer, conv), side(layer, other), Same.MOVED)


def eight_bits(weight, axes=(0, 1, 2, 3)):
    step = weight.abs().amax(axes, keepdim=True) / 127
    return (weight / step).round() * step


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda w: w.swapaxes(-1, -2), "kernel-transposed"),
        (lambda w: w.flip(2, 3), "kernel-flipped"),
        (lambda w: w.flip(1), "inputs-reversed"),
        (lambda w: w[:, [1, 0, 2, 5, 3, 4]], "inputs-permuted"),
        (lambda w: w[[1, 0, 2, 5, 3, 4, 7, 6]], "outputs-permuted"),
        (eight_bits, "eight-bits"),
        (lambda w: eight_bits(w, (1, 2, 3)), "eight-bits"),
    ],
)
def test_what_was_done_to_the_convolution(change, cause):
    found = converted(behind(change))
    assert found.state is State.WEIGHTS
    assert found.numbers["cause"] == cause
    assert found.numbers["own_moved"] is False
    assert found.what.endswith("the statistics did not move")


def test_channels_exchanged_in_a_square_weight():
    square = nn.Conv2d(8, 8, 3, bias=False)
    found = converted(behind(lambda w: w.swapaxes(0, 1), square))
    assert found.numbers["cause"] == "channels-exchanged"


@pytest.mark.parametrize("inputs", [3, 6])
def test_colours_are_those_of_an_image(inputs):
    found = converted(behind(lambda w: w.flip(1), nn.Conv2d(inputs, 8, 3, bias=False)))
    assert ("BGR" in found.hint) is (inputs == 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w + 0.01 * torch.randn_like(w),
        lambda w: w * 1.5,
        lambda w: w.flip(1) * 1.001,
        lambda w: eight_bits(w) + 0.02 * torch.randn_like(w),
        torch.zeros_like,
        lambda w: w.sign() * (w.abs() + 0.001),
    ],
)
def test_training_and_a_factor_are_not_named(change):
    assert converted(behind(change)) is None


def test_the_order_of_channels_that_are_all_alike_does_not_matter():
    both = behind(lambda w: w.flip(0))
    both.a.layer.var[:] = 1
    assert converted(both) is None


@pytest.mark.parametrize(("leaf", "value"), [("weight", 1.0), ("bias", 0.0)])
def test_a_weight_that_became_1_or_a_bias_0(leaf, value):
    a = random_layer()
    b = a | {leaf: np.full(8, value, np.float32)}
    found = converted(pair(a, b))
    assert (found.state, found.numbers["cause"]) == (State.WEIGHTS, f"{leaf}-neutral")
    assert f"{leaf} is {value:g} in every channel" in found.what
    assert converted(pair(b, a)) is None  # training may have begun there
    both = {"weight": np.ones(8, np.float32), "bias": np.zeros(8, np.float32)}
    found = converted(pair(a, a | both))
    assert found.what == "weight is 1 and bias 0 in every channel of the second file"
    assert found.numbers["cause"] == "affine-neutral"
    assert converted(pair(a, a | both | {"bias": a["bias"] + 1})) is None  # one of two
