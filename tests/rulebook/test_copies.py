"""Which layers are copies of which, by their names."""

from __future__ import annotations

import pytest

from bncli.rulebook.copies import is_parameter, parameters_alone, parts_of, twins
from bncli.rulebook.layers import Bare, Checkpoint
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import layer


@pytest.mark.parametrize(
    ("live", "copy"),
    [
        ("model.layer1.bn", "ema.layer1.bn"),
        ("model.layer1.bn", "model_ema.module.layer1.bn"),
        ("state_dict.layer1.bn", "state_dict_ema.layer1.bn"),
        ("module.layer1.bn", "ema_model.module.layer1.bn"),
        ("student.backbone.bn", "teacher.backbone.bn"),
        ("model.model.0.bn", "ema.model.0.bn"),
        ("encoder_q.bn", "encoder_k.bn"),
        ("a/model/bn", "a/ema/bn"),
        ("net.bn", "swa.module.bn"),
        ("_orig_mod.module.layer1.bn", "ema._orig_mod.module.layer1.bn"),
    ],
)
def test_an_averaged_copy_is_paired_with_the_live_model(live, copy):
    names = [live, copy, live.replace("bn", "other.bn")]
    layers = [summary(layer(name)) for name in names]
    assert twins(layers) == {copy: live}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.layer1.bn", "model.layer2.bn"),
        ("G.bn", "D.bn"),
        ("schema.bn", "net.bn"),  # no component that says ema
        ("cinema.bn", "net.bn"),
        ("net.bn", "net.ema_norm"),  # the layer's own name is not a copy's
        ("ema.layer1.bn", "ema.layer2.bn"),  # no live model
    ],
)
def test_other_networks_are_no_copies(one, other):
    assert twins([summary(layer(one)), summary(layer(other))]) == {}


def test_a_copy_has_the_same_number_of_channels():
    assert twins([summary(layer("net.bn", 4)), summary(layer("ema.bn", 5))]) == {}


def test_one_layer_below_ema_in_a_network_of_many_is_no_copy():
    names = ["stem.bn", "layer1.bn", "layer2.bn", "layer2.ema.bn", "layer3.ema.bn"]
    assert twins([summary(layer(name)) for name in names]) == {}
    whole = [f"{root}.{number}" for root in ("net", "ema") for number in range(3)]
    pairs = {f"ema.{number}": f"net.{number}" for number in range(3)}
    assert twins([summary(layer(name)) for name in whole]) == pairs


def test_the_layers_of_a_copy_beside_its_blocks_are_paired_too():
    ends = ["bn1", *(f"layer{number}.{at}.bn1" for number in (1, 2) for at in (0, 1))]
    whole = [f"{root}.{end}" for root in ("student", "teacher") for end in ends]
    pairs = {f"teacher.{end}": f"student.{end}" for end in ends}
    assert twins([summary(layer(name)) for name in whole]) == pairs


def test_a_copy_is_known_by_its_n_averaged():
    layers = [summary(layer("best.module.bn")), summary(layer("live.bn"))]
    assert twins(layers) == {}
    assert twins(layers, ["best"]) == {"best.module.bn": "live.bn"}


def alone(layers, *bare, leaves=("weight", "bias")):
    """The names of what lacks statistics because parameters alone were copied."""
    file = Checkpoint([summary(layer(name)) for name in layers], [Bare(b, leaves) for b in bare])
    return parameters_alone(file)


def test_parameters_alone_are_known_by_what_holds_them():
    assert alone(["net.bn"], "optimizer.exp_avg.bn", "ema.bn", "other.bn") == {
        "optimizer.exp_avg.bn",
        "ema.bn",
    }
    assert alone(["net.bn"], "ema.bn", leaves=("weight", "running_mean")) == set()
    assert alone(["net.bn"], "net.ema") == set()  # the layer's own name


def test_parameters_of_all_layers_are_a_copy_under_any_name():
    layers = ["net.stem.bn", "net.layer1.bn", "net.head.bn"]
    ends = ["stem.bn", "layer1.bn", "head.bn"]
    whole = [f"best.{end}" for end in ends]
    assert alone(layers, *whole) == set(whole)
    assert alone(layers, *whole[:2]) == set()
    assert alone(layers[:2], *whole[:2]) == set()  # two layers are as often a sibling
    assert alone(layers, *(f"best.x.{end}" for end in ends)) == {f"best.x.{end}" for end in ends}


def test_an_attention_called_ema_is_found_where_its_name_ends():
    whole = [f"net.{number}.bn" for number in range(5)]
    names = [*whole, *(f"ema.{number}.bn" for number in range(5))]
    pairs = twins([summary(layer(name)) for name in names])
    assert pairs == {f"ema.{number}.bn": f"net.{number}.bn" for number in range(5)}
    # Two copies: of one only the layer beside the live ones is there.
    lone = twins([summary(layer(name)) for name in [*names, "x.ema.bn"]])
    assert lone == pairs


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.weight", True), ("bias", True), ("a/kernel", True), ("a.running_mean", False),
     ("a.in_proj_weight", True), ("a.num_batches_tracked", False)],
)  # fmt: skip
def test_which_tensors_are_parameters(name, expected):
    assert is_parameter(name) is expected
    assert parts_of("a.b/c") == ("a", "b", "c")
