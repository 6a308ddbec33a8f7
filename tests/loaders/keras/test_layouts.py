"""The layers of a file in both of Keras' layouts: whose variables they are, in which order."""

import json

import pytest

from bncli.loaders.hdf5.datasets import Objects
from bncli.loaders.keras.configs import parse_config
from bncli.loaders.keras.layouts import (
    STATISTICS,
    Part,
    is_by_name,
    is_numbered,
    parts_by_name,
    parts_by_number,
    says_batch_norm,
)
from tests.loaders.keras_files import batch_norm, functional, layer, net_2, net_3

OWN = ("gamma", "beta", "moving_mean", "moving_variance")


def by_name(groups, *, top="", listed=True):
    """The datasets of {layer: names of its weights}, as Keras 2 calls them."""
    names = [f"{top}{group}/{own}:0" for group, owned in groups.items() for own in owned]
    texts = {(top.rstrip("/"), "layer_names"): list(groups)} if listed else {}
    return Objects(tensors=dict.fromkeys(names), texts=texts)


def by_number(groups, **names):
    """The datasets of {group: how many variables}, as Keras 3 numbers them."""
    tensors = [f"{group}/vars/{n}" for group, count in groups.items() for n in range(count)]
    texts = {(f"{group}/vars", "name"): name for group, name in names.items()}
    return Objects(tensors=dict.fromkeys(tensors), texts=texts)


def root(config):
    return parse_config(json.dumps(config))


def test_each_layout_is_known_by_what_it_alone_has():
    named, numbered = by_name({"a": ["a/kernel"]}), by_number({"layers/a": 1})
    assert (is_by_name(named), is_numbered(named)) == (True, False)
    assert (is_by_name(numbered), is_numbered(numbered)) == (False, True)
    assert not is_numbered(Objects(tensors={"vars/x": None, "myvars/0": None}))
    assert is_numbered(Objects(tensors={"vars/0": None}))


@pytest.mark.parametrize("top", ["", "model_weights/"])
def test_variables_belong_to_the_layer_in_whose_group_they_are(top):
    found = by_name({"b": ["b/kernel"], "a": [f"a/{own}" for own in OWN]}, top=top)
    parts = parts_by_name(found, None)
    assert [(part.name, part.group) for part in parts] == [("b", f"{top}b"), ("a", f"{top}a")]
    assert parts[1].variables == {own: f"{top}a/a/{own}:0" for own in OWN}
    assert parts[1].variables.keys() >= STATISTICS


def test_the_order_is_that_of_the_file_or_of_the_config():
    groups = {"z": ["z/kernel"], "a": ["a/kernel"]}
    assert [part.name for part in parts_by_name(by_name(groups), None)] == ["z", "a"]
    found = by_name(groups, listed=False)
    config = root(functional(layer("Dense", "a"), layer("Dense", "z", "a")))
    assert [part.name for part in parts_by_name(found, config)] == ["a", "z"]
    assert [part.node.names for part in parts_by_name(found, config)] == [("a",), ("z",)]


def test_a_model_in_a_model_is_one_group_of_several_layers():
    groups, config = net_2()
    found = by_name({name: [key.removesuffix(":0") for key in own] for name, own in groups.items()})
    names = [part.name for part in parts_by_name(found, root(config))]
    assert names == ["conv", "bn", "inner/fc", "inner/bn"]
    assert [part.name for part in parts_by_name(found, None)] == names
    assert all(part.node is not None for part in parts_by_name(found, root(config)))


@pytest.mark.parametrize(
    ("order", "behind"),
    [
        ("cb", {"b0": "c0"}),
        ("cbcb", {"b0": "c0", "b1": "c1"}),
        ("ccb", {}),  # two branches, listed in turns
        ("cbb", {}),
        ("bc", {}),
        ("cab", {}),  # one without weights is between
    ],
)
def test_what_stands_before_a_layer_where_the_list_leaves_no_doubt(order, behind):
    groups, used = {}, {}
    for kind in order:
        name = f"{kind}{used.setdefault(kind, 0)}"
        used[kind] += 1
        own = {"b": OWN, "c": ["kernel"], "a": []}[kind]
        groups[name] = [f"{name}/{leaf}" for leaf in own]
    parts = parts_by_name(by_name(groups), None)
    assert {part.name: part.behind for part in parts if part.behind} == behind


def test_numbers_are_a_layers_variables_in_their_order():
    found = by_number({"layers/dense": 12}, **{"layers/dense": "fc"})
    (part,) = parts_by_number(found, None)
    assert (part.name, part.group) == ("fc", "layers/dense")
    assert list(part.variables) == [str(number) for number in range(12)]


def test_names_come_from_the_config_and_else_from_the_groups():
    groups, names, config = net_3()
    counts = {group: len(values) for group, values in groups.items()}
    expected = ["conv", "bn", "inner/fc", "inner/bn"]
    known = parts_by_number(by_number(counts), root(config))
    assert [part.name for part in known] == expected
    assert all(part.node is not None for part in known)
    told = parts_by_number(by_number(counts, **names), None)
    assert [part.name for part in told] == expected
    bare = parts_by_number(by_number(counts), None)
    assert [part.name for part in bare] == [
        "conv2d", "batch_normalization", "functional/dense", "functional/batch_normalization",
    ]  # fmt: skip


def test_a_config_under_which_a_layer_has_another_name_is_of_another_model():
    groups = {"layers/batch_normalization": 4}
    config = root(functional(batch_norm("first", None)))
    (part,) = parts_by_number(by_number(groups), config)
    assert part.node is not None
    other = by_number(groups, **{"layers/batch_normalization": "second"})
    (part,) = parts_by_number(other, config)
    assert (part.name, part.node) == ("second", None)


@pytest.mark.parametrize(
    ("name", "group", "said"),
    [
        ("bn", "x", True), ("conv_bn", "x", True), ("bn1", "x", True), ("a/BatchNorm_2", "x", True),
        ("first", "layers/batch_normalization_3", True), ("bn/first", "x", False),
        ("bnorm", "x", False), ("abn", "x", False), ("dense", "layers/dense", False),
    ],
)  # fmt: skip
def test_what_a_batch_norm_is_called(name, group, said):
    assert says_batch_norm(Part(name, group)) is said
