"""The graph of a program: what its nodes say of the layers, whose tensors they are."""

import itertools
import json

import pytest

from bncli.errors import UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file
from bncli.loaders.torch_graph import layers_of
from bncli.model import TensorRef
from bncli.state_dict import batch_norm_layers, read_tensors

from .exported import members, node, norm, number, program, state, value, write

TURN = ("permute.default", {"self": "fc.weight", "dims": {"as_ints": [1, 0]}}, ["turned"])


def refs(**shapes):
    """Tensors of these shapes, one after the other in a file, and those of a layer `bn`."""
    vectors = {f"bn.{leaf}": (4,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    out, offset = {}, 0
    for name, shape in (vectors | {k.replace("__", "."): v for k, v in shapes.items()}).items():
        strides, count = [], 1
        for size in reversed(shape):
            strides.insert(0, count)
            count *= size
        place = FileBytes("x", offset, 4 * count)
        out[name] = TensorRef(name, "x", shape, "float32", tuple(strides), place)
        offset += 4 * count
    return out


def found(tensors, *nodes):
    """The modules and layers of a program with these nodes, and why there are none."""
    found = layers_of(program(tensors, list(nodes)), tensors)
    return found.modules, found.layers, found.without_layers


def front(tensors, *nodes):
    _, layers, _ = found(tensors, *nodes)
    return layers["bn"].front


@pytest.mark.parametrize(
    ("operator", "more", "training"),
    [
        ("_native_batch_norm_legit_no_training.default", {"training": {"as_none": True}}, False),
        ("_native_batch_norm_legit.default", {"training": {"as_bool": True}}, True),
        ("native_batch_norm.default", {}, False),
        ("_batch_norm_with_update.default", {"training": {"as_none": True}}, True),
        (
            "cudnn_batch_norm.default",
            {
                "momentum": {"as_none": True}, "eps": {"as_none": True},
                "exponential_average_factor": number(0.1), "epsilon": number(1e-5),
            },
            False,
        ),
    ],
)  # fmt: skip
def test_every_operator(operator, more, training, tmp_path):
    path = write(tmp_path / "x", members(state(), [norm("bn", operator, **more)]))
    (layer,) = batch_norm_layers(open_file(path))
    assert layer.module.eps == 1e-5
    assert layer.module.momentum == 0.1
    assert layer.module.training is training


@pytest.mark.parametrize(
    ("shape", "before", "axis"),
    [
        ((4, 3, 1, 1), [("conv2d.default", {"input": "x", "weight": "fc.weight"})], 0),
        ((4, 3), [("linear.default", {"input": "x", "weight": "fc.weight"})], 0),
        ((3, 4, 2), [("conv_transpose1d.default", {"input": "x", "weight": "fc.weight"})], 1),
        (
            (3, 4, 2),
            [(
                "convolution.default",
                {"input": "x", "weight": "fc.weight", "transposed": {"as_bool": True}},
            )],
            1,
        ),
        ((4, 3), [TURN, ("mm.default", {"self": "x", "mat2": "turned"})], 0),
        ((4, 3), [TURN, ("addmm.default", {"self": "b", "mat1": "x", "mat2": "turned"})], 0),
    ],
)  # fmt: skip
def test_what_is_in_front(shape, before, axis):
    tensors = refs(fc__weight=shape, b=(4,))
    nodes = [node(*each) if len(each) > 2 else node(*each, ["y"]) for each in before]
    stored = front(tensors, *nodes, norm("bn", given="y"))
    assert (stored.name, stored.weight, stored.axis) == ("fc", "fc.weight", axis)
    assert stored.bias == ("b" if "addmm" in before[-1][0] else None)


def test_what_is_not_in_front():
    tensors = refs(c__weight=(4, 3, 1, 1), d__weight=(5, 3, 1, 1))
    conv = node("conv2d.default", {"input": "x", "weight": "c.weight"}, ["y"])
    assert front(tensors, conv, norm("bn", given="y")).weight == "c.weight"
    # Its output goes elsewhere, too.
    other = node("relu.default", {"self": "y"}, ["z"])
    assert front(tensors, conv, other, norm("bn", given="y")) is None
    # Something else is between.
    assert front(tensors, conv, other, norm("bn", given="z")) is None
    # It has another number of channels, or a bias that the program computes.
    wide = node("conv2d.default", {"input": "x", "weight": "d.weight"}, ["y"])
    assert front(tensors, wide, norm("bn", given="y")) is None
    made = node("conv2d.default", {"input": "x", "weight": "c.weight", "bias": "sum"}, ["y"])
    assert front(tensors, made, norm("bn", given="y")) is None


def test_a_convolution_in_front_of_two_layers_is_in_front_of_neither():
    tensors = refs(
        c__weight=(4, 3, 1, 1), o__weight=(4,), o__bias=(4,), o__running_mean=(4,),
        o__running_var=(4,),
    )  # fmt: skip
    conv = node("conv2d.default", {"input": "x", "weight": "c.weight"}, ["y"])
    again = node("conv2d.default", {"input": "x", "weight": "c.weight"}, ["z"])
    _, layers, _ = found(
        tensors, conv, norm("bn", given="y"), again, norm("o", given="z", outputs=("p",))
    )
    assert {name: layer.front for name, layer in layers.items()} == {"bn": None, "o": None}


def test_a_tensor_is_known_behind_what_leaves_it_as_it_is():
    tensors = refs()
    copy = node("detach.default", {"self": "bn.running_var"}, ["kept"])
    again = node("_to_copy.default", {"self": "kept"}, ["cast"])
    _, layers, _ = found(tensors, copy, again, norm("bn", running_var=value("cast")))
    assert layers["bn"].tensors["running_var"] == "bn.running_var"
    squared = node("mul.Tensor", {"self": "bn.running_var", "other": "bn.running_var"}, ["square"])
    computed = layers_of(
        program(tensors, [squared, norm("bn", running_var=value("square"))]), tensors
    )
    assert computed.skipped == {
        "bn": "its running_var is computed by mul when the program runs",
    }  # fmt: skip
    assert not computed.modules


def test_a_weight_that_the_program_computes_is_not_known(tmp_path):
    double = node("mul.Tensor", {"self": "bn.weight", "other": number(2.0)}, ["mul"])
    graph = [double, norm("bn", weight=value("mul"), eps=number(0.25))]
    (layer,) = batch_norm_layers(open_file(write(tmp_path / "x", members(state(), graph))))
    read, (why,) = read_tensors(layer)
    assert (layer.name, layer.module.eps, read.weight) == ("bn", 0.25, None)
    assert layer.weight.shape == layer.running_var.shape
    assert why.endswith("(it is computed by mul when the program runs).")


def test_what_the_program_runs_as_an_instance_norm_is_no_batch_norm(tmp_path):
    """Decomposed, it is a BatchNorm of each sample, with the tensors repeated."""
    names = [f"bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
    repeats = [node("repeat.default", {"self": name}, [f"{name}.n"]) for name in names]
    many = {name.rpartition(".")[2]: value(f"{name}.n") for name in names}
    for graph in ([norm("bn", "instance_norm.default")], [*repeats, norm("bn", **many)]):
        file = open_file(write(tmp_path / "x", members(state(), graph)))
        assert not batch_norm_layers(file)
        assert file.skipped == {"bn": "its graph runs it as an InstanceNorm"}


def test_the_name_is_that_of_the_tensors_or_else_of_the_node():
    tensors = refs(net__mu=(4,), net__sigma=(4,))
    own = {"weight": {"as_none": True}, "bias": {"as_none": True}}
    first = norm("x", running_mean=value("net.mu"), running_var=value("net.sigma"), **own)
    first["name"] = "norm_1"
    _, layers, _ = found(tensors, norm("bn"), first)
    assert list(layers) == ["bn", "net.norm_1"]
    assert layers["net.norm_1"].tensors == {
        "running_mean": "net.mu", "running_var": "net.sigma",
    }  # fmt: skip


def test_a_layer_that_is_used_twice_is_one_layer_with_its_first_eps():
    later = norm("bn", given="out", outputs=("out_1",), eps=number(0.5))
    modules, layers, _ = found(refs(), norm("bn"), later)
    assert list(layers) == ["bn"]
    assert modules["bn"].eps == 1e-5


def test_the_class_is_that_of_the_module_around_the_node():
    said = norm("bn")
    said["metadata"] = {
        "nn_module_stack": "L__self__,,__main__.Net;bn,bn,torch.nn.modules.batchnorm.BatchNorm2d"
    }
    modules, _, _ = found(refs(), said)
    assert modules["bn"].class_name == "BatchNorm2d"
    modules, _, _ = found(refs(), norm("bn"))
    assert modules["bn"].class_name == "BatchNorm"


def test_a_momentum_of_0_in_evaluation_is_no_momentum():
    modules, _, _ = found(refs(), norm("bn", momentum=number(0.0)))
    assert (modules["bn"].momentum, modules["bn"].has_momentum) == (None, False)
    on = {"as_bool": True}
    modules, _, _ = found(refs(), norm("bn", momentum=number(0.0), training=on))
    assert (modules["bn"].momentum, modules["bn"].has_momentum) == (0.0, True)


def test_convolutions_without_a_norm_are_the_reason():
    conv = node("conv2d.default", {"input": "x", "weight": "c.weight"}, ["y"])
    weight = {"c.weight": refs(c__weight=(4, 3, 1, 1))["c.weight"]}
    modules, layers, why = found(weight, conv)
    assert (modules, layers) == ({}, {})
    assert why.startswith("its graph has convolutions and no batch_norm")
    assert found(weight, node("relu.default", {"self": "x"}))[2] == ""
    assert found(weight | refs(), conv)[2] == ""


def test_layers_in_a_branch(tmp_path):
    """Its inputs have names of their own there, by their order among the operands."""
    names = [f"bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
    inner = {
        "inputs": [value("y"), *(value(f"inner.{name}") for name in names)],
        "nodes": [norm("inner.bn", given="y", eps=number(0.25))],
    }
    branch = {"as_graph": {"name": "true_graph_0", "graph": inner}}
    operands = {"as_tensors": [{"name": "x"}, *({"name": name} for name in names)]}
    cond = node("x", {})
    cond["target"] = "torch.ops.higher_order.cond"
    cond["inputs"] = [{"name": "", "arg": arg} for arg in (value("gt"), branch, branch, operands)]
    (layer,) = batch_norm_layers(open_file(write(tmp_path / "x", members(state(), [cond]))))
    assert layer.module.eps == 0.25
    # Graphs in each other without end are followed so far.
    inner["nodes"] = []
    for _ in range(60):
        branch = {
            "as_graph": {"graph": {"nodes": [{"target": "x.y", "inputs": [{"arg": branch}]}]}}
        }
    deep = node("x", {"g": branch})
    (layer,) = batch_norm_layers(open_file(write(tmp_path / "x", members(state(), [deep]))))
    assert layer.module is None


@pytest.mark.parametrize(
    "graph",
    [
        None, 3, [], {}, {"graph_module": 3}, {"graph_module": {"graph": {"nodes": [3, {}, None]}}},
        program(state(), [{"target": "torch.ops.aten.batch_norm.default", "inputs": 3}]),
        program(state(), [norm("bn", weight={"as_tensor": {"name": ["x"]}}, eps=number("1"))]),
        program(state(), [norm("absent")]),
    ],
)  # fmt: skip
def test_a_graph_that_is_not_one_leaves_the_names(graph, tmp_path):
    parts = members(state(), []) | {"m/models/model.json": json.dumps(graph).encode()}
    (layer,) = batch_norm_layers(open_file(write(tmp_path / "x", parts)))
    assert layer.name == "bn"
    assert layer.module is None or layer.module.eps is None


def test_names_of_layers_that_repeat_a_long_one_are_bounded(monkeypatch):
    """Each layer of a module is called behind the module's name."""
    monkeypatch.setattr("bncli.loaders.names.MOST_TEXT", 10_000)
    module = "m" * 1000
    tensors = refs(**{f"{module}__t{at}": (4,) for at in range(4)})
    full = [f"{module}.t{at}" for at in range(4)]
    nodes = []
    for mean, var in itertools.permutations(full, 2):
        own = {"running_mean": value(mean), "running_var": value(var)}
        nodes.append(norm("x", weight={"as_none": True}, bias={"as_none": True}, **own))
        nodes[-1]["name"] = f"norm_{len(nodes)}"
    with pytest.raises(UnsupportedFileError, match="the names of its tensors take more than"):
        found(tensors, *nodes)
    assert len(found(tensors, *nodes[:3])[1]) == 3
