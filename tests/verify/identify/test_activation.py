"""Outputs after an activation: torch's ReLU is recognised, and others are suspected."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.verify.identify.activation import after_relu, lacks_negatives
from bncli.verify.identify.hypotheses import Known
from bncli.verify.identify.output import identify_output
from bncli.verify.identify.pair import ArraySource, View
from bncli.verify.identify.search import Seen


def made(activation, *, eps=1e-3, training=False, dead=False):
    """torch's output of a layer and its activation: the input, it, and the state."""
    torch.manual_seed(0)
    layer = torch.nn.BatchNorm2d(5, eps=eps)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
        if dead:
            layer.bias[2] = -100
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.1, 3)
        known = Known(
            *(
                getattr(layer, name).double().numpy().copy()
                for name in ("weight", "bias", "running_mean", "running_var")
            )
        )
        x = torch.randn(8, 5, 4, 4)
        y = activation(layer.train(training)(x))
    return ArraySource(x.numpy(), "float32"), ArraySource(y.numpy(), "float32"), known


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("eps", [1e-5, 1e-3, 3e-4])
@pytest.mark.parametrize("dead", [False, True])
def test_a_relu_is_recognised(training, eps, dead):
    x, y, known = made(torch.relu, eps=eps, training=training, dead=dead)
    found = identify_output(x, y, 1, known)
    best = found.hypotheses[0].hypothesis
    assert found.explained
    assert not found.expected
    assert (best.mode, best.view) == ("training" if training else "eval", "after a ReLU")
    assert best.eps == pytest.approx(eps, rel=0.02)


@pytest.mark.parametrize("activation", [torch.nn.functional.softplus, torch.sigmoid, torch.abs])
def test_another_activation_is_suspected(activation):
    x, y, known = made(activation)
    found = identify_output(x, y, 1, known)
    assert not found.explained
    assert "no value is negative: OUTPUT may have been taken after an activation" in found.best


def test_an_output_with_negative_values_is_not_suspected():
    x, y, known = made(lambda values: torch.tanh(values) * 3)
    found = identify_output(x, y, 1, known)
    assert not found.explained
    assert "no value is negative" not in found.best
    assert after_relu(Seen.of(View(x, y, 1), known)) is None


def test_zeros_alone_are_no_relu():
    x, y, known = made(torch.zeros_like)
    seen = Seen.of(View(x, y, 1), known)
    assert after_relu(seen) is None
    assert lacks_negatives(seen)


def test_the_slope_is_that_of_the_positive_values():
    x, y, known = made(torch.relu)
    seen = after_relu(Seen.of(View(x, y, 1), known))
    scale = known.weight / np.sqrt(known.running_var + 1e-3)
    alive = (y.values > 0).sum((0, 2, 3)) > 1
    assert alive.sum() == 4  # the fifth has one positive value, through which any line goes
    assert seen.fit.slope[alive] == pytest.approx(scale[alive], rel=1e-4)
    assert not seen.fit.slope[~alive].any()
