"""What the rules for checkpoints are given: a layer with its arrays, and a file without them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bncli.report import Certainty, Severity
from bncli.rulebook.interface import Rule
from bncli.rulebook.layers import (
    HALVES,
    LIVE,
    MOST_EVIDENCE,
    NO_WEIGHT,
    NOTHING,
    Checkpoint,
    carries_nothing,
    channels_of,
    found,
    is_below,
    label,
    named,
    plain_count,
)
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import f4, layer


def test_which_channels_live_and_which_carry_nothing():
    assert (LIVE, NO_WEIGHT, NOTHING) == (0.01, 1e-6, 1e-6)
    assert set(HALVES) == {"float16", "bfloat16"}
    made = layer(
        channels=6,
        running_var=f4(1e-12, 1e-12, 1e-12, 1, 1, np.nan),
        weight=f4(0.009, 0.02, 0, 5e-7, 0, 1),
        bias=f4(1, 1, 0, 1, 0, 1),
    )
    assert made.live().tolist() == [False, True, False, False, False, True]
    assert made.silent().tolist() == [True, True, True, False, False, False]
    assert made.dead().tolist() == [True, False, True, False, False, False]
    assert made.weightless().tolist() == [False, False, True, True, True, False]
    # A weight and a bias of exactly 0 were masked, and one of 0 alone begins a branch.
    assert carries_nothing(made).tolist() == [True, False, False, True, False, False]
    assert summary(made).dead == 2
    border = layer(running_var=f4(1, 1, 1, 1), weight=f4(0.01, -0.01, 0.0099, 1))
    object.__setattr__(border, "weight", np.array([0.01, -0.01, 0.0099, 1e-6]))
    assert border.live().tolist() == [True, True, False, False]
    assert not border.weightless().any()


RULE = Rule("BN499", "a-rule", Severity.INFO, "It is.", "Mend it.")


def test_a_finding_at_a_layer_lists_its_first_channels():
    made = layer("a.bn", channels=MOST_EVIDENCE + 5)
    channels = np.arange(MOST_EVIDENCE + 5) >= 2
    values = np.arange(MOST_EVIDENCE + 5) / 2
    finding = found(RULE, made, "it is.", "why", channels, values=values, eps=1e-5)
    assert finding.subject == "a.bn"
    assert finding.evidence == {
        "layer": "a.bn",
        "cause": "why",
        "channel_count": MOST_EVIDENCE + 3,
        "channels": list(range(2, MOST_EVIDENCE + 2)),
        "values": [n / 2 for n in range(2, MOST_EVIDENCE + 2)],
        "eps": 1e-5,
    }
    assert channels_of(channels) == finding.evidence["channels"]
    assert found(RULE, made, "it is.", "why").evidence == {"layer": "a.bn", "cause": "why"}
    made_of = found(RULE, made, "it is", "why", detail="So.", sure=Certainty.LIKELY)
    assert (made_of.detail, made_of.certainty) == ("So.", Certainty.LIKELY)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        ([1, 0, 1], "channels 0 and 2 of 3"),
        ([0, 1, 0], "channel 1 of 3"),
        ([1, 1, 1], "all 3 channels"),
        ([1], "the only channel"),
        ([1, 0, 1, 1, 1], "channels 0, 2, 3 and 4 of 5"),
        ([1, 0, 1, 1, 1, 1], "5 of 6 channels (0, 2, 3, ...)"),
    ],
)
def test_the_channels_of_a_mask_are_counted(mask, text):
    assert named(np.array(mask, bool)) == text


def test_a_file_has_its_own_layers_and_each_of_them_once():
    names = ["a", "b", "ema.a", "c"]
    file = Checkpoint(
        [summary(layer(name)) for name in names],
        twins={"ema.a": "a"},
        shared={"c": "a"},
        averaged={"ema": 3.0, "other": 5.0},
    )
    assert [each.name for each in file.own()] == ["a", "b", "c"]
    assert [each.name for each in file.distinct(file.layers)] == ["a", "b", "ema.a"]
    assert file.averaged_count("ema.a") == 3.0
    assert file.averaged_count("emas.a") is None
    assert is_below("a/b", "a")
    assert is_below("a", "")
    assert not is_below("a", "a")


@pytest.mark.parametrize(
    ("count", "text"),
    [(7, "7"), (7.0, "7"), (0.5, "0.5"), (-1, "-1"), (2**63, str(2**63)), (1e300, "1e+300"),
     (math.inf, "inf"), (math.nan, "nan"), (0, "0")],
)  # fmt: skip
def test_a_count_in_full(count, text):
    assert plain_count(count) == text
    assert label("") == "(the file itself)"
    assert label("bn") == "bn"
