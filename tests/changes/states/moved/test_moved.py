"""What moved, and what did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.changes.states.moved import affine_moved, find
from bncli.model.changes import Same, State
from bncli.report import Certainty
from tests.changes.pairs import NO_FILES, pair, random_layer, side

RELATED = replace(NO_FILES, related=True)
APART = replace(NO_FILES, related=False)


def parts(weights, statistics):
    """A layer with the weights of one seed and the statistics of another."""
    one, two = random_layer(seed=weights), random_layer(seed=statistics)
    leaves = "weight", "bias"
    return {leaf: (one if leaf in leaves else two)[leaf] for leaf in one}


@pytest.mark.parametrize(
    ("counters", "files", "state", "cause", "sure"),
    [
        ((100, 140), RELATED, State.TRAINED, "trained", Certainty.LIKELY),
        ((100, 140), NO_FILES, State.TRAINED, "trained", Certainty.LIKELY),
        ((100, 140), APART, State.DIFFERENT, "unrelated", Certainty.CERTAIN),
        ((100, 100), RELATED, State.DIFFERENT, "same-count", Certainty.CERTAIN),
        ((140, 100), RELATED, State.TRAINED, "backwards", Certainty.LIKELY),
        ((140, 0), RELATED, State.DIFFERENT, "count-reset", Certainty.CERTAIN),
        ((100, -5), RELATED, State.TRAINED, "uncounted", Certainty.LIKELY),
        ((float("nan"), 100), RELATED, State.TRAINED, "uncounted", Certainty.LIKELY),
        ((None, None), RELATED, State.TRAINED, "uncounted", Certainty.LIKELY),
        ((0, 0), RELATED, State.TRAINED, "uncounted", Certainty.LIKELY),
    ],
)
def test_all_moved(counters, files, state, cause, sure):
    sides = (side(random_layer(seed=seed), count) for seed, count in enumerate(counters))
    found = find(pair(*sides), files)
    assert (found.state, found.numbers["cause"], found.certainty) == (state, cause, sure)


def test_how_many_batches():
    sides = side(random_layer(), 100), side(random_layer(seed=1), 101)
    assert find(pair(*sides), RELATED).what == "for 1 batch"


@pytest.mark.parametrize(
    ("before", "said"), [(Same.SAME, "did not"), (Same.MOVED, "in front moved")]
)
def test_statistics_alone(before, said):
    found = find(pair(parts(0, 0), parts(0, 1), before), RELATED)
    assert found.state is State.STATISTICS
    assert said in found.detail


@pytest.mark.parametrize(
    ("before", "state"),
    [(Same.SAME, State.STATISTICS), (Same.MOVED, State.TRAINED), (None, State.TRAINED)],
)
@pytest.mark.parametrize("bare", [True, False])
def test_a_layer_without_weights_of_its_own_goes_by_those_before_it(before, state, bare):
    weights = {} if bare else {"weight": np.ones(8), "bias": np.zeros(8)}
    layers = [parts(0, seed) | weights for seed in (0, 1)]
    if bare:
        layers = [layer | {"weight": None, "bias": None} for layer in layers]
    both = pair(side(layers[0], 1), side(layers[1], 2), before)
    assert affine_moved(both) is None
    assert find(both, RELATED).state is state


def test_weights_alone():
    found = find(pair(parts(0, 0), parts(1, 0)), RELATED)
    assert (found.state, found.numbers["cause"]) == (State.WEIGHTS, "own")
    assert found.numbers["counted"] is False
    before = find(pair(parts(0, 0), parts(0, 0), Same.MOVED), RELATED)
    assert before.state is State.WEIGHTS
    assert (before.numbers["cause"], before.numbers["own_moved"]) == ("before", False)


def test_batches_that_were_counted_and_not_taken_in():
    found = find(pair(side(parts(0, 0), 60), side(parts(1, 0), 100)), RELATED)
    assert found.numbers["counted"] is True
    assert "counted 40 batches" in found.detail


@pytest.mark.parametrize(
    ("bias", "cause"), [(-7.0, "dead"), (-5.0, "own"), ([-7.0] * 7 + [0.0], "own")]
)
def test_a_layer_that_a_relu_cuts_off_is_not_frozen(bias, cause):
    first, second = parts(0, 0), parts(0, 1)
    for vectors in (first, second):
        vectors["weight"] = np.linspace(-1, 1, 8, dtype=np.float32)
        vectors["bias"] = np.broadcast_to(np.float32(bias), 8).copy()
    found = find(pair(first, second, Same.SAME), RELATED)
    assert (found.state, found.numbers["cause"]) == (State.STATISTICS, cause)
