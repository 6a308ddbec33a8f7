"""Files that Keras writes, and those that packages ship, against what Keras and h5py read."""

import hashlib
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state, read_tensors

from .packages import installed

pytestmark = pytest.mark.published

SPLICEAI = "spliceai==1.3.1"
KERAS = ("keras==3.11.3", "absl-py==2.5.1", "optree==0.20.0", "namex==0.1.0", "ml_dtypes==0.6.0")
LEAVES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
LEAVES |= {"running_var": "moving_variance"}

WRITES = """
import json, sys
import keras, numpy as np
from keras import layers as L

@keras.saving.register_keras_serializable("my")
class Block(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.conv = L.Conv2D(4, 1)
        self.norm = L.BatchNormalization(epsilon=0.01)
        self.more = [L.BatchNormalization(), L.BatchNormalization()]

    def call(self, x):
        return self.more[1](self.more[0](self.norm(self.conv(x))))

@keras.saving.register_keras_serializable("my")
class Norm(L.BatchNormalization):
    pass

def inner(y):
    y = L.BatchNormalization(name="b", axis=3)(y)
    deep = keras.Sequential([L.Conv2D(2, 1, name="c"), L.BatchNormalization(name="b", scale=False)],
                            name="deep")
    return deep(y)

given = keras.Input((8, 8, 3))
x = L.Conv2D(4, 1, name="first", use_bias=False)(given)
x = L.BatchNormalization(name="bn", epsilon=2e-3, momentum=0.9)(x)
x = Block(name="block")(x)
x = Norm(name="mine", momentum=0.5)(x)
x = keras.Sequential([L.Conv2D(5, 1, name="c"), L.BatchNormalization(name="b")], name="seq")(x)
part = keras.Input((8, 8, 5))
x = keras.Model(part, inner(part), name="func")(x)
x = L.Conv2DTranspose(3, 2, name="up")(x)
x = L.BatchNormalization(name="after_up")(x)
x = L.Reshape((9, 27))(x)
x = L.TimeDistributed(L.BatchNormalization(name="each", scale=False), name="timed")(x)
x = L.Bidirectional(L.LSTM(3), name="both")(x)
x = L.Dense(3, name="fc")(x)
x = L.BatchNormalization(name="last", center=False, scale=False, trainable=False)(x)
model = keras.Model(given, x)
random = np.random.default_rng(0)
model.set_weights([
    (random.random(w.shape) + 0.5).astype(w.dtype) if w.dtype.kind == "f" else w
    for w in model.get_weights()
])
for ending in ("keras", "weights.h5", "h5"):
    path = f"{sys.argv[1]}/net.{ending}"
    model.save_weights(path) if ending == "weights.h5" else model.save(path)
found = []
for layer in model._flatten_layers(include_self=False, recursive=True):
    if isinstance(layer, L.BatchNormalization):
        held = {}
        for own in ("gamma", "beta", "moving_mean", "moving_variance"):
            variable = getattr(layer, own, None)
            if variable is not None:
                held[own] = variable.value.detach().numpy().tobytes().hex()
        found.append([layer.epsilon, layer.momentum, held])
print(json.dumps(found))
"""
FRONTS = {
    "bn": ("first", 3), "seq/b": ("seq/c", 3), "func/deep/b": ("func/deep/c", 3),
    "after_up": ("up", 2), "last": ("fc", 1),
}  # fmt: skip
NAMED = {"bn", "mine", "seq/b", "func/b", "func/deep/b", "after_up", "timed/each", "last"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder in which Keras wrote a model in all its formats, and what it says of it."""
    folder = tmp_path_factory.mktemp("keras")
    paths = os.pathsep.join(str(installed(requirement)) for requirement in KERAS)
    told = subprocess.run(
        [sys.executable, "-c", WRITES, str(folder)],
        env=os.environ | {"PYTHONPATH": paths, "KERAS_BACKEND": "torch"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return folder, json.loads(told.stdout.splitlines()[-1])


def held(state):
    """The vectors of a layer by Keras' names, as Keras' own are given."""
    values = {own: getattr(state, leaf) for leaf, own in LEAVES.items()}
    return {own: each.tobytes().hex() for own, each in values.items() if each is not None}


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_what_keras_wrote_is_read_with_its_settings(written, ending):
    folder, expected = written
    file = open_file(folder / f"net.{ending}")
    states = [read_state(layer) for layer in batch_norm_layers(file)]
    assert len(states) == len(expected) == 11
    assert {state.name for state in states} > NAMED
    by_mean = {held_["moving_mean"]: rest for *rest, held_ in expected}
    vectors = {held_["moving_mean"]: held_ for _, _, held_ in expected}
    for state in states:
        assert held(state) == vectors[held(state)["moving_mean"]]
        if state.name in NAMED:  # the config says nothing of what is in a class of the user's
            module = state.module
            assert [module.eps, module.stated_momentum] == by_mean[held(state)["moving_mean"]]
            assert module.convention == "keras3"
            assert module.training is (False if state.name == "last" else None)
    fronts = {name: layer.front for name, layer in file.layers.items() if layer.front is not None}
    assert {name: (front.name, front.axis) for name, front in fronts.items()} == FRONTS


def test_weights_alone_have_what_is_certain(written):
    folder, expected = written
    file = open_file(folder / "net.weights.h5")
    states = [
        read_tensors(layer)[0] for layer in batch_norm_layers(file)
    ]  # some hold what is unsure
    vectors = {held_["moving_mean"]: held_ for _, _, held_ in expected}
    names = {state.name for state in states}
    assert names > NAMED - {"timed/each", "mine"}
    for state in states:
        whole = vectors[held(state)["moving_mean"]]
        sure = whole if len(whole) != 3 else {k: v for k, v in whole.items() if "moving" in k}
        assert held(state) == sure


def independent(path):
    """A checksum of the vectors of each BatchNormalization, by its name, as h5py reads them."""
    found = {}
    with h5py.File(path) as file:
        for config in json.loads(file.attrs["model_config"])["config"]["layers"]:
            if config["class_name"] == "BatchNormalization":
                group = file["model_weights"][config["name"]]
                arrays = [group[name][...] for name in group.attrs["weight_names"]]
                assert np.shape(arrays) == (4, 32)
                data = b"".join(array.tobytes() for array in arrays)
                found[config["name"]] = hashlib.sha256(data).hexdigest()
    return found


@pytest.mark.parametrize("number", range(1, 6))
def test_every_layer_of_spliceai_has_the_statistics_that_h5py_reads(number):
    path = installed(SPLICEAI) / "spliceai" / "models" / f"spliceai{number}.h5"
    states = [read_state(layer) for layer in batch_norm_layers(open_file(path))]
    assert len(states) == 32
    found = {}
    for state in states:
        data = b"".join(getattr(state, leaf).tobytes() for leaf in LEAVES)
        found[state.name] = hashlib.sha256(data).hexdigest()
        assert (state.module.eps, state.module.stated_momentum) == (1e-3, 0.99)
    assert found == independent(path)
