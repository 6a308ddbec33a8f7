"""What causes are judged by: the gap, what closes, and who is blamed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.model.capture import Capture, Trial, Trials
from bncli.rulebook.live.evidence import at_layers, evidence
from bncli.rulebook.live.weights import SPOILT
from tests.rulebook.live import faults
from tests.rulebook.live.faults import changed, network


def test_the_ratio_is_the_gap_over_its_floor():
    assert evidence(network(gap=0.6, floor=0.2)).ratio == pytest.approx(3)
    assert evidence(network(gap=0.6, floor=0.0)).ratio is None
    assert evidence(replace(network(), outputs=())).ratio is None


@pytest.mark.parametrize(("gap", "real"), [(0.219, False), (0.221, True)])
def test_a_gap_within_a_tenth_of_its_floor_is_not_real(gap, real):
    assert evidence(network(gap=gap, floor=0.2)).real is real


def test_what_is_not_known_may_be_a_gap():
    assert evidence(replace(network(), outputs=())).real


def test_what_closes_is_relative_to_what_can():
    found = evidence(network(gap=1.0, floor=0.2))
    assert found.capture.closes(Trial("one", "a alone", ("a",), 0.4)) == pytest.approx(0.75)
    assert found.capture.closes(Trial("one", "a alone", ("a",), 1.2)) == pytest.approx(-0.25)
    assert found.capture.closes(Trial("one", "a alone", ("a",), None)) is None
    at_floor = evidence(network(gap=0.2, floor=0.2))
    assert at_floor.capture.closes(Trial("all", "all layers", (), 0.2)) is None


def test_the_best_of_a_kind():
    trials = (
        Trial("one", "first alone", ("first",), 0.8),
        Trial("one", "middle alone", ("middle",), 0.5),
        Trial("all", "all layers", ("first", "middle", "last"), 0.2),
        Trial("input", "input divided by 255", (), None),
    )
    found = evidence(network(gap=1.0, floor=0.2), Trials(trials))
    assert found.best("one") == (trials[1], pytest.approx(0.625))
    assert found.best() == (trials[2], pytest.approx(1))
    assert found.best("input") is None
    assert evidence(network()).best() is None


def test_who_is_blamed():
    shown = network(middle={"var": 30.0})
    assert [each.name for each in evidence(shown).blamed] == ["middle"]
    assert not evidence(changed(shown, "middle", frozen=True)).blamed
    assert not replace(evidence(shown), excused=frozenset({"middle"})).blamed
    assert not evidence(faults.batches_of_two().capture).blamed  # the stored numbers are right


def test_the_first_layer_tells_whether_weights_and_statistics_fit():
    assert evidence(network()).fits is True
    assert evidence(faults.statistics_of_another_checkpoint().capture).fits is False
    assert evidence(Capture(())).fits is None
    assert evidence(faults.pictures_not_divided_by_255().capture).elsewhere
    assert not evidence(network()).elsewhere


def test_a_finding_stands_at_its_layers():
    finding = at_layers(SPOILT, ["b", "a"], "off", {"number": 3})
    assert (finding.subject, finding.places) == ("b", ("b", "a"))
    assert finding.evidence == {
        "layer": "b",
        "layers": ["b", "a"],
        "cause": SPOILT.name,
        "number": 3,
    }


def test_a_reference_gives_its_data_and_not_its_own_statistics():
    """One variance is spoilt in the file that is judged, and right in that of the training data."""
    spoilt = network(middle={"var": 30.0})
    found = evidence(spoilt, reference=network())
    assert found.reference["middle"].blamed
    assert not found.reference["first"].blamed
