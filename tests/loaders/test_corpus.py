"""Published checkpoints against what an independent reading found in them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.errors import BncliError, UnsupportedFileError
from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state

from .files import bits

CORPUS = Path(
    os.environ.get("BNCLI_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus"
)
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no {CORPUS}"),
]
EXPECTED = json.loads((CORPUS / "expected.json").read_text("utf-8")) if CORPUS.is_dir() else []
READ = {"torch-zip", "torch-legacy", "torchscript", "safetensors", "npz", "onnx", "hdf5 (Keras)"}
CALLED = {"hdf5 (Keras)": "keras-h5"}
REFUSED = {
    "lfs-pointer": "it is a git-lfs pointer",
    "unknown:616263": "it is text that begins with 'abc'",
}


def extremes(array):
    return {"min": float(np.min(array)), "max": float(np.max(array))}


@pytest.mark.parametrize("entry", EXPECTED, ids=lambda entry: entry["file"])
def test_every_layer_is_found_with_its_values(entry):
    path = CORPUS / entry["file"]
    if entry["container"] not in READ:
        with pytest.raises(UnsupportedFileError, match=REFUSED[entry["container"]]):
            open_file(path)
        return
    file = open_file(path)
    assert file.container == CALLED.get(entry["container"], entry["container"])
    found = [
        {
            "prefix": state.name,
            "channels": len(state.running_mean),
            "dtype": state.dtype,
            "num_batches_tracked": state.num_batches_tracked,
            "mean": extremes(state.running_mean),
            "var": extremes(state.running_var),
        }
        for state in map(read_state, batch_norm_layers(file))
    ]
    assert len(found) == entry["batch_norm_layers"]
    if not entry["layers"]:  # only counted
        return
    assert sorted(found, key=lambda layer: layer["prefix"]) == sorted(
        entry["layers"], key=lambda layer: layer["prefix"]
    )


def test_one_network_as_onnx_and_as_pytorch_has_the_same_layers(run):
    paths = [CORPUS / "ultra-light-fd" / f"version-RFB-320.{ending}" for ending in ("onnx", "pth")]
    theirs, ours = ({layer.name: layer for layer in batch_norm_layers(open_file(p))} for p in paths)
    assert theirs.keys() == ours.keys()
    for name, layer in theirs.items():
        assert layer.tensors.keys() == ours[name].tensors.keys()
        for leaf, ref in layer.tensors.items():
            assert bits(ref.stored()) == bits(ours[name].tensors[leaf].stored())
    assert {layer.module.eps for layer in theirs.values()} == {1e-5}
    assert {layer.module.momentum for layer in theirs.values()} == {0.1, 0.01}
    code, out, _ = run("compare-checkpoints", *paths)
    assert code == 0
    assert "PASS  all 35 layers are identical, bit for bit" in out


def test_the_layers_of_keras_have_what_their_config_says():
    layers = batch_norm_layers(open_file(CORPUS / "keras-h5" / "tiny_XCEPTION_KDEF.hdf5"))
    assert {layer.name for layer in layers} == {f"batch_normalization_{n}" for n in range(1, 15)}
    for module in (layer.module for layer in layers):
        assert (module.eps, module.stated_momentum, module.momentum) == (1e-3, 0.99, 0.01)
        assert (module.convention, module.channel_axis) == ("tf-unfused", -1)


def flat(value, prefix=""):
    """The tensors in what torch.load gives, by their path."""
    if isinstance(value, torch.Tensor):
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        items = enumerate(value)
    found = {}
    for key, inner in items:
        found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found


def torch_files():
    if not CORPUS.is_dir():
        return []
    listed = [CORPUS / e["file"] for e in EXPECTED if e["container"].startswith("torch")]
    return listed + sorted((CORPUS / "tensors" / "burn-reader").glob("*.pt"))


@pytest.mark.parametrize("path", torch_files(), ids=lambda path: path.name)
def test_every_tensor_is_what_torch_reads(path):
    """Our own corpus is trusted, so torch.load may run what it finds (a NumPy scalar)."""
    expected = flat(torch.load(path, map_location="cpu", weights_only=False))
    tensors = open_file(path).tensors
    assert set(tensors) == set(expected)
    for key, value in expected.items():
        assert bits(tensors[key].stored()) == bits(value)


@pytest.mark.parametrize(
    "path", sorted((CORPUS / "tensors").rglob("*.npy")), ids=lambda path: path.name
)
def test_every_array_is_what_numpy_reads(path):
    try:
        expected = np.load(path)
    except ValueError:  # an object array
        with pytest.raises(BncliError, match="it holds Python objects"):
            open_file(path)
        return
    assert bits(open_file(path).tensors[""].stored()) == bits(expected)
