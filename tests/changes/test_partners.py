"""The convolution of a layer in the other file."""

from __future__ import annotations

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
