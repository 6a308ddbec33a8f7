"""Which files are HDF5, and what is opened of one that Keras did not write."""

import io

import h5py
import numpy as np
import pytest

from bncli.files.file_bytes import FileBytes
from bncli.loaders import hdf5, open_file
from bncli.loaders.interface import open_source
from tests.loaders.files import tarred
from tests.loaders.keras_files import keras_2, net_2, vectors


def plain(**options):
    """An HDF5 file with the vectors of one layer."""
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        for name, values in vectors().items():
            file[f"a/{name}"] = values
    return out.getvalue()


def detected(path, data):
    path.write_bytes(data)
    with open_source(path) as source:
        return hdf5.detect(source)


@pytest.mark.parametrize("block", [0, 512, 1024, 2048])
def test_the_signature_stands_at_the_begin_or_behind_a_block_of_the_user(tmp_path, block):
    data = plain(userblock_size=block) if block else plain()
    assert detected(tmp_path / "x", data)
    assert not detected(tmp_path / "x", data.replace(b"\x89HDF", b"\x88HDF"))
    assert not detected(tmp_path / "x", b"")


@pytest.mark.parametrize("begin", [b"MATLAB 7.3 MAT-file", b"PK\x03\x04"])
def test_what_begins_as_another_format_is_that(tmp_path, begin):
    data = plain(userblock_size=512)
    assert not detected(tmp_path / "x", begin + data[len(begin) :])


def test_a_tar_archive_that_begins_with_an_hdf5_file_is_a_tar_archive(tmp_path):
    data = tarred({"x.h5": plain()})
    assert data[512:520] == b"\x89HDF\r\n\x1a\n"
    assert not detected(tmp_path / "x", data)


def test_the_bytes_count_from_the_begin_of_the_outer_file(tmp_path):
    """As for any file that is read where it lies in another one."""
    path = tmp_path / "x"
    data = plain()
    path.write_bytes(b"before" * 100 + data + b"behind")
    with open_source(path) as source:
        file = hdf5.open_tensors(source.inside(600, 600 + len(data)))
    ref = file.tensors["a/moving_mean"]
    assert isinstance(ref.storage, FileBytes)
    assert ref.storage.offset >= 600
    assert ref.read().tobytes() == vectors()["moving_mean"].tobytes()


def test_the_container_says_whether_keras_wrote_it(tmp_path):
    path = tmp_path / "x"
    for data, container in ((plain(), "hdf5"), (keras_2(*net_2()), "keras-h5")):
        path.write_bytes(data)
        assert open_file(path).container == container


def test_what_is_not_numbers_and_links_are_said(tmp_path):
    path = tmp_path / "x"
    with h5py.File(path, "w") as file:
        file["x"] = np.ones(2)
        file["text"] = "no numbers"
        file["other"] = h5py.ExternalLink("y.h5", "x")
    opened = open_file(path)
    assert list(opened.tensors) == ["x"]
    assert opened.skipped["other"] == "it is a link to another file, which is not followed"
    assert "text" in opened.skipped
