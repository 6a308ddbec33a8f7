"""What is said of a target, a series and ranks, and how bad it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncli.model.many import Kind, Made, Origin
from bncli.report import Certainty, Severity
from tests.rulebook.gathered import BACK, MEAN, MOVED, ONE, PLANTED, RANKS, of_files, of_target
from tests.rulebook.layers import beyond_its_rule, ill_said

WARNING, NOTE = Severity.WARNING, Severity.INFO


def well_said(finding):
    keys = ("code", "severity", "subject", "message", "detail", "hint", "certainty")
    told = {key: getattr(finding, key) for key in keys}
    assert not list(ill_said(told))
    assert not list(beyond_its_rule([told]))
    assert any(character.isdigit() for character in finding.text)
    return finding


@pytest.mark.parametrize("code", PLANTED)
def test_each_rule_makes_its_finding(code):
    (finding,) = PLANTED[code]()
    well_said(finding)
    assert finding.code == code
    assert finding.severity is WARNING
    assert finding.path
    assert finding.evidence


MEAN_TOO = replace(MEAN, group="statistics")
NONE = Origin("statistics", Made.NONE, "none of these")
SAME = Origin("statistics", Made.SAME, "the same in all files, bit for bit")
SUM = Origin("counters", Made.SUM, "their sum", weights=(1.0, 1.0, 1.0))
INITIAL = Origin("statistics", Made.INITIAL, "an average", initial=0.85, weights=(0.05,) * 3)


@pytest.mark.parametrize(
    "origins",
    [
        (MEAN, MEAN_TOO),
        (MEAN, NONE),  # as update_bn leaves it
        (MEAN, SAME),
        (replace(MEAN, made=Made.FILE), ONE),
        (replace(MEAN, made=Made.NONE), ONE),
        (MEAN, MEAN_TOO, replace(SUM, made=Made.MEAN)),
    ],
)
def test_what_is_made_alike_has_no_finding(origins):
    assert not of_target(*origins)


def test_of_halves_the_one_that_is_averaged_is_named():
    halves = (replace(MEAN, group="weight and bias", made=Made.NONE),)
    halves += (replace(MEAN, group="layers before"),)
    (finding,) = of_target(*halves, replace(ONE, group="running_var"))
    well_said(finding)
    assert finding.message.startswith("running_var is a.pt's, bit for bit")
    assert "layers before are the mean of these 3 files" in finding.detail


def test_an_average_that_is_only_likely_makes_a_finding_that_is():
    (finding,) = of_target(replace(MEAN, certainty=Certainty.LIKELY), ONE)
    assert finding.certainty is Certainty.LIKELY


def test_a_share_of_the_initial_values_is_a_warning():
    (finding,) = of_target(MEAN, INITIAL)
    well_said(finding)
    assert (finding.code, finding.severity) == ("BN617", WARNING)
    assert finding.message == "85% of the statistics is still the initial 0 and 1"
    (about,) = of_target(MEAN, replace(INITIAL, certainty=Certainty.LIKELY))
    assert about.message.startswith("about 85%")


def test_summed_counters_are_a_note_and_summed_tensors_a_warning():
    (finding,) = of_target(MEAN, MEAN_TOO, SUM)
    well_said(finding)
    assert finding.severity is NOTE
    (finding,) = of_target(MEAN, replace(MEAN_TOO, made=Made.SUM), SUM)
    well_said(finding)
    assert finding.severity is WARNING
    assert finding.subject == "statistics"


@pytest.mark.parametrize(("back", "severity"), [(True, WARNING), (False, NOTE), (None, NOTE)])
def test_a_jump_that_comes_back_is_worse_than_one_that_stays(back, severity):
    (finding,) = of_files(jumps=(replace(BACK, back=back),))
    well_said(finding)
    assert finding.severity is severity
    assert finding.path == "b.pt"
    assert finding.message == "the means move by 6 std, the variances are 1000 times as large"


def test_a_way_that_is_infinitely_far_is_told():
    (finding,) = of_files(jumps=(replace(BACK, times=float("inf"), layers=("bn1",)),))
    well_said(finding)
    assert finding.evidence["times"] is None


@pytest.mark.parametrize(("moved", "severity"), [(True, WARNING), (False, NOTE), (None, NOTE)])
def test_layers_that_stand_still_are_worse_where_their_weights_move(moved, severity):
    still = replace(MOVED, weights_moved=moved, layers=("bn1", "bn2", "bn3"))
    (finding,) = of_files(stills=(still,))
    well_said(finding)
    assert finding.severity is severity
    assert "bn2 and bn3" in finding.detail


def test_ranks_are_a_warning_and_clients_a_note():
    (ranks,) = of_files(Kind.RANKS, ranks=RANKS)
    (clients,) = of_files(Kind.CLIENTS, ranks=RANKS)
    assert (ranks.severity, clients.severity) == (WARNING, NOTE)
    well_said(clients)
    assert "clients or separate runs" in clients.detail
    assert not of_files(Kind.APART, ranks=RANKS)


def test_counts_that_explain_the_ratio_are_named():
    (finding,) = of_files(Kind.RANKS, ranks=replace(RANKS, factor=1.037647, counts=(18, 50)))
    well_said(finding)
    assert (
        finding.message
        == "running_var of b.pt is 1.0376 times the first other file's in every channel"
    )
    assert "n = 18 and m = 50" in finding.detail


@pytest.mark.parametrize(
    ("weights", "said"), [((0.13, 0.12, 0.25), "50%"), ((1.0, 0.5, 0), "150%")]
)
def test_weights_that_do_not_add_up_are_a_warning(weights, said):
    row = Origin("running_var", Made.WEIGHTED, "a weighted sum", weights=weights)
    (finding,) = of_target(MEAN, row)
    well_said(finding)
    assert finding.message == f"the weights of running_var add up to {said}, not 100%"
    assert finding.severity is WARNING


@pytest.mark.parametrize("weights", [(0.2, 0.3, 0.5), (1.0, 1.0, -1.0), (0.3, 0.3, 0.399)])
def test_weights_that_add_up_are_fine(weights):
    assert not of_target(MEAN, Origin("statistics", Made.WEIGHTED, "a sum", weights=weights))
    short = Origin("statistics", Made.WEIGHTED, "a sum", weights=(0.1, 0.1), unique=False)
    assert not of_target(MEAN, short)
