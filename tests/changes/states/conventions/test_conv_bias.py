"""A convolution's bias that was taken into running_mean is no movement of the statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bncli.changes.pair import LayerPair, Side
from bncli.changes.states import explain
from bncli.changes.states.conventions import find
from bncli.model import TensorRef
from bncli.model.changes import State
from bncli.state_dict.in_front import InFront
from tests.changes.pairs import NO_FILES, random_layer, side

BIAS = np.random.default_rng(3).normal(0, 1, 8).astype(np.float32)


def ref(name, values):
    strides = tuple(step // values.itemsize for step in values.strides)
    return TensorRef(name, Path("x"), values.shape, "float32", strides, lambda: values.reshape(-1))


def behind(vectors, bias):
    """A layer behind a convolution with a bias, None for none."""
    read = side(vectors)
    weight = ref("conv.weight", np.ones((8, 3, 1, 1), np.float32))
    before = InFront("conv", weight, None if bias is None else ref("conv.bias", bias))
    return Side(read.refs, read.layer, before)


@pytest.mark.parametrize("left", [None, np.zeros(8, np.float32)])
@pytest.mark.parametrize("forward", [True, False])
def test_a_bias_that_moved_into_the_mean_is_named(left, forward):
    layer = random_layer()
    taken = {**layer, "running_mean": layer["running_mean"] - BIAS}
    sides = [behind(layer, BIAS), behind(taken, left)]
    found = explain(LayerPair(*(sides if forward else sides[::-1])), NO_FILES)
    other = "second" if forward else "first"
    assert found.state is State.CONVENTION
    assert found.what == f"the bias of conv is in the {other} file's mean"
    assert found.numbers["odd_file"] == other


def test_a_bias_that_both_have_explains_no_mean():
    layer = random_layer()
    taken = {**layer, "running_mean": layer["running_mean"] - BIAS}
    assert find(LayerPair(behind(layer, BIAS), behind(taken, BIAS)), NO_FILES) is None


def test_another_shift_of_the_mean_is_no_bias():
    layer = random_layer()
    other = {**layer, "running_mean": layer["running_mean"] - BIAS * np.float32(1.001)}
    assert find(LayerPair(behind(layer, BIAS), behind(other, None)), NO_FILES) is None
