"""Series that were really trained: healthy ones, and with a fault in one file or one layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bncli.changes.many.kinds import compare_many
from bncli.model.many import Kind
from bncli.report import Severity
from bncli.rulebook.many import many_findings
from tests.changes.many.networks import copied, epochs, network, opened, trained


def series(folder, states):
    found = compare_many(opened(folder, *states))
    assert found.kind is Kind.SERIES
    return found


def codes(found):
    return [(finding.code, finding.severity.value) for finding in many_findings(found)]


def run(seed, *, rate, schedule, count=6, steps=12, batch=4):
    """The files of an ordinary run on noise with small batches."""
    net = network(seed, width=4 + 4 * (seed % 2), depth=2 + seed % 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    torch.manual_seed(seed)
    total, step, states = count * steps, 0, [copied(net)] if seed % 3 == 0 else []
    for _ in range(count):
        for _ in range(steps):
            part = {
                "constant": 1.0,
                "warmup": min(1.0, 3 * (step + 1) / total),
                "cosine": (1 + math.cos(math.pi * step / total)) / 2,
                "steps": 0.1 ** (2 * step // total),
            }[schedule]
            optimizer.param_groups[0]["lr"] = rate * part
            label = torch.randint(4, (batch,))
            loss = nn.functional.cross_entropy(net(torch.randn(batch, 3, 4, 4)), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        states.append(copied(net))
    return states


@pytest.mark.parametrize("schedule", ["constant", "warmup", "cosine", "steps"])
@pytest.mark.parametrize("rate", [0.003, 0.03, 0.1, 0.3, 1.0])
def test_ordinary_training_makes_no_warning(tmp_path, rate, schedule):
    seed = round(1000 * rate) + len(schedule)
    found = series(tmp_path, run(seed, rate=rate, schedule=schedule))
    assert not [code for code, severity in codes(found) if severity != "info"]


def test_the_rows_say_how_far_each_file_is_from_the_one_before(tmp_path):
    """Held against NumPy in float64."""
    states = epochs()
    found = series(tmp_path, states)
    assert [row.counter for row in found.rows] == [15, 30, 45, 60, 75, 90]
    assert [row.batches for row in found.rows] == [None, *[15] * 5]
    for before, after, row in zip(states, states[1:], found.rows[1:], strict=False):
        z, ratio = [], []
        for layer in ("1", "4"):
            mean, var = (before[f"{layer}.running_{kind}"].double() for kind in ("mean", "var"))
            new, new_var = (after[f"{layer}.running_{kind}"].double() for kind in ("mean", "var"))
            z.append(((new - mean).abs() / (var + 1e-5).sqrt()).numpy())
            ratio.append(((new_var + 1e-5) / (var + 1e-5)).numpy())
        assert row.z == pytest.approx(max(map(np.median, z)))
        assert row.z_max == pytest.approx(max(map(np.max, z)))
        assert row.var_ratio == pytest.approx(max(map(np.median, ratio)))
        every = np.concatenate(ratio)
        assert row.var_ratio_worst in (pytest.approx(every.min()), pytest.approx(every.max()))
    assert found.rows[0].z is None


def spoilt(count, bad, *, length=1, after=20):
    """A run in which some batches of `length` files are far off, and `after` batches a file."""
    net = network(depth=3)
    states = []
    for number in range(count):
        trained(net, after, number)
        if bad <= number < bad + length:
            with torch.no_grad():
                for _ in range(3):
                    net(60 * torch.randn(4, 3, 4, 4) + 40)
        states.append(copied(net))
    return states


@pytest.mark.parametrize(("bad", "length"), [(1, 1), (2, 1), (4, 1), (2, 2), (3, 2)])
def test_one_spoilt_epoch_comes_back(tmp_path, bad, length):
    found = series(tmp_path, spoilt(7, bad, length=length, after=40))
    assert [(jump.path, jump.back) for jump in found.jumps] == [(found.paths[bad], True)]
    assert found.jumps[0].worst == "1"
    assert found.jumps[0].var_ratio > 100
    assert found.rows[bad].what == "jumps, and comes back later"
    assert codes(found) == [("BN618", "warning")]


def test_a_spoilt_epoch_that_comes_back_slowly(tmp_path):
    """20 batches leave 12% of what was spoilt: it takes two files until the jump has gone."""
    found = series(tmp_path, spoilt(7, 3, after=20))
    assert [(jump.path, jump.back) for jump in found.jumps] == [(found.paths[3], True)]


def test_a_spoilt_last_file_is_a_note(tmp_path):
    found = series(tmp_path, spoilt(6, 5))
    assert [(jump.path, jump.back) for jump in found.jumps] == [(found.paths[5], None)]
    assert codes(found) == [("BN618", "info")]


def test_a_spoilt_first_file_is_a_note(tmp_path):
    """One layer far from all later files; where most layers are, training began there."""
    net = network(width=8, depth=4)
    states = [copied(trained(net, 30, seed)) for seed in range(6)]
    assert series(tmp_path, states).jumps == ()
    states[0]["4.running_var"] = states[0]["4.running_var"] * 1000
    found = series(tmp_path, states)
    (jump,) = found.jumps
    assert (jump.path, jump.layers, jump.back) == (found.paths[0], ("4",), None)
    assert 300 < jump.var_ratio < 3000
    (finding,) = many_findings(found)
    assert (finding.severity, finding.path) == (Severity.INFO, found.paths[0])
    assert "as in the next file" in finding.message
    for layer in ("1", "7"):
        states[0][f"{layer}.running_var"] = states[0][f"{layer}.running_var"] * 1000
    assert series(tmp_path, states).jumps == ()


def test_a_jump_that_stays_is_a_note(tmp_path):
    """The input is scaled by 20 from the fourth file on."""
    net = network()
    states = []
    for number in range(7):
        with torch.no_grad():
            for _ in range(40):
                net(torch.randn(4, 3, 4, 4) * (20 if number > 2 else 1))
        states.append(copied(net))
    found = series(tmp_path, states)
    assert [(jump.path, jump.back) for jump in found.jumps] == [(found.paths[3], False)]
    assert codes(found) == [("BN618", "info")]
    assert found.jumps[0].var_ratio == pytest.approx(400, rel=0.5)


def test_a_longer_way_is_no_jump(tmp_path):
    """Many batches between two files explain that the statistics move far."""
    states = [dict(state) for state in epochs()]
    for number, state in enumerate(states):
        for layer in ("1", "4"):
            state[f"{layer}.running_mean"] = state[f"{layer}.running_mean"] + 5.0 * (number > 3)
            state[f"{layer}.num_batches_tracked"] = torch.tensor(
                15 * (number + 1) + 5000 * (number > 3)
            )
    assert not series(tmp_path, states).jumps


def test_three_files_show_what_comes_back(tmp_path):
    found = series(tmp_path, spoilt(3, 1, after=60))
    assert [(jump.path, jump.back) for jump in found.jumps] == [(found.paths[1], True)]


def test_the_order_of_the_counters_is_told(tmp_path):
    states = epochs()
    mixed = [states[at] for at in (2, 0, 1, 3)]
    found = series(tmp_path, mixed)
    assert found.reordered
    assert [path.rpartition("/")[2] for path in found.paths] == ["1.pt", "2.pt", "0.pt", "3.pt"]
    assert [row.counter for row in found.rows] == [15, 30, 45, 60]
    assert found.rows[2].path == found.paths[2]


def frozen(states, layer, since, *, weights=False, front=False):
    """The same, but the statistics of a layer stay as they are in a file."""
    held = ("running_mean", "running_var", *(("weight", "bias") if weights else ()))
    names = [f"{layer}.{leaf}" for leaf in held]
    names += [f"{int(layer) - 1}.weight"] if front else []
    return [
        state | {name: states[since][name] for name in names if number > since}
        for number, state in enumerate(states)
    ]


def test_a_layer_that_stands_still_while_its_weights_move(tmp_path):
    found = series(tmp_path, frozen(epochs(), "4", 0))
    assert [(still.layers, still.weights_moved) for still in found.stills] == [(("4",), True)]
    assert found.stills[0].since == found.paths[0]
    assert codes(found) == [("BN622", "warning")]


@pytest.mark.parametrize("front", [True, False])
def test_a_frozen_layer_is_a_note(tmp_path, front):
    found = series(tmp_path, frozen(epochs(), "4", 2, weights=True, front=front))
    assert [(still.layers, still.weights_moved) for still in found.stills] == [(("4",), False)]
    assert found.stills[0].since == found.paths[2]
    assert codes(found) == [("BN622", "info")]


def test_one_step_that_stands_still_is_not_told(tmp_path):
    assert not series(tmp_path, frozen(epochs(), "4", 4)).stills


def test_where_nothing_moves_nothing_stands_still(tmp_path):
    states = epochs()
    for layer in ("1", "4"):
        states = frozen(states, layer, 0)
    assert not series(tmp_path, states).stills


def test_drift_by_depth_is_two_numbers(tmp_path):
    assert series(tmp_path, epochs()).drift is None  # two layers have no thirds
    net = network(depth=6)
    states = [copied(trained(net, 10, seed)) for seed in range(4)]
    for number, state in enumerate(states):
        for layer in ("13", "16"):
            state[f"{layer}.running_mean"] = torch.full((8,), 3.0 * number)
            state[f"{layer}.running_var"] = torch.ones(8)
    first, last = series(tmp_path, states).drift
    assert first < 1
    assert last == pytest.approx(3, rel=1e-4)


def test_statistics_that_are_not_finite_do_not_stop_it(tmp_path):
    states = [dict(state) for state in epochs()]
    states[2]["1.running_var"] = torch.full((8,), torch.nan)
    states[3]["4.running_mean"] = torch.full((8,), torch.inf)
    found = series(tmp_path, states)
    assert len(found.rows) == 6
    assert codes(found) == [("BN613", "warning")] * 2
