"""The convolution in front of each layer of networks that others published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers
from bncli.state_dict.in_front import in_front

CORPUS = Path(
    os.environ.get("BNCLI_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus"
)


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
    norms = batch_norm_layers(file)
    front = in_front(file, {layer.name: layer for layer in norms})
    assert len(norms) == layers
    assert len(front) == layers - left_out
    for layer in norms:
        if layer.name in front:
            assert front[layer.name].weight.shape[0] == layer.running_var.numel
            assert front[layer.name].axis == 0
