"""What the trials showed, in sentences."""

from __future__ import annotations

import pytest

from bncli.model.capture import Trial, Trials
from bncli.rulebook.live.tried import closes, trial_sentences
from tests.rulebook.live.faults import network

SHOWN = network(gap=1.0, floor=0.2)


def said(*trials, codes=(), shown=SHOWN):
    return trial_sentences(shown, Trials(trials), codes)


ONE = Trial("one", "down1.1 alone", ("down1.1",), 0.384)
ALL = Trial("all", "all 3 layers", ("a", "b", "c"), 0.2)


def test_the_best_single_layer_and_all():
    worse = Trial("one", "up1 alone", ("up1",), 0.9)
    assert said(worse, ONE, ALL) == [
        "With the data's statistics in down1.1 alone 77% of what can close closes.",
        "With the data's statistics in all layers 100% of what can close closes.",
    ]
    assert closes(SHOWN, ONE) == pytest.approx(0.77)


def test_nothing_closes_because_the_batches_differ():
    nothing = Trial("all", "all 3 layers", ("a", "b", "c"), 0.98)
    start = "With the data's statistics in all layers nothing closes"
    assert said(nothing) == [f"{start}."]
    assert said(nothing, codes=["BN806"]) == [f"{start}: the batches differ."]


def test_what_gets_worse_is_said():
    wider = Trial("one", "b5 alone", ("b5",), 1.4)
    assert said(wider) == ["With the data's statistics in b5 alone the gap gets 50% wider."]


def test_a_map_of_the_input():
    mapped = Trial("input", "input divided by 255", (), 0.21)
    assert said(mapped) == ["With the input divided by 255 99% of what can close closes."]


def test_the_first_layers_are_said_where_they_close_more_than_one():
    first = Trial("first", "the first 2 of 3 layers", ("a", "b"), 0.25)
    assert said(ONE, first)[1] == (
        "With the data's statistics in the first 2 layers 94% of what can close closes."
    )
    alike = Trial("first", "the first 2 of 3 layers", ("a", "b"), 0.37)
    assert len(said(ONE, alike)) == 1


def test_there_may_be_nothing_to_say():
    assert said() == []
    assert said(Trial("one", "a alone", ("a",), None)) == []
    at_floor = network(gap=0.2, floor=0.2)
    assert said(ONE, shown=at_floor) == ["The gap is at its floor, so there is nothing to close."]
