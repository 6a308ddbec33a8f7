"""The bias of a convolution into which a layer was folded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncli.changes.pair import as_dtype
from bncli.changes.states.folded.biases import SAYS, Bias, bias_of, fold_of_bias
from tests.changes.networks import before
from tests.changes.pairs import random_layer, side

SCALE = np.linspace(0.3, 2, 8)


def folded(layer, old, actual, dtype="float32", added=None):
    return fold_of_bias(side(layer).layer, SCALE, Bias(old), Bias(actual), added, dtype)


def right(layer, old):
    b = 0 if old is None else old
    return (b - layer["running_mean"].astype(float)) * SCALE + layer["bias"]


@given(st.integers(0, 99), st.booleans(), st.sampled_from(["float32", "float16", "bfloat16"]))
def test_the_right_bias_is_right_in_every_dtype_and_another_is_not(seed, has_bias, dtype):
    layer = random_layer(seed=seed)
    old = np.random.default_rng(seed).normal(size=8) if has_bias else None
    expected = as_dtype(right(layer, old), dtype)
    assert folded(layer, old, expected, dtype).fault == ""
    expected[3] += 0.5
    found = folded(layer, old, expected, dtype)
    assert (found.fault, found.worst) == ("other-bias", 3)
    assert found.off == pytest.approx(0.5, abs=0.1)


def test_a_missing_bias_is_right_only_where_none_is_needed():
    layer = random_layer()
    assert folded(layer, None, None).fault == "no-bias"
    layer |= {"running_mean": np.zeros(8), "bias": np.zeros(8)}
    assert folded(layer, None, None).fault == ""
    assert folded(layer, np.ones(8), None).fault == "no-bias"


def test_what_the_layer_still_adds_counts():
    layer = random_layer()
    assert folded(layer, None, None, added=right(layer, None)).fault == ""


def test_the_plainest_of_two_names_is_given():
    layer = random_layer() | {"running_mean": np.zeros(8)}
    old = np.linspace(1, 2, 8)
    assert folded(layer, old, old * SCALE + layer["bias"]).fault == ""
    assert folded(layer, old, old + layer["bias"]).fault == "bias-not-scaled"


def test_every_fault_is_said():
    assert all(SAYS.values())
    assert folded(random_layer(), None, None).says == SAYS["no-bias"]


def test_the_bias_of_a_convolution_is_read():
    conv = nn.Conv2d(2, 3, 1)
    found = bias_of(before(conv), 3)
    assert found.values.tolist() == conv.bias.tolist()
    assert found.dtype == "float32"
    assert bias_of(before(conv), 4).values is None
    assert bias_of(before(nn.Conv2d(2, 3, 1, bias=False)), 3).values is None


def test_a_bias_in_fewer_digits_than_the_weight_is_compared_in_those():
    layer = random_layer()
    expected = as_dtype(right(layer, None), "float16")
    found = fold_of_bias(
        side(layer).layer, SCALE, Bias(None), Bias(expected, "float16"), None, "float32"
    )
    assert found.fault == ""
    assert found.told == 8
    assert folded(layer, None, expected).fault == "other-bias"
