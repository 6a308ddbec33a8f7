"""The convolution of a layer in the other file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.changes.partners import Weights, partners
from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers
from bncli.state_dict.in_front import in_front


@pytest.fixture
def two(tmp_path):
    def save(name, arrays):
        np.savez(tmp_path / name, **arrays)
        return open_file(tmp_path / name)

    return save


def network(widths, names=("conv{}", "bn{}"), *, layers=True, bias=False):
    arrays, last = {}, 3
    for number, width in enumerate(widths, 1):
        conv, bn = (name.format(number) for name in names)
        arrays[f"{conv}.weight"] = np.zeros((width, last, 3, 3), np.float32)
        if bias:
            arrays[f"{conv}.bias"] = np.zeros(width, np.float32)
        if layers:
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                arrays[f"{bn}.{leaf}"] = np.ones(width, np.float32)
        last = width
    return arrays


def found(a, b):
    fronts = in_front(a, {refs.name: refs for refs in batch_norm_layers(a)})
    there = partners(fronts, Weights.of(a), Weights.of(b))
    return {name: (before.name, before.bias is not None) for name, before in there.items()}


def test_by_name_without_wrappers_and_with_a_bias(two):
    a = two("a.npz", network((4, 8)))
    wrapped = {f"module.{k}": v for k, v in network((4, 8), layers=False, bias=True).items()}
    assert found(a, two("b.npz", wrapped)) == {
        "bn1": ("module.conv1", True),
        "bn2": ("module.conv2", True),
    }


def test_by_order_where_no_name_fits(two):
    a = two("a.npz", network((4, 8)))
    b = two("b.npz", network((4, 8), ("onnx::Conv_{}", ""), layers=False))
    assert found(a, b) == {"bn1": ("onnx::Conv_1", False), "bn2": ("onnx::Conv_2", False)}


def test_other_shapes_are_no_partners(two):
    a = two("a.npz", network((4, 8)))
    assert found(a, two("b.npz", network((4, 6), ("onnx::Conv_{}", ""), layers=False))) == {}
    assert found(a, two("c.npz", network((4, 6), layers=False))) == {"bn1": ("conv1", False)}


# ------------------------------------------------------------------ by what is in them


def kernels(widths, seed=0):
    """Weights of layers in a row, and their factors for each channel."""
    rng = np.random.default_rng(seed)
    inputs = (3, *widths)
    return [
        (rng.normal(0, 1, (width, into, 3, 3)).astype(np.float32), rng.uniform(0.5, 2, width))
        for into, width in zip(inputs, widths, strict=False)
    ]


def live(made):
    arrays = {}
    for number, (kernel, _) in enumerate(made, 1):
        arrays[f"conv{number}.weight"] = kernel
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"bn{number}.{leaf}"] = np.ones(len(kernel), np.float32)
    return arrays


def scaled(kernel, factor):
    return (kernel * factor[:, None, None, None]).astype(np.float32)


@pytest.mark.parametrize("last", [False, True])
def test_by_values_in_any_order_and_layout(two, last):
    made = kernels((8, 8, 8, 8))
    order = [2, 0, 3, 1]
    folded = {}
    for at in order:
        weight = scaled(*made[at])
        folded[f"const_fold_{at}"] = weight.transpose(2, 3, 1, 0).copy() if last else weight
        folded[f"const_bias_{at}"] = np.ones(8, np.float32)
    a, b = two("a.npz", live(made)), two("b.npz", folded)
    assert found(a, b) == {f"bn{at + 1}": (f"const_fold_{at}", False) for at in range(4)}
    assert [ref.name for ref in Weights.of(b).vectors] == [f"const_bias_{at}" for at in order]


def test_by_values_where_each_output_has_another_factor_only(two):
    made = kernels((8, 8))
    other = {f"w{at}": kernel for at, (kernel, _) in enumerate(kernels((8, 8), seed=1))}
    other["w2"] = other["w1"][:, :, 0, 0].copy()  # so that the order tells nothing
    assert found(two("a.npz", live(made)), two("b.npz", other)) == {}


def test_a_name_in_another_layout_is_the_same_one(two):
    made = kernels((8, 6))
    other = {
        f"conv{at}/kernel": kernel.transpose(2, 3, 1, 0).copy()
        for at, (kernel, _) in enumerate(kernels((8, 6), seed=1), 1)
    } | {"conv1/bias": np.ones(8, np.float32)}
    assert found(two("a.npz", live(made)), two("b.npz", other)) == {
        "bn1": ("conv1", True),
        "bn2": ("conv2", False),
    }


def test_a_graph_tells_the_bias_beside_a_weight(two):
    first = two("a.npz", network((4, 8)))
    arrays = network((4, 8), layers=False) | {"x1": np.zeros(4, np.float32)}
    told = replace(two("b.npz", arrays), biases={"conv1.weight": "x1", "conv2.weight": "gone"})
    assert found(first, told) == {"bn1": ("conv1", True), "bn2": ("conv2", False)}


def test_a_graph_tells_that_there_is_no_bias(two):
    first = two("a.npz", network((4, 8)))
    arrays = network((4, 8), layers=False) | {"conv1.bias": np.zeros(4, np.float32)}
    told = replace(two("b.npz", arrays), biases={"conv1.weight": ""})
    weights = Weights.of(told)
    assert weights.bare == {"conv1"}
    assert "conv1" not in weights.biases
    assert found(first, told)["bn1"] == ("conv1", False)
