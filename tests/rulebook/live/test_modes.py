"""Flags, and values that are not finite."""

from __future__ import annotations

from dataclasses import replace

from bncli.rulebook.live.causes import diagnosis
from tests.rulebook.live import faults
from tests.rulebook.live.faults import changed, network


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


def test_several_layers_are_counted_and_named():
    shown = changed(changed(network(), "middle", in_training=True), "last", in_training=True)
    (finding,) = diagnosis(shown).findings
    assert finding.message == "2 of 3 layers are in training mode after model.eval()"
    assert finding.places == ("middle", "last")


def test_dropout_that_stays_on_is_named():
    shown = replace(network(), still_training=("drop", "act"), dropout=("drop",))
    (finding,) = diagnosis(shown).findings
    assert finding.detail == "Dropout stays on in drop."


def test_nan_of_the_data_is_theirs():
    shown = network()
    seen = shown.layers[0].seen
    nan = next(iter(seen.values())).nan + 1
    dirty = {which: replace(sums, nan=nan) for which, sums in seen.items()}
    broken = changed(shown, "input", seen=dirty)
    finding = next(each for each in diagnosis(broken).findings if each.code == "BN804")
    assert finding.subject == "the model's input"
    assert finding.message.startswith("it holds 3 NaN among")


def test_the_layer_before_the_first_nan_is_named():
    finding = diagnosis(faults.nan_in_the_middle().capture).findings[0]
    assert finding.message.startswith("its input holds 5 NaN among")
    assert finding.detail == "Layer first before it saw none."


def test_instance_norm_needs_no_statistics():
    shown = network(middle={"track": False, "per_sample": True})
    assert not diagnosis(shown).findings
