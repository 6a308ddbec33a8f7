"""Layers that hold in some of the files what training does not give."""

from __future__ import annotations

import pytest
import torch

from bncli.changes.many.kinds import compare_many
from bncli.changes.many.target import of_target
from bncli.model.changes import State
from bncli.model.many import Kind
from bncli.report import Severity
from bncli.rulebook.many import many_findings
from tests.changes.many.networks import clients, copied, epochs, mean, network, opened, trained


def edited(state, layer, **values):
    """A state with other values in all channels of some tensors of a layer."""
    changed = dict(state)
    for leaf, value in values.items():
        name = f"{layer}.{leaf}"
        changed[name] = torch.full_like(state[name], value)
    return changed


def with_one(states, at, state):
    return [*states[:at], state, *states[at + 1 :]]


RESET = {"running_mean": 0, "running_var": 1}
SPOILT = [
    ({"running_var": float("nan")}, State.IMPOSSIBLE, ("running_var",)),
    ({"running_mean": float("inf")}, State.IMPOSSIBLE, ("running_mean",)),
    ({"running_var": -1}, State.IMPOSSIBLE, ("running_var",)),
    ({"weight": float("nan")}, State.IMPOSSIBLE, ("weight",)),
    (RESET, State.RESET, ()),
    ({**RESET, "num_batches_tracked": 0}, State.RESET, ()),
    ({"running_mean": 0, "running_var": 0}, State.EMPTY, ()),
]


@pytest.mark.parametrize("at", [0, 2, 5])
@pytest.mark.parametrize(("values", "state", "tensors"), SPOILT)
def test_one_layer_of_one_file_of_a_series(tmp_path, values, state, tensors, at):
    states = with_one(epochs(), at, edited(epochs()[at], "4", **values))
    found = compare_many(opened(tmp_path, *states))
    (spoilt,) = found.spoilt
    assert (spoilt.state, spoilt.layers, spoilt.tensors) == (state, ("4",), tensors)
    assert spoilt.path == found.paths[at]
    assert found.kind is Kind.SERIES
    assert not found.reordered
    assert (found.jumps, found.stills) == ((), ())
    assert [bool(row.what) for row in found.rows] == [number == at for number in range(6)]
    (finding,) = many_findings(found)
    assert (finding.code, finding.severity) == ("BN613", Severity.WARNING)
    assert (finding.subject, finding.path) == ("4", spoilt.path)


@pytest.mark.parametrize(("values", "state", "tensors"), SPOILT)
def test_one_layer_of_a_client_or_of_the_target(tmp_path, values, state, tensors):
    """The clients have equal counters, but for that of a layer which was reset with its counter."""
    bad = edited(clients()[1], "1", **values)
    found = compare_many(opened(tmp_path, *with_one(clients(), 1, bad)))
    (spoilt,) = found.spoilt
    assert (spoilt.state, spoilt.layers, spoilt.tensors) == (state, ("1",), tensors)
    assert spoilt.path == found.paths[1]
    average = edited(mean(clients()), "1", **values)
    *files, target = opened(tmp_path, *clients(), average)
    (spoilt,) = of_target(files, target).spoilt
    assert (spoilt.state, spoilt.path) == (state, str(target.path))
    assert "BN613" in {finding.code for finding in many_findings(of_target(files, target))}


def test_every_number_of_some_files_is_nan(tmp_path):
    gone = [
        {n: v * float("nan") if v.is_floating_point() else v for n, v in state.items()}
        for state in epochs()[3:]
    ]
    found = compare_many(opened(tmp_path, *epochs()[:3], *gone))
    assert [each.path for each in found.spoilt] == list(found.paths[3:])
    assert all(each.layers == ("1", "4") for each in found.spoilt)
    findings = many_findings(found)
    assert [finding.places for finding in findings] == [("1", "4")] * 3
    assert [row.z is None for row in found.rows] == [True, False, False, True, True, True]


def test_the_step_after_a_spoilt_file_is_one_from_the_file_before_it(tmp_path):
    states = with_one(epochs(), 2, edited(edited(epochs()[2], "4", **RESET), "1", **RESET))
    rows = compare_many(opened(tmp_path, *states)).rows
    plain = compare_many(opened(tmp_path, epochs()[1], epochs()[3])).rows
    assert rows[2].z is None
    assert rows[3].z == plain[1].z


def test_the_first_sound_file_is_compared_with_none(tmp_path):
    """Of two layers in one file, and of both: the file behind tells nothing of how they move."""
    states, lost = epochs(), edited(epochs()[0], "4", **RESET)
    plain = compare_many(opened(tmp_path, *states)).rows
    found = compare_many(opened(tmp_path, lost, *states[1:])).rows
    assert [[each.name for each in row.moves] for row in found[:3]] == [[], ["1"], ["1", "4"]]
    assert found[1].moves[0] == plain[1].moves[0]
    assert found[2:] == plain[2:]
    both = compare_many(opened(tmp_path, edited(lost, "1", **RESET), *states[1:])).rows
    assert (both[1].z, both[1].z_max, both[1].var_ratio, both[1].worst) == (None, None, None, "")
    assert both[2:] == plain[2:]
    second = edited(edited(states[1], "4", **RESET), "1", **RESET)
    two = compare_many(opened(tmp_path, edited(lost, "1", **RESET), second, *states[2:])).rows
    assert [row.z is None for row in two] == [True, True, True, False, False, False]


def test_a_layer_does_not_stand_still_since_a_file_that_lost_it(tmp_path):
    kept = {key: value for key, value in epochs()[1].items() if key.startswith("4.running")}
    states = [epochs()[0], *({**state, **kept} for state in epochs()[1:])]
    sound = compare_many(opened(tmp_path, *states))
    lost = compare_many(opened(tmp_path, edited(states[0], "4", **RESET), *states[1:]))
    assert [(each.layers, each.since) for each in lost.stills] == [(("4",), lost.paths[1])]
    assert lost.stills == sound.stills


def test_the_drift_has_no_step_from_a_file_that_lost_its_statistics(tmp_path):
    net = network(depth=6)
    states = [copied(trained(net, 5, seed)) for seed in range(4)]
    lost = states[0]
    for name in [key.removesuffix(".running_var") for key in lost if "running_var" in key]:
        lost = edited(lost, name, **RESET)
    rest = compare_many(opened(tmp_path, *states[1:])).drift
    assert compare_many(opened(tmp_path, lost, *states[1:])).drift == rest
    assert rest is not None


def test_training_begins_with_new_layers(tmp_path):
    """A whole network that is new, and a layer that is not used at first."""
    net = network()
    states = [copied(net)] + [copied(trained(net, 15, seed)) for seed in range(4)]
    found = compare_many(opened(tmp_path, *states))
    assert (found.kind, found.spoilt, found.new) == (Kind.SERIES, (), (found.paths[0],))
    assert "before any training" in found.rows[0].what
    unused = {**RESET, "weight": 1, "bias": 0, "num_batches_tracked": 0}
    states = [edited(state, "4", **unused) for state in epochs()[:2]] + epochs()[2:]
    found = compare_many(opened(tmp_path, *states))
    assert (found.kind, found.spoilt, found.new) == (Kind.SERIES, (), ())


def test_what_is_alike_in_all_files_was_not_lost(tmp_path):
    states = [edited(state, "4", **RESET) for state in epochs()]
    assert compare_many(opened(tmp_path, *states)).spoilt == ()
    assert compare_many(opened(tmp_path, *epochs())).spoilt == ()


def test_a_new_layer_among_trained_files_is_a_reset(tmp_path):
    new = {**RESET, "weight": 1, "bias": 0, "num_batches_tracked": 0}
    states = with_one(epochs(), 3, edited(epochs()[3], "4", **new))
    (spoilt,) = compare_many(opened(tmp_path, *states)).spoilt
    assert (spoilt.state, spoilt.layers) == (State.RESET, ("4",))
