"""Statistics that training did not leave in the second file."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.states.spoilt import find
from bncli.model.changes import State
from bncli.report import Certainty
from tests.changes.pairs import NO_FILES, pair, random_layer, side

FRESH = {"running_mean": np.zeros(8), "running_var": np.ones(8)}
EMPTY = {"running_mean": np.zeros(8), "running_var": np.zeros(8)}


@pytest.mark.parametrize(("statistics", "state"), [(FRESH, State.RESET), (EMPTY, State.EMPTY)])
def test_initial_and_empty_statistics(statistics, state):
    layer = random_layer()
    assert find(pair(layer, layer | statistics), NO_FILES).state is state
    assert find(pair(layer | statistics, layer), NO_FILES) is None


def test_all_tensors_that_became_nan_are_named():
    a, b = random_layer(), random_layer()
    total = len(a["weight"])
    for leaf in ("weight", "bias"):
        b[leaf][1:] = np.nan
    found = find(pair(a, b), NO_FILES)
    assert found.what == f"weight and bias became NaN in {total - 1} of {total} channels"
    b["weight"][0] = np.nan
    assert find(pair(a, b), NO_FILES).what == f"weight and bias became NaN in all {total} channels"
    b["running_var"][2] = -1.0
    found = find(pair(a, b), NO_FILES)
    assert found.numbers["tensors"] == ["running_var", "weight", "bias"]


@pytest.mark.parametrize(("value", "said"), [(-0.5, "-0.5"), (np.nan, "NaN"), (np.inf, "inf")])
def test_a_variance_that_became_impossible(value, said):
    a, b = random_layer(), random_layer()
    b["running_var"][2] = value
    found = find(pair(a, b), NO_FILES)
    assert found.state is State.IMPOSSIBLE
    assert found.what == f"running_var became {said} in channel 2"
    assert found.numbers["channels"] == [2]
    assert found.numbers["tensors"] == ["running_var"]
    assert find(pair(b, b), NO_FILES) is None
    assert find(pair(b, a), NO_FILES) is None


def test_an_overflow_is_told_from_nan():
    a = random_layer()
    a["running_var"][4] = 70000
    found = find(pair(a, side(a, dtype="float16")), NO_FILES)
    assert (found.state, found.numbers["cause"]) == (State.IMPOSSIBLE, "overflow")
    assert "float16" in found.detail


def test_a_negative_mean_is_fine():
    b = random_layer()
    b["running_mean"] = -np.abs(b["running_mean"])
    assert find(pair(random_layer(), b), NO_FILES) is None


@pytest.mark.parametrize(
    ("counter", "weight", "start"), [(0, 1, True), (0, 2, False), (9, 1, False)]
)
def test_a_layer_that_is_new_in_all_may_be_the_start_of_training(counter, weight, start):
    new = {
        "weight": np.full(8, weight, np.float32),
        "bias": np.zeros(8, np.float32),
        "running_mean": np.zeros(8, np.float32),
        "running_var": np.ones(8, np.float32),
    }
    found = find(pair(side(random_layer(), 100), side(new, counter)), NO_FILES)
    assert found.state is State.RESET
    assert ("give it first" in found.hint) is start


@pytest.mark.parametrize(
    ("leaf", "value", "state"),
    [
        ("running_var", 0, State.EMPTY),
        ("running_var", 1, State.RESET),
        ("running_mean", 0, State.RESET),
    ],
)
def test_one_of_the_two_statistics_alone(leaf, value, state):
    layer = random_layer()
    spoilt = layer | {leaf: np.full(8, value, np.float32)}
    found = find(pair(layer, spoilt), NO_FILES)
    assert (found.state, found.numbers["cause"]) == (state, "half")
    assert found.what == f"{leaf} is {value} in every channel of the second file"
    assert find(pair(spoilt, layer), NO_FILES) is None
    one = {name: values[:1] for name, values in spoilt.items()}
    assert find(pair({name: values[:1] for name, values in layer.items()}, one), NO_FILES) is None


def test_statistics_of_a_constant_input_may_decay_to_0():
    layer = random_layer()
    for decayed in (layer | EMPTY, layer | {"running_var": np.zeros(8, np.float32)}):
        found = find(pair(side(layer, 10), side(decayed, 70)), NO_FILES)
        assert (found.state, found.certainty) == (State.EMPTY, Certainty.LIKELY)
        assert "momentum 0.1, 60 batches of a constant input do not lead there" in found.detail
        assert find(pair(side(layer, 10), side(decayed, 10_000)), NO_FILES) is None
        found = find(pair(side(layer, 10), side(decayed, 10)), NO_FILES)
        assert (found.state, found.certainty) == (State.EMPTY, Certainty.CERTAIN)


@pytest.mark.parametrize("counter", [-960, float("nan"), float("inf")])
def test_a_counter_that_counts_nothing(counter):
    layers = random_layer(), random_layer(seed=1)
    found = find(pair(side(layers[0], 30), side(layers[1], counter)), NO_FILES)
    assert (found.state, found.numbers["cause"]) == (State.IMPOSSIBLE, "counter")
    assert found.what == f"num_batches_tracked became {counter}"
    assert find(pair(side(layers[0], counter), side(layers[1], counter)), NO_FILES) is None
