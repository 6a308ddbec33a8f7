"""`.keras` archives: the file of variables is read where it lies."""

import zipfile

import pytest

from bncli.errors import CorruptFileError, MissingTensorError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import keras, open_file, open_tensor
from bncli.loaders.patches import edits_of
from tests.loaders import memory
from tests.loaders.keras_files import archive, keras_3, net_3

GROUPS, NAMES, CONFIG = net_3()
WEIGHTS = keras_3(GROUPS, NAMES)
MEAN = "layers/batch_normalization/vars/2"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.keras"


def test_stored_variables_are_read_from_the_archive_itself(path):
    path.write_bytes(archive(WEIGHTS, CONFIG))
    storage = open_file(path).tensors[MEAN].storage
    assert isinstance(storage, FileBytes)
    data = path.read_bytes()[storage.offset :][: storage.nbytes]
    assert data == GROUPS["layers/batch_normalization"][2].tobytes()


def test_damage_is_seen_by_the_archives_checksum(path):
    path.write_bytes(archive(WEIGHTS, CONFIG))
    place = open_file(path).tensors[MEAN].storage.offset
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"model\.weights\.h5 does not match its checksum"):
        open_file(path).tensors[MEAN].read()


def test_a_large_compressed_member_is_not_inflated(path, monkeypatch):
    path.write_bytes(archive(WEIGHTS, CONFIG, compression=zipfile.ZIP_DEFLATED))
    assert open_file(path).container == "keras"
    monkeypatch.setattr(keras, "MOST_INFLATED", 100)
    with pytest.raises(UnsupportedFileError, match=r"is compressed and has .* bytes; unzip it"):
        open_file(path)


def test_an_archive_without_a_config_is_one_of_variables(path):
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("model.weights.h5", WEIGHTS)
        packed.writestr("assets/table.npy", b"")
    file = open_file(path)
    assert file.container == "keras"
    assert set(file.layers) == {"bn", "inner/bn"}
    assert file.modules["bn"].eps is None


def test_its_values_are_not_replaced(path):
    path.write_bytes(archive(WEIGHTS, CONFIG))
    file = open_file(path)
    with pytest.raises(UnsupportedFileError, match="tensors in keras files cannot be replaced"):
        edits_of(file, {MEAN: GROUPS["layers/batch_normalization"][2]})


HUGE = {
    "marks": {"config.json": b'{"class_name": "A", "config": [' + b"{},    " * 1_500_000 + b"1]}"},
    "text": {"config.json": b'{"x": "' + b"a" * (60 << 20) + '\U0001f600"}'.encode()},
    "metadata": {"metadata.json": b"[" + b"[]," * 2_000_000 + b"1]"},
}  # fmt: skip


@pytest.mark.parametrize("kind", HUGE)
def test_texts_that_would_take_much_memory_are_not_parsed(kind, path):
    texts = {"config.json": b"{}", "metadata.json": b"{}", **HUGE[kind]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("model.weights.h5", WEIGHTS)
        for name, text in texts.items():
            packed.writestr(name, text)
    before = memory.mark()
    assert open_file(path).layers
    assert memory.grown(before) < 80_000


@pytest.mark.parametrize("name", ["bn/moving_mean", "bn.running_mean"])
def test_a_tensor_may_be_named_by_its_layer(name, path):
    path.write_bytes(archive(WEIGHTS, CONFIG))
    assert open_tensor(f"{path}::{name}").name == MEAN
    with pytest.raises(MissingTensorError, match="there is no tensor 'bn/nothing'"):
        open_tensor(f"{path}::bn/nothing")
