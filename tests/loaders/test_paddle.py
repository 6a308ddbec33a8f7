import collections
import pickle

import numpy as np
import pytest

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file, unpickler
from bncli.state_dict import batch_norm_layers, read_state

from .files import assert_same, bits
from .paddle_files import Evaluated, Named, arrays, own_names, saved


@pytest.fixture
def opened(tmp_path):
    def open_(data):
        path = tmp_path / "x.pdparams"
        path.write_bytes(data if isinstance(data, bytes) else pickle.dumps(data, 4))
        return open_file(path)

    return open_


def assert_layer(file, state, name="bn1", prefix="bn1."):
    (layer,) = batch_norm_layers(file)
    values = read_state(layer)
    assert layer.name == name
    for leaf, own in (
        ("weight", "weight"), ("bias", "bias"),
        ("running_mean", "_mean"), ("running_var", "_variance"),
    ):  # fmt: skip
        assert bits(getattr(values, leaf)) == bits(state[f"{prefix}{own}"])
    assert layer.module.convention == "paddle"
    assert not layer.module.has_momentum
    assert layer.naming.name == "paddle"


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_state_dict_of_every_protocol(protocol, opened):
    state = arrays()
    file = opened(saved(state, protocol))
    assert file.container == "paddle"
    assert list(file.tensors) == list(state)
    assert_same(file.tensors, state)
    assert_layer(file, state)
    assert isinstance(file.tensors["conv.weight"].storage, FileBytes) == (protocol > 2)


@pytest.mark.parametrize("protocol", [2, 3])
def test_large_arrays_in_parts(protocol, opened):
    state = arrays()
    file = opened(saved(state, protocol, most=20))
    assert set(file.tensors) == set(state)
    assert_same(file.tensors, state)
    assert_layer(file, state)


def test_parameters_inside_other_objects(opened):
    state = arrays()
    named = {name: Named(f"p{number}", a) for number, (name, a) in enumerate(state.items())}
    file = opened(named)
    assert_same(file.tensors, state)
    assert_layer(file, state)
    file = opened(
        {
            "epoch": 3,
            "model": collections.OrderedDict(named),
            "ema": {"decay": Evaluated(np.ones(2))},
        }
    )
    assert_same(file.tensors, {f"model.{name}": a for name, a in state.items()})
    assert file.tensors["ema.decay"].shape == (2,)
    assert_layer(file, state, "model.bn1")


def test_a_dictionary_with_paddles_names_alone(opened):
    state = arrays()
    assert_layer(opened(state), state)


def test_the_names_of_static_programs(opened):
    state = arrays()
    own = dict(zip(("w_0", "b_0", "w_1", "w_2"), list(state.values())[1:], strict=True))
    file = opened({f"batch_norm2d_0.{leaf}": array for leaf, array in own.items()})
    assert_layer(file, state, "batch_norm2d_0")


def test_an_optimisers_state_has_no_layers(opened):
    state = {f"linear_0.w_0_{leaf}": np.ones(3, "f4") for leaf in ("moment1_0", "moment2_0")}
    state["batch_norm2d_0.w_0_velocity_0"] = np.ones(3, "f4")
    file = opened(saved(state))
    assert not batch_norm_layers(file)
    assert file.without_layers.startswith("it holds an optimiser's state, and the model's weights")
    assert not opened(saved(arrays())).without_layers


def test_other_pickles_and_other_calls_are_refused(opened):
    for value in (
        {"a": Evaluated("not an array")},
        {"a": np.ones(2)},
        {"bn._mean": np.ones(2), "bn._variance": "x"},
    ):
        with pytest.raises(UnsupportedFileError, match="it is a Python pickle"):
            opened(value)


HOSTILE = {
    "shape": {"OriginShape": (9, 9), "slices": ["w@@.0"]},
    "negative": {"OriginShape": (-1, -3), "slices": ["w@@.0"]},
    "axes": {"OriginShape": (1,) * 40 + (3,), "slices": ["w@@.0"]},
    "missing": {"OriginShape": (3,), "slices": ["w@@.0", "w@@.1"]},
    "twice": {"OriginShape": (6,), "slices": ["w@@.0", "w@@.0"]},
    "no slices": {"OriginShape": (3,)},
    "nothing": None,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_parts_that_do_not_fit(kind, opened):
    state = {"w@@.0": np.ones(3), "UnpackBigParamInfor@@": {"w": HOSTILE[kind]}}
    with pytest.raises(CorruptFileError, match="its array w lies in parts that do not fit toge"):
        opened(state | {"StructuredToParameterName@@": own_names({"w": 0})})


def test_a_cut_file_says_that_it_is_cut(opened):
    data = saved(arrays())
    for cut in range(len(data) // 4, len(data), 17):
        with pytest.raises(CorruptFileError, match=r"cut short|ends before its pickle does"):
            opened(data[:cut])


def test_dictionaries_that_share_each_other_are_followed_once(opened):
    inner = {"bn._mean": np.ones(2), "bn._variance": np.ones(2)}
    outer = {"StructuredToParameterName@@": {}}
    for _ in range(3):
        outer = {"StructuredToParameterName@@": {}, **{str(i): outer for i in range(8)}}
    outer["9"] = inner
    assert_count = len(batch_norm_layers(opened(outer)))
    assert assert_count == 1


def test_a_pickle_is_read_once(opened, monkeypatch):
    calls = []
    load = unpickler.load
    monkeypatch.setattr(unpickler, "load", lambda *args: calls.append(args) or load(*args))
    assert opened(saved(arrays())).container == "paddle"
    assert len([args for args in calls if not isinstance(args[1], bytes)]) == 1
