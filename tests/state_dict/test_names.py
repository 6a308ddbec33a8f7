"""The same network in other frameworks' names is found, and what is not BatchNorm is not."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from bncli.state_dict.names import has_trees, in_torch, of_convention, split

rng = np.random.default_rng(0)
NET = {
    layer: {
        "weight": rng.normal(1, 0.2, channels).astype(np.float32),
        "bias": rng.normal(0, 0.2, channels).astype(np.float32),
        "running_mean": rng.normal(0, 2, channels).astype(np.float32),
        "running_var": rng.uniform(0.1, 3, channels).astype(np.float32),
    }
    for layer, channels in (("block", 6), ("stem", 4))
}

NAMES = {
    "keras": ("{}/gamma:0", "{}/beta:0", "{}/moving_mean:0", "{}/moving_variance:0", 1e-3),
    "keras, nested": (
        "model/{0}/bn/gamma",
        "model/{0}/bn/beta",
        "model/{0}/bn/moving_mean",
        "model/{0}/bn/moving_variance",
        1e-3,
    ),
    "sonnet": ("{}.scale", "{}.offset", "{}.moving_mean", "{}.moving_variance", 1e-3),
    "mxnet": ("arg:{}_gamma", "arg:{}_beta", "aux:{}_moving_mean", "aux:{}_moving_var", 1e-3),
    "gluon": ("{}.gamma", "{}.beta", "{}.running_mean", "{}.running_var", 1e-5),
    "paddle": ("{}.weight", "{}.bias", "{}._mean", "{}._variance", 1e-5),
    "chainer": ("{}/gamma", "{}/beta", "{}/avg_mean", "{}/avg_var", 2e-5),
    "darknet": ("{}.scales", "{}.biases", "{}.rolling_mean", "{}.rolling_variance", 1e-6),
    "flax": ("{}.scale", "{}.bias", "{}.mean", "{}.var", 1e-5),
    "flax, two trees": (
        "params/{}/scale",
        "params/{}/bias",
        "batch_stats/{}/mean",
        "batch_stats/{}/var",
        1e-5,
    ),
    "torch": ("{}.weight", "{}.bias", "{}.running_mean", "{}.running_var", 1e-5),
}


def renamed(names):
    return {
        pattern.format(layer): value
        for layer, tensors in NET.items()
        for pattern, value in zip(names[:4], tensors.values(), strict=True)
    }


@pytest.mark.parametrize("container", ["npz", "safetensors", "pt"])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_another_frameworks_names(run, save, folder, names, container):
    tensors = renamed(names)
    if container == "safetensors":
        save_file(tensors, "net.safetensors")
    elif container == "npz":
        np.savez("net.npz", **tensors)
    else:
        import torch

        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, "net.pt")
    report = run("inspect-checkpoint", f"net.{container}", "-f", "json").report
    rows = report["tables"]["layers"]
    assert len(rows) == len(NET)
    for row, (layer, tensors) in zip(rows, NET.items(), strict=True):
        assert layer in row["name"]
        assert row["channels"] == len(tensors["weight"])
        assert row["mean_min"] == tensors["running_mean"].min()
        assert row["var_max"] == tensors["running_var"].max()
        eps = names[4]
        scale = tensors["weight"].astype(np.float64) / np.sqrt(
            tensors["running_var"].astype(np.float64) + eps
        )
        assert row["eps"] == eps
        assert row["scale_max"] == pytest.approx(scale.max(), rel=1e-12)
    assert report["facts"]["eps_source"] == "assumed"
    assert report["findings"] == []


@pytest.mark.parametrize(
    "names",
    [
        ["ln/gamma", "ln/beta"],
        ["obs.mean", "obs.var", "obs.count"],
        ["obs.mean", "obs.var", "obs.scale"],
        ["gauss.mean", "gauss.var", "gauss.bias"],
        ["rms.scale"],
        ["x_gamma", "x_beta", "x_moving_average"],
        ["x/moving_mean", "x/gamma"],
        ["running_mean_std.running_mean", "running_mean_std.running_var", "running_mean_std.count"],
    ],
)
def test_what_only_resembles_them(run, save, names):
    save("x.npz", **{name: np.ones(4) for name in names})
    assert run("inspect-checkpoint", "x.npz").code == 3


def test_split():
    assert split("a.b.running_mean") == ("a.b", "running_mean")
    assert split("a/b/gamma:0") == ("a/b", "gamma")
    assert split("net/aux:bn0_moving_var") == ("net/bn0", "moving_var")
    assert split("aux:bn0_moving_var") == ("bn0", "moving_var")
    assert split("x_running_mean") == ("", "")
    assert split("weight") == ("", "weight")
    assert split("batch_stats.a.b.mean", trees=True) == ("a.b", "mean")
    assert split("state/batch_stats/mean", trees=True) == ("state", "mean")
    assert split("params/my_params/scale", trees=True) == ("my_params", "scale")
    assert split("params.bn.weight") == ("params.bn", "weight")


def test_trees_are_components():
    assert has_trees("batch_stats/bn/mean")
    assert has_trees("x.batch_stats.bn.mean")
    assert not has_trees("my_batch_stats.bn.mean")


def test_torch_wins_where_both_names_are_there():
    names = frozenset({"running_mean", "running_var", "moving_mean", "moving_variance", "weight"})
    naming, own = in_torch(names)
    assert naming.name == "torch"
    assert own["running_mean"] == "running_mean"


def test_the_naming_of_a_convention():
    assert of_convention("keras3").mean == "moving_mean"
    assert of_convention("tf-unfused").name == "keras"
    assert of_convention("onnx-9").name == "onnx"
    assert of_convention("pytorch").name == "torch"
    assert of_convention("equinox") is None
