"""basic-pitch: one network, with its BatchNorm in the SavedModel and folded in the ONNX file."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.loaders import open_model
from bncli.state_dict import batch_norm_layers

from .packages import installed

pytestmark = pytest.mark.published
REQUIREMENT = "basic-pitch==0.4.0"
CONVOLUTIONS = {
    "batch_normalization_2": ("conv2d_1/kernel", "const_fold_opt__727"),
    "batch_normalization_3": ("conv2d_4/kernel", "const_fold_opt__707"),
}


@pytest.fixture(scope="module")
def models():
    (onnx,) = installed(REQUIREMENT).rglob("nmp.onnx")
    return onnx.with_suffix(""), onnx


def test_all_three_layers_are_folded_with_the_eps_of_keras(run, models):
    report = run("compare-checkpoints", *models, "--format", "json").report
    rows = report["tables"]["layers"]
    assert [row["state"] for row in rows] == ["folded"] * 3
    found = {finding["subject"]: finding["evidence"] for finding in report["findings"]}
    assert {evidence["eps"] for evidence in found.values()} == {1e-3}
    assert {evidence["fault"] for evidence in found.values()} == {None}
    assert found["batch_normalization"]["cause"] == "scale-and-shift"  # nothing stands before it
    for layer, (_, kernel) in CONVOLUTIONS.items():
        assert found[layer]["convolution"] == kernel
        assert found[layer]["residual"] < 1e-6


def test_no_other_eps_fits(models):
    """By plain arithmetic: 1e-3 to 4e-7, and 1e-5 is off by 5e-2."""
    saved, onnx = map(open_model, models)
    layers = {layer.name: layer for layer in batch_norm_layers(saved)}
    off = dict.fromkeys((1e-3, 1e-5), 0.0)
    for layer, (kernel, folded) in CONVOLUTIONS.items():
        weight = layers[layer].weight.read().astype(np.float64)
        var = layers[layer].running_var.read().astype(np.float64)
        old = saved.tensors[kernel].read().astype(np.float64).transpose(3, 2, 0, 1)
        new = onnx.tensors[folded].read().astype(np.float64)
        factors = (new * old).sum((1, 2, 3)) / (old * old).sum((1, 2, 3))
        for eps in off:
            apart = np.abs(factors / (weight / np.sqrt(var + eps)) - 1).max()
            off[eps] = max(off[eps], float(apart))
    assert off[1e-3] < 5e-7
    assert 0.01 < off[1e-5] < 0.1
