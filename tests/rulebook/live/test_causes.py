"""Every rule about captures finds its fault, and no healthy capture is blamed."""

from __future__ import annotations

from functools import cache

import pytest

from bncli.model.capture import Capture, Trial, Trials
from bncli.report import Certainty
from bncli.rulebook import RULES
from bncli.rulebook.live.causes import diagnosis, suspects
from bncli.rulebook.live.measures import measures
from tests.rulebook.layers import beyond_its_rule, ill_said
from tests.rulebook.live.captures import (
    capture,
    watched,
)
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


def test_suspects_are_the_worst_that_are_not_frozen():
    shown = network(first={"var": 50.0}, middle={"var": 30.0})
    assert suspects(measures(shown)) == ["middle", "first"]
    assert suspects(measures(changed(shown, "first", frozen=True))) == ["middle"]
    assert set(suspects(measures(network()))) == {"first", "middle", "last"}
    many = capture(*(watched(f"n{i}", pictures(i), order=i, mean=3.0) for i in range(1, 9)))
    assert len(suspects(measures(many))) == 5


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
