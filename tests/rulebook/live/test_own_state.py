"""The checkpoint's own rules on a running model's layers."""

from __future__ import annotations

import re
from dataclasses import replace

from bncli.report import Severity
from bncli.rulebook.live.causes import diagnosis
from bncli.rulebook.live.own_state import as_stored
from tests.rulebook.live.faults import changed, network


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


def test_a_momentum_of_all_layers_is_said_once_with_what_it_did():
    fast = {"momentum": 0.99}
    shown = network(first=fast | {"var": 0.01}, middle=fast, gap=2.0)
    (finding,) = [each for each in diagnosis(shown).findings if each.code == "BN701"]
    assert finding.places == ("first", "middle")
    assert re.search(
        r"Layer first is off most: in channel \d+ running_var is 0.01, and the data's variance",
        finding.detail,
    )


def test_a_layer_is_as_a_checkpoint_would_hold_it():
    layer = network().layers[1]
    stored = as_stored(layer)
    assert stored.shapes["running_var"] == (12,)
    assert stored.shapes["num_batches_tracked"] == ()
    assert (stored.eps, stored.momentum) == (1e-5, 0.1)
    assert not stored.eps_assumed
    assert not stored.momentum_assumed
    assert as_stored(replace(layer, frozen=True)).momentum is None


def test_a_low_variance_that_the_data_disprove_is_no_cause():
    """One channel's running_var was spoilt; its input does vary."""
    shown = network()
    state = shown.layers[2].state
    var = state.running_var.copy()
    var[3] = 1e-8
    shown = replace(shown, outputs=network(gap=0.9).outputs)
    found = diagnosis(changed(shown, "middle", state=replace(state, running_var=var)))
    assert found.cause == "statistics-of-one-layer-spoilt"
    assert "BN401" not in {each.code for each in found.findings}


def test_a_frozen_layer_stopped_counting_when_it_was_frozen():
    """Half the batches of the others is no sign that those run twice a step."""
    shown = network(first={"counter": 500})
    assert "BN303" in [each.code for each in diagnosis(shown).findings]
    frozen = changed(shown, "first", frozen=True)
    assert "BN303" not in [each.code for each in diagnosis(frozen).findings]
