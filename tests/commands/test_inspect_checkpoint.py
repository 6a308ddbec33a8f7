"""`bncli inspect-checkpoint`: the layers of checkpoints made here and of published ones."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bncli.commands.inspect_checkpoint.layer_settings import matches
from bncli.errors import ExitCode

CORPUS = Path(
    os.environ.get("BNCLI_CORPUS", Path(__file__).resolve().parents[3] / "shared" / "corpus")
)
EXPECTED = CORPUS / "expected.json"
PUBLISHED = json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else []
REFUSED = ("unknown", "lfs-pointer", "hdf5", "onnx")

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


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.LayerNorm(5), nn.GroupNorm(2, 4)
    )
    layers.add_module("head", nn.BatchNorm1d(6, eps=1e-3, momentum=None))
    for module in layers:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.1, 2)
            module.num_batches_tracked.fill_(7)
            nn.init.normal_(module.weight)
    return layers


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
        assert (row["eps"], row["momentum"], row["kind_hint"]) == (1e-5, 0.1, None)
    facts = report["facts"]
    assert (facts["container"], facts["layers"], facts["channels"]) == ("torch-zip", 2, 10)
    assert (facts["eps_source"], facts["momentum_source"]) == ("assumed", "assumed")
    assert (
        "2 BatchNorm layers, 10 channels; num_batches_tracked: 2 layers at 7." in report["verdict"]
    )


def test_pickled_module(run, folder):
    """A module saved whole brings its class, eps and momentum along."""
    torch.save(net(), "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    rows = report["tables"]["layers"]
    found = [(row["kind_hint"], row["eps"], row["momentum"]) for row in rows]
    assert found == [("BatchNorm2d", 1e-5, 0.1), ("BatchNorm1d", 1e-3, "none")]
    assert report["facts"]["eps_source"] == "file"


def test_eps_flag(run, folder):
    torch.save(net().state_dict(), "net.pt")
    one = run("inspect-checkpoint", "net.pt", "--eps", "0", "-f", "json").report
    assert one["facts"]["eps_source"] == "flag"
    other = run("inspect-checkpoint", "net.pt", "--eps", "100", "-f", "json").report
    scales = [report["tables"]["layers"][0]["scale_max"] for report in (one, other)]
    assert abs(scales[0]) > 5 * abs(scales[1])
    refused = run("inspect-checkpoint", "net.pt", "--eps", "-1")
    assert (refused.code, refused.stderr) == (2, "bncli: --eps -1: eps is a number, 0 or more.\n")


def test_several_files(run, folder):
    for name in ("a.pt", "b.pt"):
        torch.save(net().state_dict(), name)
    report = run("inspect-checkpoint", "a.pt", "b.pt", "-f", "json").report
    assert [row["path"] for row in report["tables"]["layers"]] == ["a.pt", "a.pt", "b.pt", "b.pt"]
    assert report["facts"]["path"] == ["a.pt", "b.pt"]
    assert "in 2 files" in report["verdict"]


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
    assert result.report["verdict"].startswith("No BatchNorm layer: 7 tensors, ")
    assert run("inspect-checkpoint", "none.pt", "--fail-on", "never").code == ExitCode.NOTHING


def test_layer_that_cannot_be_read_does_not_spoil_the_file(run, folder):
    state = net().state_dict()
    state["head.running_var"] = torch.empty(6, device="meta")
    torch.save(state, "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", "json")
    assert result.code == ExitCode.OK
    good, bad = result.report["tables"]["layers"]
    assert good["note"] is None
    assert "1 layer could not be read whole." in result.report["verdict"]
    assert good["var_max"] > 0
    assert "head.running_var" in bad["note"]
    assert bad["var_max"] is None
    assert bad["mean_max"] == state["head.running_mean"].max().item()


def test_not_finite_values_are_counted(run, folder):
    state = net().state_dict()
    state["1.running_var"][2] = float("nan")
    state["1.running_mean"][0] = float("inf")
    torch.save(state, "net.pt")
    row = run("inspect-checkpoint", "net.pt", "-f", "json").report["tables"]["layers"][0]
    assert row["nonfinite"] == 2
    assert row["var_max"] == np.nanmax(state["1.running_var"].numpy())


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


def test_one_layer_or_all_below_a_prefix(run, folder):
    state = {
        f"{model}.{key}": value for model in ("a", "b") for key, value in net().state_dict().items()
    }
    torch.save(state, "net.pt")

    def names(spec):
        report = run("inspect-checkpoint", spec, "-f", "json").report
        return [row["name"] for row in report["tables"]["layers"]]

    assert names("net.pt") == ["a.1", "a.head", "b.1", "b.head"]
    assert names("net.pt::a") == ["a.1", "a.head"]
    assert names("net.pt::b.head") == ["b.head"]
    refused = run("inspect-checkpoint", "net.pt::c")
    assert refused.code == ExitCode.ERROR
    assert refused.stderr.count("\n") == 1


def test_lengths_that_disagree_are_noted(run, folder):
    state = net().state_dict()
    state["head.weight"] = torch.ones(3)
    torch.save(state, "net.pt")
    row = run("inspect-checkpoint", "net.pt", "-f", "json").report["tables"]["layers"][1]
    assert row["note"]
    assert row["scale_max"] is None


def test_constant_columns_are_said_once_on_a_narrow_terminal(run, folder):
    torch.save(net().state_dict(), "net.pt")
    narrow = run("inspect-checkpoint", "net.pt", "--width", "80").stdout
    assert "in every row: nonfinite 0, dtype float32, eps 1e-05, momentum 0.1" in narrow
    assert "kind_hint" not in narrow
    assert "kind_hint" in run("inspect-checkpoint", "net.pt").stdout


LAYER = {
    "bn.weight": np.ones(3),
    "bn.bias": np.ones(3),
    "bn.running_mean": np.array([0.1, 0.2, 0.3]),
    "bn.running_var": np.array([0.3, 0.2, 0.4]),
}


@pytest.mark.parametrize("container", ["npz", "pt"])
def test_what_is_no_number_is_counted(run, save, container):
    texts = {"names": np.array(["a", "b"]), "objects": np.array([None, 1], dtype=object)}
    report = run(
        "inspect-checkpoint", save(f"x.{container}", **LAYER, **texts), "-f", "json"
    ).report
    assert (report["facts"]["layers"], report["facts"]["unread"]) == (1, 2)
    assert "2 entries were not read: " in report["verdict"]
    report = run("inspect-checkpoint", save(f"y.{container}", **LAYER), "-f", "json").report
    assert report["facts"]["unread"] is None
    report = run("inspect-checkpoint", save(f"z.{container}", **texts), "-f", "json").report
    assert (report["exit_code"], report["facts"]["unread"]) == (3, 2)


def test_the_statistics_as_objects_are_counted(run, save):
    objects = {key: value.astype(object) for key, value in LAYER.items()}
    report = run("inspect-checkpoint", save("x.pt", **objects), "-f", "json").report
    assert (report["exit_code"], report["facts"]["unread"]) == (3, 4)


def test_a_tensor_of_a_layer_has_its_note_and_is_not_counted_again(run, save):
    objects = LAYER | {"bn.bias": np.array([None] * 3), "other": np.array(["a"])}
    report = run("inspect-checkpoint", save("x.npz", **objects), "-f", "json").report
    assert report["facts"]["unread"] == 1
    assert report["tables"]["layers"][0]["note"]


def test_checkpoints_inside_of_an_archive(run, folder):
    """As Stable-Baselines3 saves: policy.pth in a .zip."""
    with zipfile.ZipFile("agent.zip", "w") as archive:
        torch.save(LAYER, "policy.pth")
        archive.write("policy.pth")
        archive.writestr("old.pth", b"\x80\x02.")
    report = run("inspect-checkpoint", "agent.zip", "-f", "json").report
    assert [row["name"] for row in report["tables"]["layers"]] == ["policy.bn"]
    assert report["facts"]["unread"] == 1
    assert "old.pth" in report["verdict"]
    assert run("inspect-checkpoint", "agent.zip::policy.bn").code == 0


@pytest.mark.parametrize(
    ("name", "glob", "expected"),
    [
        ("a.b.bn", "bn", True),
        ("a.b.bn", "b.*", True),
        ("a.b.bn", "a.*", True),
        ("a/b/bn", "b/*", True),
        ("a.b.bn", "n", False),
        ("a.b.bn", "*n", True),
        ("a.b.bn", "b", False),
        ("layer10.bn", "layer1.*", False),
        ("layer1.bn", "layer[12].*", True),
    ],
)
def test_globs_match_any_end_of_a_name(name, glob, expected):
    assert matches(name, glob) is expected
