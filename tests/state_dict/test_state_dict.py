"""Which tensors are a BatchNorm layer, on files made of names and shapes alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bncli.errors import CorruptFileError, TensorError
from bncli.model import BatchNormModule, StoredLayer, TensorFile, TensorRef
from bncli.state_dict import batch_norm_layers, possible_layers, read_state, read_tensors
from bncli.state_dict.names import TORCH

PATH = Path("file.pt")
STATISTICS = ("running_mean", "running_var")
AFFINE = ("weight", "bias")
COUNTER = "num_batches_tracked"


def ref(name, values, dtype="float32"):
    array = np.asarray(values)
    strides = tuple(step // array.itemsize for step in array.strides)
    return TensorRef(name, PATH, array.shape, dtype, strides, lambda: array.reshape(-1))


def unreadable(name, shape):
    return TensorRef(name, PATH, shape, "qint8", (1,), None, "it is quantised")


def file(*names, modules=None, shape=(3,)):
    tensors = {
        name: ref(name, 7) if name.endswith(COUNTER) else ref(name, np.ones(shape, np.float32))
        for name in names
    }
    return TensorFile(PATH, "torch-zip", tensors, modules or {})


def names(*args, **kwargs):
    return [layer.name for layer in batch_norm_layers(file(*args, **kwargs))]


def test_the_five_tensors_are_one_layer_whatever_the_prefix():
    for prefix in ("bn.", "module.", "_orig_mod.module.", "ema.model.layer1.0.", "a/b/", ""):
        tensors = [prefix + leaf for leaf in (*AFFINE, *STATISTICS, COUNTER)]
        (layer,) = batch_norm_layers(file(*tensors, prefix + "other", "conv.weight"))
        assert layer.name == prefix[:-1]
        assert layer.weight.name == prefix + "weight"
        assert layer.num_batches_tracked.name == prefix + COUNTER


def test_layers_come_in_the_order_of_the_file():
    tensors = [f"{n}.{leaf}" for n in ("z", "a", "10", "9") for leaf in (*AFFINE, *STATISTICS)]
    assert names(*tensors) == ["z", "a", "10", "9"]


@pytest.mark.parametrize(
    "beside", [["weight"], ["bias"], [COUNTER], [*AFFINE], ["weight", COUNTER]]
)
def test_statistics_and_one_thing_more_are_enough(beside):
    assert names(*(f"bn.{leaf}" for leaf in (*STATISTICS, *beside))) == ["bn"]


def test_a_layer_without_counter_or_affine():
    frozen = file("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    state = read_state(batch_norm_layers(frozen)[0])
    assert state.num_batches_tracked is None
    bare = file("bn.running_mean", "bn.running_var", "bn.num_batches_tracked")
    state = read_state(batch_norm_layers(bare)[0])
    assert (state.weight, state.bias, state.num_batches_tracked) == (None, None, 7)


@pytest.mark.parametrize(
    "tensors",
    [
        ["ln.weight", "ln.bias"],  # LayerNorm and GroupNorm
        ["obs.running_mean", "obs.running_var", "obs.count"],  # a normaliser of inputs
        ["rms.running_mean", "rms.running_var"],
        ["x.running_mean", "x.weight"],
        ["x.running_var", "x.num_batches_tracked"],
        ["x_running_mean", "x_running_var", "x_weight"],
        [],
    ],
)
def test_what_is_no_batch_norm(tensors):
    assert names(*tensors) == []


def test_statistics_of_several_axes_are_no_batch_norm():
    tensors = [f"obs.{leaf}" for leaf in (*STATISTICS, "weight")]
    assert names(*tensors, shape=(3, 4)) == []


def test_the_stored_module_decides_where_there_is_one():
    five = [f"n.{leaf}" for leaf in (*AFFINE, *STATISTICS, COUNTER)]
    assert names(*five, modules={"n": BatchNormModule("InstanceNorm2d")}) == []
    assert names(*five, modules={"n": BatchNormModule("BatchNorm2d")}) == ["n"]
    assert names(*five, modules={"n": BatchNormModule("MyNorm")}) == ["n"]
    # Without tracking there is nothing but weight and bias, and the class tells.
    affine = ["n.weight", "n.bias"]
    assert names(*affine, modules={"n": BatchNormModule("BatchNorm1d")}) == ["n"]
    layer = batch_norm_layers(file(*affine, modules={"n": BatchNormModule("BatchNorm1d", 0.5)}))[0]
    assert read_state(layer).module.eps == 0.5


def test_what_may_be_named_though_it_is_no_batch_norm_by_its_looks():
    tensors = file("ln.weight", "ln.bias", "obs.running_mean", "obs.running_var", "x.running_mean")
    assert list(possible_layers(tensors)) == ["ln", "obs"]
    assert list(possible_layers(file("conv.weight", shape=(1, 2, 3, 3)))) == []
    assert list(possible_layers(file("conv.weight", "conv.bias", shape=()))) == []


def test_values_keep_their_dtype_and_halves_are_widened():
    layers = batch_norm_layers(
        TensorFile(
            PATH,
            "torch-zip",
            {
                "weight": ref("weight", np.float16([1, 2]), "float16"),
                "running_mean": ref("running_mean", np.uint16([0x3F80, 0x4000]), "bfloat16"),
                "running_var": ref("running_var", np.float64([3, 4]), "float64"),
                "num_batches_tracked": ref("num_batches_tracked", np.float32([12])),
            },
        )
    )
    state = read_state(layers[0])
    assert state.dtype == "bfloat16"
    assert state.running_mean.tolist() == [1, 2]
    assert state.running_mean.dtype == np.float32
    assert state.running_var.dtype == np.float64
    assert state.num_batches_tracked == 12.0  # a float of shape [1], as tinygrad writes it


def test_what_cannot_be_read_is_said_when_it_is_read():
    tensors = {f"bn.{leaf}": ref(f"bn.{leaf}", np.ones(3)) for leaf in STATISTICS}
    tensors["bn.weight"] = unreadable("bn.weight", (3,))
    (layer,) = batch_norm_layers(TensorFile(PATH, "torch-zip", tensors))
    with pytest.raises(TensorError, match=r"file.pt::bn.weight: its values cannot be read"):
        read_state(layer)
    tensors["bn.weight"] = ref("bn.weight", np.ones((3, 1)))
    (layer,) = batch_norm_layers(TensorFile(PATH, "torch-zip", tensors))
    with pytest.raises(TensorError, match=r"one value per channel, but this has shape \(3, 1\)"):
        read_state(layer)
    tensors["bn.weight"] = ref("bn.weight", np.ones(3))
    tensors["bn.num_batches_tracked"] = ref("bn.num_batches_tracked", np.ones(2))
    (layer,) = batch_norm_layers(TensorFile(PATH, "torch-zip", tensors))
    with pytest.raises(
        TensorError, match=r"num_batches_tracked is one number, but this has shape \(2,\)"
    ):
        read_state(layer)


def layer_of(**tensors):
    named = {f"bn.{leaf}": ref(f"bn.{leaf}", np.ones(3, np.float32)) for leaf in STATISTICS}
    named["bn.weight"] = ref("bn.weight", np.float32([1, 2, 3]))
    named |= {f"bn.{leaf}": tensor for leaf, tensor in tensors.items()}
    (layer,) = batch_norm_layers(TensorFile(PATH, "torch-zip", named))
    return layer


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("complex32", np.uint32([1, 2, 3])),
        ("complex64", np.complex64([1, 2, 3])),
        ("complex128", np.complex128([1, 2, 3])),
    ],
)
def test_complex_numbers_are_refused_and_never_read_as_bits_or_real_parts(dtype, values):
    layer = layer_of(running_var=ref("bn.running_var", values, dtype))
    sentence = (
        f"file.pt::bn.running_var: a BatchNorm layer holds real numbers, but this is {dtype}."
    )
    with pytest.raises(TensorError) as caught:
        read_state(layer)
    assert str(caught.value) == sentence
    layer = layer_of(num_batches_tracked=ref(f"bn.{COUNTER}", values[0], dtype))
    with pytest.raises(TensorError, match="real numbers, but this is complex"):
        read_state(layer)


def test_a_counter_of_true_is_the_number_1():
    counter = ref(f"bn.{COUNTER}", np.bool_(True), "bool")
    assert read_state(layer_of(num_batches_tracked=counter)).num_batches_tracked is not True
    assert read_state(layer_of(num_batches_tracked=counter)).num_batches_tracked == 1


def test_a_counter_that_cannot_be_read_says_why():
    layer = layer_of(num_batches_tracked=unreadable(f"bn.{COUNTER}", (3, 3)))
    with pytest.raises(TensorError, match=r"its values cannot be read \(it is quantised"):
        read_state(layer)


def test_what_can_be_read_is_given_beside_what_cannot():
    layer = layer_of(
        running_mean=unreadable("bn.running_mean", (3,)),
        bias=unreadable("bn.bias\x1b", (3,)),
        num_batches_tracked=ref(f"bn.{COUNTER}", np.ones(2)),
    )
    state, problems = read_tensors(layer)
    assert state.name == "bn"
    assert (state.running_mean, state.bias, state.num_batches_tracked) == (None, None, None)
    assert (state.weight.tolist(), state.running_var.tolist()) == ([1, 2, 3], [1, 1, 1])
    assert state.dtype == "float32"
    assert sorted(problems) == [
        "file.pt::bn.bias\\x1b: its values cannot be read (it is quantised).",
        "file.pt::bn.running_mean: its values cannot be read (it is quantised).",
    ]


def test_a_damaged_tensor_is_no_layer_with_a_note():
    def damaged():
        raise CorruptFileError(PATH, "its member is damaged.")

    bias = TensorRef("bn.bias", PATH, (3,), "float32", (1,), damaged)
    with pytest.raises(CorruptFileError, match="its member is damaged"):
        read_tensors(layer_of(bias=bias))


def test_a_layer_without_a_fault_reads_the_same_either_way():
    layer = layer_of(num_batches_tracked=ref(f"bn.{COUNTER}", np.int64(5), "int64"))
    state, problems = read_tensors(layer)
    assert problems == ()
    assert (state.num_batches_tracked, state.dtype) == (5, read_state(layer).dtype)
    assert state.weight.tolist() == read_state(layer).weight.tolist()


def test_lengths_that_disagree_are_said_and_the_values_given():
    state, problems = read_tensors(layer_of(weight=ref("bn.weight", np.float32([1, 2]))))
    (problem,) = problems
    assert problem == (
        "file.pt::bn: a BatchNorm layer has one value per channel, but its tensors disagree on"
        " the number of channels (running_mean has 3, running_var has 3, weight has 2)."
    )
    assert state.weight.tolist() == [1, 2]


def test_nothing_that_can_be_read_has_no_dtype():
    gone = {leaf: unreadable(f"bn.{leaf}", (3,)) for leaf in (*STATISTICS, "weight")}
    state, problems = read_tensors(layer_of(**gone))
    assert (state.dtype, state.weight, len(problems)) == (None, None, 3)


def test_a_label_shows_no_control_character():
    label = ref("bn\x1b[31m\n\ud800.weight", 1).label
    assert label == r"file.pt::bn\x1b[31m\x0a\ud800.weight"


# ------------------------------------------------------------------ layers that a file tells


def told(stored, *names, modules=None):
    """A file that says of these layers which tensors are theirs."""
    layers = {name: StoredLayer(tensors) for name, tensors in stored.items()}
    return replace(file(*names, modules=modules), layers=layers)


FOUR = {"weight": "w", "bias": "b", "running_mean": "m", "running_var": "v"}


def test_a_layer_that_the_file_tells_has_tensors_with_any_names():
    module = BatchNormModule("BatchNormalization", eps=1e-3, convention="onnx")
    given = told(
        {"/bn1/BatchNormalization": FOUR}, *"wbmv", modules={"/bn1/BatchNormalization": module}
    )
    (layer,) = batch_norm_layers(given)
    assert layer.name == "/bn1/BatchNormalization"
    assert {leaf: ref.name for leaf, ref in layer.tensors.items()} == {
        "running_mean": "m",
        "running_var": "v",
        "weight": "w",
        "bias": "b",
    }
    assert layer.module is module
    assert layer.naming.name == "onnx"
    assert read_state(layer).running_var.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("convention", "naming", "eps"),
    [
        ("onnx", "onnx", 1e-5),
        ("onnx-9", "onnx", 1e-5),
        ("keras3", "keras", 1e-3),
        ("keras2", "keras", 1e-3),
        ("tf-fused", "keras", 1e-3),
        ("mxnet", "mxnet", 1e-3),
        ("paddle-cudnn", "paddle", 1e-5),
        ("flax", "flax", 1e-5),
        ("haiku", "flax", 1e-5),
        ("pytorch", "torch", 1e-5),
        ("what-is-not-known", "torch", 1e-5),
    ],
)
def test_names_that_say_nothing_leave_it_to_the_framework_what_is_assumed(convention, naming, eps):
    module = BatchNormModule("BatchNorm", convention=convention)
    (layer,) = batch_norm_layers(told({"0": FOUR}, *"wbmv", modules={"0": module}))
    assert (layer.naming.name, layer.naming.eps) == (naming, eps)


def test_names_that_show_the_naming_go_before_the_framework():
    own = {leaf: f"layer1.bn1.{leaf}" for leaf in (*AFFINE, *STATISTICS)}
    module = BatchNormModule("BatchNormalization", eps=1e-5, convention="onnx")
    given = told({"/layer1/bn1": own}, *own.values(), modules={"/layer1/bn1": module})
    (layer,) = batch_norm_layers(given)
    assert layer.naming is TORCH
    assert layer.name == "/layer1/bn1"


def test_a_layer_that_is_told_is_not_found_once_more_by_its_names():
    own = {leaf: f"bn.{leaf}" for leaf in (*AFFINE, *STATISTICS)}
    others = [f"other.{leaf}" for leaf in (*AFFINE, *STATISTICS)]
    given = told({"node_7": own}, *own.values(), *others)
    assert [layer.name for layer in batch_norm_layers(given)] == ["node_7", "other"]
    # Under its own name, too, it is what the file says: here without a weight.
    fewer = {leaf: name for leaf, name in own.items() if leaf != "weight"}
    (layer,) = batch_norm_layers(told({"bn": fewer}, *own.values()))
    assert layer.name == "bn"
    assert layer.weight is None
    assert layer.bias is not None


def test_two_layers_that_are_told_may_share_tensors():
    second = FOUR | {"running_mean": "m2", "running_var": "v2"}
    layers = batch_norm_layers(told({"a": FOUR, "b": second}, *FOUR.values(), "m2", "v2"))
    assert [(layer.name, layer.weight.name, layer.running_var.name) for layer in layers] == [
        ("a", "w", "v"),
        ("b", "w", "v2"),
    ]


def test_a_layer_that_is_told_needs_neither_weight_nor_bias_where_its_module_is_told():
    bare = {"running_mean": "m", "running_var": "v"}
    module = BatchNormModule("BatchNormalization", convention="keras3")
    assert batch_norm_layers(told({"bn": bare}, "m", "v", modules={"bn": module}))
    assert list(possible_layers(told({"bn": bare}, "m", "v"))) == ["bn"]


def test_a_part_of_a_file_has_the_layers_of_which_it_has_all_tensors():
    second = {leaf: f"{name}2" for leaf, name in FOUR.items()}
    given = told({"a": FOUR, "b": second}, *FOUR.values(), *second.values())
    part = replace(given, tensors={n: r for n, r in given.tensors.items() if n != "v"})
    assert list(possible_layers(part)) == ["b"]
