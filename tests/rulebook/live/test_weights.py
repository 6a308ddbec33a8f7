"""Statistics of other weights, and of single layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncli.report import Certainty, Severity
from bncli.rulebook.live.causes import diagnosis
from tests.rulebook.live import faults
from tests.rulebook.live.captures import capture, watched
from tests.rulebook.live.faults import network, pictures


def test_a_reference_decides_between_data_and_statistics():
    """The same layers on the training data: do they fit?"""
    shown = faults.noisy_pictures().capture
    trained = network()  # whose middle layer sees what the stored means are of
    middle = watched("middle", [each + 0.2 for each in pictures(1, channels=8)], order=2)
    layers = (middle if each.name == "middle" else each for each in trained.layers)
    found = diagnosis(shown, reference=replace(trained, layers=tuple(layers)))
    (finding,) = found.findings
    assert (finding.code, finding.certainty) == ("BN810", Certainty.CERTAIN)
    other = faults.statistics_of_another_checkpoint().capture
    (finding,) = diagnosis(other, reference=other).findings
    assert (finding.code, finding.certainty) == ("BN807", Certainty.CERTAIN)


def test_a_gap_without_a_layer_is_a_note_if_there_were_enough_batches():
    (finding,) = diagnosis(network(gap=0.3)).findings
    assert (finding.code, finding.severity) == ("BN814", Severity.INFO)
    few = pictures(number=4)
    assert diagnosis(network(few, few, gap=0.3)).findings == ()


def test_statistics_that_are_a_little_old_are_told_by_their_distance():
    """No layer is off by a tenth, but the stored means are where no average of batches is."""
    rng = np.random.default_rng(3)
    layers = []
    for order, name in enumerate(("first", "middle", "last"), 1):
        batches = [rng.normal(0, 1, (256, 8, 4, 4)) for _ in range(16)]
        layers.append(watched(name, batches, order=order, mean=0.07, weight=1))
    found = diagnosis(capture(*layers, gap=0.3))
    assert all(each.error < 0.1 for each in found.measures)
    assert found.cause == "statistics-of-other-weights"
    assert found.findings[0].certainty is Certainty.LIKELY
    assert diagnosis(capture(*layers, gap=0.2)).findings == ()


def test_two_layers_that_stand_out_are_two_findings():
    layers = [watched(f"n{i}", pictures(i), order=i) for i in range(1, 9)]
    for at in (2, 5):
        layers[at] = watched(f"n{at + 1}", pictures(at + 1), order=at + 1, var=40.0)
    found = diagnosis(capture(*layers, gap=0.9))
    assert {(each.code, each.subject) for each in found.findings} == {
        ("BN808", "n3"),
        ("BN808", "n6"),
    }


def test_many_layers_that_are_off_alike_are_of_one_cause():
    layers = [watched(f"n{i}", pictures(i), order=i, mean=0.9, var=2.0) for i in range(1, 9)]
    (finding,) = diagnosis(capture(*layers, gap=0.9)).findings
    assert finding.code == "BN807"
    assert len(finding.places) == 8


def test_an_average_is_named_by_its_counter():
    shown = faults.statistics_of_another_checkpoint().capture
    shown = replace(shown, source={"checkpoint": {"path": "swa.pt", "n_averaged": 30}})
    (finding,) = diagnosis(shown).findings
    assert "an average of 30 sets (n_averaged)" in finding.detail


def test_a_gap_that_is_clear_is_not_passed_for_few_batches():
    few = pictures(number=4)
    (finding,) = diagnosis(network(few, few, gap=0.9)).findings
    assert (finding.code, finding.severity) == ("BN814", Severity.WARNING)


def test_a_single_batch_has_no_floor_to_judge_by():
    one = pictures(number=1)
    codes = [each.code for each in diagnosis(network(one, one, gap=0.9)).findings]
    assert "BN814" not in codes


def test_layers_behind_the_first_are_not_judged_by_batches_of_one():
    single = pictures(number=64, samples=1)
    shown = network(single, pictures(), middle={"var": 30.0}, gap=0.9)
    assert not [each for each in diagnosis(shown).findings if each.code in ("BN807", "BN814")]
