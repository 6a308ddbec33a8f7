"""Which layers are copies of which, by their names."""

from __future__ import annotations

import pytest

from bncli.rulebook.copies import twins
from bncli.rulebook.layers import summary
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
