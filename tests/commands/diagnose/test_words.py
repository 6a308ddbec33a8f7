"""A diagnosis in sentences, from captures made of arrays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bncli.commands.diagnose import words
from bncli.model.capture import Trial, Trials
from bncli.rulebook.live.measures import measures
from tests.findings import finding
from tests.rulebook.live.captures import capture, watched


def batches(count=10, mean=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(mean, 2, (6, 3, 4, 4)).astype(np.float32) for _ in range(count)]


def seen(gap=0.8, floor=0.2, count=10, **given):
    """Two layers that are right, unless `mean` or `var` of the second say otherwise."""
    data = batches(count)
    return capture(watched("a", data), watched("b", data, order=2, **given), gap=gap, floor=floor)


def one(name, gap, metric=None):
    return Trial("one", f"{name} alone", (name,), gap, metric)


def every(gap=0.2):
    return Trial("all", "all 2 layers", ("a", "b"), gap)


def trial_lines(found, *trials):
    return list(words.trial_remarks(found, Trials(tuple(trials)), measures(found)))


def verdict(found, *trials, strongest=None, metrics=None):
    made = Trials(tuple(trials), metrics or {})
    return words.verdict(found, made, measures(found), strongest)


# ------------------------------------------------------------------ what closes


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        (
            [one("a", 0.338)],
            (
                "new statistics in a alone bring the gap to 0.338 (closing 77% of the gap above "
                "its "
                "floor)"
            ),
        ),
        (
            [one("a", 0.5), one("b", 0.9), Trial("first", "the first 1 of 2 layers", ("a",), 0.23)],
            (
                "new statistics in a alone bring the gap to 0.5 (closing 50% of the gap above its "
                "floor), those in the first 1 of 2 layers to 0.23 (95%)"
            ),
        ),
        (
            [one("a", 0.26), Trial("first", "the first 1 of 2 layers", ("a",), 0.24)],
            (
                "new statistics in a alone bring the gap to 0.26 (closing 90% of the gap above its "
                "floor)"
            ),
        ),
        (
            [one("a", 0.9), Trial("first", "the first 1 of 2 layers", ("a",), 0.15)],
            (
                "new statistics in the first 1 of 2 layers bring the gap to 0.15 (closing 100% of "
                "the gap above its floor)"
            ),
        ),
    ],
)
def test_what_the_trials_showed(trials, said):
    assert trial_lines(seen(), *trials, every()) == [said]


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        (0.7424, "new statistics in a alone bring the gap to 0.742 (closing 9.6% of the gap "),
        (0.7436, "new statistics in a single layer close less than 10% of the gap above its floor"),
    ],
)
def test_what_the_table_shows_as_10_percent_is_not_less_than_that(gap, said):
    (line,) = trial_lines(seen(), one("a", gap), every())
    assert line.startswith(said)


def test_at_the_floor_nothing_closes():
    assert trial_lines(seen(0.21, 0.2), one("a", 0.2), every()) == [
        "new statistics in all layers close next to nothing"
    ]


def test_batches_that_differ_are_the_reason():
    data = [batch + 10 * (number % 2) for number, batch in enumerate(batches())]
    found = capture(watched("a", data), watched("b", data, order=2), gap=0.21, floor=0.2)
    assert trial_lines(found, every()) == [
        "new statistics in all layers close next to nothing, because the batches differ"
    ]


def test_a_map_of_the_input_is_left_to_the_finding_and_the_verdict():
    change = Trial("input", "input divided by 255", (), 0.25)
    found = seen()
    assert words.mapped(found, Trials((change, every()))) == change
    assert trial_lines(found, change, every()) == []
    worse = replace(change, gap=0.6)  # less than half of the gap goes
    assert words.mapped(found, Trials((worse,))) is None
    assert words.mapped(found, None) is None


def test_nothing_is_said_of_trials_without_a_gap():
    found = replace(seen(), outputs=())
    assert trial_lines(found, one("a", None)) == []
    assert list(words.trial_remarks(seen(), None, ())) == [
        "new statistics were not tried in single layers, because that needs the model"
    ]
    assert trial_lines(seen(0, 0), every(0)) == []


def test_the_best_of_some_kinds():
    trials = Trials((one("a", 0.5), one("b", 0.3), every()))
    found = seen()
    assert words.best(found, trials, "one") == (trials.trials[1], pytest.approx(5 / 6))
    assert words.best(found, trials, "input") is None
    assert words.closes_alone(found, trials) == {
        "a": pytest.approx(0.5), "b": pytest.approx(5 / 6)
    }  # fmt: skip
    only = Trials((Trial("all", "a, the only layer", ("a",), 0.2),))
    assert words.closes_alone(found, only) == {"a": pytest.approx(1)}
    assert words.closes_alone(found, None) == {}
    assert words.closes_alone(seen(0.21, 0.2), trials) == {}  # shares of next to nothing


def test_a_layer_to_blame_is_told_before_one_behind_it():
    found = seen(mean=5)  # b is to blame
    trials = Trials((one("a", 0.25), one("b", 0.5)))
    assert [each.name for each in measures(found) if each.blamed] == ["b"]
    assert words.best_alone(found, trials, measures(found)) == (
        trials.trials[1],
        pytest.approx(0.5),
    )
    assert words.best_alone(seen(), trials, measures(seen()))[0] == trials.trials[0]


# ------------------------------------------------------------------ the metric


@pytest.mark.parametrize(
    "values", [(0.98, 0.73, 0.08), (0.98, 0.73, 0.9), (0.98, 0.98, 0.74), (math.nan, 0.98, 0.74)]
)
def test_the_metric_is_told_in_numbers_alone(values):
    metrics = dict(zip(("training", "eval", "renewed"), values, strict=True))
    line = words.metric_remark(Trials((), metrics), "seg.py:dice")
    training, evaluation, renewed = (f"{value:.4g}".replace("nan", "NaN") for value in values)
    assert line == (
        f"seg.py:dice: training {training}, evaluation {evaluation}, with new statistics in all "
        f"layers {renewed}"
    )


@pytest.mark.parametrize(
    ("training", "evaluation", "then", "said"),
    [
        (0.98, 0.73, 0.08, "the metric goes from 0.73 to 0.08 (0.98 in training)"),
        (0.0286, 0.01687, 0.01435, "the metric goes from 0.01687 to 0.01435 (0.0286 in training)"),
        (0.98, 0.73, 0.9, ""),
        (0.98, 0.73, 0.72, ""),
        (0.98, 0.98, 0.74, ""),
        (math.nan, 0.98, 0.74, ""),
        (0.98, 0.73, math.inf, ""),
        (0.98, 0.73, None, ""),
    ],
)
def test_a_metric_that_goes_elsewhere_is_told_with_the_verdict(training, evaluation, then, said):
    assert words.metric_then({"training": training, "eval": evaluation}, then) == said


def test_a_metric_in_evaluation_alone():
    line = words.metric_remark(Trials((), {"eval": 0.5}), "a.py:b")
    assert line == "a.py:b: evaluation 0.5"
    facts = words.metric_facts(Trials((), {"eval": 0.5}), "a.py:b")
    assert facts == {
        "metric": "a.py:b", "metric_training": None, "metric_eval": 0.5, "metric_renewed": None
    }  # fmt: skip
    assert words.metric_facts(Trials(), None) == words.metric_facts(None, None) == {}


# ------------------------------------------------------------------ the verdict


@pytest.mark.parametrize(("gap", "floor"), [(0.2, 0.19), (0.119, 0.108), (2, 1.95), (0.25, 0.16)])
def test_nothing_is_wrong(gap, floor):
    assert verdict(seen(gap, floor), every(floor)) == (
        "nothing is wrong: no layer's output is off by 0.1 std or more, and new statistics would "
        f"leave {floor} of the gap of {gap} std, because training normalises each batch by itself"
    )


def test_a_gap_that_new_statistics_close_is_not_nothing():
    assert "nothing is wrong" not in verdict(seen(0.3, 0.19), every(0.19))


def test_no_gap_at_all():
    assert verdict(seen(0, 0)) == (
        "the outputs of train() and eval() are the same; no layer's output is off by 0.1 std or "
        "more"
    )


def test_frozen_layers_may_be_off_and_right():
    for given, said in (
        ({}, "no layer's output is off by 0.1 std or more"),
        ({"mean": 1, "weight": 1}, "the output of a layer is off by 0.537 std, which may be right"),
    ):
        found = seen(0, 0, **given)
        found = replace(found, layers=tuple(replace(each, frozen=True) for each in found.layers))
        assert verdict(found) == (
            f"all layers are frozen, so that train() and eval() give the same outputs; {said}"
        )


def test_a_gap_that_is_not_known():
    assert verdict(replace(seen(), outputs=())) == "no layer's output is off by 0.1 std or more"
    off = verdict(replace(seen(mean=1, weight=1), outputs=()))
    assert off.startswith("the output of a layer is off by 0.")


def test_a_gap_without_a_cause():
    assert verdict(seen(0.8, 0.2)) == (
        "no cause was found for the gap of 0.8 std, 4.00 times its floor; no layer's output is off "
        "by 0.1 std or more"
    )
    assert "the gap of 30 std, 150 times its floor" in verdict(seen(30, 0.2))
    assert verdict(seen(0.8, 0.2, count=3)).startswith(
        "3 batches are too few to judge the gap of 0.8 std, 4.00 times its floor; "
    )
    assert verdict(seen(0.8, 0.2, count=1)).startswith("1 batch is too few to judge")


CAUSE = finding("BN701", "a", claim="the statistics are the last batch's")


@pytest.mark.parametrize(
    ("gaps", "trials", "metrics", "said"),
    [
        ((0.8, 0.2), [every()], {}, "new statistics in all layers close 75% of the gap"),
        ((0.8, 0.2), [one("a", 0.23)], {}, "new statistics in a alone close 71% of the gap"),
        ((0.8, 0.2), [one("a", 0.4)], {}, "new statistics in all layers close 75% of the gap"),
        (
            (0.8, 0.2),
            [Trial("input", "input divided by 255", (), 0.26), one("a", 0.2)],
            {},
            "with the input divided by 255, 68% of the gap closes",
        ),
        ((0.21, 0.2), [every()], {}, "new statistics would not close the gap"),
        (
            (0.8, 0.2),
            [every()],
            {"training": 0.98, "eval": 0.73, "renewed": 0.08},
            (
                "new statistics in all layers close 75% of the gap, and the metric goes from 0.73 "
                "to 0.08 (0.98 in training)"
            ),
        ),
        (
            (0.8, 0.2),
            [one("a", 0.23, 0.7)],
            {"training": 0.98, "eval": 0.73, "renewed": 0.08},
            (
                "new statistics in a alone close 71% of the gap, and the metric goes from 0.73 to "
                "0.7 (0.98 in training)"
            ),
        ),
        ((0, 0), [], {}, ""),
    ],
)
def test_the_cause_and_what_would_help(gaps, trials, metrics, said):
    sentence = verdict(seen(*gaps), *trials, strongest=CAUSE, metrics=metrics)
    assert sentence == "; ".join(filter(None, [CAUSE.claim, said]))


# ------------------------------------------------------------------ the others


def test_what_is_particular_about_the_modes():
    found = seen()
    assert words.modes_of(found) == ""
    first, second = found.layers
    held = replace(found, layers=(first, replace(second, frozen=True)))
    assert words.modes_of(held) == "1 layer frozen"
    assert words.modes_of(replace(held, refused_training="one value")) == (
        "in eval() alone, 1 layer frozen"
    )


def test_all_remarks_in_their_order():
    found = replace(seen(), uncalled=("c", "d"))
    trials = Trials((one("a", 0.5), every()), {"eval": 0.5})
    lines = list(words.remarks(found, trials, measures(found), "a.py:b"))
    assert [line.split()[0] for line in lines] == ["gap", "new", "a.py:b:", "no"]
    assert lines[-1] == "no batch reaches c and d"
