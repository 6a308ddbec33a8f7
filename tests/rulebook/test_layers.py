"""What the rules for checkpoints are given: a layer with its arrays, and what is left of it."""

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
    summary,
)
from tests.rulebook.layers import f4, layer


@pytest.mark.parametrize(
    ("weight", "bias", "affine"),
    [
        (None, None, "none"),
        ([1, 1], [0, 0], "initial"),
        ([0, 0], [0, 0], "initial"),  # the last layer of a residual branch
        ([0.5, 0.5], [0, 0], "initial"),  # a constant, as some initialise
        ([0.5, 0.6], [0, 0], "weight"),
        ([1, 1], [0.5, 0.6], "trained"),
        ([0.5, 0.6], None, "trained"),
        (None, [0, 0], "initial"),
        ([1], [0], "initial"),
        ([0.7], [0], "weight"),  # one value is the same as itself, and no constant
        ([1], [0.7], "trained"),
        ([0], [1], "initial"),
    ],
)
def test_whether_weight_and_bias_are_those_of_a_new_module(weight, bias, affine):
    channels = len(weight or bias or [0, 0])
    vectors = {
        name: None if values is None else np.array(values, np.float32)
        for name, values in (("weight", weight), ("bias", bias))
    }
    made = layer(channels=channels, **{n: v for n, v in vectors.items() if v is not None})
    for name, values in vectors.items():
        object.__setattr__(made, name, values)
    assert summary(made).affine == affine


def test_which_channels_live_and_which_carry_nothing():
    assert (LIVE, NO_WEIGHT, NOTHING) == (0.01, 1e-6, 1e-6)
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


def test_what_remains_of_a_layer():
    made = summary(layer("bn", running_var=f4(1, np.nan, 0.25, np.inf), counter=7))
    assert (made.name, made.channels, made.counter, made.has_counter) == ("bn", 4, 7, True)
    assert (made.least_var, made.greatest_var) == (0.25, 1.0)
    assert (made.finite, made.varied, made.mean_zero, made.initial) == (False, True, False, False)
    assert made.has_statistics
    assert (made.statistics_dtype, made.affine_dtype) == ("float32", "float32")
    fresh = summary(layer(running_mean=f4(0, 0, 0, 0), running_var=f4(1, 1, 1, 1)))
    assert (fresh.initial, fresh.mean_zero, fresh.varied, fresh.finite) == (True, True, False, True)
    assert summary(layer(running_mean=f4(0, 0, 0, 0), running_var=f4(1, 1, 1, 2))).initial is False
    odd = layer(running_var=f4(1, 1))
    assert not odd.coherent
    assert not summary(odd).has_statistics
    assert set(HALVES) == {"float16", "bfloat16"}


def test_digests_are_equal_where_all_bits_are():
    one, other = summary(layer("a")), summary(layer("a"))
    assert (one.statistics_digest, one.affine_digest) == (
        other.statistics_digest,
        other.affine_digest,
    )
    wide = layer("a").state.running_mean.astype(np.float64)
    assert summary(layer("a", running_mean=wide)).statistics_digest != one.statistics_digest
    assert summary(layer("a", bias=f4(1, 2, 3, 4))).affine_digest != one.affine_digest


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
