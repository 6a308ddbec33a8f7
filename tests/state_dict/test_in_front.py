"""The convolution or linear layer in front of each layer, by names and the order of the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncli.model import StoredFront, StoredLayer
from bncli.state_dict import batch_norm_layers
from bncli.state_dict.in_front import in_front
from bncli.state_dict.names import split_any
from tests.changes.files import made, network, norm
from tests.rulebook.networks import perceptron, residual, separable

KERAS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def fronts(tensors, container="npz"):
    """For each layer of a file with these tensors what is in front of it, and the axis."""
    file = made(tensors, container=container)
    layers = {layer.name: layer for layer in batch_norm_layers(file)}
    return {name: (near.name, near.axis) for name, near in in_front(file, layers).items()}


def of_module(module, *, ordered=True):
    """The same for a module's state_dict, sorted by name if it is not `ordered`."""
    tensors = {name: values.numpy() for name, values in module.state_dict().items()}
    container = "npz" if ordered else "safetensors"
    return fronts(tensors if ordered else dict(sorted(tensors.items())), container)


def conv(name, out, inputs, kernel=(3, 3), leaf="weight"):
    return {f"{name}.{leaf}": np.zeros((out, inputs, *kernel))}


class Named(nn.Module):
    """Modules in the order in which they are given."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def bn(width):
    return nn.BatchNorm2d(width)


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize("ordered", [True, False])
def test_a_residual_network(ordered):
    found = of_module(residual(), ordered=ordered)
    assert found == {
        "stem.1": ("stem.0", 0),
        **{
            f"{block}.bn{at}": (f"{block}.conv{at}", 0)
            for block in ("layer1.0", "layer1.1", "layer2.0")
            for at in (1, 2)
        },
        "layer2.0.downsample.1": ("layer2.0.downsample.0", 0),
    }


@pytest.mark.parametrize("ordered", [True, False])
def test_a_sequence_of_more_than_ten_layers_with_depthwise_convolutions(ordered):
    network = separable()
    found = of_module(network, ordered=ordered)
    assert found == {
        str(at): (str(at - 1), 0)
        for at, module in enumerate(network)
        if isinstance(module, nn.BatchNorm2d)
    }
    assert len(found) >= 5


@pytest.mark.parametrize("ordered", [True, False])
def test_linear_layers(ordered):
    assert of_module(perceptron(), ordered=ordered) == {"2": ("1", 0), "5": ("4", 0), "8": ("7", 0)}


@pytest.mark.parametrize("ordered", [True, False])
def test_a_network_whose_normalisation_comes_first(ordered):
    def block(inputs, outputs):
        return Named(
            bn1=bn(inputs),
            conv1=nn.Conv2d(inputs, outputs, 3),
            bn2=bn(outputs),
            conv2=nn.Conv2d(outputs, outputs, 3),
        )

    network = nn.Sequential(block(8, 8), block(8, 16), block(16, 16))
    found = of_module(network, ordered=ordered)
    # the file's order shows that conv1 is in front of bn2; sorted by name it does not
    expected = {f"{at}.bn2": (f"{at}.conv1", 0) for at in range(3)}
    assert found == (expected if ordered else {})


def test_a_normalisation_in_a_list_of_its_own():
    network = Named(
        mlp_convs=nn.ModuleList([nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)]),
        mlp_bns=nn.ModuleList([bn(8), bn(8)]),
    )
    assert of_module(network) == {f"mlp_bns.{at}": (f"mlp_convs.{at}", 0) for at in range(2)}


def test_all_convolutions_defined_before_all_norms():
    network = Named(conv1=nn.Conv2d(3, 8, 3), conv2=nn.Conv2d(8, 8, 3), bn1=bn(8), bn2=bn(8))
    assert of_module(network) == {"bn1": ("conv1", 0), "bn2": ("conv2", 0)}
    unclear = Named(a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 8, 3), x=bn(8), y=bn(8))
    assert of_module(unclear) == {}


def test_of_a_convolution_and_a_linear_layer_of_one_number_the_one_that_fits():
    network = Named(
        conv1=nn.Conv2d(3, 8, 1),
        fc1=nn.Linear(8, 16),
        conv2=nn.Conv2d(8, 12, 1),
        fc2=nn.Linear(16, 20),
        bn1=bn(8),
        bn2=bn(20),
    )
    assert of_module(network) == {"bn1": ("conv1", 0), "bn2": ("fc2", 0)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("conv", "bn"),
        ("conv", "norm"),
        ("conv1", "norm1"),
        ("conv_dw", "bn_dw"),
        ("conv1", "conv1_bn"),
        ("conv1", "bn_conv1"),
        ("fc", "bn"),
        ("fc2", "bn2"),
        ("linear_3", "batch_norm_3"),
        ("conv2d_4", "batch_normalization_4"),
        ("Conv_0", "BatchNorm_0"),
        ("conv0", "batchnorm0"),
    ],
)
def test_names_that_belong_together(first, second):
    # between them, and before, layers that fit as well
    tensors = conv("m.other", 8, 8) | conv(f"m.{first}", 8, 8) | conv("m.zother", 8, 8)
    assert fronts(tensors | norm(f"m.{second}", 8, 1))[f"m.{second}"] == (f"m.{first}", 0)
    ordered = dict(sorted((tensors | norm(f"m.{second}", 8, 1)).items()))
    assert fronts(ordered)[f"m.{second}"] == (f"m.{first}", 0)


def test_a_norm_in_the_scope_of_its_convolution():
    tensors = {"net/conv1/weights": np.zeros((3, 3, 4, 8))} | norm(
        "net/conv1/BatchNorm", 8, 1, leaves=KERAS, joint="/"
    )
    assert fronts(tensors) == {"net/conv1/BatchNorm": ("net/conv1", 3)}


# ------------------------------------------------------------------ other layouts


def test_the_layouts_of_other_frameworks():
    keras = norm("bn1", 8, 1, leaves=KERAS, joint="/")
    assert fronts({"conv1/kernel:0": np.zeros((3, 3, 4, 8))} | keras) == {"bn1": ("conv1", 3)}
    assert fronts({"dense1/kernel": np.zeros((4, 8))} | keras) == {"bn1": ("dense1", 1)}
    assert fronts({"conv1/depthwise_kernel": np.zeros((3, 3, 8, 1))} | keras) == {
        "bn1": ("conv1", 2)
    }
    separable_conv = {
        "conv1/depthwise_kernel": np.zeros((3, 3, 4, 1)),
        "conv1/pointwise_kernel": np.zeros((1, 1, 4, 8)),
    }
    assert fronts(separable_conv | keras) == {"bn1": ("conv1", 3)}
    mxnet = norm("net_bn0", 8, 1, leaves=KERAS | {"running_var": "moving_var"}, joint="_")
    assert fronts({"net_conv0_weight": np.zeros((8, 4, 3, 3))} | mxnet) == {
        "net_bn0": ("net_conv0", 0)
    }
    chainer = norm(
        "bn1",
        8,
        1,
        leaves=KERAS | {"running_mean": "avg_mean", "running_var": "avg_var"},
        joint="/",
    )
    assert fronts({"conv1/W": np.zeros((8, 4, 3, 3)), "conv1/b": np.zeros(8)} | chainer) == {
        "bn1": ("conv1", 0)
    }
    paddle = norm(
        "bn1",
        8,
        1,
        leaves={
            "weight": "weight",
            "bias": "bias",
            "running_mean": "_mean",
            "running_var": "_variance",
        },
    )
    assert fronts({"fc1.weight": np.zeros((4, 8))} | paddle) == {"bn1": ("fc1", 1)}


def test_what_comes_later_in_the_file_is_in_front_if_it_cannot_be_behind():
    widths = (8, 8, 16)
    tensors, inputs = {}, 3
    for at, width in enumerate(widths):
        number = f"_{at}" if at else ""
        tensors |= norm(f"batch_normalization{number}", width, at, leaves=KERAS, joint="/")
        tensors[f"conv2d{number}/kernel"] = np.zeros((3, 3, inputs, width))
        inputs = width
    assert fronts(tensors) == {
        f"batch_normalization{number}": (f"conv2d{number}", 3) for number in ("", "_1", "_2")
    }
    # with the normalisation first, as many channels go into a convolution as the layer has
    first = norm("bn1", 8, 1) | conv("conv1", 8, 8) | norm("bn2", 8, 2) | conv("conv2", 8, 8)
    assert fronts(first) == {"bn2": ("conv1", 0)}
    more = fronts(first | norm("bn3", 8, 3) | conv("conv3", 16, 8))
    assert more == {"bn2": ("conv1", 0), "bn3": ("conv2", 0)}


def test_the_trees_of_flax():
    tensors = {
        "params/Block_0/Conv_0/kernel": np.zeros((3, 3, 4, 8)),
        "params/Block_0/BatchNorm_0/scale": np.ones(8),
        "params/Block_0/BatchNorm_0/bias": np.zeros(8),
        "batch_stats/Block_0/BatchNorm_0/mean": np.zeros(8),
        "batch_stats/Block_0/BatchNorm_0/var": np.ones(8),
    }
    assert fronts(tensors) == {"Block_0/BatchNorm_0": ("Block_0/Conv_0", 3)}
    assert split_any("params/Conv_0/kernel", trees=True) == ("Conv_0", "kernel")
    assert split_any("kernel") == ("", "kernel")


@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolutions(bias):
    generator = nn.Sequential(
        nn.ConvTranspose2d(16, 8, 4, bias=bias),
        bn(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4),
        bn(4),
    )
    assert of_module(generator) == {"1": ("0", 1), "4": ("3", 1)}
    by_name = Named(deconv1=nn.ConvTranspose2d(8, 8, 4, bias=bias), bn1=bn(8))
    assert of_module(by_name) == {"bn1": ("deconv1", 1)}
    # the same shapes in a module that normalises first: the inputs have as many channels
    unclear = Named(conv1=nn.Conv2d(8, 16, 3, bias=False), bn1=bn(8))
    assert of_module(unclear) == {}


# ------------------------------------------------------------------ doubts


@pytest.mark.parametrize(
    "tensors",
    [
        conv("conv1", 16, 8) | norm("bn1", 8, 1),  # another width
        conv("a.conv", 8, 3) | norm("b.norm", 8, 1),  # another module
        conv("0", 8, 3) | {"1.weight": np.ones(8)} | norm("2", 8, 1),  # PReLU between
        conv("0", 8, 3) | conv("1.conv", 8, 8) | norm("2", 8, 1),  # a module between
        conv("conv", 8, 3) | norm("bn_a", 8, 1) | norm("bn_b", 8, 2),  # one of two
        {"conv.weight_v": np.ones((8, 3, 3, 3))} | norm("bn", 8, 1),  # no weight of its own
        {"conv.weight": np.ones((8, 3, 3, 3), np.int8)} | norm("bn", 8, 1),  # quantised
        {"conv.weight": np.ones((8, 3, 3, 3)), "conv.bias": np.ones(4)} | norm("bn", 8, 1),
        norm("bn", 8, 1),
    ],
)
def test_doubts(tensors):
    assert fronts(tensors) == {}


def test_names_that_do_not_fit_everywhere_are_not_trusted_anywhere():
    tensors = conv("a.conv1", 8, 8) | norm("a.bn1", 8, 1) | conv("b.conv1", 16, 8)
    assert fronts(dict(sorted(tensors.items()))) == {"a.bn1": ("a.conv1", 0)}
    tensors |= norm("b.bn1", 8, 2)
    assert fronts(dict(sorted(tensors.items()))) == {}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=6))
def test_no_convolution_is_in_front_of_two_layers_and_the_width_fits(parts):
    tensors = {}
    for at, (kind, width) in enumerate(parts):
        name = ("conv", "bn", "fc", "x")[kind] + str(at % 3)
        tensors |= norm(name, width, at) if kind == 1 else conv(name, width, 3)
    found = fronts(tensors)
    assert len({near for near, _ in found.values()}) == len(found)
    for name, (near, axis) in found.items():
        width = len(tensors[f"{name}.weight"])
        assert tensors[f"{near}.weight"].shape[axis] == width


def test_the_order_of_execution_of_random_sequences():
    torch.manual_seed(0)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        layers, expected, width = [], {}, 3
        for _ in range(12):
            kind = rng.integers(4)
            if kind == 0:
                layers.append(nn.ReLU())
            elif kind == 1:
                layers += [nn.GroupNorm(1, width), nn.ReLU()]
            else:
                inputs, width = width, int(rng.choice([4, 8]))
                layers += [nn.Conv2d(inputs, width, 3), nn.BatchNorm2d(width)]
                expected[str(len(layers) - 1)] = (str(len(layers) - 2), 0)
        assert of_module(nn.Sequential(*layers), ordered=bool(seed % 2)) == expected


# ------------------------------------------------------------------ what is given


def found(file):
    return in_front(file, {layer.name: layer for layer in batch_norm_layers(file)})


def test_weight_bias_and_axis():
    file = made(
        network((8, 16), seed=1)
        | {"fc.weight": np.zeros((4, 16)), "fc.bias": np.zeros(4)}
        | norm("bn", 4, 1)
    )
    front = found(file)
    assert list(front) == ["layer0.bn", "layer1.bn", "bn"]
    assert front["layer1.bn"].name == "layer1.conv"
    assert front["layer1.bn"].weight is file.tensors["layer1.conv.weight"]
    assert front["layer1.bn"].bias is None
    assert front["bn"].bias is file.tensors["fc.bias"]
    assert {each.axis for each in front.values()} == {0}


# ------------------------------------------------------------------ what the file itself tells


def test_what_the_file_tells_of_the_layer_in_front_holds():
    tensors = {"k": np.zeros((3, 3, 4, 8)), "kb": np.zeros(8)} | conv("conv1", 8, 3)
    tensors |= norm("n", 8, 1) | norm("bn1", 8, 2) | norm("bn2", 8, 3)
    own = {leaf: f"n.{leaf}" for leaf in KERAS}
    stored = {
        "BatchNorm_7": StoredLayer(own, StoredFront("Conv_6", "k", "kb", 3)),
        "bn2": StoredLayer({leaf: f"bn2.{leaf}" for leaf in KERAS}),  # nothing is known
    }
    file = replace(made(tensors), layers=stored)
    layers = {layer.name: layer for layer in batch_norm_layers(file)}
    front = in_front(file, layers)
    assert {name: (near.name, near.axis) for name, near in front.items()} == {
        "BatchNorm_7": ("Conv_6", 3),
        "bn1": ("conv1", 0),
    }
    assert front["BatchNorm_7"].weight is file.tensors["k"]
    assert front["BatchNorm_7"].bias is file.tensors["kb"]
    assert "BatchNorm_7" not in in_front(file, {"bn1": layers["bn1"]})


def test_groups_of_keras_whose_layers_the_file_tells():
    tensors, stored = {}, {}
    for at, number in enumerate(("", "_1", "_2")):
        group = f"batch_normalization{number}"
        own = {leaf: f"{group}/{group}/{name}:0" for leaf, name in KERAS.items()}
        tensors |= {full: np.ones(8 + at) for full in own.values()}
        stored[group] = StoredLayer(own)
    for at, number in enumerate(("", "_1", "_2")):
        tensors[f"conv2d{number}/conv2d{number}/kernel:0"] = np.zeros((3, 3, 7 + at, 8 + at))
    file = replace(made(tensors), layers=stored)
    layers = {layer.name: layer for layer in batch_norm_layers(file)}
    assert {name: near.axis for name, near in in_front(file, layers).items()} == dict.fromkeys(
        stored, 3
    )


def test_a_convolution_that_the_file_puts_before_one_layer_is_before_no_other():
    tensors = conv("conv1", 8, 3) | norm("bn1", 8, 1) | norm("other", 8, 2)
    own = {leaf: f"other.{leaf}" for leaf in KERAS}
    stored = {"other": StoredLayer(own, StoredFront("conv1", "conv1.weight"))}
    file = replace(made(tensors), layers=stored)
    layers = {layer.name: layer for layer in batch_norm_layers(file)}
    assert list(in_front(file, layers)) == ["other"]


def test_what_the_file_tells_does_not_hold_where_the_weight_does_not_fit():
    tensors = {"k": np.zeros((8, 3)), "kb": np.zeros(4)} | norm("n", 8, 1)
    own = {leaf: f"n.{leaf}" for leaf in KERAS}
    for wrong in (("k", None, 1), ("k", None, 2), ("k", None, -1), ("k", "kb", 0), ("x", None, 0)):
        file = replace(made(tensors), layers={"n": StoredLayer(own, StoredFront("c", *wrong))})
        layers = {layer.name: layer for layer in batch_norm_layers(file)}
        assert in_front(file, layers) == {}, wrong
