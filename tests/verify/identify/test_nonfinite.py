"""NaN and Inf in an output alone: counted, and told apart from what goes in and from overflow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.verify.identify.hypotheses import Known
from bncli.verify.identify.output import identify_output
from bncli.verify.identify.pair import ArraySource

SHAPE = (6, 4, 5, 3)


def made(*, training: bool, dtype=torch.float32, scale=1.0, spoil=None, state=None):
    """torch's output of a layer, what is known of it, and the identification of both."""
    torch.manual_seed(0)
    layer = torch.nn.BatchNorm2d(4)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.1, 3)
        if state:
            getattr(layer, state)[1] = float("nan")
    known = Known(
        *(
            getattr(layer, name).detach().double().numpy().copy()
            for name in ("weight", "bias", "running_mean", "running_var")
        ),
        training=training,
    )
    x = (torch.randn(SHAPE) * scale).to(dtype)
    if spoil is not None:
        x[spoil] = float("nan")
    with torch.no_grad():
        y = layer.train(training)(x)
    name = str(dtype).removeprefix("torch.")
    return ArraySource(x.float().numpy(), name), ArraySource(y.float().numpy(), name), known


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_planted_value_is_counted_and_placed(training, value):
    x, y, known = made(training=training)
    values = y.values.copy()
    values[2, 3, 1, 0] = value
    found = identify_output(x, replace(y, values=values), 1, known)
    odd = found.not_finite
    assert (odd.nan, odd.inf) == ((1, 0) if np.isnan(value) else (0, 1))
    assert (odd.total, odd.channels, odd.num_features) == (360, (3,), 4)
    assert odd.first == (2, 3, 1, 0)
    assert found.explained
    assert "in 3 of 4 channels" in found.best


def test_an_output_of_nan_alone_is_not_passed_over():
    x, y, known = made(training=False)
    found = identify_output(x, replace(y, values=np.full_like(y.values, np.nan)), 1, known)
    assert found.hypotheses == ()
    assert (found.not_finite.nan, found.not_finite.channels) == (360, (0, 1, 2, 3))


def test_it_is_told_beside_an_output_that_nothing_explains():
    x, y, known = made(training=False)
    values = np.tanh(y.values * 3)
    values[0, 0, 0, 0] = np.nan
    found = identify_output(x, replace(y, values=values), 1, known)
    assert not found.explained
    assert found.not_finite.channels == (0,)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"spoil": (1, 2, 0, 0)},
        {"state": "weight"},
        {"state": "bias"},
        {"dtype": torch.float16, "scale": 3e4},
        {"dtype": torch.bfloat16},
        {"scale": 1e25},
        {"scale": 1e38},
    ],
    ids=str,
)
def test_what_torch_itself_makes_is_not_blamed(training, how):
    """NaN that the input or the state brings, and Inf where float16 or float32 overflows."""
    x, y, known = made(training=training, **how)
    assert identify_output(x, y, 1, known).not_finite is None


def test_a_state_of_nan_accounts_for_evaluation_alone():
    x, y, known = made(training=False, state="running_var")
    found = identify_output(x, y, 1, known)
    assert found.not_finite is None
    assert found.expected
    assert found.channels == 3


def test_another_norm_spreads_the_nan_of_a_sample():
    torch.manual_seed(1)
    x = torch.randn(SHAPE)
    x[1, 2, 0, 0] = float("nan")
    y = torch.nn.functional.group_norm(x, 2)
    source, made_by = (ArraySource(values.numpy(), "float32") for values in (x, y))
    found = identify_output(source, made_by, 1, Known())
    assert found.not_finite is None
