"""Every rule about captures finds its fault, and no healthy capture is blamed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from bncli.model.capture import Capture, Trial, Trials
from bncli.report import Certainty, Severity
from bncli.rulebook import RULES
from bncli.rulebook.live.causes import diagnosis, input_suspected, suspects
from bncli.rulebook.live.measures import measures
from tests.rulebook.layers import beyond_its_rule, ill_said
from tests.rulebook.live import faults
from tests.rulebook.live.captures import capture, watched
from tests.rulebook.live.faults import PLANTED, changed, network, pictures

every_fault = pytest.mark.parametrize("code", PLANTED)


@cache
def diagnosed(code):
    case = PLANTED[code]()
    return case, diagnosis(case.capture, case.trials, reference=case.reference)


def as_said(finding):
    """A finding as in JSON."""
    names = ("code", "severity", "certainty", "subject", "message", "detail", "hint")
    return {name: getattr(finding, name) for name in names}


@every_fault
def test_the_planted_fault_is_found(code):
    case, found = diagnosed(code)
    (finding,) = [each for each in found.findings if each.code == code]
    rule = next(each for each in RULES if each.code == code)
    assert finding.subject == case.subject
    assert finding.severity in (rule.severity, rule.milder)
    assert {each.code for each in found.findings} <= {code} | case.besides
    assert len(finding.message) <= 90


@every_fault
def test_the_planted_fault_is_the_cause(code):
    _, found = diagnosed(code)
    name = next(each.name for each in RULES if each.code == code)
    no_causes = {"BN803", "BN816", "BN817", "BN818", "BN819"}
    assert found.cause == (None if code in no_causes else name)


@every_fault
def test_a_finding_is_said_as_its_rule_allows(code):
    _, found = diagnosed(code)
    said = [as_said(each) for each in found.findings]
    assert not list(beyond_its_rule(said))
    for item in said:
        assert not list(ill_said(item))


def test_a_healthy_network_is_not_blamed():
    found = diagnosis(network())
    assert found.findings == ()
    assert found.cause is None
    assert found.ratio == 1


def test_what_is_not_proven_is_not_certain():
    sure = {code for code in PLANTED if _only(code).certainty is Certainty.CERTAIN}
    assert sure == {
        *(f"BN80{n}" for n in (1, 2, 3, 4, 5, 6)),
        *(f"BN81{n}" for n in (2, 4, 5, 6, 7, 8, 9)),
    }


def _only(code):
    return next(each for each in diagnosed(code)[1].findings if each.code == code)


def test_the_map_of_the_input_is_named_with_the_means_of_training():
    finding = _only("BN805")
    assert "divided by 255" in finding.message
    assert "99.99%" in finding.message
    means = np.mean([batch.mean((0, 2, 3)) for batch in pictures()], axis=0)
    assert finding.evidence["training_means"] == pytest.approx(means.tolist(), rel=1e-4)
    assert finding.evidence["input_means"] == pytest.approx((255 * means).tolist(), rel=1e-9)


def test_a_scale_is_likely_where_nothing_was_tried():
    case = faults.pictures_not_divided_by_255()
    (finding,) = diagnosis(case.capture).findings
    assert (finding.code, finding.certainty) == ("BN805", Certainty.LIKELY)


def test_no_map_closes_it_so_the_domain_is_another():
    case = faults.pictures_not_divided_by_255()
    trials = Trials((Trial("input", "input less its own mean", (), 39.0),))
    (finding,) = diagnosis(case.capture, trials).findings
    assert finding.code == "BN810"
    assert "less its own mean" in finding.detail


def test_a_reference_decides_between_data_and_statistics():
    """The same layers on the training data: do they fit?"""
    shown = faults.noisy_pictures().capture
    found = diagnosis(shown, reference=network())
    (finding,) = found.findings
    assert (finding.code, finding.certainty) == ("BN810", Certainty.CERTAIN)
    other = faults.statistics_of_another_checkpoint().capture
    (finding,) = diagnosis(other, reference=other).findings
    assert (finding.code, finding.certainty) == ("BN807", Certainty.CERTAIN)


def test_the_checkpoint_s_own_rules_come_first_and_excuse_their_layers():
    shown = network(middle={"mean": 0.0, "var": 1.0, "counter": 0}, gap=0.9)
    found = diagnosis(shown)
    assert [each.code for each in found.findings if each.severity is not Severity.INFO] == ["BN101"]
    assert found.cause == "never-estimated"


def test_a_momentum_that_is_known_is_named_by_the_checkpoint_s_rule():
    momenta = {"momentum": 0.99}
    shown = network(first=momenta, middle=momenta)
    assert diagnosis(shown).cause == "momentum-inverted"
    frozen = changed(changed(shown, "first", frozen=True), "middle", frozen=True)
    assert diagnosis(frozen).cause is None


def test_batches_that_differ_are_named_beside_a_momentum():
    trained = [batch + 2 * (i % 4) for i, batch in enumerate(pictures())]
    shown = network(trained=trained, first={"momentum": 0.99}, gap=0.5)
    codes = [each.code for each in diagnosis(shown).findings]
    assert codes == ["BN701", "BN806"]


def test_batches_that_differ_without_a_gap_are_a_note():
    layer = watched("only", [batch + 0.6 * (i % 2) for i, batch in enumerate(pictures())])
    (finding,) = diagnosis(capture(layer, gap=0.2, floor=0.2)).findings
    assert (finding.code, finding.severity) == ("BN806", Severity.INFO)
    (finding,) = diagnosis(capture(layer, gap=0.3, floor=0.2)).findings
    assert (finding.code, finding.severity) == ("BN806", Severity.WARNING)


def test_a_gap_without_a_layer_is_a_note_if_there_were_enough_batches():
    (finding,) = diagnosis(network(gap=0.3)).findings
    assert (finding.code, finding.severity) == ("BN814", Severity.INFO)
    few = pictures(number=4)
    assert diagnosis(network(few, few, gap=0.3)).findings == ()


def test_nan_behind_an_impossible_variance_is_explained_by_it():
    shown = faults.nan_in_the_middle().capture
    layer = shown.layers[1]
    var = layer.state.running_var.copy()
    var[0] = -1
    seen = shown.layers[2].seen
    training, evaluation = seen
    clean = {training: network().layers[2].seen[training], evaluation: seen[evaluation]}
    shown = changed(shown, "middle", seen=clean)
    assert "BN804" in {each.code for each in diagnosis(shown).findings}
    broken = changed(shown, "first", state=replace(layer.state, running_var=var))
    codes = {each.code for each in diagnosis(broken).findings}
    assert codes & {"BN203", "BN205"}
    assert "BN804" not in codes


def test_suspects_are_the_worst_that_are_not_frozen():
    shown = network(first={"var": 50.0}, middle={"var": 30.0})
    assert suspects(measures(shown)) == ["middle", "first"]
    assert suspects(measures(changed(shown, "first", frozen=True))) == ["middle"]
    assert set(suspects(measures(network()))) == {"first", "middle", "last"}
    many = capture(*(watched(f"n{i}", pictures(i), order=i, mean=3.0) for i in range(1, 9)))
    assert len(suspects(measures(many))) == 5


def test_the_input_is_suspected_where_the_first_layer_is_off_most():
    def suspected(shown):
        return input_suspected(shown, measures(shown))

    assert suspected(faults.pictures_not_divided_by_255().capture)
    assert suspected(faults.noisy_pictures().capture)
    assert not suspected(network())
    assert not suspected(faults.one_layer_spoilt().capture)
    assert not suspected(faults.statistics_of_another_checkpoint().capture)


def test_nothing_to_judge():
    found = diagnosis(Capture(()))
    assert (found.findings, found.cause, found.closes, found.measures) == ((), None, None, ())


def test_closes_is_the_best_trial_s():
    trials = Trials(
        (
            Trial("one", "middle alone", ("middle",), 0.35),
            Trial("all", "all layers", ("first", "middle", "last"), 0.2),
        )
    )
    shown = network(middle={"var": 30.0}, gap=0.9, floor=0.2)
    assert diagnosis(shown, trials).closes == pytest.approx(1)
    assert diagnosis(shown, Trials(trials.trials[:1])).closes == pytest.approx(0.55 / 0.7)
    assert diagnosis(shown).closes is None
