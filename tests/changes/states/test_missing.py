"""Tensors that one side lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.changes.states.missing import find
from bncli.model import BatchNormModule
from bncli.model.changes import State
from tests.changes.pairs import NO_FILES, pair, random_layer, side

ALL = ["running_mean", "running_var", "num_batches_tracked"]


def without(*leaves):
    return {leaf: v for leaf, v in random_layer().items() if leaf not in leaves}


def test_nothing_is_missing():
    assert find(pair(random_layer(), random_layer(seed=1)), NO_FILES) is None


def test_dropped_buffers_are_lost_on_their_side():
    bare = side(without("running_mean", "running_var"), None)
    found = find(pair(bare, random_layer()), NO_FILES)
    assert found.state is State.LOST
    assert (found.numbers["missing"], found.numbers["missing_in"]) == (ALL, "first")
    assert found.what == f"{ALL[0]}, {ALL[1]} and {ALL[2]} are missing in the first file"
    assert find(pair(random_layer(), bare), NO_FILES).numbers["missing_in"] == "second"


def test_a_weight_of_1_and_a_bias_of_0_may_be_missing():
    layer = random_layer() | {"weight": np.ones(8), "bias": np.zeros(8)}
    assert find(pair(layer, without("weight", "bias")), NO_FILES) is None
    lost = find(pair(random_layer(), without("bias")), NO_FILES)
    assert lost.numbers["missing"] == ["bias"]


def test_a_missing_counter_alone_is_no_loss():
    assert find(pair(side(random_layer(), None), random_layer()), NO_FILES) is None


def test_layers_of_two_sizes_are_different():
    found = find(pair(random_layer(8), random_layer(6)), NO_FILES)
    assert found.state is State.DIFFERENT
    assert found.what == "it has 8 channels in the first file, 6 in the second"


@pytest.mark.parametrize(
    "module",
    [
        BatchNormModule("BatchNorm", convention="mxnet"),  # fix_gamma
        BatchNormModule("BatchNorm2d", affine=False),
    ],
)
def test_a_layer_that_has_no_weight_of_its_own_has_lost_none(module):
    bare = side(without("weight"), None)
    bare = replace(bare, refs=replace(bare.refs, module=module))
    full = random_layer() | {"weight": np.linspace(0.5, 1.5, 8)}
    found = find(pair(bare, full), NO_FILES)
    assert (found.state, found.numbers["cause"]) == (State.DIFFERENT, "no-affine")
    assert found.what == "in the first file weight counts as 1 and is 0.5 to 1.5 in the second"
    assert find(pair(full, bare), NO_FILES).numbers["missing_in"] == "second"
    found = find(pair(bare, without("weight")), NO_FILES)
    assert found is None


def test_a_weight_that_is_not_known_is_in_neither_file_alone():
    """One file cannot tell its weight, the other has none by its own account."""
    bare = side(without("weight"), None)
    bare = replace(bare, refs=replace(bare.refs, module=BatchNormModule("BatchNorm", affine=False)))
    unclear = side(without("weight"), None)
    shapes = unclear.layer.shapes | {"weight": (8,)}
    unclear = replace(
        unclear, layer=replace(unclear.layer, shapes=shapes, unread=("gamma or beta",))
    )
    for found in (find(pair(bare, unclear), NO_FILES), find(pair(unclear, bare), NO_FILES)):
        assert found.what == "not all of it could be read; the statistics are identical"
        assert (found.detail, found.numbers["cause"]) == ("gamma or beta", "unread")
