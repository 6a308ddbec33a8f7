"""What --expect may ask of a layer."""

from __future__ import annotations

import pytest

from bncli.model.changes import State
from bncli.rulebook.changes import STATES, Expectation, Expected
from tests.rulebook.versions import layer


@pytest.mark.parametrize("wanted", Expected)
@pytest.mark.parametrize("state", State)
def test_a_state_meets_an_expectation_or_not(wanted, state):
    asked = Expectation(wanted, lambda name: name == "bn")
    assert asked.fails(layer(state)) is (state not in STATES[wanted])
    assert not asked.fails(layer(state, "another"))


def test_a_wrong_fold_is_not_folded():
    asked = Expectation(Expected.FOLDED, lambda _: True)
    assert asked.fails(layer(State.FOLDED, fault="mean"))
    assert not asked.fails(layer(State.FOLDED, fault=None))
