"""Batches that differ, and what momentum and dropout do."""

from __future__ import annotations

import re
from dataclasses import replace

from bncli.report import Severity
from bncli.rulebook.live.causes import diagnosis
from tests.rulebook.live import faults
from tests.rulebook.live.captures import (
    capture,
    watched,
)
from tests.rulebook.live.faults import changed, network, pictures


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


def test_a_ratio_is_said_without_an_exponent():
    trained = [batch + 40 * (i % 4) for i, batch in enumerate(pictures())]
    (finding,) = diagnosis(network(trained=trained, gap=0.3)).findings
    assert finding.code == "BN806"
    assert re.search(r"vary \d{4,} times as much", finding.message)


def test_a_momentum_that_is_known_is_not_guessed():
    shown = faults.statistics_of_the_last_batch().capture
    for layer in shown.layers:
        module = replace(layer.state.module, momentum=0.99)
        shown = changed(shown, layer.name, state=replace(layer.state, module=module))
    assert "BN809" not in {each.code for each in diagnosis(shown).findings}


def test_small_batches_need_a_gap():
    shown = faults.batches_of_two().capture
    (finding,) = diagnosis(shown).findings
    assert finding.code == "BN811"
    assert finding.evidence["needed"] > finding.evidence["batch_size"] == 2
    at_floor = network(gap=0.2, floor=0.2).outputs
    assert diagnosis(replace(shown, outputs=at_floor)).cause == "batches-too-small"


def test_batches_of_four_need_a_gap():
    """Beyond a handful, an error that small batches explain is no fault by itself."""
    layers = [
        watched(name, pictures(order, 80, 4, bright=3.0), order=order, weight=1.0)
        for order, name in enumerate(("a", "b"), 1)
    ]
    assert diagnosis(capture(*layers, gap=0.3)).cause == "batches-too-small"
    assert diagnosis(capture(*layers, gap=0.2)).cause is None


def test_dropout_is_not_blamed_where_the_statistics_fit_without_it():
    shown = faults.dropout_before_a_layer().capture
    layer = shown.layers[2]
    fitting = faults.network().layers[2].state
    right = replace(layer.state, running_mean=fitting.running_mean, running_var=fitting.running_var)
    codes = {each.code for each in diagnosis(changed(shown, "middle", state=right)).findings}
    assert "BN812" not in codes
