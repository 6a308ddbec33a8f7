"""What of a file may be matched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncli.changes.matching.sides import Layers, width
from bncli.errors import MissingTensorError
from bncli.model import StoredLayer
from tests.changes.files import made, norm

BARE = {"running_mean": "moving_mean", "running_var": "moving_variance"}


def test_a_convolution_with_a_bias_is_no_layer_whatever_its_kernel_is_called():
    tensors = {}
    for name, leaf in (("conv1", "kernel"), ("conv2", "weight"), ("conv3", "W")):
        tensors |= {f"{name}/{leaf}": np.zeros((3, 3, 4, 8)), f"{name}/bias": np.zeros(8)}
    layers = Layers.of(made(tensors | norm("bn", 8, 1) | {"scale/weight": np.ones(8)}), "")
    assert list(layers.every) == ["bn", "scale"]
    assert [layer.name for layer in layers.left] == ["bn"]


def test_statistics_alone_may_be_a_layer():
    layers = Layers.of(made(norm("a", 8, 1) | norm("b", 8, 2, leaves=BARE)), "")
    assert [layer.name for layer in layers.left] == ["a"]
    assert [layer.name for layer in layers.possible] == ["a", "b"]
    assert width(layers.every["b"]) == (8,)


def test_a_part_has_the_layers_that_the_file_tells_of_it():
    own = {leaf: f"net.x.{leaf}" for leaf in ("running_mean", "running_var", "weight", "bias")}
    file = made(norm("net.x", 8, 1) | norm("ema.x", 8, 2))
    file = replace(file, layers={"node": StoredLayer(own)})
    assert list(Layers.of(file, "net").judged) == ["node"]
    assert list(Layers.of(file, "ema").judged) == ["ema.x"]
    assert Layers.of(file, "ema").short("ema.x") == "x"
    with pytest.raises(MissingTensorError):
        Layers.of(file, "other")
