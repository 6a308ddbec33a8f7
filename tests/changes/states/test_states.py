"""The states as a whole: each module is tried, and some state explains every pair."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from bncli.changes import states
from bncli.changes.states import FINDS, explain
from bncli.model.changes import State
from tests.changes.pairs import NO_FILES, pair, random_layer

MODULES = sorted(
    path.stem for path in Path(states.__file__).parent.iterdir() if not path.name.startswith("__")
)


@pytest.mark.parametrize("name", MODULES)
def test_each_module_is_tried(name):
    module = import_module(f"bncli.changes.states.{name}")
    assert module.find in FINDS


@pytest.mark.parametrize("seed", range(20))
def test_every_pair_has_a_state_and_only_equal_ones_are_identical(seed):
    rng = np.random.default_rng(seed)
    first, second = random_layer(seed=seed), random_layer(seed=seed)
    for leaf, values in random_layer(seed=seed + 100).items():
        if rng.random() < 0.4:
            second[leaf] = values
    moved = {leaf for leaf in first if not np.array_equal(first[leaf], second[leaf])}
    found = explain(pair(first, second), NO_FILES)
    statistics, affine = moved & {"running_mean", "running_var"}, moved & {"weight", "bias"}
    assert (
        found.state
        is {
            (False, False): State.IDENTICAL,
            (True, False): State.STATISTICS,
            (False, True): State.WEIGHTS,
            (True, True): State.DIFFERENT,
        }[bool(statistics), bool(affine)]
    )
