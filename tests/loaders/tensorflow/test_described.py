"""What graphs say of the layers of checkpoints, and what they leave open."""

import numpy as np
import pytest

from bncli.loaders import open_file
from bncli.model import StoredFront
from bncli.state_dict import batch_norm_layers
from bncli.state_dict.in_front import in_front

from .test_norms import SAID
from .written import FOUR, bundle, field, function, meta_graph, node, reads, saved_model

VARIABLES = [f"bn/{leaf}" for leaf in FOUR]
READ = [f"{name}/read" for name in VARIABLES]
RANDOM = np.random.default_rng(3)
ARRAYS = {name: RANDOM.random(4).astype("f4") for name in VARIABLES} | {
    "conv/kernel": RANDOM.random((3, 3, 2, 4)).astype("f4"),
    "conv/bias": RANDOM.random(4).astype("f4"),
}


def fused(name="n", inputs=("x", *READ), **changed):
    return node(name, "FusedBatchNormV3", inputs, **SAID | changed)


def opened(folder, graph, arrays=ARRAYS):
    """A checkpoint with a graph beside it."""
    for name, data in bundle(arrays).items():
        (folder / name).write_bytes(data)
    (folder / "model.meta").write_bytes(graph)
    return open_file(folder / "model.index")


def only(folder, nodes, arrays=ARRAYS):
    file = opened(folder, meta_graph([*reads(*arrays), *nodes]), arrays)
    (layer,) = batch_norm_layers(file)
    return file, layer


TRAIN = fused("t", exponential_avg_factor=0.05, is_training=True)


def test_a_layer_has_what_its_uses_tell(tmp_path):
    file, layer = only(tmp_path, [fused(), TRAIN])
    module = layer.module
    assert (module.class_name, module.eps, module.channel_axis) == ("FusedBatchNormV3", 2e-3, 3)
    assert (module.momentum, module.stated_momentum) == (0.05, 0.95)
    assert (module.convention, module.has_momentum) == ("tf-fused", True)
    assert layer.name == "bn"
    assert {leaf: ref.name for leaf, ref in layer.tensors.items()} == dict(
        zip(("weight", "bias", "running_mean", "running_var"), VARIABLES, strict=True)
    )
    assert file.skipped == {}


@pytest.mark.parametrize("eps", [float("nan"), float("inf"), -1e-3])
def test_an_eps_that_is_none_is_said_and_not_used(tmp_path, eps):
    file, layer = only(tmp_path, [fused(epsilon=eps), fused("o", epsilon=1e-3)])
    assert layer.module.eps is None
    assert file.skipped == {"eps of bn": f"the graph gives {eps}, which is not an eps"}


def test_uses_that_differ_leave_it_open(tmp_path):
    _, layer = only(tmp_path, [fused(), fused("o", epsilon=0.5, data_format="NCHW"), TRAIN])
    module = layer.module
    assert (module.eps, module.channel_axis, module.momentum) == (None, None, 0.05)
    other = fused("u", exponential_avg_factor=0.2, is_training=True)
    assert only(tmp_path, [fused(), TRAIN, other])[1].module.momentum is None


def test_training_alone_tells_eps_by_the_weight(tmp_path):
    nodes = [fused(inputs=("x", *READ[:2], "c", "c"), is_training=True)]
    file, layer = only(tmp_path, nodes)
    assert (layer.module.eps, layer.module.has_momentum) == (2e-3, False)
    assert file.layers == {}


def updating(weight, leaf="moving_mean"):
    return [node("w", "Const", value=("tensor", weight)),
            node("less", "Sub", [f"bn/{leaf}/read", "batch"]), node("by", "Mul", ["less", "w"]),
            node("u", "AssignSubVariableOp", [f"bn/{leaf}", "by"])]  # fmt: skip


@pytest.mark.parametrize("leaf", ["moving_mean", "moving_variance"])
def test_updates_tell_the_momentum(tmp_path, leaf):
    _, layer = only(tmp_path, [fused(), *updating(0.03, leaf)])
    assert (layer.module.momentum, layer.module.stated_momentum) == (0.03, 0.97)


def test_layers_whose_variables_have_other_names_are_found(tmp_path):
    names = [f"variables/{number}" for number in range(4)]
    arrays = {name: ARRAYS[own] for name, own in zip(names, VARIABLES, strict=True)}
    inputs = ("x", *(f"{name}/read" for name in names))
    file, layer = only(tmp_path, [fused(inputs=inputs)], arrays)
    assert layer.name == "variables"
    assert layer.running_var.name == "variables/3"
    assert list(file.layers) == ["variables"]


def test_the_convolution_in_front_is_told(tmp_path):
    nodes = [node("y", "Conv2D", ["x", "conv/kernel/read"]),
             node("z", "BiasAdd", ["y", "conv/bias/read"]), fused(inputs=("z", *READ))]  # fmt: skip
    file, layer = only(tmp_path, nodes)
    front = StoredFront("conv", "conv/kernel", "conv/bias", 3)
    assert file.layers["bn"].front == front
    assert in_front(file, {"bn": layer})["bn"].bias.name == "conv/bias"


@pytest.mark.parametrize(
    ("op", "shape", "axis"),
    [
        ("Conv2D", (1, 1, 3, 4), 3),
        ("Conv2D", (1, 1, 3, 5), None),
        ("Conv3D", (1, 1, 1, 3, 4), 4),
        ("MatMul", (7, 4), 1),
        ("MatMul", (4, 7), None),
        ("Conv2DBackpropInput", (1, 1, 4, 3), 2),
        ("Conv3DBackpropInputV2", (1, 1, 1, 4, 3), 3),
        ("DepthwiseConv2dNative", (3, 3, 4, 1), 2),
        ("DepthwiseConv2dNative", (3, 3, 1, 4), 3),
        ("DepthwiseConv2dNative", (3, 3, 2, 2), None),
        ("Conv2D", (4,), None),
    ],
)
def test_the_axis_of_the_output_channels(tmp_path, op, shape, axis):
    arrays = {name: ARRAYS[name] for name in VARIABLES} | {"k": np.ones(shape, "f4")}
    file, _ = only(tmp_path, [node("y", op, ["x", "k/read"]), fused(inputs=("y", *READ))], arrays)
    front = file.layers["bn"].front
    assert (None if front is None else front.axis) == axis


def test_one_layer_behind_two_convolutions_has_none_in_front(tmp_path):
    arrays = ARRAYS | {"other/kernel": ARRAYS["conv/kernel"]}
    nodes = [node("y", "Conv2D", ["x", "conv/kernel/read"]), fused("a", ("y", *READ)),
             node("z", "Conv2D", ["x", "other/kernel/read"]), fused("b", ("z", *READ))]  # fmt: skip
    file, _ = only(tmp_path, nodes, arrays)
    assert file.layers["bn"].front is None


def test_tensors_of_other_shapes_are_no_layer(tmp_path):
    arrays = ARRAYS | {"bn/gamma": np.ones((2, 2), "f4")}
    file = opened(tmp_path, meta_graph([*reads(*arrays), fused()]), arrays)
    assert (file.layers, file.modules) == ({}, {})


def test_a_graph_that_is_damaged_is_said_and_the_tensors_are_there(tmp_path):
    file = opened(tmp_path, b"\x0a\xff\xff")
    assert set(file.tensors) == set(ARRAYS)
    assert file.skipped["model.meta"].startswith(
        "what it says of the layers cannot be used, as its"
    )
    (layer,) = batch_norm_layers(file)
    assert layer.module is None


def test_a_saved_model_tells_as_much(tmp_path):
    call = node("c", "StatefulPartitionedCall", ["x", *READ], f=("function", "f"))
    inner = function("f", ["x", "g", "b", "m", "v"], [fused(inputs=("x", "g", "b", "m", "v"))])
    (tmp_path / "variables").mkdir()
    for name, data in bundle(ARRAYS, prefix="variables/variables").items():
        (tmp_path / name).write_bytes(data)
    graph = saved_model(meta_graph([*reads(*VARIABLES), call], [inner]))
    (tmp_path / "saved_model.pb").write_bytes(graph)
    for name in ("", "saved_model.pb", "variables", "variables/variables.index"):
        assert open_file(tmp_path / name).modules["bn"].eps == 2e-3
    (tmp_path / "saved_model.pb").write_bytes(field(1, 1) + field(2, b"\xff"))
    assert list(open_file(tmp_path).skipped) == ["saved_model.pb"]
