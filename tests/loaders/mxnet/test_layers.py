"""Layers by the nodes of a symbol, or by names."""

import json

import numpy as np
import pytest

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state
from tests.loaders.mxnet_files import model, saved, symbol

WITH = {"fix_gamma": "False", "eps": "2e-05", "momentum": "0.8", "axis": "1"}


def opened(folder, arrays, graph=None, name="net-0010.params"):
    (folder / name).write_bytes(saved(arrays))
    if graph is not None:
        (folder / "net-symbol.json").write_bytes(graph)
    return open_file(folder / name)


def test_a_symbol_of_another_model_gives_no_layers_of_this_one(tmp_path):
    file = opened(tmp_path, model(), symbol({"other": WITH}))
    assert not file.layers
    assert not file.modules


def test_names_of_gluon(tmp_path):
    values = [np.full(2, number, "f4") for number in range(1, 5)]
    ends = ("gamma", "beta", "running_mean", "running_var")
    exported = {
        f"{'aux' if 'running' in end else 'arg'}:net0_batchnorm0_{end}": value
        for end, value in zip(ends, values, strict=True)
    }
    own = {f"features.1.{end}": value for end, value in zip(ends, values, strict=True)}
    for name, arrays in (("net0_batchnorm0", exported), ("features.1", own)):
        (layer,) = batch_norm_layers(opened(tmp_path, arrays))
        state = read_state(layer)
        assert (layer.name, layer.module.convention) == (name, "gluon")
        read = (state.weight, state.bias, state.running_mean, state.running_var)
        assert np.array_equal(read, values)


@pytest.mark.parametrize("text", ["many", "nan", "inf", ""])
def test_an_attribute_that_is_no_number_is_not_known(text, tmp_path):
    graph = symbol({"bn0": {"eps": text, "momentum": text, "axis": text}})
    (layer,) = batch_norm_layers(opened(tmp_path, model(("bn0",)), graph))
    assert (layer.module.eps, layer.module.momentum, layer.module.channel_axis) == (None,) * 3
    assert not layer.module.has_momentum


def test_the_oldest_symbols_have_no_statistics_among_the_inputs(tmp_path):
    graph = json.loads(symbol({"bn0": WITH}).replace(b"bn0_fwd", b"bn0"))
    for node in graph["nodes"]:
        node["inputs"] = [each[:2] for each in node["inputs"][:3]]
    arrays = model(("bn0",))
    (layer,) = batch_norm_layers(opened(tmp_path, arrays, json.dumps(graph).encode()))
    state = read_state(layer)
    assert np.array_equal(state.weight, arrays["arg:bn0_gamma"])
    assert np.array_equal(state.running_var, arrays["aux:bn0_moving_var"])


def test_what_else_reads_a_convolution_or_cuts_it_into_groups(tmp_path):
    for front, own, there in (
        ("Convolution", {"num_group": "3"}, True),
        ("FullyConnected", {}, True),
        ("Deconvolution", {}, True),
        ("Deconvolution", {"num_group": "3"}, False),
        ("Pooling", {}, False),
    ):
        file = opened(tmp_path, model(("bn0",)), symbol({"bn0": WITH}, front=front, **own))
        assert (file.layers["bn0"].front is not None) == there
    graph = json.loads(symbol({"bn0": WITH}))
    graph["nodes"].append({"op": "elemwise_add", "name": "x", "inputs": [[2, 0, 0], [7, 0, 0]]})
    file = opened(tmp_path, model(("bn0",)), json.dumps(graph).encode())
    assert file.layers["bn0"].front is None


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (), (4, 3)])
def test_a_weight_of_other_outputs_is_not_the_one_in_front(shape, tmp_path):
    arrays = model(("bn0",))
    graph = symbol({"bn0": WITH})
    assert opened(tmp_path, arrays, graph).layers["bn0"].front is not None
    arrays["arg:conv0_weight"] = np.zeros(shape or (1,))
    assert opened(tmp_path, arrays, graph).layers["bn0"].front is None
