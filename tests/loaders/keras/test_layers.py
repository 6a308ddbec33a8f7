"""Layers of Keras' files: their tensors, what the config says of them, what stands in front."""

import h5py
import numpy as np
import pytest

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state, read_tensors
from bncli.state_dict.in_front import in_front
from tests.loaders.keras_files import (
    EPS,
    MOMENTUM,
    archive,
    batch_norm,
    functional,
    keras_2,
    keras_3,
    kernel,
    layer,
    net_2,
    net_3,
    vectors,
)

TORCH = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}


@pytest.fixture
def opened(tmp_path):
    """A function that opens bytes: the file, and its layers by name."""

    def of(data):
        path = tmp_path / "x"
        path.write_bytes(data)
        file = open_file(path)
        return file, {found.name: found for found in batch_norm_layers(file)}

    return of


def check(found, expected):
    """A layer has these vectors bit for bit, and no other."""
    state = read_state(found)
    for own, leaf in (TORCH | {"moving_variance": "running_var"}).items():
        values = getattr(state, leaf)
        if own not in expected:
            assert values is None
        else:
            assert values.tobytes() == expected[own].tobytes()


def without(values, *names):
    return {name: each for name, each in values.items() if name not in names}


@pytest.mark.parametrize("kind", ["keras-2", "keras-3"])
def test_a_model_with_its_config_says_all(opened, kind):
    if kind == "keras-2":
        data = keras_2(*net_2())
    else:
        groups, names, config = net_3()
        data = archive(keras_3(groups, names), config)
    file, layers = opened(data)
    assert list(layers) == ["bn", "inner/bn"]
    check(layers["bn"], vectors(1))
    check(layers["inner/bn"], without(vectors(2, 3), "gamma"))
    for name, axis in (("bn", 3), ("inner/bn", 1)):
        module = layers[name].module
        assert module.class_name == "BatchNormalization"
        assert (module.eps, module.stated_momentum, module.momentum) == (EPS, MOMENTUM, 0.1)
        assert module.convention == ("keras2" if kind == "keras-2" else "keras3")
        assert module.channel_axis == (axis if kind == "keras-2" else -1)
        assert module.has_momentum
        assert module.training is None
        assert module.affine
    fronts = in_front(file, layers)
    assert {name: (front.name, front.axis) for name, front in fronts.items()} == {
        "bn": ("conv", 3), "inner/bn": ("inner/fc", 1)
    }  # fmt: skip
    assert fronts["inner/bn"].bias.shape == (3,)
    assert file.skipped == {}


def test_weights_alone_of_keras_2_have_names_and_an_order(opened):
    groups, _ = net_2()
    file, layers = opened(keras_2(groups, whole=False))
    assert list(layers) == ["bn", "inner/bn"]
    check(layers["inner/bn"], without(vectors(2, 3), "gamma"))
    assert layers["bn"].module.eps is None
    assert not layers["bn"].module.has_momentum
    assert layers["bn"].naming.eps == 1e-3
    assert {name: front.name for name, front in in_front(file, layers).items()} == {
        "bn": "conv", "inner/bn": "inner/fc"
    }  # fmt: skip
    sides = ("left", "right")
    branches = {name: {f"{name}/kernel:0": groups["conv"]["conv/kernel:0"]} for name in sides}
    file, layers = opened(keras_2(branches | {"bn": groups["bn"]}, whole=False))
    assert list(layers) == ["bn"]
    assert in_front(file, layers) == {}


def test_a_name_that_tensorflow_made_unique_is_the_layers(opened):
    file, layers = opened(
        keras_2({"bn": {f"bn_1/{key}:0": each for key, each in vectors().items()}}, whole=False)
    )
    assert list(layers) == ["bn"]
    assert "bn/bn_1/gamma:0" in file.tensors


def test_keras_3_writes_the_names_of_layers_as_texts_of_any_length(tmp_path, opened):
    """And each layer's variables below the model's name and its own."""
    path = tmp_path / "y.h5"
    names = ["z_bn", "a_bn"]
    path.write_bytes(
        keras_2(
            {n: {f"sequential/{n}/{key}": v for key, v in vectors().items()} for n in names},
            whole=False,
        )
    )
    with h5py.File(path, "r+") as file:
        file.attrs["layer_names"] = np.array(names, dtype=object)
    _, layers = opened(path.read_bytes())
    assert list(layers) == names


@pytest.mark.parametrize("missing", [(), ("gamma",), ("beta",), ("gamma", "beta")])
@pytest.mark.parametrize("whole", [True, False])
def test_scale_and_center_shift_the_numbers(opened, missing, whole):
    values = without(vectors(), *missing)
    data = keras_3({"layers/batch_normalization": list(values.values())})
    flags = {"scale": "gamma" not in missing, "center": "beta" not in missing}
    if whole:
        data = archive(data, functional(batch_norm("bn", None, **flags)))
    file, layers = opened(data)
    (found,) = layers.values()
    if whole:
        check(found, values)
        assert found.module.affine is (len(missing) < 2)
        assert file.skipped == {}
    elif len(missing) == 1:
        state, unread = read_tensors(found)
        assert (state.weight, state.bias) == (None, None)
        assert state.running_mean.tobytes() == values["moving_mean"].tobytes()
        assert len(unread) == 2
        assert all("vars/0 is gamma or beta, and only the model's" in each for each in unread)
    else:
        check(found, values)


def test_numbers_may_begin_anywhere(tmp_path, opened):
    path = tmp_path / "y.h5"
    path.write_bytes(keras_3({"bn": list(vectors().values())}))
    with h5py.File(path, "r+") as file:
        del file["bn/vars/0"]
    file, layers = opened(path.read_bytes())
    assert list(layers) == ["bn"]
    assert "vars/1 is gamma or beta, and only" in file.tensors["bn/beta"].unreadable


def test_numbered_vectors_that_are_called_otherwise_are_no_layer(opened):
    """Four vectors under another name, and two of a LayerNormalization."""
    four = list(vectors().values())
    file, layers = opened(keras_3({"layers/dense": four, "layers/layer_normalization": four[:2]}))
    assert layers == {}
    assert len(file.tensors) == 6


def test_a_subclassed_model_has_its_attributes_as_names(opened):
    groups = {"blk/bn": list(vectors().values()), "stem": [kernel(3, 3, 1, 4)]}
    config = {"class_name": "Net", "config": {"name": "net"}}
    data = archive(keras_3(groups, {"blk/bn": "batch_normalization_7", "blk": "blk"}), config)
    _, layers = opened(data)
    assert list(layers) == ["blk/batch_normalization_7"]
    assert layers["blk/batch_normalization_7"].module.convention == "keras3"


def test_a_config_of_another_model_is_not_believed(opened):
    groups = {"layers/batch_normalization": list(vectors().values())}
    data = keras_3(groups, {"layers/batch_normalization": "mine"})
    _, layers = opened(archive(data, functional(batch_norm("other", None))))
    assert list(layers) == ["mine"]
    assert layers["mine"].module.eps is None


def test_wrappers_lists_and_classes_of_the_users_own(opened):
    inner = batch_norm("norm", None)
    timed = layer("TimeDistributed", "timed", config={"layer": inner, "activation": None})
    own = batch_norm("own", "timed", epsilon=0.5)
    own |= {"class_name": "MyNorm", "registered_name": "my>MyNorm"}
    own["config"] |= {"moving_mean_initializer": "zeros", "moving_variance_initializer": "ones"}
    stack = {"class_name": "Sequential", "config": [layer("Dense", "fc"), batch_norm("b", None)]}
    stack["name"] = "stack"
    for each in stack["config"]:
        del each["inbound_nodes"]  # as in Sequential
    groups = {
        "layers/time_distributed/layer": list(vectors(1).values()),
        "layers/my_norm": list(vectors(2).values()),
        "layers/sequential/layers/dense": [kernel(2, 4)],
        "layers/sequential/layers/batch_normalization": list(vectors(3).values()),
    }
    file, layers = opened(archive(keras_3(groups), functional(timed, own, stack)))
    assert list(layers) == ["timed/norm", "own", "stack/b"]
    assert layers["own"].module.eps == 0.5
    assert in_front(file, layers)["stack/b"].name == "stack/fc"


@pytest.mark.parametrize(
    ("kind", "names", "shape", "axis"),
    [
        ("Conv2DTranspose", ("kernel",), (2, 2, 4, 3), 2),
        ("DepthwiseConv2D", ("depthwise_kernel",), (3, 3, 4, 1), 2),
        ("DepthwiseConv2D", ("depthwise_kernel",), (3, 3, 2, 2), None),
        ("Conv3D", ("kernel",), (1, 1, 1, 3, 4), 4),
        ("Embedding", ("embeddings",), (9, 4), None),
        ("Dense", ("kernel",), (4, 5), None),
    ],
)
def test_the_axis_of_the_outputs_is_that_of_the_class(opened, kind, names, shape, axis):
    config = functional(layer(kind, "front", keras=2), batch_norm("bn", "front", keras=2), keras=2)
    groups = {
        "front": {f"front/{names[0]}:0": np.zeros(shape, np.float32)},
        "bn": {f"bn/{key}:0": values for key, values in vectors().items()},
    }
    fronts = in_front(*opened(keras_2(groups, config)))
    assert [front.axis for front in fronts.values()] == ([] if axis is None else [axis])


def test_an_activation_between_leaves_nothing_in_front(opened):
    config = functional(
        layer("Dense", "fc", config={"activation": "relu"}, keras=2),
        batch_norm("bn", "fc", keras=2), keras=2,
    )  # fmt: skip
    groups = {"fc": {"fc/kernel:0": kernel(2, 4)}}
    groups["bn"] = {f"bn/{key}:0": values for key, values in vectors().items()}
    assert in_front(*opened(keras_2(groups, config))) == {}


@pytest.mark.parametrize(
    ("version", "config", "convention"),
    [
        ("2.0.5", {}, "tf-unfused"),
        ("2.1.3", {"axis": 3}, "keras2"),
        ("2.3.1", {"axis": -1}, "keras2"),
        ("2.2.4-tf", {"axis": [3]}, "tf-fused"),
        ("2.12.0", {"axis": [3]}, "tf-fused"),
        ("2.12.0", {"axis": [1]}, "tf-unfused"),
        ("2.12.0", {"axis": [3], "fused": False}, "tf-unfused"),
        ("2.4.0", {"axis": [1], "fused": True}, "tf-fused"),
        ("2.4.0", {"axis": [3], "renorm": True}, "tf-unfused"),
        ("3.0.0", {"axis": [3]}, "keras3"),
        ("", {}, "keras3"),
        ("x" * 99, {}, "keras3"),
    ],
)
def test_the_version_tells_the_convention(opened, version, config, convention):
    groups = {"bn": {f"bn/{key}:0": values for key, values in vectors().items()}}
    model = functional(batch_norm("bn", None, keras=2, **config), keras=2)
    _, layers = opened(keras_2(groups, model, version=version))
    assert layers["bn"].module.convention == convention


@pytest.mark.parametrize("wrong", [None, "0.1", True, float("nan"), 10**400, [1]])
def test_values_of_another_kind_are_not_believed(opened, wrong):
    groups = {"bn": {f"bn/{key}:0": values for key, values in vectors().items()}}
    config = functional(
        batch_norm("bn", None, keras=2, epsilon=wrong, momentum=wrong, trainable=False), keras=2
    )
    _, layers = opened(keras_2(groups, config))
    module = layers["bn"].module
    assert (module.eps, module.momentum, module.has_momentum) == (None, None, False)
    assert module.training is False


def test_a_variable_that_is_a_link_out_of_the_file_is_the_layers_all_the_same(tmp_path, opened):
    path = tmp_path / "y.h5"
    path.write_bytes(keras_2(*net_2()))
    with h5py.File(path, "r+") as file:
        group = file["model_weights/bn"]
        (name,) = [each for each in _datasets(group) if each.endswith("moving_variance:0")]
        del group[name]
        group[name] = h5py.ExternalLink("other.h5", "/x")
    file, layers = opened(path.read_bytes())
    state, unread = read_tensors(layers["bn"])
    assert state.running_var is None
    assert state.running_mean is not None
    assert "it is a link to another file, which is not followed" in unread[0]
    assert file.skipped == {}


def _datasets(group):
    names = []
    group.visititems(lambda name, node: names.append(name) if hasattr(node, "shape") else None)
    return names


def test_a_wrapped_layer_of_four_vectors_is_a_batch_norm(opened):
    group = "layers/time_distributed/layer"
    names = {"layers/time_distributed": "td", group: "tdbn"}
    _, layers = opened(keras_3({group: list(vectors().values())}, names))
    assert list(layers) == ["td/tdbn"]
    check(layers["td/tdbn"], vectors())


def test_a_config_without_a_batch_norm_is_said(opened):
    other = layer("LayerNormalization", "ln")
    weights = keras_3({"layers/layer_normalization": [np.ones(3), np.zeros(3)]})
    file, layers = opened(archive(weights, functional(other)))
    assert layers == {}
    said = "its config has no BatchNormalization layer (it has 1 LayerNormalization)"
    assert file.without_layers == said
