"""What a person sees of checkpoints: the sick layers whatever their place, and a row a file."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from bncli.commands.inspect_checkpoint.answer import layers_table, settings_remarks
from bncli.report import FailOn
from tests.findings import report


@pytest.fixture(scope="module")
def states():
    """State dicts of healthy networks of so many layers, trained for 12 batches."""

    def trained(layers):
        torch.manual_seed(layers)
        blocks = [(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()) for _ in range(layers)]
        model = nn.Sequential(*(nn.Sequential(*block) for block in blocks))
        for _ in range(60):
            model(torch.randn(16, 6))
        return model.state_dict()

    made = {layers: trained(layers) for layers in (6, 20, 100)}
    return lambda layers: {name: value.clone() for name, value in made[layers].items()}


def shown(result):
    """The table's rows by their first cell, and all lines."""
    lines = result.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(("layer ", "file ")))
    rows = lines[start + 1 : lines.index("", start)]
    return {line.split()[0]: line.split() for line in rows}, lines


def test_a_sick_layer_is_the_first_row_wherever_it_is(run, folder, states):
    state = states(100)
    state["70.1.running_var"][3] = float("nan")
    torch.save(state, "h70.pth")
    result = run("inspect-checkpoint", "h70.pth")
    rows, lines = shown(result)
    assert result.code == 1
    assert next(iter(rows)) == "70.1"
    assert rows["70.1"][-1] == "BN201"
    assert "NaN(1)" in rows["70.1"]
    low = min(float(value.min()) for name, value in state.items()
              if name.endswith("running_var") and not name.startswith("70."))  # fmt: skip
    rest = next(line for line in lines if line.startswith("99 layers without findings"))
    assert f"var {low:.2g} .. " in rest
    assert "60 batches (-v lists them)" in rest
    assert lines[-1] == "FAIL  1 error in 100 BatchNorm layers (bncli rules BN201 explains it)"


def word_of(rows):
    """The verdict's word of each file."""
    words = ("ERROR", "FAIL", "WARN", "NOTHING", "PASS")
    files = {name: row for name, row in rows.items() if name.endswith(".pth")}
    return {name: next(word for word in row if word in words) for name, row in files.items()}


@pytest.mark.parametrize("layers", [20, 100])
def test_a_healthy_network_fits_a_screen(run, folder, states, layers):
    torch.save(states(layers), "net.pth")
    result = run("inspect-checkpoint", "net.pth", "--width", "80")
    rows, lines = shown(result)
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert sum(bool(re.match(r"\d+\.1$", name)) for name in rows) == 20
    assert lines[-1] == f"PASS  no findings in {layers} BatchNorm layers"


def test_three_faults_of_a_hundred_layers_are_all_seen_on_a_screen(run, folder, states):
    state = states(100)
    state["33.1.running_var"][2] = -1
    state["70.1.running_var"][3] = float("nan")
    state["90.1.running_mean"][1] = float("inf")
    torch.save(state, "net.pth")
    result = run("inspect-checkpoint", "net.pth", "--width", "80")
    rows, lines = shown(result)
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert list(rows)[:3] == ["33.1", "70.1", "90.1"]
    for code, layer in (("BN203", "33.1"), ("BN201", "70.1"), ("BN202", "90.1")):
        assert f"error[{code}]" in result.stdout
        assert f"  --> net.pth::{layer}" in lines


def test_what_is_ignored_is_no_trouble(run, folder, states):
    state = states(20)
    state["7.1.running_var"][3] = float("nan")
    torch.save(state, "net.pth")
    rows, lines = shown(run("inspect-checkpoint", "net.pth", "--ignore", "BN201"))
    assert next(iter(rows)) == "0.1"
    assert lines[-1] == "PASS  no findings in 20 BatchNorm layers; not counted: 1 ignored (BN201)"


def test_several_files_have_a_row_each_the_worst_first(run, folder, states):
    good, bad = states(6), states(6)
    bad["1.1.running_var"][0] = float("nan")
    for name in ("a", "b", "c"):
        torch.save(good, f"{name}.pth")
    torch.save(bad, "n.pth")
    torch.save({"x": torch.ones(3)}, "e.pth")
    (folder / "z.pth").write_bytes(b"no checkpoint")
    result = run("inspect-checkpoint", *(f"{name}.pth" for name in "abcenz"))
    rows, lines = shown(result)
    words = word_of(rows)
    assert list(words) == ["z.pth", "n.pth", "e.pth", "a.pth", "b.pth", "c.pth"]
    assert list(words.values()) == ["ERROR", "FAIL", "NOTHING", "PASS", "PASS", "PASS"]
    assert result.code == 2
    assert lines[-1].startswith("ERROR  1 error in 24 BatchNorm layers of 4 files")


def test_a_word_follows_what_fails(run, folder, states):
    torch.save(states(6) | {"1.1.num_batches_tracked": torch.tensor(120)}, "a.pth")
    torch.save(states(6), "b.pth")
    for fail_on, word in (("error", "WARN"), ("warning", "FAIL")):
        result = run("inspect-checkpoint", "a.pth", "b.pth", "--fail-on", fail_on)
        rows, lines = shown(result)
        assert word_of(rows) == {"a.pth": word, "b.pth": "PASS"}
        assert lines[-1].startswith(word)


def settings_of(*layers):
    """Rows with eps, momentum, where each comes from, and which replace stored ones."""
    keys = ("eps", "eps_source", "momentum", "momentum_source", "replaced")
    rows = [dict(zip(keys, layer, strict=True), convention=None) for layer in layers]
    return [row | {"momentum_said": f"momentum {row['momentum']}"} for row in rows]


def test_what_was_assumed_or_replaced_is_said():
    both = (1e-5, "assumed", 0.1, "assumed", [])
    assert list(settings_remarks(settings_of(both), "bncli does not read the file's code")) == [
        "eps 1e-05 and momentum 0.1 are assumed: bncli does not read the file's code",
    ]
    assert list(settings_remarks(settings_of(both, both))) == [
        "eps 1e-05 and momentum 0.1 are assumed: the file stores neither",
    ]
    given = (1e-3, "flag", 0.1, "assumed", [])
    assert list(settings_remarks(settings_of(both, given))) == [
        "momentum 0.1 is assumed: the file stores none",
        "eps 1e-05 is assumed for 1 of 2 layers",
    ]
    stored = (1e-3, "file", "none", "file", [])
    assert list(settings_remarks(settings_of(stored, stored))) == [
        "eps 0.001 and momentum none are from the file",
    ]
    replaced = (1e-5, "flag", 0.1, "flag", ["eps", "momentum"])
    assert list(settings_remarks(settings_of(replaced, stored))) == [
        "the file stores eps 0.001 for 1 of 2 layers",
        "the file stores momentum none for 1 of 2 layers",
        "--eps replaces the eps that the file stores in 1 layer",
        "--momentum replaces the momentum that the file stores in 1 layer",
    ]


def test_a_momentum_with_another_sense_in_the_file_is_said():
    keras, onnx = settings_of(*[(1e-3, "file", 0.01, "file", [])] * 2)
    keras["momentum_said"] = "momentum 0.99 (Keras: weighs the old value; 0.01 in PyTorch's sense)"
    said = keras["momentum_said"]
    assert list(settings_remarks([keras, keras])) == [f"eps 0.001 and {said} are from the file"]
    onnx["momentum_said"] = "momentum 0.99 (ONNX: weighs the old value; 0.01 in PyTorch's sense)"
    momenta = f"{keras['momentum_said']} in 2 layers, {onnx['momentum_said']} in 1 layer"
    assert list(settings_remarks([keras, onnx, keras])) == [f"from the file: eps 0.001; {momenta}"]


def test_the_eps_of_each_layer_is_shown_where_they_differ(run, folder, states):
    torch.save(states(6), "net.pth")
    same = run("inspect-checkpoint", "net.pth", "--width", "80", "--eps", "1e-3").stdout
    assert " eps" not in same.splitlines()[2]
    result = run("inspect-checkpoint", "net.pth", "--width", "80", "--eps", "[0-2].1=1e-3")
    rows, _ = shown(result)
    assert {name: row[-1] for name, row in rows.items() if name.endswith(".1")} == {
        f"{n}.1": "0.001" if n < 3 else "1e-05" for n in range(6)
    }


def test_layers_that_are_left_out_are_counted_in_the_verdict(run, folder, states):
    state = states(6)
    state["4.1.running_var"][0] = float("nan")
    torch.save(state, "net.pth")
    for arguments, chosen in ((("net.pth", "--layer", "[01].1"), 2), (("net.pth::0.1",), 1)):
        verdict = run("inspect-checkpoint", *arguments, "-f", "json").report["verdict"]
        assert verdict == f"PASS  no findings in {chosen} of 6 BatchNorm layers"


def test_a_flag_that_replaces_a_stored_number_is_said(run, folder):
    torch.save(nn.Sequential(nn.BatchNorm1d(3, eps=1e-3), nn.BatchNorm1d(3)), "net.pt")
    remarks = run("inspect-checkpoint", "net.pt", "--eps", "1e-5", "-f", "json").report["remarks"]
    assert remarks == [
        "momentum 0.1 is from the file",
        "--eps replaces the eps that the file stores in 1 layer",
    ]
    assert run("inspect-checkpoint", "net.pt", "-f", "json").report["remarks"] == [
        "from the file: eps 0.001 in 1 layer, eps 1e-05 in 1 layer; momentum 0.1",
    ]


def test_a_long_file_name_is_whole_where_its_verdict_leaves_room(run, folder, states):
    long = "run-of-the-third-of-march/" + "epoch-0499-best-0.25.pth"
    (folder / long).parent.mkdir()
    torch.save(states(6) | {"1.1.num_batches_tracked": torch.tensor(2**40)}, long)
    torch.save(states(6), "b.pth")
    narrow = run("inspect-checkpoint", long, "b.pth", "--width", "80").stdout
    assert f"\n{long} " in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    wide = run("inspect-checkpoint", long, "b.pth", "--width", "140").stdout
    assert "batches" in wide


def test_layers_that_hold_nothing_to_sum_up_are_only_counted():
    """Such as those whose variances and counters could not be read."""
    keys = ("name", "channels", "num_batches_tracked", "mean", "var", "scale", "scale_sketch",
            "dtype", "eps", "momentum", "kind_hint", "var_min", "var_max")  # fmt: skip
    rows = [{**dict.fromkeys(keys), "path": "a.pt", "name": f"{n}"} for n in range(30)]
    (table,) = layers_table(report(), FailOn.ERROR, rows)
    assert len(table.rows) == 20
    assert table.note == "10 layers without findings (-v lists them)"
