"""A claim says how far a layer moved, by the number that shows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.model.changes import Found, Measures, State
from bncli.rulebook.change_words import brief, evidence_of, message_of, without_numbers
from tests.rulebook.versions import layer


@pytest.mark.parametrize(
    ("z_max", "least", "most", "said"),
    [
        (2.914, 0.5, 1.5, " by up to 2.91 std in 40 batches"),
        (0.0, 0.015, 1.5, " (a variance fell to 0.015 of what it was) in 40 batches"),
        (0.0, 0.9, 30.0, " (a variance grew to 30 times what it was) in 40 batches"),
        (None, None, None, " in 40 batches"),
        (0.0, 0.9995, 1.0, " (a variance by 0.05%) in 40 batches"),
        (0.0, 1.0, 1.0, " by less than 1e-15 std in 40 batches"),
    ],
)
def test_statistics_that_moved(z_max, least, most, said):
    moved = Measures(40, z_max=z_max, var_ratio_min=least, var_ratio_max=most)
    claim = message_of(layer(State.STATISTICS, measures=moved))
    assert claim == f"the statistics moved{said}, the weights did not"


def test_one_batch_is_no_plural():
    claim = message_of(layer(State.STATISTICS, measures=Measures(1)))
    assert claim == "the statistics moved in 1 batch, the weights did not"


@pytest.mark.parametrize(
    ("state", "numbers", "what", "said"),
    [
        (State.IMPOSSIBLE, {}, "bias became NaN in 7 of 8 channels", "bias became NaN"),
        (State.DIFFERENT, {"cause": "size"}, "", "the number of channels differs"),
        (
            State.FOLDED,
            {"convolution": "a.conv"},
            "folded into a.conv, eps 0.001",
            "folded into the layer before it, eps 0.001",
        ),
        (
            State.LOST,
            {"cause": "not-folded"},
            "it is gone, and conv1 is not what folding it gives",
            "it is gone, and the layer before it is not what folding it gives",
        ),
        (State.EMPTY, {}, "", "never-filled"),
    ],
)
def test_the_claim_of_many_layers_has_nothing_of_each(state, numbers, what, said):
    assert brief(Found(state, what, numbers=numbers)) == said


@pytest.mark.parametrize(
    "end", [", eps 0.001", ", without eps", ", n = 8", ", n 5 or more, not one n"]
)
def test_a_claim_without_its_eps_or_count(end):
    assert without_numbers(f"weight, bias are other ones{end}") == "weight, bias are other ones"
    assert without_numbers("weight, bias are other ones") == "weight, bias are other ones"


def test_weights_that_moved():
    moved = layer(State.WEIGHTS, measures=Measures(0, weight_change=0.024), cause="own")
    for which in ("weight and bias", "bias"):
        found = replace(moved.found, what=f"{which} moved, the statistics did not move")
        claim = message_of(replace(moved, found=found))
        assert claim == f"{which} moved by 2.4%, the statistics did not"
    assert message_of(layer(State.WEIGHTS, cause="before")) == "it is weights-moved"


def test_evidence_has_the_numbers_of_the_state_and_the_measures():
    found = evidence_of(layer(State.CONVENTION, measures=Measures(3, effect=0.5), n=128))
    assert (found["state"], found["n"], found["batches"]) == ("other-convention", 128, 3)
    assert found["effect"] == 0.5
