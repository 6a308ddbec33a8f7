"""Layers that did not move."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.pair import as_dtype
from bncli.changes.states.equal import find
from bncli.model.changes import Same, State
from tests.changes.networks import known_eps
from tests.changes.pairs import NO_FILES, pair, random_layer, side


def test_the_same_bits_are_identical():
    layer = random_layer()
    assert find(pair(layer, layer), NO_FILES).state is State.IDENTICAL
    assert find(pair(layer, layer, Same.SAME), NO_FILES).state is State.IDENTICAL


def test_a_missing_counter_is_no_change():
    layer = random_layer()
    assert find(pair(side(layer, 9), side(layer, None)), NO_FILES).state is State.IDENTICAL


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("back", [False, True])
def test_a_rounding_is_named_by_its_dtype(dtype, back):
    a = side(random_layer(seed=7))
    rounded = {leaf: as_dtype(v.astype(float), dtype) for leaf, v in random_layer(seed=7).items()}
    b = side(rounded, dtype="float32" if back else dtype)
    for both in (pair(a, b), pair(b, a)):
        found = find(both, NO_FILES)
        assert (found.state, found.numbers["dtype"]) == (State.ROUNDED, dtype)


def test_a_counter_that_half_precision_rounds_is_no_change():
    layer = random_layer(seed=7)
    found = find(pair(side(layer, 40001), side(layer, 40000.0, "float16")), NO_FILES)
    assert found.state is State.ROUNDED


def test_a_counter_alone_is_said():
    layer = random_layer()
    found = find(pair(side(layer, 100), side(layer, 140)), NO_FILES)
    assert found.state is State.COUNTER
    assert "from 100 to 140" in found.what


@pytest.mark.parametrize("leaf", ["weight", "bias", "running_mean", "running_var"])
def test_one_value_that_moved_is_none(leaf):
    a, b = random_layer(), random_layer()
    b[leaf][3] = np.nextafter(b[leaf][3], np.float32(9))
    assert find(pair(a, b), NO_FILES) is None


def test_a_convolution_that_moved_is_none():
    layer = random_layer()
    assert find(pair(layer, layer, Same.MOVED), NO_FILES) is None
    assert find(pair(layer, layer, Same.ROUNDED), NO_FILES).state is State.ROUNDED


def test_another_eps_that_both_files_store():
    layer = random_layer()
    stored = [known_eps(side(layer, eps=eps), eps) for eps in (1e-5, 1e-3)]
    found = find(pair(*stored), NO_FILES)
    assert (found.state, found.numbers["cause"]) == (State.CONVENTION, "eps")
    assert found.what == "eps is 1e-05 in the first file, 0.001 in the second"
    assert found.hint == "Give the second file's layers eps=1e-05."
    # the same number, kept in float32 by one of the files
    near = known_eps(side(layer), float(np.float32(1e-5)))
    assert find(pair(stored[0], near), NO_FILES).state is State.IDENTICAL
    assumed = side(layer, eps=1e-3)
    assert find(pair(stored[0], assumed), NO_FILES).state is State.IDENTICAL


@pytest.mark.parametrize(("leaf", "value"), [("weight", 1.0), ("bias", 0.0)])
def test_a_tensor_that_does_nothing_and_that_one_file_alone_has_is_said(leaf, value):
    layer = random_layer() | {leaf: np.full(8, value, np.float32)}
    bare = layer | {leaf: None}
    found = find(pair(layer, bare), NO_FILES)
    assert (found.state, found.numbers["neutral_in_first"]) == (State.IDENTICAL, [leaf])
    found = find(pair(bare, layer), NO_FILES)
    assert found.numbers["neutral_in_second"] == [leaf]
    assert "neutral_in_first" not in found.numbers
    assert "neutral_in_first" not in find(pair(layer, layer), NO_FILES).numbers
