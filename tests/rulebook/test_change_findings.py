"""What is said of a layer's state, and how bad it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.model import BatchNormModule
from bncli.model.changes import Comparison, Found, How, LayerVersion, Measures, Same, State
from bncli.report import Certainty, Severity
from bncli.rulebook.change_findings import RULES_OF, change_findings
from bncli.rulebook.changes import STATES, Expectation, Expected
from tests.rulebook.layers import beyond_its_rule, ill_said
from tests.rulebook.versions import PLANTED, TRAINED, compared, layer

WARNING, NOTE = Severity.WARNING, Severity.INFO


@pytest.mark.parametrize("code", PLANTED)
def test_each_rule_makes_its_finding(code):
    finding = PLANTED[code]()
    assert finding.code == code
    assert finding.path == "b.pt"
    keys = ("code", "severity", "subject", "message", "detail", "hint", "certainty")
    told = {key: getattr(finding, key) for key in keys}
    assert not list(ill_said(told))
    assert not list(beyond_its_rule([told]))


@pytest.mark.parametrize("state", sorted(set(State) - set(RULES_OF)))
def test_what_is_healthy_has_no_finding(state):
    assert not compared(TRAINED, layer(state))


@pytest.mark.parametrize(
    ("others", "numbers", "severity"),
    [
        ((TRAINED,), {"cause": "own", "own_moved": True}, WARNING),
        ((), {"cause": "own", "own_moved": True}, NOTE),
        ((), {"cause": "own", "own_moved": True, "counted": True}, WARNING),
        ((TRAINED,), {"cause": "before", "own_moved": False}, NOTE),
        ((TRAINED,), {"cause": "before", "own_moved": None}, WARNING),
        ((layer(State.IDENTICAL, "x"),), {"cause": "own", "own_moved": True}, NOTE),
    ],
)
def test_weights_alone_are_a_warning_where_training_moved_statistics(others, numbers, severity):
    (finding,) = compared(*others, layer(State.WEIGHTS, **numbers))
    assert finding.severity is severity


def test_statistics_of_all_layers_may_have_been_estimated_again():
    (alone,) = compared(layer(State.STATISTICS, before=Same.SAME))
    (beside,) = compared(TRAINED, layer(State.STATISTICS, before=Same.SAME))
    assert "update_bn" in alone.hint
    assert "eval()" in beside.hint
    assert "update_bn" not in beside.hint


def test_statistics_that_no_batch_moved_may_be_those_of_recalibrate_unless_weights_moved_too():
    still = Measures(0, z_max=1.0, var_ratio_min=0.5, var_ratio_max=1.5, weight_change=0)
    (alone,) = compared(layer(State.STATISTICS, measures=still))
    (beside,) = compared(TRAINED, layer(State.STATISTICS, measures=still))
    assert alone.hint.startswith("If bncli recalibrate made the second file, nothing needs fixing.")
    assert beside.hint.startswith("Find out what wrote these statistics: another rank")


def test_statistics_of_a_layer_that_a_relu_cuts_off_are_a_note():
    (finding,) = compared(TRAINED, layer(State.STATISTICS, cause="dead"))
    assert finding.severity is NOTE


def test_a_claim_has_the_numbers():
    measures = Measures(40, z_max=2.914, var_ratio_min=0.5, var_ratio_max=1.5, weight_change=0)
    (finding,) = compared(TRAINED, layer(State.STATISTICS, measures=measures))
    assert "moved by up to 2.91 std in 40 batches" in finding.message
    (finding,) = compared(
        TRAINED, layer(State.STATISTICS, measures=replace(measures, batches=0, z_max=0.0))
    )
    assert "moved (a variance fell to 0.5 of what it was), " in finding.message
    assert "no batch in train() did this" in finding.detail


def test_the_claims_of_many_layers_are_one():
    layers = [
        layer(State.STATISTICS, f"bn{at}", measures=Measures(40, z_max=at, var_ratio_min=1.0))
        for at in range(4)
    ]
    assert {finding.message for finding in compared(TRAINED, *layers)} == {"it is statistics-moved"}
    few = compared(TRAINED, *layers[:3])
    assert {finding.evidence["z_max"] for finding in few} == {0, 1, 2}
    assert all(finding.message.startswith("the statistics moved") for finding in few)


@pytest.mark.parametrize(
    ("state", "numbers", "severity"),
    [
        (State.ORDER, {"convolution": "same order"}, NOTE),
        (State.ORDER, {"convolution": "not permuted"}, WARNING),
        (State.FOLDED, {"fault": None}, NOTE),
        (State.FOLDED, {"fault": "mean-not-folded"}, WARNING),
        (State.CONVENTION, {"cause": "affine-only"}, NOTE),
        (State.CONVENTION, {"cause": "few-roundings"}, NOTE),
        (State.CONVENTION, {"cause": "swapped"}, WARNING),
        (State.DIFFERENT, {}, NOTE),
        (State.LOST, {"cause": "gone"}, WARNING),
        (State.LOST, {"cause": "not-folded"}, WARNING),
        (State.CONVENTION, {"cause": "eps"}, WARNING),
        (State.WEIGHTS, {"cause": "kernel-transposed", "own_moved": False}, WARNING),
        (State.WEIGHTS, {"cause": "eight-bits", "own_moved": False}, NOTE),
    ],
)
def test_how_bad_a_state_is(state, numbers, severity):
    (finding,) = compared(TRAINED, layer(state, **numbers))
    assert finding.severity is severity


def test_a_fold_whose_bias_is_not_known_is_not_said_to_be_right():
    (right,) = compared(TRAINED, layer(State.FOLDED, bias_known=True))
    (unknown,) = compared(TRAINED, layer(State.FOLDED, bias_known=False))
    assert right.hint == "Nothing needs fixing."
    assert "the bias could not be compared" in unknown.hint


@pytest.mark.parametrize(
    ("count", "batches", "severity"), [(2, 40, NOTE), (1, 40, WARNING), (2, -40, WARNING)]
)
def test_a_copy_that_takes_over_the_tensors_of_several_layers_is_ordinary(count, batches, severity):
    found = compared(
        *(
            layer(
                State.ORDER,
                f"target.{number}",
                measures=Measures(batches),
                cause="other-layer",
                holds=f"online.{number}",
                branch=True,
            )
            for number in range(count)
        )
    )
    assert {finding.severity for finding in found} == {severity}


def test_a_layer_of_a_part_that_the_other_file_lacks_is_no_loss():
    assert not compared(TRAINED, layer(State.LOST, cause="alone"))


def test_an_expectation_says_what_happened():
    trained = layer(State.TRAINED, cause="trained")
    asked = Expectation(Expected.FROZEN, lambda name: name == "bn")
    (finding,) = compared(trained, expected=[asked])
    assert finding.message.startswith("not frozen: trained on ")


@pytest.mark.parametrize("state", [State.IDENTICAL, State.COUNTER, State.STATISTICS])
def test_what_was_not_trained_is_asked_why(state):
    asked = Expectation(Expected.TRAINED, lambda name: name == "bn")
    (finding,) = compared(layer(state, cause="identical"), expected=[asked])
    assert finding.message.startswith("not trained: identical, ")
    assert "why the layer was not trained" in finding.hint
    frozen = Expectation(Expected.FROZEN, lambda name: name == "bn")
    (finding,) = compared(layer(State.STATISTICS), expected=[frozen])
    assert "eval()" in finding.hint


def test_a_note_on_what_was_asked_for_is_left_out():
    folded = layer(State.FOLDED)
    assert [each.code for each in compared(folded)] == ["BN616"]
    asked = Expectation(Expected.FOLDED, lambda name: name == "bn")
    assert compared(folded, expected=[asked]) == []


@pytest.mark.parametrize("wanted", Expected)
@pytest.mark.parametrize("state", State)
def test_expectations(wanted, state):
    asked = Expectation(wanted, lambda name: name == "bn")
    found = compared(TRAINED, layer(state), expected=[asked])
    met = state in STATES[wanted]
    assert [finding.code for finding in found if finding.code == "BN620"] == ["BN620"] * (not met)
    assert len(found) <= 1  # the error stands for what the state says by itself
    assert all(finding.severity is Severity.ERROR for finding in found if not met)


def test_a_wrong_fold_does_not_meet_an_expectation():
    asked = Expectation(Expected.FOLDED, lambda name: name == "bn")
    (finding,) = compared(layer(State.FOLDED, fault="mean-not-folded"), expected=[asked])
    assert (finding.code, finding.instead_of) == ("BN620", ("BN616",))


def test_networks_that_were_trained_apart_have_one_finding():
    apart = [layer(State.DIFFERENT, name, cause="unrelated") for name in ("bn1", "bn2", "bn3")]
    (finding,) = compared(*apart)
    assert (finding.code, finding.severity) == ("BN621", NOTE)
    assert finding.places == ("bn1", "bn2", "bn3")
    asked = Expectation(Expected.TRAINED, lambda name: name != "bn3")
    found = compared(*apart, expected=[asked])
    assert [each.code for each in found] == ["BN620", "BN620", "BN621"]
    assert found[2].places == ("bn3",)


def exported(found, first=False, second=True, containers=("torch", "onnx")):
    modules = [BatchNormModule("BatchNorm", 1e-5, 0.1, training=each) for each in (first, second)]
    made = LayerVersion("bn", "bn", How.NAME, Certainty.CERTAIN, found, modules=tuple(modules))
    return change_findings(Comparison("a.pt", "b.onnx", "", "", (made,), containers=containers))


def test_a_file_that_was_exported_in_training_mode_is_told():
    (finding,) = exported(Found(State.IDENTICAL))
    assert (finding.code, finding.subject, finding.path) == ("BN108", "bn", "b.onnx")
    (finding,) = exported(Found(State.IDENTICAL), True, False, ("torch-export", "onnx"))
    assert finding.path == "a.pt"
    assert exported(Found(State.IDENTICAL), True, True, ("onnx", "onnx")) == []  # no difference
    assert (
        exported(Found(State.IDENTICAL), containers=("torch", "torch")) == []
    )  # a module's mode at saving


def test_statistics_that_an_export_in_training_mode_moved():
    moved, mode = exported(Found(State.STATISTICS, "the statistics moved"))
    assert [moved.code, mode.code] == ["BN611", "BN108"]
    assert "It is likely that the export moved the statistics" in moved.detail
    assert moved.hint.startswith("Call model.eval() before the export")
    moved, _ = exported(Found(State.STATISTICS), containers=("torch", "torch-export"))
    assert "export" not in moved.detail  # which runs nothing with numbers


def test_a_place_is_named_as_the_second_file_names_it():
    found = Found(State.RESET, "it is reset", hint="Estimate them with bncli recalibrate.")
    made = LayerVersion("bn", "block/norm", How.VALUES, Certainty.CERTAIN, found)
    (finding,) = change_findings(Comparison("a.pt", "b.h5", "", "", (made,)))
    assert finding.subject == "bn"
    assert finding.where == "b.h5::block/norm (bn in a.pt)"
    (finding,) = change_findings(
        Comparison("a.pt", "b.h5", "", "", (replace(made, other_name="bn"),))
    )
    assert finding.where == ""


@pytest.mark.parametrize(("container", "can"), [("keras", False), ("safetensors", True)])
def test_recalibrate_is_named_for_files_that_it_writes(container, can):
    found = Found(State.RESET, "it is reset", hint="Estimate them with bncli recalibrate.")
    made = LayerVersion("bn", "bn", How.NAME, Certainty.CERTAIN, found)
    containers = ("torch-zip", container)
    (finding,) = change_findings(Comparison("a", "b", "", "", (made,), containers=containers))
    assert ("bncli recalibrate" in finding.hint) is can
    assert ("in the file's own framework" in finding.hint) is not can
