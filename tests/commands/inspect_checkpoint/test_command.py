"""`bncli inspect-checkpoint`: the layers of checkpoints made here and of published ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import ExitCode
from bncli.report import Report, Table
from tests.commands.inspect_checkpoint.networks import net
from tests.commands.inspect_checkpoint.small import small
from tests.loaders.mxnet_files import model, saved
from tests.rulebook.exports import folded, graph

CORPUS = Path(
    os.environ.get("BNCLI_CORPUS", Path(__file__).resolve().parents[4] / "shared" / "corpus")
)


EXPECTED = CORPUS / "expected.json"


PUBLISHED = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else []


REFUSED = ("unknown", "lfs-pointer")


KEYS = [
    "name",
    "kind_hint",
    "channels",
    "dtype",
    "num_batches_tracked",
    "mean_min",
    "mean_max",
    "var_min",
    "var_max",
    "scale_max",
    "eps",
    "momentum",
]


def test_state_dict(run, folder):
    """The BatchNorm layers alone, with the ranges that NumPy finds, and eps said to be assumed."""
    model = net()
    torch.save(model.state_dict(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", "json")
    assert result.code == ExitCode.OK
    report = result.report
    rows = report["tables"]["layers"]
    assert [row["name"] for row in rows] == ["1", "head"]
    for row, layer in zip(rows, (model[1], model.head), strict=True):
        assert set(KEYS) <= set(row)
        var = layer.running_var.double().numpy()
        scale = layer.weight.detach().double().numpy() / np.sqrt(var + 1e-5)
        assert row["channels"] == len(var)
        assert row["dtype"] == "float32"
        assert row["num_batches_tracked"] == 7
        assert row["mean_min"] == layer.running_mean.min().item()
        assert row["mean_max"] == layer.running_mean.max().item()
        assert row["var_min"] == var.min()
        assert row["var_max"] == var.max()
        assert row["scale_min"] == pytest.approx(scale.min(), rel=1e-12)
        assert row["scale_max"] == pytest.approx(scale.max(), rel=1e-12)
        assert row["abs_scale_min"] == pytest.approx(np.abs(scale).min(), rel=1e-12)
        assert (row["eps"], row["momentum"], row["kind_hint"]) == (1e-5, 0.1, None)
    facts = report["facts"]
    assert (facts["container"], facts["layers"], facts["channels"]) == ("torch-zip", 2, 10)
    assert (facts["eps_source"], facts["momentum_source"]) == ("assumed", "assumed")
    assert facts["counters"] == "2 layers at 7"
    assert report["verdict"].startswith("PASS  1 note in 2 BatchNorm layers")


def test_pickled_module(run, folder):
    """A module saved whole brings its class, eps and momentum along."""
    torch.save(net(), "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    rows = report["tables"]["layers"]
    found = [(row["kind_hint"], row["eps"], row["momentum"]) for row in rows]
    assert found == [("BatchNorm2d", 1e-5, 0.1), ("BatchNorm1d", 1e-3, "none")]
    assert report["facts"]["eps_source"] == "file"


def test_several_files(run, folder):
    for name in ("a.pt", "b.pt"):
        torch.save(net().state_dict(), name)
    report = run("inspect-checkpoint", "a.pt", "b.pt", "-f", "json").report
    assert [row["path"] for row in report["tables"]["layers"]] == ["a.pt", "a.pt", "b.pt", "b.pt"]
    assert report["facts"]["path"] == ["a.pt", "b.pt"]
    assert "in 4 BatchNorm layers of 2 files" in report["verdict"]


def test_nothing_to_check(run, folder):
    """LayerNorm, GroupNorm and a lone input normaliser are no BatchNorm: exit code 3, a report."""
    torch.save(
        {
            **nn.Sequential(nn.LayerNorm(3), nn.GroupNorm(1, 4)).state_dict(),
            "obs.running_mean": torch.zeros(3, dtype=torch.float64),
            "obs.running_var": torch.ones(3, dtype=torch.float64),
            "obs.count": torch.tensor(9.0),
        },
        "none.pt",
    )
    result = run("inspect-checkpoint", "none.pt", "-f", "json")
    assert result.code == ExitCode.NOTHING
    assert result.report["tables"]["layers"] == []
    assert result.report["verdict"].startswith(
        "NOTHING  no BatchNorm layer was recognised among 7 "
    )
    assert run("inspect-checkpoint", "none.pt", "--fail-on", "never").code == ExitCode.NOTHING


def test_torch_is_not_imported(run_process, folder):
    torch.save(net().state_dict(), "net.pt")
    probe = (
        "import sys; from bncli.cli import main; main(['inspect-checkpoint', 'net.pt', '-q']); "
        "print('torch' in sys.modules)"
    )
    assert run_process(python=["-c", probe]).stdout == "False\n"
    assert sys.modules["torch"]  # the probe could have found it


@pytest.mark.corpus
@pytest.mark.skipif(not PUBLISHED, reason="the published checkpoints are not here")
@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published["file"])
def test_published(published, run):
    """What an independent reading found in each published checkpoint."""
    result = run("inspect-checkpoint", CORPUS / published["file"], "-f", "json")
    if published["container"].startswith(REFUSED):
        assert result.code == ExitCode.ERROR
        assert result.stderr.count("\n") == 1
        assert published["file"] in result.stderr
        return
    assert result.code == (ExitCode.OK if published["batch_norm_layers"] else ExitCode.NOTHING)
    rows = {row["name"]: row for row in result.report["tables"]["layers"]}
    assert len(rows) == published["batch_norm_layers"]
    for layer in published.get("layers", []):
        # The reading names layers inside the state_dict; bncli by their full path in the file.
        name = next(
            name for name in rows if name == layer["prefix"] or name.endswith(f".{layer['prefix']}")
        )
        row = rows[name]
        assert row["channels"] == layer["channels"]
        assert row["dtype"] == layer["dtype"]
        assert row["num_batches_tracked"] == layer["num_batches_tracked"]
        assert (row["mean_min"], row["mean_max"]) == (layer["mean"]["min"], layer["mean"]["max"])
        assert (row["var_min"], row["var_max"]) == (layer["var"]["min"], layer["var"]["max"])


def test_constant_columns_are_said_once_on_a_narrow_terminal(run, folder):
    torch.save(net().state_dict(), "net.pt")
    narrow = run("inspect-checkpoint", "net.pt", "--width", "80", "-v").stdout
    assert "in every row: nonfinite 0, dtype float32, eps 1e-05, momentum 0.1" in narrow
    assert "kind_hint" not in narrow
    assert "kind_hint" in run("inspect-checkpoint", "net.pt", "-v").stdout


NO_SUCH = "no BatchNorm layer has such a name"


def golden_file():
    """A network with an error, a warning and a note, made of round numbers."""
    channels = torch.arange(1, 5, dtype=torch.float32)

    def layer(name, var, counter):
        return {
            f"{name}.weight": channels / 4,
            f"{name}.bias": channels / 8,
            f"{name}.running_mean": channels - 2,
            f"{name}.running_var": torch.tensor(var),
            f"{name}.num_batches_tracked": torch.tensor(counter),
        }

    return {
        "state_dict": {
            **layer("module.stem.bn", [0.25, 0.5, 1.0, 2.0], 4000),
            **layer("module.body.bn", [0.25, 0.5, -1e-5, 2.0], 4000),
            **layer("module.head.bn", [0.25, 1e-6, 1.0, 2.0], 270),
        }
    }


@pytest.mark.parametrize(
    ("form", "suffix"), [("json", "json"), ("csv", "csv"), ("markdown", "md"), ("table", "txt")]
)
def test_goldens(run, folder, golden, form, suffix):
    torch.save(golden_file(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", form, "--width", "100")
    assert result.code == ExitCode.FINDING
    golden(f"inspect_checkpoint.{suffix}", result.stdout)


def test_the_goldens_numbers(run, folder):
    """weight / sqrt(running_var + eps) of the stem's last channel, by hand: 1/sqrt(2.00001)."""
    torch.save(golden_file(), "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    stem, body, head = report["tables"]["layers"]
    assert stem["scale_max"] == pytest.approx(0.75 / np.sqrt(1.00001), rel=1e-12)
    assert (stem["flags"], body["flags"], head["flags"]) == (None, "BN203", "BN401")
    assert {(f["code"], f["subject"]) for f in report["findings"]} == {
        ("BN203", "state_dict.module.body.bn"),
        ("BN401", "state_dict.module.head.bn"),
        ("BN302", "num_batches_tracked"),
    }
    assert report["facts"]["counters"] == "2 layers at 4000, 1 at 270"
    assert report["facts"]["found"] == "1 error, 1 warning, 1 note"
    assert report["verdict"].startswith("FAIL  1 error, 1 warning, 1 note in 3 BatchNorm layers")


def test_the_order_of_the_layers(run, folder):
    state = {}
    for name in ("b10", "b9", "a"):
        state |= {f"{name}.{k}": v for k, v in small()["stem"].state_dict().items()}
        state[f"{name}.running_mean"] = torch.randn(4)
    state["b9.running_var"] = torch.full((4,), torch.nan)
    torch.save(state, "net.pt")

    def names(*flags):
        report = run("inspect-checkpoint", "net.pt", *flags, "-f", "json").report
        return [row["name"] for row in report["tables"]["layers"]]

    assert names() == ["b10", "b9", "a"]
    assert names("--sort", "name") == ["a", "b9", "b10"]
    assert names("--sort", "trouble") == ["b9", "b10", "a"]


def test_several_files_say_which(run, folder):
    good, bad = small(), small(1)
    bad["stem"].running_var[2] = -1.0
    torch.save(good.state_dict(), "a.pt")
    torch.save(bad.state_dict(), "b.pt")
    result = run("inspect-checkpoint", "a.pt", "b.pt", "-f", "json")
    assert result.code == ExitCode.FINDING
    (finding,) = result.report["findings"]
    assert (finding["path"], finding["subject"]) == ("b.pt", "stem")
    assert finding["evidence"]["layer"] == "stem"
    flags = {(row["path"], row["name"]): row["flags"] for row in result.report["tables"]["layers"]}
    assert {place for place, codes in flags.items() if codes} == {("b.pt", "stem")}


def test_fail_on(run, folder):
    model = small()
    model["stem"].running_var[0] = 1e-7
    torch.save(model.state_dict(), "net.pt")
    codes = [
        run("inspect-checkpoint", "net.pt", "-q", "--fail-on", level).code
        for level in ("error", "warning", "info", "never")
    ]
    assert codes == [0, 1, 1, 0]


def report_of(findings):
    table = Table("layers", "Layers", (), [])
    return Report("inspect-checkpoint", {}, (table,), tuple(findings))


def test_an_eighty_layer_network_stays_readable(run, folder):
    state = {}
    for n in range(80):
        layer = {f"layer{n}.{k}": v for k, v in small()["stem"].state_dict().items()}
        layer[f"layer{n}.running_mean"] = torch.randn(4)
        layer[f"layer{n}.weight"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
        state |= layer
    state["layer40.running_var"] = torch.full((4,), torch.nan)
    torch.save(state, "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    assert len(report["findings"]) == 81
    assert report["findings"][0]["code"] == "BN201"
    text = run("inspect-checkpoint", "net.pt", "--width", "80").stdout
    assert text.index("BN201") < text.index("BN403")
    assert text.count("BN403]") == 1  # one block, though the table names it in each row
    assert len(text.splitlines()) <= 40
    assert len(run("inspect-checkpoint", "net.pt", "-v").stdout.splitlines()) > 80


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--eps -1", "--eps -1: eps must be a finite number, 0 or above."),
        ("--eps body=nan", "--eps nan: eps must be a finite number, 0 or above."),
        ("--eps body=", "--eps: '' is not a number."),
        ("--eps abc", "--eps: 'abc' is not a number."),
        (
            "--momentum stem=fast",
            "--momentum fast: give a number such as 0.1, or none for the cumulative average.",
        ),
        (
            "--layer nowhere.*",
            f"--layer nowhere.*: {NO_SUCH}; there are 3, such as stem, body, head.",
        ),
        (
            "--eps 1e-3 --eps hed=1e-5",
            f"--eps hed=...: {NO_SUCH}; there are 3, such as head.",
        ),
        (
            "--momentum nowhere.*=none",
            f"--momentum nowhere.*=...: {NO_SUCH}; there are 3, such as stem, body, head.",
        ),
    ],
)
def test_refusals(run, folder, arguments, sentence):
    torch.save(small().state_dict(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", *arguments.split(" "))
    assert tuple(result) == (ExitCode.ERROR, "", f"bncli: {sentence}\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "--layer net",
            f"--layer net: {NO_SUCH}; write 'net.*' for the layers that begin with it.",
        ),
        (
            "--eps net=1e-3",
            f"--eps net=...: {NO_SUCH}; write 'net.*' for the layers that begin with it.",
        ),
        ("--eps nett.*=1e-3", f"--eps nett.*=...: {NO_SUCH}; did you mean 'net.*'?"),
        (
            "--eps a=1e-3,b=1e-5",
            "--eps a=1e-3,b=1e-5: repeat the flag instead: --eps 'a=1e-3' --eps 'b=1e-5'.",
        ),
    ],
)
def test_a_glob_that_is_nearly_right(run, folder, arguments, sentence):
    torch.save(torch.nn.ModuleDict({"net": small()}).state_dict(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", *arguments.split(" "))
    assert tuple(result) == (ExitCode.ERROR, "", f"bncli: {sentence}\n")


def test_a_wrong_order_is_refused(run, folder):
    torch.save(small().state_dict(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", "--sort", "size")
    assert (result.code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


# ------------------------------------------------------------------ other frameworks' files


def test_a_file_without_layers_says_why(run, folder):
    """What is named like a BatchNorm is none where the graph says what it is."""
    folded("folded.onnx")
    result = run("inspect-checkpoint", "folded.onnx", "-f", "json")
    assert result.code == 3
    assert result.report["findings"] == []
    assert "no BatchNormalization node" in result.report["verdict"]
    graph("net.onnx", training=False)
    both = run("inspect-checkpoint", "folded.onnx", "net.onnx", "-f", "json").report["remarks"]
    assert any(each.startswith("there is no BatchNorm layer in folded.onnx: its ") for each in both)
    state = run("compute", "net.onnx::mean", "--state", "folded.onnx::bn1")
    assert state.code == 2
    assert "there is no BatchNorm layer in it: its graph has 1 convolution" in state.stderr
    compared = run("compare-checkpoints", "folded.onnx", "net.onnx", "-f", "json")
    assert compared.code == 3
    assert "in folded.onnx: its graph has 1 convolution" in compared.report["verdict"]


def test_what_a_graph_stores_of_a_layer_is_in_its_row(run, folder):
    graph("net.onnx", training=False)
    report = run("inspect-checkpoint", "net.onnx", "-f", "json").report
    assert report["facts"]["eps_source"] == report["facts"]["momentum_source"] == "file"
    (row,) = report["tables"]["layers"]
    known = ("kind_hint", "eps", "momentum", "stated_momentum", "convention", "channel_axis")
    assert [row[key] for key in known] == ["BatchNormalization", 1e-3, 0.1, 0.9, "onnx", 1]
    said = run("inspect-checkpoint", "net.onnx", "-v").stdout
    assert "momentum 0.9 (ONNX: weighs the old value; 0.1 in PyTorch's sense)" in said
    assert "Names alone" not in said


def test_a_symbol_file_that_is_missing_is_no_entry_that_was_not_read(run, tmp_path):
    path = tmp_path / "net-0000.params"
    path.write_bytes(saved(model()))
    result = run("inspect-checkpoint", path, "--width", "200")
    assert "not read" not in result.stdout
    assert "\nnet-symbol.json is not beside the file; it would tell eps, momentum" in result.stdout
