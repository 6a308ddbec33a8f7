"""What to change where another way was expected: each odd way has its claim and its fix."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.verify.identify.fixes import output_departure, update_departure
from bncli.verify.identify.hypotheses import (
    AFFINE,
    EVAL,
    STORED,
    TRAINING,
    Hypothesis,
    Known,
    batch_norms,
)
from bncli.verify.identify.parts import SQUARES, WITHIN
from bncli.verify.identify.updates import STD, TWICE, USUAL, Update, usual_updates

KNOWN = Known(*(np.ones(2) for _ in range(4)))


@pytest.mark.parametrize(
    ("made", "expected", "claim", "fix"),
    [
        (
            Hypothesis(EVAL, None, 1e-3), {},
            "eps is 1e-3, but 1e-5 was expected", "Set eps=1e-3 on the side that has 1e-5.",
        ),
        (
            Hypothesis(TRAINING, 0, 1e-5), {"training": False},
            "the output was computed in training mode, but eval mode was expected",
            "Call eval() before the layer runs.",
        ),
        (
            Hypothesis(EVAL, None, 1e-5), {"training": True},
            "the output was computed in eval mode, but training mode was expected",
            "Call train() before the layer runs.",
        ),
        (
            Hypothesis(TRAINING, 1, 1e-5), {},
            "the output was normalised by the unbiased variance",
            "Divide the batch variance by n, not by n - 1.",
        ),
        (
            Hypothesis("LayerNorm", None, 1e-5, statistics="over the last axis"), {},
            "the output was computed by LayerNorm, but BatchNorm was expected",
            "Use BatchNorm instead, or compare with LayerNorm.",
        ),
        (
            Hypothesis(TRAINING, 0, 1e-5, view="output channels last"), {},
            "output channels last", "Transpose the output to the input's layout.",
        ),
        (
            Hypothesis(TRAINING, 0, 1e-5, view="input rounded to float16"), {},
            "input rounded to float16", "Keep float32, if half precision is not meant.",
        ),
        (
            Hypothesis(TRAINING, 0, 1e-5, view="axis -1"), {},
            "axis -1", "Say on which axis the channels are, with --channel-axis.",
        ),
        (
            Hypothesis(EVAL, None, 1e-5, view="state's channels shifted by 1"), {},
            "state's channels shifted by 1",
            "Bring the channels into the same order on both sides.",
        ),
        (
            Hypothesis(TRAINING, 0, 1e-5, statistics="statistics of the first 4 of 8 samples"), {},
            "statistics of the first 4 of 8 samples",
            "Normalise with the statistics of the whole batch.",
        ),
    ],
)  # fmt: skip
def test_an_output_has_the_fix_of_what_is_odd(made, expected, claim, fix):
    assert output_departure(made, Known(**expected)) == (claim, fix)


def test_two_odd_things_have_two_fixes():
    made = Hypothesis(EVAL, None, 1e-3, outside=True)
    assert output_departure(made, KNOWN) == (
        "eps is 1e-3, but 1e-5 was expected; eps is outside the root",
        "Set eps=1e-3 on the side that has 1e-5. Add eps to the variance, under the root.",
    )


def test_every_way_that_is_not_expected_has_a_fix():
    odd = [way for way in batch_norms(KNOWN, "") if not way.is_expected(KNOWN)]
    assert len(odd) > 100
    for way in odd:
        claim, fix = output_departure(way, KNOWN)
        assert claim
        assert fix.endswith(".")
    statistics = {output_departure(Hypothesis(EVAL, None, 1e-5, statistics=s), KNOWN)[1]
                  for s in STORED}  # fmt: skip
    affine = {output_departure(Hypothesis(EVAL, None, 1e-5, affine=a), KNOWN)[1] for a in AFFINE}
    assert (len(statistics), len(affine)) == (len(STORED), len(AFFINE))


def test_the_expected_way_is_said_as_it_is():
    made = Hypothesis(EVAL, None, 1e-5)
    assert output_departure(made, KNOWN) == (
        "the output was computed in eval mode with eps 1e-5",
        "",
    )
    assert update_departure(USUAL) == (f"the update has {USUAL.words}", "")


@pytest.mark.parametrize(
    ("made", "words", "fix"),
    [
        (Update(0.1, "biased"), "takes the biased variance", "by n / (n - 1)"),
        (Update(0.1, "keras2", "divided by n - (1 + eps)"), "n - (1 + eps)", "by n - 1"),
        (Update(0.19, "unbiased", f"{TWICE} 0.1"), "updated twice", "once in each step"),
        (Update(0.1, "unbiased", STD), STD, "not its root"),
        (Update(0.1, "unbiased", WITHIN), WITHIN, "by their counts"),
        (Update(0.1, "unbiased", SQUARES), SQUARES, "by their counts"),
        (Update(0.1, "unbiased", "INPUT 2 alone", part=1), "of INPUT 2 alone", "all inputs"),
        (
            Update(0.2, "unbiased", "running_mean with momentum 0.05", 0.05),
            "running_mean with momentum 0.05 and running_var with momentum 0.2", "one momentum",
        ),
        (
            Update(0.0, "unbiased", "running_mean with momentum 0.1", 0.1),
            "running_var was not", "Update running_var too",
        ),
        (
            Update(0.1, "unbiased", "eps 1e-5 added into the kept variance", kept_eps=1e-5),
            "eps 1e-5 added", "Leave eps out",
        ),
    ],
)  # fmt: skip
def test_an_update_has_the_fix_of_what_is_odd(made, words, fix):
    claim, said = update_departure(made)
    assert words in claim
    assert fix in said


def test_every_usual_update_that_is_odd_has_a_fix():
    odd = [way for way in usual_updates(3) if way.variance != "unbiased" or way.variant]
    assert len(odd) > 60
    assert all(update_departure(way)[1].endswith(".") for way in odd)
