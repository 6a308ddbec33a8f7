"""Graphs in graphs, functions, constants: where a node's tensors come from."""

import pytest
import torch
from onnx import AttributeProto, TensorProto, helper

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.onnx import graph
from bncli.state_dict import batch_norm_layers, read_state
from tests.loaders.test_protobuf import message

from .models import model, norm, opened, raw


def names(file):
    return [layer.name for layer in batch_norm_layers(file)]


def inner(nodes, tensors=()):
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    return helper.make_graph(list(nodes), "inner", [], outputs, list(tensors))


def test_tensors_may_come_from_constant_nodes(tmp_path):
    made = norm()
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in made.tensors[:2]
    ]
    constants += [
        helper.make_node("Constant", [], ["bn.running_mean"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["one"], value_float=0.5),
        helper.make_node("Constant", [], ["word"], value_string="x"),
    ]
    file = opened(tmp_path, model([*constants, made.node], made.tensors[3:]))
    state = read_state(*batch_norm_layers(file))
    assert state.running_mean.tolist() == [1, 2, 3]
    assert file.tensors["one"].read() == 0.5
    assert "word" not in file.tensors


def test_identities_and_casts_that_keep_every_value_are_followed(tmp_path):
    made = norm(dtype=torch.float16)
    for tensor in made.tensors:
        tensor.name += "_half"
    of = [tensor.name for tensor in made.tensors]
    nodes = [
        helper.make_node("Cast", [of[0]], ["bn.weight"], to=TensorProto.FLOAT),
        helper.make_node("Identity", [of[1]], ["bn.bias"]),
        helper.make_node("Cast", [of[2]], ["bn.running_mean"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [of[3]], ["bn.running_var"], to=TensorProto.FLOAT),
    ]
    file = opened(tmp_path, model([*nodes, made.node], made.tensors))
    (layer,) = batch_norm_layers(file)
    assert layer.name == "bn"
    assert layer.running_var.dtype == "float32"
    torch.manual_seed(3)
    four = [torch.rand(3).half() for _ in range(4)]
    assert layer.running_var.read().tolist() == four[3].tolist()
    assert layer.bias.dtype == "float16"
    assert layer.bias.place == file.tensors[of[1]].place


def test_the_layers_of_branches_and_loops_are_found(tmp_path):
    then, other, body = norm("a.bn.", output="z"), norm("b.bn.", output="z"), norm("c.", output="z")
    test = helper.make_node(
        "If", ["c"], ["y"], name="choice",
        then_branch=inner([then.node], then.tensors),
        else_branch=inner([other.node], other.tensors),
    )  # fmt: skip
    loop = helper.make_node("Loop", ["n", "c"], ["w"], body=inner([body.node]))
    file = opened(tmp_path, model([test, loop], body.tensors))
    assert names(file) == ["b.bn", "a.bn", "c"]  # by the names of the branches


def test_tensors_of_one_name_in_two_branches_are_two(tmp_path):
    one, two = norm("bn.", output="z", channels=3), norm("bn.", output="z", channels=4)
    test = helper.make_node(
        "If", ["c"], ["y"], name="choice",
        then_branch=inner([one.node], one.tensors), else_branch=inner([two.node], two.tensors),
    )  # fmt: skip
    file = opened(tmp_path, model([test]))
    assert [layer.running_var.name for layer in batch_norm_layers(file)] == [
        "bn.running_var",
        "choice/then_branch/bn.running_var",
    ]
    assert [layer.running_var.shape for layer in batch_norm_layers(file)] == [(4,), (3,)]


def block(**arguments):
    """A function with a convolution and a BatchNormalization whose parameters are given."""
    parameters = ["weight", "bias", "mean", "var"]
    conv = helper.make_node("Conv", ["x", "kernel"], ["h"])
    node = helper.make_node("BatchNormalization", ["h", *parameters], ["z"], **arguments)
    node.attribute.append(AttributeProto(name="epsilon", ref_attr_name="eps", type=1))
    return helper.make_function(
        "local", "Block", ["x", "kernel", *parameters], ["z"], [conv, node],
        [helper.make_opsetid("", 17)], ["eps"],
    )  # fmt: skip


def test_the_layers_of_functions_are_found_at_each_call(tmp_path):
    one, two = norm("a.bn."), norm("b.bn.")
    kernels = [raw(f"{name}.conv.weight", torch.rand(3, 2, 1)) for name in "ab"]
    calls = [
        helper.make_node(
            "Block", [x, kernel.name, *(t.name for t in made.tensors)], [y], domain="local", **more
        )
        for made, kernel, x, y, more in (
            (one, kernels[0], "x", "h", {"eps": 0.25}),
            (two, kernels[1], "h", "y", {}),
        )
    ]
    tensors = [*one.tensors, *two.tensors, *kernels]
    file = opened(tmp_path, model(calls, tensors, functions=[block()]))
    assert names(file) == ["a.bn", "b.bn"]
    assert [file.modules[name].eps for name in names(file)] == [0.25, 1e-5]
    assert [file.layers[name].front.name for name in names(file)] == ["a.conv", "b.conv"]


def test_a_function_does_not_see_what_it_is_not_given(tmp_path):
    made = norm("bn_")
    function = helper.make_function(
        "local", "F", ["x"], ["y"], [made.node], [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    file = opened(tmp_path, model([call], made.tensors, functions=[function]))
    assert names(file) == []
    assert len(file.skipped) == 1


def test_graphs_and_functions_in_each_other_end_somewhere(tmp_path):
    own = helper.make_function(
        "local", "F", ["x"], ["y"], [helper.make_node("F", ["x"], ["y"], domain="local")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    call = helper.make_node("F", ["x"], ["y"], domain="local")
    with pytest.raises(UnsupportedFileError, match="more than 32 deep"):
        opened(tmp_path, model([call], functions=[own]))
    node = message((4, 2, b"If"))
    for _ in range(40):
        branch = message((1, 2, b"then_branch"), (6, 2, message((1, 2, node))))
        node = message((4, 2, b"If"), (5, 2, branch))
    data = message((1, 0, 8), (7, 2, message((1, 2, node))), (8, 2, message((2, 0, 17))))
    with pytest.raises(UnsupportedFileError, match="more than 32 deep"):
        opened(tmp_path, data)


def test_functions_that_multiply_calls_end_somewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "MOST_WALKED", 10_000)
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local", f"F{number}", ["x"], ["y"],
            [
                helper.make_node(f"F{number + 1}", ["x"], [f"h{k}"], domain="local")
                for k in range(10)
            ],
            opset,
        )
        for number in range(20)
    ]  # fmt: skip
    call = helper.make_node("F0", ["x"], ["y"], domain="local")
    with pytest.raises(UnsupportedFileError, match="called for more than 10000 nodes"):
        opened(tmp_path, model([call], functions=functions))


def test_calls_with_very_many_parameters_end_somewhere(tmp_path, monkeypatch):
    """100 calls of a function that gives another one 1,000 parameters."""
    monkeypatch.setattr(graph, "MOST_WALKED", 10_000)
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inner = helper.make_node("Wide", ["x"] * 1000, [], domain="local")
    functions = [
        helper.make_function("local", "Outer", ["x"], [], [inner], opset),
        helper.make_function("local", "Wide", [f"i{at}" for at in range(1000)], [], [], opset),
    ]
    calls = [helper.make_node("Outer", ["x"], [], domain="local")] * 100
    with pytest.raises(UnsupportedFileError, match="called for more than 10000 nodes"):
        opened(tmp_path, model(calls, functions=functions))


def test_nodes_that_feed_each_other_are_no_endless_loop(tmp_path):
    made = norm(input_name="a")
    nodes = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["b"], ["a"])]
    file = opened(tmp_path, model([*nodes, made.node], made.tensors))
    assert file.layers["bn"].front is None


def test_two_tensors_of_one_name_are_refused(tmp_path):
    made = norm()
    with pytest.raises(CorruptFileError, match=r"gives the name bn\.weight to two tensors"):
        opened(tmp_path, model([made.node], [*made.tensors, made.tensors[0]]))


def test_very_many_layers_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "MOST_LAYERS", 1)
    one, two = norm("a."), norm("b.", input_name="y", output="y2")
    tensors = [*one.tensors, *two.tensors]
    with pytest.raises(UnsupportedFileError, match="more than 1 BatchNormalization nodes"):
        opened(tmp_path, model([one.node, two.node], tensors))


def test_the_bias_of_each_weight_is_known_where_it_has_one_alone(tmp_path):
    weights = [raw(name, torch.rand(3, 2, 1, 1)) for name in ("w1", "w2", "w3")]
    biases = [raw(name, torch.rand(3)) for name in ("b1", "b2")]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"]),
        helper.make_node("Conv", ["a", "w2", "b1"], ["b"]),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"]),
        helper.make_node("Conv", ["c", "w3"], ["y"]),
    ]
    file = opened(tmp_path, model(nodes, [*weights, *biases]))
    assert file.biases == {"w1": "b1", "w3": ""}  # nothing is added behind w3


def test_an_addition_behind_a_convolution_may_be_its_bias(tmp_path):
    tensors = [raw("w", torch.rand(3, 2, 1, 1)), raw("b", torch.rand(1, 3, 1, 1))]
    conv, relu = helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])
    add = helper.make_node("Add", ["b", "a"], ["y"])
    (tmp_path / "bare").mkdir()
    assert opened(tmp_path / "bare", model([conv, relu], tensors)).biases == {"w": ""}
    assert opened(tmp_path, model([conv, add], tensors)).biases == {}
