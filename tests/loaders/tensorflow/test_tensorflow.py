"""Checkpoints of TensorFlow by every name that they are given, and what is said of damaged ones."""

import numpy as np
import pytest

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.loaders import open_file, open_model
from bncli.state_dict import batch_norm_layers, read_state

from .written import bundle, entry, field, header, meta_graph, node, object_graph, table

RANDOM = np.random.default_rng(0)
LAYER = {
    "bn/beta": RANDOM.normal(size=3).astype("f4"),
    "bn/gamma": RANDOM.normal(size=3).astype("f4"),
    "bn/moving_mean": RANDOM.normal(size=3).astype("f4"),
    "bn/moving_variance": RANDOM.random(3).astype("f4"),
}


def put(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def model(tmp_path):
    put(tmp_path, bundle(LAYER, prefix="model.ckpt"))
    put(tmp_path, {"checkpoint": b'model_checkpoint_path: "/home/them/model.ckpt"\n'})
    return tmp_path


@pytest.mark.parametrize(
    "name", ["model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.ckpt", "checkpoint", ""]
)
def test_a_checkpoint_goes_by_its_index_its_data_its_prefix_and_its_folder(model, name):
    for opened in (open_file(model / name), open_model(model / name)):
        assert opened.container == "tensorflow"
        assert opened.path == model / "model.ckpt.index"
        (layer,) = batch_norm_layers(opened)
        state = read_state(layer)
        assert state.name == "bn"
        for leaf, own in {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}.items():
            np.testing.assert_array_equal(getattr(state, leaf), LAYER[f"bn/{own}"])


def test_the_graph_beside_a_checkpoint_leads_to_it(model):
    (model / "model.ckpt.meta").write_bytes(b"")
    assert len(open_file(model / "model.ckpt.meta").tensors) == 4


@pytest.mark.parametrize("name", ["", "saved_model.pb", "variables", "variables/variables"])
def test_a_saved_model_goes_by_its_folder_its_graph_and_its_variables(tmp_path, name):
    put(tmp_path, bundle(LAYER, prefix="variables/variables"))
    put(tmp_path, {"saved_model.pb": field(1, 1) + field(2, b"")})
    assert set(open_file(tmp_path / name).tensors) == set(LAYER)


def test_a_saved_model_without_variables_says_so(tmp_path):
    put(tmp_path, {"saved_model.pb": field(1, 1) + field(2, b"")})
    for path in (tmp_path, tmp_path / "saved_model.pb"):
        with pytest.raises(UnsupportedFileError, match=r"variables/variables.index are missing;"):
            open_file(path)


def test_a_folder_with_one_index_and_no_note_is_that_checkpoint(tmp_path):
    put(tmp_path, bundle(LAYER, prefix="weights"))
    assert open_model(tmp_path).path.name == "weights.index"


def test_names_come_from_the_graph_of_objects(tmp_path):
    key = "layer_with_weights-{}/{}/.ATTRIBUTES/VARIABLE_VALUE".format
    arrays = {key(1, own.removeprefix("bn/")): array for own, array in LAYER.items()}
    arrays[key(0, "kernel")] = np.ones((1, 1, 2, 3), "f4")
    arrays["optimizer/m/3/.ATTRIBUTES/VARIABLE_VALUE"] = np.ones(3, "f4")
    names = {key(1, own.removeprefix("bn/")): f"stem/{own}" for own in LAYER}
    names["optimizer/m/3/.ATTRIBUTES/VARIABLE_VALUE"] = "Adam/m/stem/bn/gamma"
    texts = {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(names), "note": b"words"}
    put(tmp_path, bundle(arrays, texts=texts))
    opened = open_file(tmp_path / "model.index")
    assert list(opened.tensors) == [
        "stem/bn/beta", "stem/bn/gamma", "stem/bn/moving_mean", "stem/bn/moving_variance",
        "layer_with_weights-0/kernel", "optimizer/m/3",
    ]  # fmt: skip
    assert opened.skipped == {"note": "it holds texts"}
    # Two models with the same names in one checkpoint keep the places of their variables.
    names[key(0, "kernel")] = "stem/bn/gamma"
    texts = {"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(names)}
    put(tmp_path, bundle(arrays, texts=texts))
    assert {"layer_with_weights-0/kernel", "layer_with_weights-1/gamma"} <= set(
        open_file(tmp_path / "model.index").tensors
    )


@pytest.mark.parametrize("damage", [b"", b"\xff" * 30, b"\x0a\xff\xff\xff\xff\x0f"])
def test_a_damaged_graph_of_objects_leaves_the_keys(tmp_path, damage):
    key = "net/bn/{}/.ATTRIBUTES/VARIABLE_VALUE".format
    arrays = {key(own.removeprefix("bn/")): array for own, array in LAYER.items()}
    put(tmp_path, bundle(arrays, texts={"_CHECKPOINTABLE_OBJECT_GRAPH": damage}))
    assert set(open_file(tmp_path / "model.index").tensors) == {f"net/{own}" for own in LAYER}


def test_missing_data_files_are_named(tmp_path):
    put(tmp_path, bundle(LAYER, shards=3))
    (tmp_path / "model.data-00001-of-00003").unlink()
    with pytest.raises(FileError, match=r"its data file model.data-00001-of-00003 is missing;"):
        open_file(tmp_path / "model.index")
    (tmp_path / "model.data-00002-of-00003").unlink()
    with pytest.raises(FileError, match=r"its data files .*00001-of-00003, .* are missing; put"):
        open_file(tmp_path / "model.index")


def test_data_without_its_index_say_so(tmp_path):
    put(tmp_path, {"model.data-00000-of-00001": bytes(64)})
    with pytest.raises(UnsupportedFileError, match=r"whose index is missing; put the \.index file"):
        open_file(tmp_path / "model.data-00000-of-00001")


def test_a_graph_without_its_index_and_an_index_that_is_cut_say_so(tmp_path):
    files = bundle(LAYER)
    graph = meta_graph([node("x", "Relu", ["y"])])
    put(tmp_path, {"lost.meta": field(1, field(4, "tag")) + graph})
    with pytest.raises(UnsupportedFileError, match=r"whose index is missing; put the \.index file"):
        open_file(tmp_path / "lost.meta")
    for cut in (4, len(files["model.index"]) - 1):
        put(tmp_path, files | {"model.index": files["model.index"][:cut]})
        with pytest.raises(CorruptFileError, match="begins as the index of a TensorFlow"):
            open_file(tmp_path / "model.index")


def test_data_files_that_are_links(tmp_path):
    """They may lead to where the index itself lies, as in a cache, and nowhere else."""
    blobs, folder = tmp_path / "blobs", tmp_path / "folder"
    put(tmp_path / "other", bundle(LAYER))
    put(blobs, bundle(LAYER))
    folder.mkdir()
    data = folder / "model.data-00000-of-00001"
    (folder / "model.index").symlink_to(blobs / "model.index")
    data.symlink_to(blobs / data.name)
    assert set(open_file(folder / "model.index").tensors) == set(LAYER)
    data.unlink()
    data.symlink_to(tmp_path / "other" / data.name)
    with pytest.raises(UnsupportedFileError, match="is a link to a place outside of its folder"):
        open_file(folder / "model.index")


def test_data_that_are_cut_short_are_corrupt(tmp_path):
    put(tmp_path, bundle(LAYER))
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match=r"it ends at byte 47 but should reach byte 48"):
        open_file(tmp_path / "model.index")


def test_a_note_names_files_beside_it_alone(tmp_path):
    put(tmp_path, bundle(LAYER, prefix="elsewhere/model"))
    folder = tmp_path / "here"
    folder.mkdir()
    for noted in (b"../elsewhere/model", b""):
        (folder / "checkpoint").write_bytes(b'model_checkpoint_path: "%s"\n' % noted)
        with pytest.raises(CorruptFileError, match=r"as the latest checkpoint, but .* not beside"):
            open_file(folder / "checkpoint")
    (folder / "checkpoint").write_bytes(b'model_checkpoint_path: "a\\b"\n')
    with pytest.raises(CorruptFileError, match="but such files lie beside it"):
        open_file(folder / "checkpoint")


def test_a_checkpoint_of_version_1_is_refused(tmp_path):
    (tmp_path / "old").write_bytes(table({b"": field(1, field(1, b"meta"))}))
    with pytest.raises(UnsupportedFileError, match="a TensorFlow checkpoint of version 1, which"):
        open_file(tmp_path / "old")


def test_what_the_note_names_must_end_as_an_index(tmp_path):
    put(tmp_path, {"checkpoint": b'model_checkpoint_path: "m"\n', "m.index": b"x" * 60})
    with pytest.raises(CorruptFileError, match="does not end as one"):
        open_file(tmp_path)


def test_an_index_without_tensors_is_a_file_without_tensors(tmp_path):
    (tmp_path / "m.index").write_bytes(table({b"": header()}))
    assert not open_file(tmp_path / "m.index").tensors


def test_a_tensor_of_another_size_than_its_shape_is_corrupt(tmp_path):
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    (tmp_path / "m.index").write_bytes(table({b"": header(), b"x": entry(1, (3,), 0, 8)}))
    with pytest.raises(CorruptFileError, match=r"'?x'? of 3 elements cannot take 8 bytes"):
        open_file(tmp_path / "m.index")


def test_moving_averages_of_variables_are_said(tmp_path):
    average = {f"{name}/ExponentialMovingAverage": each for name, each in LAYER.items()}
    put(tmp_path, bundle(LAYER | average | {"w/ExponentialMovingAverage": RANDOM.random(3)}))
    (index,) = tmp_path.glob("*.index")
    file = open_file(index)
    assert [layer.name for layer in batch_norm_layers(file)] == ["bn"]
    (said,) = file.skipped.values()
    assert said.startswith(
        "there are 4 moving averages of BatchNorm's variables, which inference may use"
    )
