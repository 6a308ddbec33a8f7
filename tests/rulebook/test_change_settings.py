"""eps and momentum as two files store them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.model import BatchNormModule
from bncli.model.changes import Comparison, Eps, Found, How, LayerVersion, Measures, State
from bncli.report import Certainty, Severity
from bncli.rulebook.change_findings import change_findings

TRAINED = Found(State.TRAINED)


def module(eps=1e-5, momentum=0.1, stated=None, **more):
    return BatchNormModule("BatchNorm", eps, momentum, stated_momentum=stated, **more)


def findings(one, two, found=TRAINED):
    layer = LayerVersion("bn", "bn2", How.NAME, Certainty.CERTAIN, found, modules=(one, two))
    return change_findings(Comparison("a.h5", "b.pt", "", "", (layer,)))


def test_another_eps_is_told_beside_what_happened():
    (finding,) = findings(module(1e-3), module(1e-5))
    assert (finding.code, finding.severity, finding.path) == ("BN623", Severity.WARNING, "b.pt")
    assert finding.message == "eps is 0.001 in the first file, 1e-05 in the second"
    assert "eps=0.001" in finding.hint
    assert (finding.evidence["eps"], finding.evidence["other_eps"]) == (1e-3, 1e-5)


@pytest.mark.parametrize("other", [1e-3, 0.0010000000474974513])
def test_one_eps_is_one_in_any_dtype(other):
    assert findings(module(1e-3), module(other)) == []


@pytest.mark.parametrize(
    "found",
    [
        Found(State.IDENTICAL),
        Found(State.ROUNDED),
        Found(State.CONVENTION, numbers={"cause": "eps"}),
        Found(State.FOLDED),
    ],
)
def test_states_that_say_what_it_does_have_no_second_finding(found):
    assert "BN623" not in [each.code for each in findings(module(1e-3), module(), found)]


def test_what_one_file_does_not_store_is_no_difference():
    assert findings(module(1e-3), None) == []
    assert findings(module(1e-3), module(None)) == []


@pytest.mark.parametrize("found", [TRAINED, Found(State.IDENTICAL)])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_momentum_that_was_copied_between_opposite_meanings(found, reverse):
    both = [module(momentum=0.01, stated=0.99, convention="keras3"), module(momentum=0.99)]
    (finding,) = findings(*(both[::-1] if reverse else both), found)
    assert finding.message == "momentum is 0.99 in both files, which mean opposite things by it"
    old, new = ("second", "first") if reverse else ("first", "second")
    assert (
        f"In the {old} file it weighs the old value, in the {new} the new batch" in finding.detail
    )
    assert "momentum=0.01 before" in finding.hint


@pytest.mark.parametrize(
    "two",
    [
        module(momentum=0.01),  # the same, as PyTorch has it
        module(momentum=0.1),  # another one, of the same meaning
        module(momentum=0.1, stated=0.9, convention="onnx"),
        module(momentum=None),
        module(momentum=None, has_momentum=False),
        None,
    ],
)
def test_another_momentum_is_no_fault(two):
    assert findings(module(momentum=0.01, stated=0.99, convention="keras3"), two) == []


def test_a_half_weighs_both_alike():
    assert findings(module(momentum=0.5, stated=0.5), module(momentum=0.5)) == []


TORCH, STORED = Eps(1e-5, "torch"), Eps(1e-3, "stored")
FAR = Measures(var_ratio_min=0.9801, var_ratio_max=0.999)


def half_stored(*pairs, state=State.IDENTICAL, measures=FAR):
    layers = tuple(
        LayerVersion(f"bn{at}", f"bn{at}", How.NAME, Certainty.CERTAIN, Found(state), measures)
        for at in range(len(pairs))
    )
    layers = tuple(replace(layer, eps=pair) for layer, pair in zip(layers, pairs, strict=True))
    return change_findings(Comparison("a.pt", "b.onnx", "", "", layers))


def test_only_the_layers_whose_eps_differs_from_an_assumed_one_are_told():
    same = (TORCH, Eps(1e-5, "stored"))
    (finding,) = half_stored(same, (TORCH, STORED), same)
    assert (finding.code, finding.subject, finding.path) == ("BN623", "bn1", "b.onnx")
    assert (finding.severity, finding.certainty) == (Severity.INFO, Certainty.ASSUMED)
    assert finding.message == (
        "eps is 0.001 in the second file; the first stores none (PyTorch's default is 1e-05)"
    )
    assert finding.detail == "With 1e-05, outputs differ by up to 1%."
    assert "Give the layer eps=0.001 in the network that loads the first file" in finding.hint


def test_an_eps_that_the_first_file_alone_stores():
    both = half_stored((STORED, TORCH), (STORED, TORCH))
    assert [each.subject for each in both] == ["bn0", "bn1"]
    hint = "Give the layers named here eps=0.001 in the network that loads the second file."
    assert [each.hint for each in both] == [hint, hint]


def test_an_assumed_eps_that_changes_nothing_is_not_told():
    assert half_stored((TORCH, STORED), measures=Measures(var_ratio_min=0.99999)) == []
    assert half_stored((TORCH, Eps(1e-3, "keras"))) == []  # a line says that both are assumed
    assert half_stored((TORCH, STORED), state=State.TRAINED) == []
