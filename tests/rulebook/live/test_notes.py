"""What is said of a capture and explains no gap."""

from __future__ import annotations

from dataclasses import replace

from bncli.rulebook.live.causes import diagnosis, observations
from tests.rulebook.live import faults
from tests.rulebook.live.faults import PLANTED, changed, network


def test_frozen_layers_are_named_with_the_worst_first():
    shown = network(first={"var": 50.0}, middle={"var": 30.0})
    shown = changed(changed(shown, "first", frozen=True), "middle", frozen=True)
    (finding,) = diagnosis(shown).findings
    assert finding.places == ("middle", "first")
    assert finding.message.startswith("2 of 2 frozen layers are off")


def test_frozen_layers_that_fit_are_not_named():
    assert not diagnosis(changed(network(), "middle", frozen=True)).findings


def test_a_refused_training_says_what_pytorch_said():
    (finding,) = diagnosis(faults.one_value_a_channel().capture).findings
    assert finding.subject == "head"
    assert finding.detail.startswith("Expected more than 1 value per channel")


def test_observations_are_facts_alone():
    spoilt = faults.one_layer_spoilt().capture
    assert observations(spoilt) == []
    moved = replace(spoilt, weights_moved=True, settled=False, still_training=("drop",))
    assert [each.code for each in observations(moved)] == ["BN803", "BN819", "BN818"]


def test_where_weights_moved_no_layer_is_blamed_for_them():
    for code in ("BN806", "BN807", "BN808"):
        case = PLANTED[code]()
        moved = replace(case.capture, weights_moved=True)
        found = diagnosis(moved, case.trials)
        codes = [each.code for each in found.findings if each.code.startswith("BN8")]
        assert codes in (["BN819"], ["BN806", "BN819"]), code
        assert {
            place for each in found.findings if each.code == "BN806" for place in each.places
        } <= {"the model's input"}
