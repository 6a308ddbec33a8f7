"""What is in front of each layer, as a pair of layers takes it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bncli.changes.before import befores
from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers
from tests.changes.files import made, network, norm

CORPUS = Path(
    os.environ.get("BNCLI_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus"
)


def found(file):
    return befores(file, {layer.name: layer for layer in batch_norm_layers(file)})


def test_weight_bias_and_axis():
    file = made(
        network((8, 16), seed=1)
        | {"fc.weight": np.zeros((4, 16)), "fc.bias": np.zeros(4)}
        | norm("bn", 4, 1)
    )
    before = found(file)
    assert list(before) == ["layer0.bn", "layer1.bn", "bn"]
    assert before["layer1.bn"].name == "layer1.conv"
    assert before["layer1.bn"].weight is file.tensors["layer1.conv.weight"]
    assert before["layer1.bn"].bias is None
    assert before["bn"].bias is file.tensors["fc.bias"]
    assert {each.axis for each in before.values()} == {0}


@pytest.mark.corpus
@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}")
@pytest.mark.parametrize(
    ("name", "layers", "left_out"),
    [
        ("ultra-light-fd/version-RFB-320.pth", 35, 0),
        ("yunet/yunet_n.pth", 18, 0),
        ("silent-face/2.7_80x80_MiniFASNetV2.pth", 50, 0),
        ("3ddfa-v2/mb05_120x120.pth", 27, 0),
        ("yolo-fastest/FastestDet_weight_AP05_0.253207.pth", 70, 0),
        ("cgcnn/semi-metal-classification.pth.tar", 8, 8),  # bn1 and bn2 behind one linear layer
        ("burn/mnist.safetensors", 2, 1),  # norm1 is behind conv3
        ("burn/complex_nested.pt", 3, 1),  # norm1 is behind a module
    ],
)
def test_published_networks(name, layers, left_out):
    file = open_file(CORPUS / name)
    before = found(file)
    norms = batch_norm_layers(file)
    assert len(norms) == layers
    assert len(before) == layers - left_out
    for layer in norms:
        if layer.name in before:
            assert before[layer.name].weight.shape[0] == layer.running_var.numel
            assert before[layer.name].axis == 0
