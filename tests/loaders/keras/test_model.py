"""An HDF5 file with what Keras says of itself: as the file's attributes, or beside it."""

import json

import numpy as np
import pytest

from bncli.loaders.hdf5.region import Region
from bncli.loaders.keras.model import Config, open_region
from tests.loaders.keras_files import (
    batch_norm,
    functional,
    keras_2,
    keras_3,
    net_2,
    net_3,
    vectors,
)

NET = functional(batch_norm("bn", None))
GROUP = "layers/batch_normalization"


def opened(data, config=None, metadata=b"", path="x"):
    archive = None if config is None else Config(config, metadata)
    return open_region(Region(path, 0, len(data), data=data), archive)


def test_the_config_of_keras_2_is_an_attribute_of_the_file():
    groups, config = net_2()
    file = opened(keras_2(groups, config))
    assert file.container == "keras-h5"
    assert list(file.layers) == ["bn", "inner/bn"]
    assert file.modules["bn"].eps == pytest.approx(2e-3)
    assert opened(keras_2(groups)).modules["bn"].eps is None


def test_the_config_of_an_archive_stands_beside_the_variables():
    groups, names, config = net_3()
    file = opened(keras_3(groups, names), json.dumps(config).encode())
    assert file.container == "keras"
    assert list(file.layers) == ["bn", "inner/bn"]
    assert file.modules["bn"].eps == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("metadata", "convention"),
    [
        (b'{"keras_version": "3.11.3"}', "keras3"),
        (b'{"keras_version": "2.15.0"}', "tf-unfused"),
        (b"", "keras3"),
        (b"{", "keras3"),
        (b"[]", "keras3"),
        (b'{"keras_version": 2}', "keras3"),
        (b"[" * 100_000, "keras3"),
        (b"\xff", "keras3"),
    ],
)
def test_the_version_of_an_archive_is_in_its_metadata(metadata, convention):
    data = keras_3({GROUP: list(vectors().values())})
    file = opened(data, json.dumps(NET).encode(), metadata)
    assert file.modules["bn"].convention == convention


@pytest.mark.parametrize("config", [b"", b"{", b"null", b"[" * 100_000, b'{"class_name": 3}'])
def test_variables_are_read_without_a_config_that_says_anything(config):
    values = vectors()
    file = opened(keras_3({GROUP: list(values.values())}), config)
    assert file.container == "keras"
    assert [ref.read().tobytes() for ref in file.tensors.values()] == [
        each.tobytes() for each in values.values()
    ]
    assert list(file.layers) == [GROUP.removeprefix("layers/")]
    assert file.modules["batch_normalization"].eps is None
    said = "is not the config of a Keras model" if config else "missing, too large"
    assert said in file.skipped["config.json"]


def test_a_file_of_neither_layout_has_its_datasets_and_no_layers_of_keras():
    data = keras_2({}, whole=False).replace(b"layer_names", b"other_names")
    file = opened(data)
    assert (file.container, file.layers, file.tensors) == ("hdf5", {}, {})


def test_the_values_lie_in_the_file_or_in_memory(tmp_path):
    data = keras_3({GROUP: list(vectors().values())})
    path = tmp_path / "x"
    path.write_bytes(data)
    held = opened(data).tensors
    lying = open_region(Region(path, 0, len(data))).tensors
    assert list(held) == list(lying)
    for name, ref in held.items():
        assert np.array_equal(ref.read(), lying[name].read())
