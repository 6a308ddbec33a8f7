"""Tensors in files beside a model, and nowhere else."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes

from .models import model, norm, opened, raw

FLOATS = np.arange(4, dtype="<f4")


def beside(**entries):
    """A model of one tensor of 4 floats that lies where the entries say."""
    tensor = TensorProto(name="t", dims=(4,), data_type=1, data_location=1)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return model(tensors=[tensor])


def test_what_the_onnx_package_puts_beside_a_model_is_read(tmp_path):
    made = norm(channels=300)
    loaded = onnx.load_from_string(model([made.node], made.tensors))
    expected = {t.name: onnx.numpy_helper.to_array(t) for t in loaded.graph.initializer}
    onnx.save(loaded, tmp_path / "m.onnx", save_as_external_data=True, location="m.data")
    file = opened(tmp_path, (tmp_path / "m.onnx").read_bytes())
    for name, ref in file.tensors.items():
        assert isinstance(ref.storage, FileBytes)
        assert ref.storage.path == tmp_path / "m.data"
        assert ref.read().tobytes() == expected[name].tobytes()


@pytest.mark.parametrize("entries", [{}, {"offset": 8}, {"offset": 8, "length": 16}])
def test_offset_and_length_may_be_left_out(entries, tmp_path):
    (tmp_path / "sub").mkdir()
    data = bytes(int(entries.get("offset", 0))) + FLOATS.tobytes()
    (tmp_path / "sub" / "d").write_bytes(data)
    file = opened(tmp_path, beside(location="sub/d", **entries))
    assert file.tensors["t"].read().tolist() == [0, 1, 2, 3]


def test_two_gigabytes_are_not_read(tmp_path):
    with (tmp_path / "d").open("wb") as sparse:
        sparse.truncate(2 << 30)
    tensor = TensorProto(name="t", dims=(1 << 29,), data_type=1, data_location=1)
    tensor.external_data.add(key="location", value="d")
    ref = opened(tmp_path, model(tensors=[tensor])).tensors["t"]
    assert ref.stored((slice(1 << 28, (1 << 28) + 3),)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "location",
    ["../d", "/etc/passwd", "a/../../d", "", "c:\\d", "..", "sub//d", "a\0b", "..\\d", "sub/.."],
)
def test_a_place_outside_of_the_folder_is_refused(location, tmp_path):
    (tmp_path / "d").write_bytes(FLOATS.tobytes())
    (tmp_path / "in").mkdir()
    with pytest.raises(CorruptFileError, match="lie beside it or in folders below"):
        opened(tmp_path / "in", beside(location=location))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "d").write_bytes(FLOATS.tobytes())
    (inside / "link").symlink_to(tmp_path / "d")
    (inside / "sub").symlink_to(tmp_path)
    for location in ("link", "sub/d"):
        with pytest.raises(UnsupportedFileError, match="a link to a place outside of its"):
            opened(inside, beside(location=location))


def test_links_of_a_cache_that_keeps_both_files_in_one_folder_are_followed(tmp_path):
    """As the cache of Hugging Face has them: snapshots of links to one folder of files."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    (blobs / "1").write_bytes(beside(location="d"))
    (blobs / "2").write_bytes(FLOATS.tobytes())
    (snapshot / "m.onnx").symlink_to(blobs / "1")
    (snapshot / "d").symlink_to(blobs / "2")
    file = opened(snapshot, beside(location="d"))
    assert file.tensors["t"].read().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"length": 12}, "should take 16 bytes of 'd'|should take 16 bytes of d"),
        ({"offset": 4}, "ends at byte 16, but the tensor t of m.onnx reaches to byte 20"),
        ({"offset": -4}, "has -4 for an offset or a length"),
        ({"offset": "9" * 20}, "for an offset or a length"),
        ({"offset": "1e3"}, "for an offset or a length"),
        ({"offset": ""}, "has nothing for an offset"),
    ],
)
def test_a_place_that_does_not_fit_is_refused(entries, sentence, tmp_path):
    (tmp_path / "d").write_bytes(FLOATS.tobytes())
    with pytest.raises(CorruptFileError, match=sentence):
        opened(tmp_path, beside(location="d", **entries))


def test_what_is_missing_or_no_file_is_said(tmp_path):
    with pytest.raises(FileError, match="its tensors are in d, which is missing; download it"):
        opened(tmp_path, beside(location="d"))
    (tmp_path / "d").mkdir()
    with pytest.raises(UnsupportedFileError, match="its data file d is a directory"):
        opened(tmp_path, beside(location="d"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsupportedFileError, match="a pipe or a device"):
        opened(tmp_path, beside(location="pipe"))
    assert opened(tmp_path, model(tensors=[raw("t", FLOATS)])).tensors
