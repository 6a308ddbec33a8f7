"""BatchNormalization nodes become layers."""

import io
import warnings

import pytest
import torch
from onnx import helper

from bncli.loaders.onnx.graph import NORM
from bncli.loaders.onnx.layers import without_layers
from bncli.state_dict import batch_norm_layers, possible_layers, read_tensors
from bncli.state_dict.in_front import in_front
from tests.loaders.files import bits

from .models import model, norm, norm_model, opened, raw


def only(file):
    (layer,) = batch_norm_layers(file)
    return layer


@pytest.mark.parametrize(
    ("opset", "arguments", "training"),
    [
        (6, {}, True),
        (6, {"is_test": 1}, False),
        (7, {}, False),
        (9, {"outputs": ["y", "m", "v", "sm", "sv"]}, True),
        (9, {"outputs": ["y", "", "", "", ""]}, False),
        (14, {}, False),
        (15, {"training_mode": 1, "outputs": ["y", "m", "v"]}, True),
    ],
)
def test_whether_a_node_trains(opset, arguments, training, tmp_path):
    module = only(opened(tmp_path, norm_model(opset, **arguments))).module
    assert module.training is training
    assert (module.eps, module.stated_momentum, module.momentum) == (1e-5, 0.9, 0.1)


@pytest.mark.parametrize(
    ("names", "node", "layer"),
    [
        ("a.b.weight a.b.bias a.b.running_mean a.b.running_var", "n", "a.b"),
        ("x/bn/gamma x/bn/beta x/bn/moving_mean x/bn/moving_variance", "n", "x/bn"),
        ("c1_bn_scale c1_bn_offset c1_bn_mean c1_bn_variance", "n", "c1_bn"),
        ("bn_2.w_0 bn_2.b_0 bn_2.w_1 bn_2.w_2", "n", "bn_2"),
        ("x.1 x.2 x.3 x.4", "/l1/l1.0/bn2/BatchNormalization", "l1.0.bn2"),
        ("1 2 3 4", "node_7", "node_7"),
        ("1 2 3 4", "", "y"),
    ],
)
def test_what_a_layer_is_called(names, node, layer, tmp_path):
    tensors = [raw(name, torch.rand(2)) for name in names.split()]
    made = helper.make_node("BatchNormalization", ["x", *names.split()], ["y"], name=node)
    assert only(opened(tmp_path, model([made], tensors))).name == layer


def test_each_layer_has_a_name_of_its_own(tmp_path):
    made = norm()
    nodes = [
        helper.make_node(
            "BatchNormalization", ["x", *made.node.input[1:]], [y], name=name, epsilon=e
        )
        for y, name, e in (("a", "first", 0.1), ("b", "second", 0.2), ("y", "second", 0.3))
    ]
    file = opened(tmp_path, model(nodes, made.tensors))
    assert [layer.name for layer in batch_norm_layers(file)] == ["bn", "second", "y"]


def test_a_layer_that_is_used_twice_is_one_layer(tmp_path):
    one, kernel = norm("a.bn.", input_name="h1"), raw("a.conv.weight", torch.rand(3, 3, 1))
    nodes = [
        helper.make_node("Conv", ["x", kernel.name], ["h1"]),
        one.node,
        helper.make_node("Conv", ["y", kernel.name], ["h2"]),
        helper.make_node("BatchNormalization", ["h2", *one.node.input[1:]], ["y2"]),
    ]
    file = opened(tmp_path, model(nodes, [*one.tensors, kernel]))
    assert [layer.name for layer in batch_norm_layers(file)] == ["a.bn"]
    assert file.layers["a.bn"].front.name == "a.conv"


def test_two_layers_whose_equal_tensors_were_stored_once_are_two(tmp_path):
    """torch.onnx.export puts an Identity in the place of an initializer that equals another."""
    one, two = norm("a."), norm("b.", input_name="y", output="y2")
    same = [
        helper.make_node("Identity", [old.name], [new.name])
        for old, new in zip(one.tensors, two.tensors, strict=True)
    ]
    file = opened(tmp_path, model([*same, one.node, two.node], one.tensors))
    assert [layer.name for layer in batch_norm_layers(file)] == ["a", "b"]


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(3, eps=1e-3, momentum=0.03)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = torch.nn.Sequential(Block(), Block())
        self.up = torch.nn.ConvTranspose2d(3, 4, 2)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 5)
        self.bn2 = torch.nn.BatchNorm1d(5)

    def forward(self, x):
        x = self.layer1(self.layer1(x))
        return self.bn2(self.fc(self.bn1(self.up(x)).mean((2, 3))))


@pytest.mark.parametrize("training", [True, False])
def test_what_torch_exports_has_the_layers_of_the_module(training, tmp_path):
    net, out = Net().train(training), io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter by tracing is the old one
        torch.onnx.export(
            net, (torch.randn(2, 3, 8, 8),), out,
            training=mode, do_constant_folding=False, dynamo=False,
        )  # fmt: skip
    file = opened(tmp_path, out.getvalue())
    layers = batch_norm_layers(file)
    fronts = in_front(file, {layer.name: layer for layer in layers})
    modules = {name: each for name, each in net.named_modules() if isinstance(each, BATCH_NORMS)}
    assert [layer.name for layer in layers] == list(modules)
    for layer in layers:
        module = modules[layer.name]
        assert (layer.module.eps, layer.module.momentum) == (module.eps, module.momentum)
        assert layer.module.training is training
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            assert bits(getattr(layer, leaf).read()) == bits(getattr(module, leaf))
    assert [(near.name, near.axis, near.bias.name) for near in fronts.values()] == [
        ("layer1.0.conv", 0, "layer1.0.conv.bias"),
        ("layer1.1.conv", 0, "layer1.1.conv.bias"),
        ("up", 1, "up.bias"),
        ("fc", 0, "fc.bias"),
    ]


BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


def test_a_word_before_all_layers_is_no_layer_name(tmp_path):
    names = [[f"bn_{leaf}{number}" for leaf in "sbmv"] for number in (1, 2)]
    nodes = [
        helper.make_node("BatchNormalization", ["x", *own], [output], name=f"node_{output}")
        for own, output in zip(names, ("h", "y"), strict=True)
    ]
    tensors = [raw(name, torch.rand(2)) for own in names for name in own]
    file = opened(tmp_path, model(nodes, tensors))
    assert [layer.name for layer in batch_norm_layers(file)] == ["node_h", "node_y"]


def test_the_counter_beside_a_layer_is_its_own(tmp_path):
    made = norm("a.bn.")
    counter = raw("a.bn.num_batches_tracked", torch.tensor(7))
    layer = only(opened(tmp_path, model([made.node], [*made.tensors, counter])))
    assert layer.num_batches_tracked.read() == 7


FRONTS = {
    "conv": (["Conv"], {}, (3, 2, 1, 1), 0),
    "transposed": (["ConvTranspose"], {}, (2, 3, 1, 1), 1),
    "gemm": (["Gemm"], {}, (2, 3), 1),
    "gemm transposed": (["Gemm"], {"transB": 1}, (3, 2), 0),
    "matmul": (["MatMul"], {}, (2, 3), 1),
    "through identities": (["Conv", "Identity", "Identity"], {}, (3, 2, 1, 1), 0),
    "with an activation between": (["Conv", "Relu"], {}, (3, 2, 1, 1), None),
    "transposed in groups": (["ConvTranspose"], {"group": 3}, (3, 3, 1, 1), None),
    "gemm scaled": (["Gemm"], {"alpha": 2.0}, (2, 3), None),
    "of another width": (["Conv"], {}, (4, 2, 1, 1), None),
}


@pytest.mark.parametrize("case", FRONTS)
def test_what_is_in_front_of_a_layer(case, tmp_path):
    ops, arguments, shape, axis = FRONTS[case]
    first = helper.make_node(ops[0], ["x", "net.conv.weight"], ["h0"], **arguments)
    others = [
        helper.make_node(op, [f"h{number}"], [f"h{number + 1}"])
        for number, op in enumerate(ops[1:])
    ]
    made = norm("net.bn.", input_name=f"h{len(others)}")
    tensors = [*made.tensors, raw("net.conv.weight", torch.rand(shape))]
    file = opened(tmp_path, model([first, *others, made.node], tensors))
    front = file.layers["net.bn"].front
    assert (front and front.axis) == axis
    if front:
        found = in_front(file, {"net.bn": only(file)})["net.bn"]
        assert (found.name, found.weight.shape, found.bias) == ("net.conv", shape, None)


def test_a_bias_is_found_with_the_weight(tmp_path):
    conv = helper.make_node("Conv", ["x", "c.weight", "c.bias"], ["h"])
    matmul = helper.make_node("MatMul", ["z", "d.weight"], ["g0"])
    add = helper.make_node("Add", ["d.bias", "g0"], ["g"])
    one, two = norm("a.", input_name="h"), norm("b.", input_name="g", output="y2")
    parameters = {"c.weight": (3, 2, 1), "c.bias": (3,), "d.weight": (2, 3), "d.bias": (3,)}
    tensors = [raw(name, torch.rand(shape)) for name, shape in parameters.items()]
    nodes = [conv, matmul, add, one.node, two.node]
    file = opened(tmp_path, model(nodes, [*one.tensors, *two.tensors, *tensors], ("x", "z")))
    assert [(f.front.name, f.front.bias) for f in file.layers.values()] == [
        ("c", "c.bias"),
        ("d", "d.bias"),
    ]


def test_a_convolution_of_two_layers_is_in_front_of_none(tmp_path):
    conv = helper.make_node("Conv", ["x", "c.weight"], ["h"])
    one, two = norm("a.", input_name="h"), norm("b.", input_name="h", output="y2")
    tensors = [*one.tensors, *two.tensors, raw("c.weight", torch.rand(3, 2, 1))]
    file = opened(tmp_path, model([conv, one.node, two.node], tensors))
    assert [layer.front for layer in file.layers.values()] == [None, None]


def test_a_node_without_its_own_values_is_skipped_and_says_why(tmp_path):
    made = norm("bn_")
    node = made.node
    node.name = "bn1"

    def why(*more, tensors=made.tensors, opset=17, node=node):
        file = opened(tmp_path, model([*more, node], tensors, opset=opset))
        assert not batch_norm_layers(file)
        return file.skipped[node.name]

    assert why(tensors=[*made.tensors[:2], made.tensors[3]]) == (
        "its mean is an input of the graph without a value in the file"
    )
    double = helper.make_node("Mul", ["m", "m"], ["bn_running_mean"])
    assert why(double, tensors=[*made.tensors[:2], made.tensors[3]]) == (
        "its mean is computed by Mul when the model runs"
    )
    short = helper.make_node("BatchNormalization", node.input[:4], ["y"], name="bn1")
    assert why(node=short) == "it has 4 inputs instead of 5"
    flat = helper.make_node("BatchNormalization", node.input, ["y"], name="bn1", spatial=0)
    assert "(spatial 0), not for each channel" in why(node=flat, opset=7)
    assert batch_norm_layers(opened(tmp_path, model([flat], made.tensors, opset=9)))


@pytest.mark.parametrize("leaf", ["running_mean", "running_var"])
def test_the_tensors_of_a_skipped_node_are_no_layer_by_their_names(leaf, tmp_path):
    made = norm()  # named as PyTorch names a BatchNorm's
    flat = helper.make_node(NORM, made.node.input, ["y"], spatial=0)
    file = opened(tmp_path, model([flat], made.tensors, opset=8))
    assert (batch_norm_layers(file), possible_layers(file)) == ([], {})
    assert file.without_layers.startswith("its graph has 1 BatchNormalization node, without")
    double = helper.make_node("Mul", ["m", f"bn.{leaf}"], ["twice"])
    inputs = ["twice" if name == f"bn.{leaf}" else name for name in made.node.input]
    node = helper.make_node(NORM, inputs, ["y"])
    assert not batch_norm_layers(opened(tmp_path, model([double, node], made.tensors)))


@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_a_weight_or_bias_that_the_graph_computes_is_not_known(leaf, tmp_path):
    made = norm(epsilon=1e-3)
    stored = helper.make_node("Mul", ["two", f"bn.{leaf}"], ["twice"])
    inputs = ["twice" if name == f"bn.{leaf}" else name for name in made.node.input]
    node = helper.make_node(NORM, inputs, ["y"], epsilon=1e-3)
    layer = only(opened(tmp_path, model([stored, node], made.tensors)))
    assert (layer.name, layer.module.eps) == ("bn", 1e-3)
    state, (why,) = read_tensors(layer)
    assert getattr(state, leaf) is None
    assert state.running_var.shape == getattr(layer, leaf).shape == (3,)
    assert why.endswith("cannot be read (it is computed by Mul when the model runs).")
    given = [tensor for tensor in made.tensors if tensor.name != f"bn.{leaf}"]
    other = getattr(only(opened(tmp_path, model([made.node], given))), leaf)
    assert other.unreadable == "it is an input of the graph without a value in the file"


def test_another_domains_operator_of_that_name_is_no_layer(tmp_path):
    made = norm()
    made.node.domain = "com.example"
    file = opened(tmp_path, model([made.node], made.tensors))
    assert file.layers == {}
    made.node.domain = "ai.onnx"
    assert list(opened(tmp_path, model([made.node], made.tensors)).layers) == ["bn"]


def test_why_there_is_no_layer():
    assert without_layers({"Conv": 2, "BatchNormalization": 2}) == (
        "its graph has 2 BatchNormalization nodes, without statistics for each channel in the file"
    )
    assert without_layers({"MatMul": 2}) == ""
    assert "folds BatchNorm into" in without_layers({"Conv": 2, "Relu": 3})
    assert without_layers({"Conv": 2, "InstanceNormalization": 1}) == (
        "its graph has 2 convolutions, 1 InstanceNormalization and no BatchNormalization node"
    )
