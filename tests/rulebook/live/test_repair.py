"""Whether new statistics help, judged on captures and numbers made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from bncli.model import BatchNormState
from bncli.model.capture import Propagation
from bncli.model.recalibration import Goal, LayerChange, Recalibration
from bncli.report import Certainty, Severity
from bncli.rulebook.live.causes import diagnosis
from bncli.rulebook.live.repair import NO_HELP, Outcome, better_way, judged
from tests.rulebook.live.captures import outputs
from tests.rulebook.live.faults import PLANTED, network, pictures
from tests.rulebook.live.recalibrations import PLANTED as IN_RECALIBRATIONS


def recalibrated(capture, after=0.2, **given):
    """What new statistics come to, with the gaps of the capture before."""
    gaps = {
        "gap_before": capture.gap(Propagation.EVAL),
        "gap_after": after,
        "gap_floor": capture.gap_floor,
        "checked": True,
    }
    return Recalibration(**{"layers": (), "capture": capture} | gaps | given)


def judgement(capture, after=0.2, goal=Goal.TRAINING, **given):
    return judged(recalibrated(capture, after, **given), goal, found_in(capture))


DIAGNOSED = {}


def found_in(capture):
    """The diagnosis of a capture, made once."""
    if id(capture) not in DIAGNOSED:
        DIAGNOSED[id(capture)] = capture, diagnosis(capture)
    return DIAGNOSED[id(capture)][1]


@cache
def planted(code, gap=None):
    """The capture of a fault; with another gap above its floor of 0.2."""
    capture = PLANTED[code]().capture
    return capture if gap is None else replace(capture, outputs=outputs(gap, 0.2))


@cache
def healthy(**gaps):
    return network(**gaps)


# ---------------------------------------------- by the gap


@pytest.mark.parametrize("code", ["BN807", "BN808", "BN809", "BN814"])
def test_a_fault_of_the_stored_statistics_is_repaired(code):
    found = judgement(planted(code))
    assert (found.outcome, found.finding) == (Outcome.HELPS, None)
    assert {each.code for each in found.others} == PLANTED[code]().besides


@pytest.mark.parametrize("code", ["BN810", "BN811", "BN812", "BN813"])
def test_what_is_not_in_the_statistics_stays_beside_them(code):
    found = judgement(planted(code, gap=0.9))
    assert found.outcome is Outcome.HELPS
    assert code in [each.code for each in found.others]


@pytest.mark.parametrize("after", [0.9, 0.95])
def test_a_gap_that_is_not_smaller_is_no_help(after):
    found = judgement(planted("BN808"), after)
    assert found.outcome is Outcome.NO_HELP
    finding = found.finding
    assert (finding.code, finding.severity, finding.claim) == (
        "BN820",
        Severity.ERROR,
        NO_HELP.summary,
    )
    assert f"from 0.9 to {after:g} std" in finding.message
    assert finding.evidence["cause"] == "BN808"
    assert finding.hint == NO_HELP.hint  # BN808's says what was just tried


def test_calls_that_differ_are_no_batches_that_do():
    """A layer that a batch calls twice: the calls may differ, and the batches be alike."""
    capture = planted("BN806", gap=0.4)
    layers = [replace(each, calls=2) if each.state else each for each in capture.layers]
    twice = replace(capture, layers=tuple(layers))
    causes = found_in(capture)
    places = tuple(each.name for each in capture.norms)
    differ = replace(causes.findings[0], places=places)
    assert differ.code == "BN806"
    causes = replace(causes, findings=(differ,))
    assert judged(recalibrated(capture), Goal.TRAINING, causes).outcome is Outcome.UNTOLD
    assert judged(recalibrated(twice), Goal.TRAINING, causes).outcome is Outcome.HELPS


def test_layers_that_were_not_chosen_are_named_where_they_are_the_cause():
    layer = found_in(planted("BN808")).findings[0].evidence["layer"]
    found = judgement(planted("BN808"), 0.9, left={layer: "not chosen"}).finding
    assert f"The cause at {layer} (BN808, likely): " in found.detail
    assert found.hint == f"Choose {layer} too: name them with --layer, or leave --layer out."


def test_batches_of_one_domain_are_not_repaired_where_the_gap_is_at_its_floor():
    found = judgement(planted("BN806", gap=0.21), 0.2)
    assert found.outcome is Outcome.NO_HELP
    assert found.finding.evidence["cause"] == "BN806"
    assert "(BN806, certain): the batches' means" in found.finding.detail
    assert found.finding.hint != NO_HELP.hint


def test_what_new_statistics_cannot_repair_is_named_before_what_they_would():
    stored = found_in(planted("BN808"))
    differ = found_in(planted("BN806")).findings
    both = replace(stored, findings=(*stored.findings, *differ))
    found = judged(recalibrated(planted("BN808"), 0.95), Goal.TRAINING, both)
    assert found.finding.evidence["cause"] == "BN806"


def test_the_gap_does_not_tell_whether_batches_of_one_domain_are_repaired():
    found = judgement(planted("BN806", gap=0.4), 0.2)
    assert found.outcome is Outcome.UNTOLD
    assert found.finding.certainty is Certainty.LIKELY
    assert found.finding.evidence["cause"] == "BN806"
    told = judgement(planted("BN806", gap=0.4), 0.2, metrics=metric(0.3, 0.5))
    assert told.outcome is Outcome.HELPS
    assert [each.code for each in told.others] == ["BN806"]


def test_a_healthy_model_has_nothing_to_repair():
    assert judgement(healthy()).outcome is Outcome.NOTHING
    assert judgement(healthy(gap=0.29)).outcome is Outcome.NOTHING  # 0.09 std are not worth it
    assert judgement(healthy(gap=0.0, floor=0.0), 0.0).outcome is Outcome.NOTHING


def test_a_metric_that_gets_better_counts_for_more_than_a_small_gap():
    better, worse = metric(0.5, 0.6, 0.6), metric(0.6, 0.5, 0.6)
    small = healthy(gap=0.29)
    assert judgement(small, 0.2, Goal.MAX, metrics=better).outcome is Outcome.HELPS
    assert judgement(small, 0.2, Goal.MAX, metrics=worse).outcome is Outcome.NOTHING


def test_a_metric_that_stays_as_it_is_did_not_get_better():
    found = judgement(planted("BN808"), metrics=metric(1.0, 1.0, 1.0))
    assert found.outcome is Outcome.NO_HELP
    assert (
        found.finding.message == "new statistics do not help: the metric stays at 1 (1 in training)"
    )
    assert "goes from 0.9 to 0.2 std" in found.finding.detail


def test_a_gap_well_above_its_floor_is_something():
    assert judgement(healthy(gap=0.36)).outcome is Outcome.HELPS
    assert judgement(healthy(gap=0.36), 0.37).outcome is Outcome.NO_HELP


@pytest.mark.parametrize(("number", "gap"), [(1, 0.45), (2, 0.38), (4, 0.33)])
def test_a_few_batches_fit_their_own_statistics_too_well(number, gap):
    shown = pictures(number=number, samples=64)
    few = network(shown, shown, gap=gap)
    assert judgement(few).outcome is Outcome.NOTHING
    assert judgement(replace(few, outputs=outputs(0.6, 0.2))).outcome is Outcome.HELPS


def test_what_a_layer_stores_is_no_chance_where_there_are_a_few_batches():
    shown = pictures(number=2, samples=64)
    reset = network(shown, shown, gap=0.38, middle={"mean": 0.0, "var": 1.0, "counter": 0})
    assert {each.code for each in found_in(reset).findings} & {"BN101", "BN102"}
    assert judgement(reset).outcome is Outcome.HELPS


def test_frozen_layers_that_are_off_are_nothing_to_repair():
    capture = replace(planted("BN815"), outputs=outputs(0.0, 0.0))
    assert judgement(capture, 0.4).outcome in {Outcome.NOTHING, Outcome.NO_HELP}


def test_what_was_not_measured_is_not_known():
    found = judgement(planted("BN806"), None, checked=False, gap_before=None)
    assert found.outcome is Outcome.UNKNOWN
    assert [each.code for each in found.others] == ["BN806"]
    assert judgement(planted("BN808"), None).outcome is Outcome.UNKNOWN
    assert judgement(planted("BN808"), 0.2, gap_before=None).outcome is Outcome.UNKNOWN


def test_outputs_that_were_nan_in_evaluation_are_repaired_where_they_no_longer_are():
    spread = outputs(0.9, 0.2)[0]
    nan = replace(spread, apart={**spread.apart, Propagation.EVAL: math.nan})
    capture = replace(planted("BN808"), outputs=(nan,))
    assert capture.gap(Propagation.EVAL) is None
    assert judgement(capture).outcome is Outcome.HELPS
    assert judgement(capture, None).outcome is Outcome.UNKNOWN
    both = replace(nan, squares=np.array([math.nan, 1.0]))
    assert judgement(replace(capture, outputs=(both,))).outcome is Outcome.UNKNOWN


def change(mean, var=1.0, name="middle"):
    """A layer that stores a mean of 0 and a variance of 1, and what it becomes."""
    state = BatchNormState(name, running_mean=np.zeros(2), running_var=np.ones(2))
    new = np.full((2, 2), (mean, var)).T
    return LayerChange(name, state, *new, 100, 10, 10, np.full(2, 0.05))


@pytest.mark.parametrize("metrics", [{}, {"training": 0.8, "before": 0.7, "after": 0.7}])
def test_a_file_that_was_repaired_is_no_error_whatever_else_is_wrong(metrics):
    capture = planted("BN811", gap=0.2)
    found = judgement(capture, 0.2, layers=(change(0.001, 1.001),), metrics=metrics)
    assert found.outcome is Outcome.NOTHING
    assert "BN811" in [each.code for each in found.others]
    for moves in (change(0.02), change(0.0, 1.05), change(math.nan)):
        layers = (change(0.0), moves)
        found = judgement(capture, 0.2, layers=layers, metrics=metrics)
        assert found.outcome is Outcome.NO_HELP


# ---------------------------------------------- by the metric


def metric(before, after, training=0.5, chance=None):
    numbers = {"training": training, "before": before, "after": after}
    return numbers if chance is None else {**numbers, "chance": chance}


@pytest.mark.parametrize(
    ("goal", "numbers", "helps"),
    [
        (Goal.MAX, metric(0.4, 0.45), True),
        (Goal.MAX, metric(0.45, 0.4), False),
        (Goal.MAX, metric(0.4, 0.4), False),
        (Goal.MAX, metric(0.7, 0.6), False),
        (Goal.MIN, metric(0.4, 0.45), False),
        (Goal.MIN, metric(0.45, 0.4), True),
        (Goal.MIN, metric(0.4, 0.45, chance=0.0), False),  # what was said comes first
        (Goal.TRAINING, metric(0.4, 0.45), True),
        (Goal.TRAINING, metric(0.45, 0.56), False),
        (Goal.TRAINING, metric(0.45, 0.55), False),  # as far on the other side
        (Goal.TRAINING, metric(0.4, 0.9, chance=0.1), True),  # more is better, and beyond training
        (Goal.TRAINING, metric(0.9, 0.5, chance=0.1), False),
        (Goal.TRAINING, metric(0.1, 0.4, chance=3.0), False),  # a loss that gets nearer, but worse
        (Goal.TRAINING, metric(0.7, 0.1, chance=3.0), True),
        (Goal.TRAINING, metric(math.nan, 0.4), True),
        (Goal.MIN, metric(math.nan, 0.4), True),
        (Goal.MAX, metric(0.4, math.nan), False),
        (Goal.TRAINING, metric(0.4, math.nan), False),
        (Goal.TRAINING, metric(0.4, 0.45, chance=math.nan), True),
    ],
)
@pytest.mark.parametrize("after", [0.2, 0.95])
def test_the_metric_decides_where_there_is_one(goal, numbers, helps, after):
    found = judgement(planted("BN808"), after, goal, metrics=numbers)
    assert found.outcome is (Outcome.HELPS if helps else Outcome.NO_HELP)
    if not helps:
        assert "the metric " in found.finding.message
        assert f"goes from 0.9 to {after:g} std" in found.finding.detail
        assert found.finding.evidence["metric_before"] is numbers["before"]


def test_a_healthy_model_is_let_be_whatever_the_metric_says():
    found = judgement(healthy(), 0.2, Goal.MAX, metrics=metric(0.4, 0.401))
    assert found.outcome is Outcome.NOTHING


def test_a_metric_may_get_better_where_the_gap_is_small_and_above_its_floor():
    small = healthy(gap=0.29)
    for after, outcome in ((0.45, Outcome.HELPS), (0.35, Outcome.NOTHING)):
        found = judgement(small, 0.2, Goal.MAX, metrics=metric(0.4, after))
        assert found.outcome is outcome
    shown = pictures(number=2, samples=64)
    few = network(shown, shown, gap=0.38)
    found = judgement(few, 0.2, Goal.MAX, metrics=metric(0.4, 0.45))
    assert found.outcome is Outcome.NOTHING


def test_frozen_layers_that_change_are_judged_by_the_metric():
    """In training, too, they normalise by what they store, so that there is no gap."""
    capture = replace(planted("BN815"), outputs=outputs(0.0, 0.0))
    (name,) = [layer.name for layer in capture.norms if layer.frozen]
    for goal, outcome in ((Goal.MAX, Outcome.HELPS), (Goal.MIN, Outcome.NOTHING)):
        layers = (change(1.0, name=name),)
        found = judgement(capture, 0.4, goal, layers=layers, metrics=metric(0.4, 0.8, 0.4))
        assert found.outcome is outcome


def test_what_wrong_pairs_tell_is_said():
    found = judgement(planted("BN807"), metrics=metric(0.1, 0.4, 0.3, chance=3.0))
    assert "paired with the wrong samples give 3, so less is better" in found.finding.detail
    found = judgement(planted("BN807"), metrics=metric(0.4, 0.3, 0.3, chance=0.1))
    assert "so more is better" in found.finding.detail
    silent = judgement(planted("BN807"), metrics=metric(0.3, 0.4, 0.3))
    assert "paired" not in silent.finding.detail
    told = judgement(planted("BN807"), 0.2, Goal.MAX, metrics=metric(0.4, 0.3, 0.3, chance=0.1))
    assert "paired" not in told.finding.detail  # --metric-goal decides, and not the pairs


@pytest.mark.parametrize(
    ("training", "chance", "way"),
    [(0.9, 0.2, 1), (0.3, 3.0, -1), (0.3, 0.3, None), (0.3, None, None), (math.nan, 1.0, None)],
)
def test_the_better_way_is_away_from_chance(training, chance, way):
    numbers = metric(0.0, 0.0, training, chance)
    assert better_way(recalibrated(healthy(), metrics=numbers)) == way


@pytest.mark.parametrize("code", IN_RECALIBRATIONS)
def test_what_is_planted_is_found(code):
    assert IN_RECALIBRATIONS[code]().code == code
