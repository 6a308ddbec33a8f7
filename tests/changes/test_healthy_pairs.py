"""Ordinary training has no state that is a warning; networks trained apart are different."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from bncli.changes.compare import compare
from bncli.loaders import open_file
from bncli.model.changes import Comparison, LayerVersion, State
from bncli.report import Severity
from bncli.rulebook.change_findings import change_findings
from tests.changes.containers import CONTAINERS, saved
from tests.changes.healthy import HEALTHY, averages
from tests.changes.trainings import LAYERS, MORE, fresh, halved, state_of, train, trained

FAULTS = {
    State.STATISTICS,
    State.RESET,
    State.EMPTY,
    State.LOST,
    State.IMPOSSIBLE,
    State.CONVENTION,
    State.ORDER,
    State.FOLDED,
    State.DIFFERENT,
}
"""What no layer is after ordinary training."""


def compared(folder, first, second, container="zip") -> Comparison:
    files = []
    for number, content in enumerate((first, second)):
        path = folder / f"epoch{number}.pt"
        if "model" in content or "q_net" in content:  # a dictionary of dictionaries
            torch.save(content, path)
        else:
            saved(path, content, container)
        files.append(open_file(path))
    return compare(*files)


def is_fault(layer: LayerVersion, states: Counter[State]) -> bool:
    """Whether the state of a layer is what training does not lead to."""
    cause = layer.found.numbers.get("cause")
    if layer.found.state is State.ORDER and layer.name.startswith("q_net_target."):
        return cause != "other-layer"  # it takes over what the other had
    if layer.found.state is State.WEIGHTS:  # where others' statistics moved, and its own weight
        return states[State.TRAINED] > 0 and cause != "before"
    return layer.found.state in FAULTS and cause != "dead"


@pytest.mark.parametrize("at", range(len(HEALTHY)), ids=[str(each) for each in HEALTHY])
def test_ordinary_training_has_no_fault(at, tmp_path):
    first, second = HEALTHY[at].make()
    comparison = compared(tmp_path, first, second, CONTAINERS[at % len(CONTAINERS)])
    copies = [each for each in first if isinstance(first[each], dict) and "fc.bias" in first[each]]
    names = [f"{copy}.{name}" for copy in copies for name in LAYERS] or [*LAYERS]
    assert sorted(layer.name for layer in comparison.layers) == sorted(names)
    assert all(layer.other_name == layer.name for layer in comparison.layers)
    states = Counter(layer.found.state for layer in comparison.layers)
    assert not {each.name: each.found for each in comparison.layers if is_fault(each, states)}
    findings = change_findings(comparison)
    assert not [finding for finding in findings if finding.severity is not Severity.INFO]
    assert comparison.related is not False


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "batches of 64", "gradient accumulation", "resumed"]
)
def test_batches_are_counted(name, tmp_path):
    (healthy,) = (each for each in HEALTHY if each.name == name)
    comparison = compared(tmp_path, *healthy.make())
    assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}
    assert {layer.measures.batches for layer in comparison.layers} == {MORE}


@pytest.fixture(scope="module")
def averaged():
    return averages()


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("reverse", [False, True])
def test_an_average_has_no_fault(averaged, at, reverse, tmp_path):
    files = [*averaged.values()][at]
    comparison = compared(tmp_path, *files[:: -1 if reverse else 1])
    states = {layer.found.state for layer in comparison.layers}
    assert states <= {State.IDENTICAL, State.TRAINED, State.DIFFERENT, State.WEIGHTS}
    assert not [each for each in change_findings(comparison) if each.severity is not Severity.INFO]
    assert comparison.related is not False


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("counts", [(60, 60), (60, 100), (100, 60)])
def test_networks_trained_apart_are_different(half, counts, tmp_path):
    states = [state_of(trained(seed, count)) for seed, count in zip((0, 1), counts, strict=True)]
    if half:
        states = [halved(state) for state in states]
    comparison = compared(tmp_path, *states)
    assert {layer.found.state for layer in comparison.layers} == {State.DIFFERENT}
    assert comparison.related is False


def test_the_start_of_another_network_is_not_where_one_began(tmp_path):
    comparison = compared(tmp_path, state_of(fresh(7)), state_of(trained(1)))
    assert {layer.found.state for layer in comparison.layers} == {State.DIFFERENT}


def test_epochs_one_after_another_are_trained_on(tmp_path):
    model = fresh(4)
    files = [state_of(model)]
    for epoch in range(4):
        train(model, 25, seed=epoch)
        files.append(state_of(model))
    for a in range(5):
        for b in range(a + 1, 5):
            comparison = compared(tmp_path, files[a], files[b])
            assert {layer.found.state for layer in comparison.layers} == {State.TRAINED}
            assert {layer.measures.batches for layer in comparison.layers} == {25 * (b - a)}
