"""Configs: read within bounds, whatever they hold."""

import json

import pytest

from bncli.loaders.keras import configs
from bncli.loaders.keras.configs import parse_config
from tests.loaders.keras_files import batch_norm, functional, layer


def nodes(*layers):
    root = parse_config(json.dumps(functional(*layers)))
    return {node.name: node for node in root.all()}


def test_layers_of_one_class_are_numbered_in_their_list():
    found = nodes(
        layer("Conv2D", "a"), layer("Conv2D", "b", "a"), batch_norm("c", "b"),
        functional(layer("Conv2D", "a"), name="in"), layer("my>SpecialDense2D", "d", "c"),
    )  # fmt: skip
    assert {name: node.place for name, node in found.items()} == {
        "": "",
        "a": "layers/conv2d",
        "b": "layers/conv2d_1",
        "c": "layers/batch_normalization",
        "in": "layers/functional",
        "in/a": "layers/functional/layers/conv2d",
        "d": "layers/special_dense2d",
    }
    assert {name: node.before for name, node in found.items() if node.before} == {
        "b": "a", "c": "b", "d": "c"
    }  # fmt: skip


def test_a_layer_with_several_inputs_or_uses_has_none_before_it():
    two = layer("Add", "sum", "a")
    two["inbound_nodes"][0]["args"] += layer("Add", "x", "b")["inbound_nodes"][0]["args"]
    shared = batch_norm("bn", "a")
    shared["inbound_nodes"] *= 2
    found = nodes(two, shared)
    assert found["sum"].before == found["bn"].before == ""


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '"x"', "null", '{"class_name": 1, "config": {}}',
        '{"class_name": "A", "config": 1}', "[" * 100_000, '{"a":' * 50_000,
    ],
)  # fmt: skip
def test_what_is_no_config_is_none(text):
    assert parse_config(text) is None


@pytest.mark.parametrize(
    "config",
    [
        {"layers": None}, {"layers": [3]}, {"layers": []}, {"name": 3}, {"name": ["a"]},
        {"layers": [{"class_name": "A", "config": {}, "inbound_nodes": 3}]},
        {"layers": [{"class_name": "A", "config": {}, "inbound_nodes": [[[[[]]]]]}]},
        {"layers": [{"class_name": "", "config": {"axis": {}}}]},
    ],
)  # fmt: skip
def test_odd_configs_give_what_is_in_them(config):
    assert parse_config(json.dumps({"class_name": "Model", "config": config})) is not None


def test_depth_and_number_are_bounded(monkeypatch):
    deep = layer("Dense", "x")
    for _ in range(configs.MOST_DEPTH + 1):
        deep = functional(deep, name="m")
    assert parse_config(json.dumps(deep)) is None
    monkeypatch.setattr(configs, "MOST_NODES", 10)
    assert parse_config(json.dumps(functional(*[layer("Dense", "x")] * 9))) is not None
    assert parse_config(json.dumps(functional(*[layer("Dense", "x")] * 10))) is None
